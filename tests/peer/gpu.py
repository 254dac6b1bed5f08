"""Measures training on a GPU beside PyTorch: `python gpu.py --troupe PROGRAM --to FOLDER`.

BF16, AdamW, one GPU, the same first weights. PyTorch gets its best configuration, found anew for
each model, and Troupe its best microbatch; then both run in turns, each in a process of its own,
since both would not fit the GPU at once. Writes `gpu-training.md` and `gpu-training.json`.

`--device cpu` shows on any machine that this runs, and nothing about speed.
"""

import argparse
import json
import pathlib
import statistics
from importlib.metadata import version

from sides import Refused, Torch, Troupe
from table import Report, gibibytes, grouped

TESTS = pathlib.Path(__file__).parent.parent

# Job, model, sequences of a step, tokens of each.
MODELS = {
    "tiny": (TESTS / "jobs/gpu.ron", TESTS / "jobs/gpu.decoder.ron", 8, 32),
    "k2-mini": ("k2-mini", "k2-mini", 32, 512),
    "moe-2b": (TESTS / "jobs/moe-2b.ron", TESTS / "jobs/moe-2b.decoder.ron", 8, 4096),
}

# Two plans of each of these jobs differ in nothing but the copies. With so many sequences a step
# the first of them still fits 80 GB.
PLANS = ("held", "offload")
OFFLOADED = {"moe-2b": 6, "tiny": 6}

# `pure` keeps F32 masters in the optimizer, as Troupe does.
WAYS = ("pure", "autocast")
ATTENTIONS = ("sdpa", "eager")


def name_of(about):
    """A configuration in words."""
    words = [about["way"], about["experts"], about["attention"], about["optimizer"]]
    words += ["compiled"] * about["compile"]
    return ", ".join(words) + f", {about['microbatch']} sequences at a time"


def halves(count):
    """A step at once, in two parts, in four, until one sequence is left."""
    while count:
        yield count
        count = count // 2 if count % 2 == 0 else 0


class Match:
    """Both sides of one model."""

    def __init__(self, options, troupe, name):
        self.options, self.troupe, self.name = options, troupe, name
        self.job, self.model, self.sequences, self.context = MODELS[name]
        self.tokens = self.sequences * self.context
        self.folder = (options.to / f"first-weights-{name}").resolve()
        if not self.folder.exists():
            troupe.run("init-model", self.model, self.folder, "--seed", 42, "--dtype", "bf16")

    def ours(self, *sets, plan="one", optimizer="AdamW()"):
        """What `troupe bench` tells."""
        sets = ["precision=Bf16", *self.options.sets, *sets]
        sets += [f'actors.learner.init=HuggingFace("{self.folder}")']
        sets += [f"actors.learner.optimizer={optimizer}"] if optimizer else []
        arguments = [self.job, "--plan", plan, "--steps", self.options.steps]
        arguments += ["--sequences", self.sequences, "--context", self.context]
        arguments += ["--peak", self.options.peak] if self.options.peak else []
        return self.troupe.bench(*arguments, *(word for one in sets for word in ("--set", one)))

    def best_of_ours(self):
        """The quickest microbatch and all that were tried."""
        tried = {}
        for microbatch in reversed(list(halves(self.sequences))):
            try:
                tried[microbatch] = self.ours(f"plan.microbatch={microbatch}")["tokens_per_second"]
            except Refused as why:
                print(f"  Troupe, {microbatch} sequences at a time: {why}", flush=True)
                break
            rate = grouped(tried[microbatch])
            print(f"  Troupe, {microbatch} sequences at a time: {rate} tokens/s", flush=True)
        if not tried:
            raise Refused("Troupe runs with no microbatch")
        return max(tried, key=tried.get)

    def theirs(self, about):
        """Tokens per second of a configuration of PyTorch, and its most memory."""
        options = self.options
        limit = options.compile_limit if about["compile"] else options.limit
        # The second step of a compiled one may compile again.
        warm_up = 4 if about["compile"] else 2
        about = about | {"kind": "training", "model": str(self.folder), "device": options.device}
        about |= {"sequences": self.sequences, "context": self.context, "memory_limit": None}
        with Torch(about, options.threads) as worker:
            worker.ask(limit, steps=warm_up, seconds=limit)
            answer = worker.ask(limit, steps=options.steps, seconds=limit)
        return self.tokens / statistics.median(answer["seconds"]), answer["memory"]

    def best_of_theirs(self):
        """The quickest configuration, and a row for each that was tried."""
        tried = []

        def attempt(about):
            try:
                rate, memory = self.theirs(about)
            except Refused as why:
                tried.append((0.0, about, str(why)))
            else:
                tried.append((rate, about, gibibytes(memory)))
            shown = f"{grouped(tried[-1][0])} tokens/s" if tried[-1][0] else "-"
            print(f"  PyTorch, {name_of(about)}: {shown} ({tried[-1][2]})", flush=True)
            return tried[-1][0] > 0.0

        for way in WAYS:
            for attention in ATTENTIONS:
                about = {"way": way, "attention": attention, "experts": "grouped_mm"}
                about |= {"optimizer": "fused", "compile": False}
                for microbatch in halves(self.sequences):
                    # Less at a time helps against nothing but a lack of memory.
                    if attempt(about | {"microbatch": microbatch}) or "memory" not in tried[-1][2]:
                        break
        for rate, about, _ in list(tried):
            if rate and not self.options.no_compile:
                attempt(about | {"compile": True})
        most, best, _ = max(tried, key=lambda one: one[0])
        if most == 0.0:
            raise Refused("no configuration of PyTorch runs")
        ordered = sorted(tried, key=lambda one: -one[0])
        return best, [[name_of(a), grouped(r) if r else "-", why] for r, a, why in ordered]

    def fight(self, microbatch, about):
        """Alternating pairs: what `troupe bench` told, and `(tokens per second, bytes)`."""
        pair = lambda: (self.ours(f"plan.microbatch={microbatch}"), self.theirs(about))
        return [pair() for _ in range(self.options.pairs)]


HEAD = ["model", "Troupe, tokens/s", "PyTorch, tokens/s", "ratio", "of a pair", "Troupe's MFU"]
HEAD += ["PyTorch's MFU", "Troupe, bytes of the plan", "PyTorch, peak memory", "PyTorch is"]


def name_of_gpu(told):
    """Where `troupe bench` trained."""
    return told["gpus"][0]["name"] if told["gpus"] else "the processor"


def row_of(name, pairs, about):
    """A line of the table, and the same as numbers."""
    ours = statistics.median(one["tokens_per_second"] for one, _ in pairs)
    theirs = statistics.median(rate for _, (rate, _) in pairs)
    ratios = [one["tokens_per_second"] / rate for one, (rate, _) in pairs]
    told = pairs[0][0]
    share = told["model_flops"] / (told["step_seconds"] * told["tokens_per_second"])
    mfus = [share * rate / told["peak_flops"] if told["peak_flops"] else None
            for rate in (ours, theirs)]
    memory = max(size for _, (_, size) in pairs)
    row = [name, grouped(ours), grouped(theirs), f"{ours / theirs:.2f}"]
    row += [f"{min(ratios):.2f} to {max(ratios):.2f}"]
    row += [f"{100.0 * mfu:.1f} %" if mfu else "-" for mfu in mfus]
    row += [gibibytes(told["planned_bytes"]), gibibytes(memory), name_of(about)]
    numbers = {"model": name, "troupe": ours, "pytorch": theirs, "ratios": ratios, "mfu": mfus}
    numbers |= {"model_flops": told["model_flops"], "planned_bytes": told["planned_bytes"]}
    return row, numbers | {"pytorch_memory": memory, "pytorch_is": about, "gpu": name_of_gpu(told)}


def training(options, troupe, report):
    """Tokens per second of each model on both sides; gives numbers for a file."""
    rows, tables, found = [HEAD], [], []
    for name in options.models:
        print(f"{name}:", flush=True)
        match = Match(options, troupe, name)
        microbatch = match.best_of_ours()
        about, tried = match.best_of_theirs()
        row, numbers = row_of(name, match.fight(microbatch, about), about)
        muon = match.ours(f"plan.microbatch={microbatch}", optimizer=None)["tokens_per_second"]
        rows.append(row)
        found.append(numbers | {"microbatch": microbatch, "troupe_muonclip": muon})
        size = f"{match.sequences} x {match.context} tokens a step"
        text = f"{name}: {size}, Troupe {microbatch} sequences at a time; with MuonClip it "
        tables.append((f"{text}reaches {grouped(muon)} tokens/s. PyTorch:", tried))
    report.title("Training, BF16, AdamW")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    text = f"{found[0]['gpu']}, {packages}; medians of {options.pairs} alternating pairs of {options.steps} "
    report.say(f"{text}steps. The ratio is Troupe's rate over PyTorch's.")
    report.table(rows)
    for text, tried in tables:
        report.say(text)
        report.table([["configuration", "tokens/s", "peak memory, or why not"], *tried])
    return found


def offload(options, troupe, report):
    """The same plan with activations copied to the host and without, in turns."""
    rows, found = [["model", "plan", "tokens/s", "of the other", "bytes of the plan", "hidden"]], []
    for name in filter(OFFLOADED.get, options.models):
        match = Match(options, troupe, name)
        match.sequences = OFFLOADED[name]
        turns = [[match.ours(plan=plan) for plan in PLANS] for _ in range(options.pairs)]
        rates = [statistics.median(turn[i]["tokens_per_second"] for turn in turns) for i in (0, 1)]
        for plan, rate, told in zip(PLANS, rates, turns[-1]):
            travel = ((told["overlap"] or {}).get("warm") or {}).get("Copies")
            hidden = "-"
            if travel:
                hidden = travel["hidden"] / max(travel["hidden"] + travel["exposed"], 1e-12)
                hidden = f"{100.0 * hidden:.1f} % of the copies' time"
            size = gibibytes(told["planned_bytes"])
            rows.append([name, plan, grouped(rate), f"{rate / rates[0]:.2f}", size, hidden])
            found.append({"model": name, "plan": plan, "troupe": rate, "overlap": told["overlap"]})
    if found:
        report.title("Activations offloaded to the host")
        report.say("Hidden is what was copied while a program computed, after the warm-up.")
        report.table(rows)
    return found


def arguments():
    listed = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--troupe", required=True, help="Troupe's program, a release build")
    add("--to", type=pathlib.Path, required=True, help="folder to write into")
    add("--models", type=listed, default=["k2-mini", "moe-2b"], help=", ".join(MODELS))
    add("--device", default="cuda", choices=["cuda", "cpu"], help="of PyTorch")
    add("--set", action="append", default=[], dest="sets", help="of Troupe's jobs")
    add("--peak", type=float, help="TFLOP/s that MFU is a share of; of a known GPU if unsaid")
    add("--pairs", type=int, default=5)
    add("--steps", type=int, default=10, help="steps of a side of a pair")
    add("--threads", type=int, default=8, help="of PyTorch on the host")
    add("--limit", type=float, default=300.0, help="seconds for some steps without compilation")
    add("--compile-limit", type=float, default=900.0, help="seconds for some steps with it")
    add("--no-compile", action="store_true")
    options = parser.parse_args()
    options.sets += ["device=Gpu"] if options.device == "cuda" else []
    return options


def main():
    options = arguments()
    options.to.mkdir(parents=True, exist_ok=True)
    troupe, report = Troupe(options.troupe), Report()
    found = {"training": training(options, troupe, report)}
    found["offload"] = offload(options, troupe, report)
    report.write(options.to / "gpu-training.md")
    (options.to / "gpu-training.json").write_text(json.dumps(found, indent=1) + "\n")
    ratio = lambda one: f"{one['troupe'] / one['pytorch']:.2f} times PyTorch's with {one['model']}"
    print("Troupe's rate is " + ", ".join(map(ratio, found["training"])))


if __name__ == "__main__":
    main()
