"""Lets PyTorch's pipeline engine run Troupe's schedules and compares every gradient, bit by bit.

`schedules.py TROUPE [PART..]` exports orders with the program TROUPE, runs each in four processes (gloo, on
the CPU) with `_PipelineScheduleRuntime` of torch.distributed.pipelining, which puts in its own
messages, and holds the gradients against those of the same model in one piece. Two files that must
fail stand beside them, so that a comparison which sees nothing is noticed. Exits with 1 if anything
is not as it should be. With parts of names, only those files run.
"""

import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

RANKS = 4
MICROBATCHES = 16
WIDTH, ROWS = 12, 3
PATIENCE = 120  # seconds for one schedule, starting four interpreters included

# Schedule as jobs write it, chunks of a rank, what has to come out.
CASES = [
    ("Interleaved1F1B(extra_warmup: 1)", 2, "equal"),
    ("Interleaved1F1B(extra_warmup: 1, paired: true)", 2, "equal"),
    ("ZbH1", 1, "equal"),
    ("ZbH2", 1, "equal"),
    ("ZbV", 2, "equal"),
    ("DualPipeV", 2, "equal"),
    ("VHalf", 2, "equal"),
    ("VMin", 2, "equal"),
    ("Hybrid", 2, "equal"),
    ("Hybrid(split_pairs: true)", 2, "equal"),
    # Its backward passes come in the reverse order of microbatches, and PyTorch adds as they come.
    ("LoopedBfs", 2, "different"),
]


def export(troupe, folder):
    """Writes all files; returns (name, path, chunks of a rank, expected)."""
    files = []
    for number, (name, chunks, expected) in enumerate(CASES):
        path = folder / f"{number}.csv"
        shape = ["--pp", str(RANKS), "--vpp", str(chunks), "--microbatches", str(MICROBATCHES)]
        subprocess.run([troupe, "schedule", name, *shape, "--csv", path], check=True)
        files.append((name, path, chunks, expected))
    # A forward pass behind the backward pass that needs it.
    wrong = folder / "wrong.csv"
    lines = (folder / "2.csv").read_text().splitlines()
    lines[3] = lines[3].replace("3F0,3I0", "3I0,3F0")
    wrong.write_text("\n".join(lines) + "\n")
    files.append(("ZbH1, two cells exchanged", wrong, 1, "refused"))
    return files


def chunk(index):
    """One chunk of the model, the same in every process."""
    import torch

    torch.manual_seed(index)

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.Linear(WIDTH, 2 * WIDTH)
            self.down = torch.nn.Linear(2 * WIDTH, WIDTH)

        def forward(self, x):
            return x + self.down(torch.tanh(self.up(x)))

    return Block()


def batch():
    import torch

    torch.manual_seed(1000)
    shape = (MICROBATCHES * ROWS, WIDTH)
    return torch.randn(shape), torch.randn(shape)


def loss_of(output, target):
    return (output - target).square().mean()


def unsplit(chunks):
    """Gradients of the model in one piece, microbatch by microbatch."""
    import torch

    model = torch.nn.Sequential(*[chunk(index) for index in range(chunks)])
    inputs, targets = batch()
    for x, y in zip(inputs.chunk(MICROBATCHES), targets.chunk(MICROBATCHES)):
        loss_of(model(x), y).backward()
    return [[p.grad for p in part.parameters()] for part in model]


def places(path):
    """The rank of each chunk: where it is computed."""
    import re

    ranks = {}
    for rank, row in enumerate(Path(path).read_text().splitlines()):
        for stage in re.findall(r"(\d+)F\d+", row):
            ranks[int(stage)] = rank
    return ranks


def work(rank, path, chunks, store, results):
    """One process of the pipeline; counts its gradients and those that differ."""
    import torch
    import torch.distributed as dist
    from torch.distributed.pipelining import PipelineStage
    from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    limit = datetime.timedelta(seconds=PATIENCE)
    init = f"file://{store}"
    dist.init_process_group("gloo", init, rank=rank, world_size=RANKS, timeout=limit)
    total, ranks = RANKS * chunks, places(path)
    own = sorted(index for index in range(total) if ranks[index] == rank)
    stages = [PipelineStage(chunk(index), index, total, torch.device("cpu")) for index in own]
    for stage in stages:
        stage.stage_index_to_group_rank = ranks
    schedule = _PipelineScheduleRuntime(stages, MICROBATCHES, loss_fn=loss_of, scale_grads=False)
    schedule._load_csv(str(path), format="compute_only")
    inputs, targets = batch()
    given = (inputs,) if ranks[0] == rank else ()
    wanted = {"target": targets, "losses": []} if ranks[total - 1] == rank else {}
    schedule.step(*given, **wanted)
    expected, compared, different = unsplit(total), 0, 0
    for index, stage in zip(own, stages):
        for parameter, gradient in zip(stage.submod.parameters(), expected[index], strict=True):
            compared += 1
            same = parameter.grad is not None and torch.equal(parameter.grad, gradient)
            different += not same
    Path(f"{results}.{rank}").write_text(json.dumps([compared, different]))
    dist.barrier()
    dist.destroy_process_group()


def pipeline(path, chunks):
    """Runs one file in four processes; this is the process that starts them."""
    import torch.multiprocessing as mp

    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        mp.spawn(work, args=(path, chunks, Path(folder) / "store", results), nprocs=RANKS)
        counts = [json.loads(Path(f"{results}.{rank}").read_text()) for rank in range(RANKS)]
    print(json.dumps([sum(column) for column in zip(*counts)]))


def outcome(path, chunks):
    """(what came out, in words, details) of one file."""
    command = [sys.executable, __file__, "--pipeline", path, str(chunks)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return "hung", f"nothing after {PATIENCE} s"
    if run.returncode != 0:
        lines = [line.strip() for line in run.stderr.splitlines() if "Error: " in line]
        return "refused", lines[-1] if lines else f"exit code {run.returncode}"
    compared, different = json.loads(run.stdout.splitlines()[-1])
    kind = "equal" if different == 0 else "different"
    return kind, f"{compared - different} of {compared} gradients equal"


def main(troupe, parts):
    print(f"{RANKS} ranks, {MICROBATCHES} microbatches, float32\n")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, path, chunks, expected in export(troupe, Path(folder)):
            if parts and not any(part in name for part in parts):
                continue
            kind, details = outcome(path, chunks)
            verdict = "ok" if kind == expected else f"WRONG, expected {expected}"
            wrong += kind != expected
            print(f"{name:48} {kind:9} {details:36.120} {verdict}", flush=True)
    print(f"\n{wrong} not as expected" if wrong else "\nall as expected")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    if sys.argv[1] == "--pipeline":
        pipeline(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1], sys.argv[2:])
