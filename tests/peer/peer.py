"""Measures Troupe beside PyTorch: `python peer.py --troupe PROGRAM [--markdown FILE]`.

Both sides have the same two threads, one after the other, in turns. PyTorch gets its best
configuration, found anew for each model and precision; every one that was tried is printed.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

sys.path.append(str(pathlib.Path(__file__).parent.parent / "reference"))

from sides import Refused, Torch, Troupe
from table import Report, gibibytes, grouped, load_average, processor

EXPERTS = ("eager", "grouped_mm", "batched_mm")
ATTENTIONS = ("eager", "sdpa")
WAYS = {"F32": ("f32",), "Bf16": ("autocast", "pure", "medium")}
TROUPE_OPTIMIZERS = {"AdamW": "AdamW()", "MuonClip": None}

# `torch.compile` is tried on what comes within this factor of the best without it.
WORTH_COMPILING = 2.0

# What is behind the best by more than this factor is given up after two steps.
HOPELESS = 5.0

# A configuration that needs longer for a step is not the best one; for `--qualify-steps` steps.
QUALIFY_SECONDS = 20.0

SHAPES = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 512, 2048),
    (256, 1408, 512),
    (64, 512, 256),
    (4096, 4096, 512),
)


def name_of(about):
    """A configuration in words."""
    words = [about["way"], about["experts"], about["attention"], about["optimizer"]]
    return ", ".join(words + ["compiled"] * about["compile"])


class Qualification:
    """The configurations of PyTorch that were tried for one model, precision and optimizer."""

    def __init__(self, options, folder, say):
        self.options = options
        self.base = {"kind": "training", "model": str(folder), "compile": False}
        self.base |= {"sequences": options.sequences, "context": options.context}
        self.say = say
        self.rates = []

    def measure(self, **about):
        """Notes the tokens per second of a configuration, from its best step, or why none.

        The best, since one disturbed second must not cost a configuration its place.
        """
        about = self.base | about
        options = self.options
        limit = options.compile_limit if about["compile"] else options.limit
        begin = time.monotonic()
        with Torch(about, options.threads) as worker:
            try:
                # The second step of a compiled one may compile again.
                warm_up = 4 if about["compile"] else 2
                first = worker.ask(limit, steps=warm_up, seconds=limit)["seconds"]
                rate = options.tokens / min(first)
                if rate * HOPELESS < max((r for r, _, _ in self.rates), default=0.0):
                    self.rates.append((rate, about, f"given up after {len(first)} steps"))
                    self.say(f"  {name_of(about)}: {grouped(rate)} tokens/s (given up)")
                    return
                request = {"steps": options.qualify_steps, "seconds": QUALIFY_SECONDS}
                answer = worker.ask(limit, **request)
            except Refused as why:
                self.rates.append((0.0, about, str(why)))
                self.say(f"  {name_of(about)}: {why}")
                return
        rate = options.tokens / min(answer["seconds"])
        took = f"{time.monotonic() - begin:.0f} s to try, {gibibytes(answer['memory'])}"
        self.rates.append((rate, about, took))
        self.say(f"  {name_of(about)}: {grouped(rate)} tokens/s ({took})")

    def best(self):
        rate, about, _ = max(self.rates, key=lambda tried: tried[0])
        if rate == 0.0:
            raise Refused("no configuration of PyTorch runs")
        return about

    def rows(self):
        ordered = sorted(self.rates, key=lambda tried: -tried[0])
        return [[name_of(a), grouped(rate) if rate else "-", why] for rate, a, why in ordered]

    def adamw(self, ways):
        """Every way, experts and attention; then compiled, and with the other form of AdamW."""
        for way in ways:
            for experts in self.options.experts:
                for attention in ATTENTIONS:
                    kind = {"way": way, "experts": experts, "attention": attention}
                    self.measure(**kind, optimizer="fused")
        if not self.options.no_compile:
            self.compiled()
        self.measure(**self.best() | {"optimizer": "foreach"})
        return self.best()

    def compiled(self):
        """Compiles the better attention of each way and experts that is not far behind."""
        most = max(rate for rate, _, _ in self.rates)
        better = {}
        for rate, about, _ in self.rates:
            key = (about["way"], about["experts"])
            if most / WORTH_COMPILING < rate and better.get(key, (0.0,))[0] < rate:
                better[key] = (rate, about)
        for _, about in better.values():
            self.measure(**about | {"compile": True})

    def muonclip(self, best, precision):
        """The best model for AdamW, by attention, and in BF16 by how Newton-Schulz iterates."""
        kinds = ["muonclip"] if precision == "F32" else ["muonclip", "muonclip-bf16"]
        for kind in kinds:
            for attention in ATTENTIONS:
                self.measure(**best | {"attention": attention, "optimizer": kind})
        if best["compile"]:
            self.measure(**self.best() | {"compile": False})
        return self.best()


class Duel:
    """Alternating pairs of Troupe and the best configuration of PyTorch."""

    def __init__(self, options, troupe, job, folder):
        self.options = options
        self.troupe = troupe
        self.job = job
        self.folder = folder

    def ours(self, precision, optimizer):
        options = self.options
        arguments = [self.job, "--plan", options.plans.get(self.job, "dp2")]
        arguments += ["--steps", options.steps, "--sequences", options.sequences]
        arguments += ["--context", options.context, "--set", f"precision={precision}"]
        init = f'actors.learner.init=HuggingFace("{self.folder}")'
        arguments += ["--set", init]
        for change in options.sets.get(self.job, []):
            arguments += ["--set", change]
        if TROUPE_OPTIMIZERS[optimizer] is not None:
            arguments += ["--set", f"actors.learner.optimizer={TROUPE_OPTIMIZERS[optimizer]}"]
        answer = self.troupe.bench(*arguments)
        return answer["tokens_per_second"], answer["memory"]

    def theirs(self, worker):
        """One request: two steps to warm up again, as Troupe has them, then as many as it."""
        options = self.options
        worker.ask(options.compile_limit, steps=2, seconds=options.compile_limit)
        limit = options.limit * options.steps
        answer = worker.ask(limit, steps=options.steps, seconds=limit)
        return options.tokens / statistics.median(answer["seconds"]), answer["memory"]

    def fight(self, precision, optimizer, about):
        """Figures of all pairs: `(ours, theirs)` of tokens per second, and the most memory."""
        pairs, memory = [], [0, 0]
        with Torch(about, self.options.threads) as worker:
            worker.ask(self.options.compile_limit, steps=4, seconds=self.options.compile_limit)
            for _ in range(self.options.pairs):
                ours, our_memory = self.ours(precision, optimizer)
                theirs, their_memory = self.theirs(worker)
                memory = [max(memory[0], our_memory), max(memory[1], their_memory)]
                pairs.append((ours, theirs))
        return pairs, memory


HEAD = ["job", "optimizer", "precision", "Troupe, tokens/s", "PyTorch, tokens/s", "ratio"]
HEAD += ["ratio of a pair, least to most", "Troupe, peak memory", "PyTorch, peak memory"]
HEAD += ["PyTorch is"]


def row_of(job, optimizer, precision, fought, about):
    """A line of the table from the pairs."""
    pairs, memory = fought
    ours = statistics.median(pair[0] for pair in pairs)
    theirs = statistics.median(pair[1] for pair in pairs)
    ratios = [a / b for a, b in pairs]
    row = [job, optimizer, precision, grouped(ours), grouped(theirs), f"{ours / theirs:.2f}"]
    row += [f"{min(ratios):.2f} to {max(ratios):.2f}", *map(gibibytes, memory), name_of(about)]
    return row


def plan_of(options, job):
    """The plan of Troupe in words."""
    return " ".join([f"{job} {options.plans.get(job, 'dp2')}", *options.sets.get(job, [])])


def model_of(troupe, job, work):
    """Fresh weights of a library job's preset, which has the job's name; both sides start there."""
    folder = work / job
    if not folder.exists():
        troupe.run("init-model", job, folder, "--seed", 42)
    return folder.resolve()


def check_muonclip(folder):
    """Compares the batched MuonClip with the reference's before it is timed."""
    from transformers import AutoConfig

    from batched import check_against_reference
    from training import MUONCLIP, decoder_of

    about = MUONCLIP | {"weight_decay": 0.1}
    return check_against_reference(folder, about, decoder_of(AutoConfig.from_pretrained(folder)))


def training(options, troupe, report, work):
    """Part 1: tokens per second of training."""
    report.title("Training")
    rows, tried = [HEAD], []
    for job in options.jobs:
        folder = model_of(troupe, job, work)
        duel = Duel(options, troupe, job, folder)
        for precision in options.precisions:
            print(f"{job}, {precision}: looking for PyTorch's best", flush=True)
            first = Qualification(options, folder, print)
            best = {"AdamW": first.adamw(WAYS[precision])}
            tried.append((f"{job}, {precision}, AdamW", first.rows()))
            if "MuonClip" in options.optimizers:
                second = Qualification(options, folder, print)
                best["MuonClip"] = second.muonclip(best["AdamW"], precision)
                tried.append((f"{job}, {precision}, MuonClip", second.rows()))
            for optimizer in options.optimizers:
                fought = duel.fight(precision, optimizer, best[optimizer])
                rows.append(row_of(job, optimizer, precision, fought, best[optimizer]))
                print("  " + ", ".join(rows[-1][1:7]), flush=True)
    report.say(
        f"{options.sequences} x {options.context} tokens a step, {options.threads} threads, "
        f"medians of {options.pairs} alternating pairs of {options.steps} steps. Plans of Troupe: "
        + ", ".join(plan_of(options, job) for job in options.jobs)
        + "."
    )
    report.table(rows)
    report.title("What was tried for PyTorch")
    for name, table in tried:
        report.say(f"{name}:")
        report.table([["configuration", "tokens/s", "remark"], *table])


def generation_rate(options, about):
    """Tokens per second of PyTorch's `generate`, the best of some batches."""
    limit = options.compile_limit if about["compile"] else options.limit * 2
    with Torch(about, options.threads) as worker:
        worker.ask(limit, steps=1)
        seconds = worker.ask(limit, steps=options.generations)["seconds"]
    return about["batch"] * about["tokens"] / min(seconds)


def generation(options, troupe, report, work):
    """Part 2: tokens per second of greedy generation."""
    report.title("Generation")
    folder = model_of(troupe, "k2-nano", work)
    rows = [["batch", "Troupe, tokens/s", "PyTorch, tokens/s", "ratio", "Troupe is", "PyTorch is"]]
    tried = []
    for batch in options.batches:
        theirs = their_generation(options, folder, batch, tried)
        ours = our_generation(options, troupe, folder, batch)
        ratio = f"{ours[0] / theirs[0]:.2f}" if ours[0] and theirs[0] else "-"
        rates = [grouped(rate) if rate else "-" for rate in (ours[0], theirs[0])]
        rows.append([batch, *rates, ratio, ours[1], theirs[1]])
    report.say("k2-nano, greedy, 16 tokens given, 64 written by each sequence.")
    report.table(rows)
    report.say("What was tried for PyTorch:")
    report.table([["batch", "configuration", "tokens/s"], *tried])


def their_generation(options, folder, batch, tried):
    """The best rate of PyTorch and its configuration."""
    base = {"kind": "generation", "model": str(folder), "batch": batch}
    base |= {"prompt": 16, "tokens": 64}
    best = (0.0, "nothing ran")

    def attempt(dtype, experts, cache, is_compiled):
        nonlocal best
        about = {"dtype": dtype, "experts": experts, "cache": cache, "compile": is_compiled}
        name = ", ".join([dtype, experts, cache] + ["compiled"] * is_compiled)
        try:
            rate = generation_rate(options, base | about)
        except Refused as why:
            tried.append([batch, name, str(why)])
        else:
            tried.append([batch, name, grouped(rate)])
            best = max(best, (rate, name))
        print(f"  batch {batch}: {name}: {tried[-1][2]}", flush=True)

    for dtype in ("float32", "bfloat16"):
        for experts in options.experts:
            for cache in ("dynamic", "static"):
                attempt(dtype, experts, cache, False)
    if not options.no_compile:
        for dtype in ("float32", "bfloat16"):
            for experts in options.experts:
                if experts == "eager":
                    continue  # its loop over experts compiles anew for each number of tokens
                attempt(dtype, experts, "static", True)
    return best


def our_generation(options, troupe, folder, batch):
    """The best rate of Troupe and its precision; a word if this program cannot."""
    best, why = (0.0, ""), ""
    for precision in options.precisions:
        arguments = ["k2-nano", "--generate", "--batch", batch, "--set", f"precision={precision}"]
        arguments += ["--set", f'actors.learner.init=HuggingFace("{folder}")']
        try:
            rates = [troupe.bench(*arguments) for _ in range(options.generations)]
        except Refused as refused:
            why = str(refused)
            continue
        best = max(best, (max(rate["tokens_per_second"] for rate in rates), precision))
    return best if best[0] else (0.0, f"not measured: {why}")


def products(options, troupe, report, _):
    """Part 3: rates of matrix products."""
    report.title("Matrix products")
    ours, why = our_products(troupe)
    head = ["precision", "m", "n", "k", "PyTorch, 1 thread", "PyTorch, 2 threads"]
    rows = [head + ["Troupe, 1 thread", "ratio"]]
    with Torch({"kind": "products"}, options.threads) as worker:
        for dtype, precision in (("float32", "F32"), ("bfloat16", "Bf16")):
            for shape in SHAPES:
                ask = lambda threads: worker.ask(
                    options.limit, shape=shape, dtype=dtype, threads=threads
                )["gflops"]
                one, two = ask(1), ask(2)
                own = ours.get((precision, *shape))
                row = [precision, *shape, f"{one:.0f}", f"{two:.0f}"]
                row += [f"{own:.0f}", f"{own / one:.2f}"] if own else ["-", "-"]
                rows.append(row)
    report.say("GFLOP/s of `[m, k] x [k, n]`, the best of several bursts.")
    report.table(rows)
    if why:
        report.say(f"Troupe was not measured: {why}.")


def our_products(troupe):
    """Troupe's rates by precision and shape, or why there are none."""
    import json

    try:
        lines, _ = troupe.run("bench", "k2-nano", "--products", "--json")
    except Refused as refused:
        return {}, str(refused)
    found = [json.loads(line) for line in lines if '"gflops"' in line]
    return {(p["precision"], p["m"], p["n"], p["k"]): p["gflops"] for p in found}, ""


PARTS = {"training": training, "generation": generation, "products": products}


def arguments():
    """What the user wants; lists stand between commas."""
    listed = lambda text: text.split(",")
    numbers = lambda text: [int(part) for part in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--troupe", required=True, help="Troupe's program, a release build")
    add("--markdown", metavar="FILE", help="write the tables there too")
    add("--only", type=listed, default=list(PARTS), help="parts: " + ", ".join(PARTS))
    add("--jobs", type=listed, default=["k2-nano", "k2-mini"])
    add("--precisions", type=listed, default=["F32", "Bf16"])
    add("--optimizers", type=listed, default=["AdamW", "MuonClip"])
    add("--plan", action="append", default=[], metavar="JOB=PLAN", help="of Troupe; dp2 if unsaid")
    add("--experts", type=listed, default=list(EXPERTS), help="implementations of transformers")
    add("--set", action="append", default=[], metavar="JOB:PATH=VALUE", help="of Troupe's job")
    add("--pairs", type=int, default=5)
    add("--steps", type=int, default=10, help="steps of a side of a pair, after two to warm up")
    add("--qualify-steps", type=int, default=5)
    add("--sequences", type=int, default=8)
    add("--context", type=int, default=256)
    add("--batches", type=numbers, default=[1, 8, 64], help="batches of generation")
    add("--generations", type=int, default=3)
    add("--threads", type=int, default=2)
    add("--limit", type=float, default=60.0, help="seconds for two steps without compilation")
    add("--compile-limit", type=float, default=300.0, help="seconds for two steps with it")
    add("--no-compile", action="store_true")
    options = parser.parse_args()
    options.plans = dict(plan.split("=", 1) for plan in options.plan)
    options.sets = {}
    for job, change in (one.split(":", 1) for one in options.set):
        options.sets.setdefault(job, []).append(change)
    options.tokens = options.sequences * options.context
    return options


def main():
    options = arguments()
    troupe, report = Troupe(options.troupe), Report()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    own = subprocess.run([options.troupe, "--version"], capture_output=True, text=True, check=True)
    report.say(f"{own.stdout.strip()}, {packages}, {options.threads} threads of {processor()}.")
    print(f"load of the machine at the start: {load_average()}", flush=True)
    if float(load_average()) > 0.5:
        print("something else runs: both sides suffer, PyTorch's waiting threads more", flush=True)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        if "MuonClip" in options.optimizers and "training" in options.only:
            worst = check_muonclip(model_of(troupe, "k2-nano", work))
            print(f"the batched MuonClip is the reference's to {worst:.1e}", flush=True)
        for part in options.only:
            PARTS[part](options, troupe, report, work)
            if options.markdown:
                report.write(options.markdown)
    print(f"load of the machine at the end: {load_average()}")


if __name__ == "__main__":
    main()
