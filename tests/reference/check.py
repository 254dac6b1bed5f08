"""Compares Troupe with PyTorch: `python check.py DIR [--bless]`.

`DIR` is what the Rust example `reference` wrote: for each case an export, a `case.json` that says
what was computed, and `ours.safetensors` with what came out. Here the stock transformers model
computes the same from the export. Exit code 1 if anything differs by more than is allowed.

`--bless` rewrites the golden files beside this script from the PyTorch side; without it they are
checked. The Rust test `reference` compares Troupe with them where there is no Python.
"""

import argparse
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file

import stock
from muonclip import MuonClip, check_against_torch, is_adamw, rate

GOLDEN = pathlib.Path(__file__).parent / "golden"

# Largest difference allowed, relative to the largest value of the tensor: about ten times what is
# measured. Both sides sum in f32, in different orders. Updates enlarge rounding: Newton-Schulz
# lifts directions that hardly occur in a gradient by up to 485, and AdamW divides small gradients
# by their own size, which shows in the embedding of rare tokens.
ALLOWED = {
    "logits": 1e-5,
    "loss": 1e-6,
    "gradient": 2e-5,
    "losses": 2e-6,
    "max_logits": 1e-5,
    "parameter": 2e-4,
}

# Experts whose scores are closer than this may change places by rounding alone, and then the two
# sides train different models. A case whose training comes so near needs another seed.
MARGIN = 2e-5


def error(ours, theirs):
    """Largest difference over the largest value; a tensor of zeros must be met exactly."""
    ours, theirs = torch.as_tensor(ours).double(), torch.as_tensor(theirs).double()
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    difference = (ours - theirs).abs().max().item()
    return 0.0 if difference == 0.0 else difference / max(theirs.abs().max().item(), 1e-30)


def forward(model, tokens, targets):
    """Logits and mean cross-entropy of a batch."""
    logits = model(input_ids=tokens.long(), use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.long().flatten())
    return logits, loss


def train(case, model, tokens, targets):
    """Gradients of the first step, and loss and largest logits of every step."""
    optimizer = MuonClip(case["optimizer"], case["clip"], case["decoder"], stock.values(model))
    seen = {"losses": [], "max_logits": [], "gradient": {}, "margin": []}
    for step in range(1, case["steps"] + 1):
        model.zero_grad(set_to_none=True)
        with stock.Watch(model) as watch:
            _, loss = forward(model, tokens[step - 1], targets[step - 1])
            loss.backward()
        gradients = stock.gradients(model)
        if step == 1:
            scale = optimizer.scale(gradients)
            adamw = {n: scale if is_adamw(n, g) else 1.0 for n, g in gradients.items()}
            seen["gradient"] = {n: g.clone() * adamw[n] for n, g in gradients.items()}
        seen["losses"].append(loss.item())
        seen["margin"].append(watch.margin)
        seen["max_logits"].append(torch.stack([s for _, s in sorted(watch.max_logits.items())]))
        with torch.no_grad():
            optimizer.step(rate(case["rate"], step), gradients, watch.max_logits, watch.loads)
    seen["max_logits"] = torch.stack(seen["max_logits"])
    seen["parameter"] = {name: value.clone() for name, value in optimizer.values.items()}
    seen["clipped_heads"] = optimizer.clipped_heads
    return seen


def prefixed(tensors, prefix):
    """The tensors under a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def worst(ours, theirs):
    """The largest error over tensors by name, and whose it is; the names must be the same."""
    assert ours.keys() == theirs.keys(), f"only on one side: {ours.keys() ^ theirs.keys()}"
    return max((error(ours[name], theirs[name]), name) for name in theirs)


def check(folder, said):
    """Compares one case; gives the errors and what the PyTorch side computed."""
    case, ours = said["case"], load_file(folder / "ours.safetensors")
    model = stock.load(folder / "export")
    stock.check_companions(folder / "export", case["decoder"]["vocab"])
    with torch.no_grad():
        logits, loss = forward(model, ours["tokens"][0], ours["targets"][0])
    theirs = {"logits": logits, "loss": loss.item()}
    errors = {
        "logits": (error(ours["logits"], logits), ""),
        "loss": (error(said["loss"], theirs["loss"]), ""),
    }
    if case["steps"] > 0:
        theirs |= train(case, model, ours["tokens"], ours["targets"])
        margin = min(theirs.pop("margin"))
        clipped = theirs["clipped_heads"]
        print(f"  closest choice of experts: {margin:.1e}, clipped heads: {clipped}")
        assert margin > MARGIN, f"expected a margin over {MARGIN}: choose another seed"
        assert clipped > 0, "QK-Clip never acted: the case shows nothing about it"
        assert said["clipped_heads"] == clipped, "other heads were clipped"
        for kind in ("gradient", "parameter"):
            errors[kind] = worst(prefixed(ours, f"{kind}."), theirs[kind])
        errors["losses"] = (error(said["losses"], theirs["losses"]), "")
        errors["max_logits"] = (error(ours["max_logits"], theirs["max_logits"]), "")
    return errors, theirs


def digest(tensor):
    """Norm, largest value and five values of a tensor, evenly spaced from first to last."""
    flat = tensor.detach().double().flatten()
    at = [flat[i * (len(flat) - 1) // 4].item() for i in range(5)]
    return {"norm": flat.norm().item(), "max": flat.abs().max().item(), "at": at}


def golden(case, theirs):
    """What a golden file holds: the case, and the PyTorch side's numbers."""
    content = {}
    for kind, value in theirs.items():
        if isinstance(value, dict):
            content[kind] = {name: digest(tensor) for name, tensor in value.items()}
        elif kind == "logits":
            content[kind] = digest(value)
        else:
            content[kind] = value.tolist() if torch.is_tensor(value) else value
    return {"case": case} | rounded(content)


def rounded(value):
    """Numbers with nine digits, which tell all f32 apart."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def written(value, depth=0):
    """JSON with one line for each tensor."""
    if not isinstance(value, dict) or "norm" in value:
        return json.dumps(value)
    pad = " " * (depth + 1)
    lines = [f"{pad}{json.dumps(k)}: {written(v, depth + 1)}" for k, v in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


def spread(digest):
    """The numbers of a digest, relative to the largest value of the tensor."""
    return [n / (digest["max"] or 1.0) for n in (digest["norm"], digest["max"], *digest["at"])]


def stale(old, new):
    """Where two golden contents differ by more than an update may."""
    if isinstance(new, dict) and "norm" not in new:
        assert old.keys() == new.keys(), f"golden names differ: {old.keys() ^ new.keys()}"
        return [f"/{name}{place}" for name in new for place in stale(old[name], new[name])]
    if isinstance(new, dict):
        old, new = spread(old), spread(new)
    return [""] if error(old, new) > ALLOWED["parameter"] else []


def cell(errors, kind):
    """One cell of the table, marked if the difference is too large."""
    if kind not in errors:
        return "-"
    size, name = errors[kind]
    name = name.removeprefix("model.").removesuffix(".weight")
    mark = "" if size <= ALLOWED[kind] else " !"
    return f"{size:.1e}{mark} {name}".strip()


def check_golden(place, content, bless):
    """Rewrites a golden file or says where it is out of date; gives the number of places."""
    if bless:
        place.write_text(written(content) + "\n")
    old = json.loads(place.read_text())
    places = ["/case"] if old.pop("case") != content.pop("case") else stale(old, content)
    for where in places:
        print(f"  {place.name} is out of date at {where}")
    return len(places)


def show(rows):
    """Prints a table."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--bless", action="store_true", help="rewrite the golden files")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    check_against_torch()
    folders = sorted(path.parent for path in arguments.folder.glob("*/case.json"))
    assert folders, f"no case in {arguments.folder}"
    rows = [["case", *ALLOWED], ["allowed", *(f"{size:.0e}" for size in ALLOWED.values())]]
    bad = 0
    for folder in folders:
        said = json.loads((folder / "case.json").read_text())
        print(f"{folder.name}: seed {said['case']['seed']}, {said['case']['title']}", flush=True)
        errors, theirs = check(folder, said)
        rows.append([folder.name, *(cell(errors, kind) for kind in ALLOWED)])
        bad += sum(not size <= ALLOWED[kind] for kind, (size, _) in errors.items())
        place = GOLDEN / f"{folder.name}.json"
        bad += check_golden(place, golden(said["case"], theirs), arguments.bless)
    show(rows)
    print("differs" if bad else "equal within what is allowed")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
