"""Each line of K2's plan taken away, planned and measured: the table of docs/ablation.md.

`python3 table.py --troupe PROGRAM [--steps 3] [--train 60]` prints it. Devices, links and buses
are emulated (`cluster: Local(..)` of the job `k2-lab`); losses come from real training steps.
"""

import argparse
import json
import subprocess
import tempfile

PLANS = ["k2", "early-sums", "no-overlap", "no-warm-up", "no-split", "no-recompute", "no-fp8", "no-offload"]
PLANS += ["plain"]
MIB = 1 << 20


def ask(options, *words):
    command = [options.troupe, "--json", *words]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def exposed(overlap, carried, ranks):
    """Milliseconds of a rank in which something travelled and nothing was computed."""
    travel = (overlap or {}).get("whole", {}).get(carried)
    return 1000 * travel["exposed"] / ranks if travel else None


def hidden(overlap, carried):
    travel = (overlap or {}).get("steady", {}).get(carried)
    if not travel:
        return None
    return 100 * travel["hidden"] / (travel["hidden"] + travel["exposed"])


def device(actors):
    """Most bytes that the two actors of a rank hold on its device, each at its peak."""
    ranks = {}
    for actor in actors:
        at = actor["address"]
        key = (at["replica"], at["stage"], at["rank"])
        fixed = actor["fixed"]
        still = sum(fixed[kind] for kind in ("parameters", "masters", "states", "inputs"))
        ranks[key] = ranks.get(key, 0) + still + actor["peak"]["bytes"]
    return max(ranks.values()) / MIB


def loss(options, plan):
    """The loss of the last step of a run on real text; only `Local` clusters are emulated."""
    with tempfile.TemporaryDirectory() as folder:
        words = [options.job, "--plan", plan, "--dir", folder + "/run", "--quiet"]
        words += ["--set", f"stop=Steps({options.train})", "--set", 'cluster=Preset("h800x256")']
        subprocess.run([options.troupe, "run", *words], capture_output=True, check=True)
        lines = open(folder + "/run/metrics.jsonl").read().splitlines()
    return json.loads(lines[-1])["loss"]


def pair(planned, measured, digits=0):
    both = [planned, measured]
    return " / ".join("-" if it is None else f"{it:.{digits}f}" for it in both)


def row(options, plan):
    planned = ask(options, "simulate", options.job, "--plan", plan)
    memory = ask(options, "plan", options.job, "--plan", plan)
    words = ["--steps", str(options.steps), "--sequences", "32", "--context", "256"]
    measured = ask(options, "bench", options.job, "--plan", plan, *words)
    stages, ranks = len(planned["ranks"]), memory["ranks"]
    # One stage's rank stands for all of a plan; a bench adds up all ranks and steps.
    at = [(planned["overlap"], stages), (measured["overlap"], ranks * options.steps)]
    actors = [actor for stage in memory["memory"]["actors"] for actor in stage]
    cells = [
        plan,
        pair(planned["makespan"], measured["step_seconds"], 2),
        pair(device(actors), device(measured["actors"]), 2),
        pair(*[exposed(overlap, "Experts", count) for overlap, count in at]),
        pair(*[hidden(overlap, "Experts") for overlap, _ in at], 1),
        pair(*[exposed(overlap, "Pipeline", count) for overlap, count in at]),
        pair(*[exposed(overlap, "Copies", count) for overlap, count in at]),
        f"{loss(options, plan):.6f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--troupe", required=True)
    parser.add_argument("--job", default="k2-lab")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--plans", nargs="*", default=PLANS)
    options = parser.parse_args()
    head = ["plan", "step, s", "device, MiB", "experts exposed, ms", "hidden when steady, %"]
    head += ["pipeline exposed, ms", "copies exposed, ms", f"loss after {options.train} steps"]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for plan in options.plans:
        print(row(options, plan), flush=True)


main()
