"""Trains k2-nano on both sides and draws the losses; `curves.sh` builds what it needs.

Same first weights, same text in the same order, same optimizer and rates. `--steps-of` is the Rust
example `steps`, which writes the text that Troupe's loader gives. Writes `k2-nano-peer.csv` and
`k2-nano-peer.svg` into `--to`; what is there already of a curve is not trained again, so that
a run which was cut short goes on with the next curve.
"""

import argparse
import csv
import json
import pathlib
import shutil
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).parent.parent / "reference"))

import torch
from safetensors.torch import load_file

from muonclip import rate
from sides import Troupe
from table import grouped
from training import Training, register

JOB = "k2-nano"

# PyTorch's configurations; the F32 one iterates Newton-Schulz in F32 as Troupe does.
THEIRS = {
    "PyTorch F32": {"way": "f32", "experts": "eager", "optimizer": "muonclip"},
    "PyTorch BF16": {"way": "autocast", "experts": "grouped_mm", "optimizer": "muonclip-bf16"},
}
OURS = {"Troupe F32": "F32", "Troupe BF16": "Bf16"}
# Largest difference of two first losses: BF16 rounds weights that are the same.
SAME_START = 1e-3

COLOURS = {
    "Troupe F32": "#1f5fa8",
    "Troupe BF16": "#3a9a5b",
    "PyTorch F32": "#a33",
    "PyTorch BF16": "#c8861e",
}
DASHES = {"PyTorch F32": ' stroke-dasharray="6 4"', "PyTorch BF16": ' stroke-dasharray="2 3"'}


def rates(steps):
    """The job's rate, its decay moved to the last quarter of the steps."""
    decay = steps // 4
    about = {"peak": 2e-3, "warmup_steps": min(20, steps - decay), "to": 2e-4}
    return about | {"decay_begin": steps - decay, "decay_steps": decay}


def settings(about, folder, steps, precision):
    """The same as settings of the job."""
    lr = "actors.learner.lr"
    decay = f'Cosine(to: {about["to"]}, over: "{about["decay_steps"]} steps")'
    sets = [
        f"precision={precision}",
        f'actors.learner.init=HuggingFace("{folder}")',
        f'{lr}.peak={about["peak"]}',
        f'{lr}.warmup="{about["warmup_steps"]} steps"',
        f'{lr}.stable="{about["decay_begin"]} steps"',
        f"{lr}.decay={decay}",
        f"stop=Steps({steps})",
    ]
    return [word for one in sets for word in ("--set", one)]


def ours(options, folder, precision):
    """Losses of `troupe run`, from its metrics."""
    run = options.to / f"run-{precision}"
    shutil.rmtree(run, ignore_errors=True)  # of a comparison that was cut short
    sets = settings(rates(options.steps), folder, options.steps, precision)
    plan = ["--plan", options.plan]
    Troupe(options.troupe).run("run", JOB, *plan, *sets, "--dir", run, "--quiet")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def theirs(options, folder, about):
    """Losses of the stock model in PyTorch, trained on what the loader gives."""
    register()
    text = load_file(options.to / "text.safetensors")
    torch.set_num_threads(options.threads)
    about = {"model": str(folder), "attention": "eager", "compile": False} | about
    training, schedule, losses = Training(about), rates(options.steps), []
    for step in range(options.steps):
        tokens, targets = text["tokens"][step].long(), text["targets"][step].long()
        losses.append(training.step(tokens, targets, rate(schedule, step + 1)))
        if (step + 1) % 50 == 0:
            print(f"  step {step + 1}: {losses[-1]:.4f}", flush=True)
    return losses


def curve(options, folder, name):
    """Losses of one side in one precision."""
    if name in OURS:
        return ours(options, folder, OURS[name])
    return theirs(options, folder, THEIRS[name])


def read(path):
    """The curves of a CSV by name; none if it is not there."""
    if not path.exists():
        return {}
    with path.open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "step"]
    return {name: [float(row[name]) for row in rows] for name in names}


def write(path, curves):
    """A column for each curve, a row for each step."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *curves])
        for step, losses in enumerate(zip(*curves.values()), 1):
            writer.writerow([step, *(f"{loss:.6f}" for loss in losses)])


def drawn(curves, title):
    """An SVG of the curves, in the manner of those that `troupe run` draws."""
    left, right, top, bottom = 56.0, 704.0, 30.0, 324.0
    steps = max(len(losses) for losses in curves.values())
    least = min(min(losses) for losses in curves.values())
    most = max(max(losses) for losses in curves.values())
    x = lambda step: left + (right - left) * (step - 1) / max(steps - 1, 1)
    y = lambda loss: bottom - (bottom - top) * (loss - least) / max(most - least, 1e-9)
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 360" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{title}</title>",
        '<rect width="720" height="360" fill="#ffffff"/>',
        f'<text x="56" y="18" font-size="14" fill="#222">{title}</text>',
    ]
    for part in range(5):
        loss, step = least + (most - least) * part / 4, 1 + (steps - 1) * part / 4
        lines += [
            f'<line x1="56" x2="704" y1="{y(loss):.1f}" y2="{y(loss):.1f}" stroke="#ddd"/>',
            f'<text x="50" y="{y(loss) + 4:.1f}" text-anchor="end" fill="#444">{loss:.2f}</text>',
            f'<text x="{x(step):.1f}" y="342" text-anchor="middle" fill="#444">{step:.0f}</text>',
        ]
    for place, (name, losses) in enumerate(curves.items()):
        points = " ".join(f"{x(i):.1f},{y(loss):.1f}" for i, loss in enumerate(losses, 1))
        look = f'stroke="{COLOURS[name]}" stroke-width="1.4"{DASHES.get(name, "")}'
        at = 48 + 18 * place
        lines += [
            f'<polyline fill="none" {look} points="{points}"/>',
            f'<line x1="540" x2="570" y1="{at}" y2="{at}" {look}/>',
            f'<text x="578" y="{at + 4}" fill="#222">{name}: {losses[-1]:.3f}</text>',
        ]
    return "\n".join(lines + ["</svg>", ""])


def mean(losses, count=20):
    """Mean of the last losses."""
    return sum(losses[-count:]) / len(losses[-count:])


def check_first(curves):
    """Insists that all curves begin at one loss: that weights and text are the same."""
    first = [losses[0] for losses in curves.values()]
    apart = max(first) - min(first)
    assert apart < SAME_START, (
        f"the first losses are {apart:.1e} apart: other weights or another text; "
        "were the two programs built from one tree?"
    )


def conclude(curves):
    """How far each curve is from the first one: at the first steps, anywhere, at the end."""
    names = list(curves)
    base = curves[names[0]]
    for name in names:
        apart = [abs(a - b) for a, b in zip(base, curves[name])]
        print(
            f"{name}: first loss {curves[name][0]:.6f}, mean of the last 20 "
            f"{mean(curves[name]):.4f}; from {names[0]} at most {max(apart[:10]):.1e} in ten "
            f"steps, {max(apart):.1e} in all, {mean(curves[name]) - mean(base):+.4f} at the end"
        )


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--troupe", required=True, help="Troupe's program, a release build")
    add("--steps-of", required=True, help="the example `steps`, a release build")
    add("--to", type=pathlib.Path, default=pathlib.Path("."), help="folder to write into")
    add("--steps", type=int, default=500)
    add("--plan", default="dp2", help="of Troupe")
    add("--threads", type=int, default=2, help="of PyTorch")
    add("--curves", default="Troupe F32,Troupe BF16,PyTorch F32")
    return parser.parse_args()


def main():
    options = arguments()
    options.to.mkdir(parents=True, exist_ok=True)
    folder = options.to.resolve() / "first-weights"
    if not folder.exists():
        Troupe(options.troupe).run("init-model", JOB, folder, "--seed", 42)
    text = options.to / "text.safetensors"
    subprocess.run([options.steps_of, JOB, str(options.steps), text], check=True)
    table = options.to / f"{JOB}-peer.csv"
    curves = {n: c for n, c in read(table).items() if len(c) == options.steps}
    for name in options.curves.split(","):
        if name not in curves:
            print(f"{name}: {options.steps} steps", flush=True)
            curves[name] = curve(options, folder, name)
            check_first(curves)
            write(table, curves)
    tokens = grouped(options.steps * 4096)
    title = f"loss of {JOB} over {options.steps} steps, {tokens} tokens, on both sides"
    (options.to / f"{JOB}-peer.svg").write_text(drawn(curves, title))
    conclude(curves)


if __name__ == "__main__":
    main()
