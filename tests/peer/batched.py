"""The reference's MuonClip, made fast: matrices of one shape are iterated together.

`muonclip.py` is written to be read: one matrix after another, sixteen experts one by one. Nobody
would train so, and a measurement against it would flatter Troupe. The rule is the same:
`check_against_reference` compares the two.
"""

import math

import torch

import stock
from muonclip import MuonClip, is_adamw


def newton_schulz(x, steps, dtype):
    """The iteration of `muonclip.newton_schulz` on `[n, o, i]`, n matrices at once, in `dtype`."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(dtype)
    is_tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2).contiguous() if is_tall else x
    for _ in range(steps):
        square = torch.bmm(x, x.transpose(1, 2))
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.transpose(1, 2) if is_tall else x).float()


class BatchedMuonClip(MuonClip):
    """MuonClip over the parameters of a model; `masters` are in F32, by name.

    Muon's momenta are kept in one tensor for each shape of matrix. What AdamW takes is left to
    `torch.optim.AdamW`, fused. `compiled` also compiles the iteration.
    """

    def __init__(self, about, clip, decoder, model, masters, dtype, compiled=False):
        views = stock.named(model, lambda parameter: masters[parameter].data)
        biases = {n: b for n, b in model.named_buffers() if n.endswith("correction_bias")}
        super().__init__(about, clip, decoder, views | biases)
        self.state = None
        self.dtype = dtype
        self.iterate = torch.compile(newton_schulz, dynamic=False) if compiled else newton_schulz
        names = {parameter: name for name, parameter in model.named_parameters()}
        rest, shapes = [], {}
        for parameter, master in masters.items():
            if is_rest(names[parameter], master):
                rest.append(master)
                continue
            for part in parts(names[parameter], master):
                shapes.setdefault(tuple(part(master.data).shape[1:]), []).append((master, part))
        self.rest = torch.optim.AdamW(
            rest,
            betas=about["rest"]["betas"],
            eps=about["rest"]["eps"],
            weight_decay=about["weight_decay"],
            fused=True,
        )
        self.groups = [Group(shape, members) for shape, members in shapes.items()]
        self.masters = list(masters.values())

    def step(self, lr, max_logits, loads):
        """One update from the masters' gradients, and the logits and loads of the same step."""
        clip_rest(self.masters, self.rest, self.clip)
        self.rest.param_groups[0]["lr"] = lr
        self.rest.step()
        for group in self.groups:
            self.muon_group(group, lr)
        for name, load in loads.items():
            self.balance(self.values[name], load)
        for layer, logits in max_logits.items():
            self.clip_heads(f"model.layers.{layer}.self_attn.", logits)

    def muon_group(self, group, lr):
        mu = self.about["momentum"]
        gradient = group.gradient()
        group.momentum.mul_(mu).add_(gradient)
        is_nesterov = self.about["nesterov"]
        ahead = gradient.add_(group.momentum, alpha=mu) if is_nesterov else group.momentum
        update = self.iterate(ahead, self.about["steps"], self.dtype)
        factor = self.about["update_rms"] * math.sqrt(max(group.shape))
        values = [part(master.data) for master, part in group.members]
        torch._foreach_mul_(values, 1.0 - lr * self.about["weight_decay"])
        updates = update.split([value.shape[0] for value in values])
        torch._foreach_add_(values, list(updates), alpha=-lr * factor)


class Group:
    """Matrices of one shape, wherever they lie: `members` are masters and the part of them."""

    def __init__(self, shape, members):
        self.shape = shape
        self.members = members
        count = sum(part(master.data).shape[0] for master, part in members)
        self.momentum = torch.zeros(count, *shape)

    def gradient(self):
        return torch.cat([part(master.grad) for master, part in self.members])


def is_rest(name, value):
    """As `is_adamw`, of a parameter that may hold all experts of a layer."""
    return is_adamw(name, value[0]) if value.ndim == 3 else is_adamw(name, value)


def parts(name, value):
    """Ways to see a parameter as `[n, o, i]`; gate and up are matrices of their own."""
    if value.ndim == 2:
        return [lambda tensor: tensor.unsqueeze(0)]
    if name.endswith("gate_up_proj"):
        return [lambda tensor: tensor.chunk(2, dim=1)[0], lambda tensor: tensor.chunk(2, dim=1)[1]]
    return [lambda tensor: tensor]


def clip_rest(masters, rest, clip):
    """Scales what AdamW takes by the norm of all gradients; Newton-Schulz would undo a factor."""
    if clip is None:
        return
    norms = torch._foreach_norm([master.grad for master in masters])
    norm = torch.linalg.vector_norm(torch.stack(norms)).item()
    if norm > clip:
        torch._foreach_mul_([p.grad for p in rest.param_groups[0]["params"]], clip / norm)


def check_against_reference(folder, about, decoder):
    """Three updates of both from equal gradients and loads; prints the largest difference."""
    random = torch.Generator().manual_seed(5)
    fast, slow = stock.load(folder), stock.load(folder)
    masters = {parameter: parameter for parameter in fast.parameters()}
    ours = BatchedMuonClip(about, 1.0, decoder, fast, masters, torch.float32)
    theirs = MuonClip(about, 1.0, decoder, stock.values(slow))
    heads, layers = decoder["heads"], len(fast.model.layers)
    for _ in range(3):
        for mine, other in zip(fast.parameters(), slow.parameters()):
            mine.grad = torch.randn(mine.shape, generator=random)
            other.grad = mine.grad.clone()
        logits = {i: 300.0 * torch.rand(heads, generator=random) for i in range(layers)}
        loads = {n: torch.randint(99, v.shape, generator=random) for n, v in ours.values.items()
                 if n.endswith("correction_bias")}
        with torch.no_grad():
            ours.step(1e-3, logits, loads)
            theirs.step(1e-3, stock.gradients(slow), logits, loads)
    assert ours.clipped_heads == theirs.clipped_heads > 0
    differences = [(value - theirs.values[name]).abs().max() / theirs.values[name].abs().max()
                   for name, value in ours.values.items()]
    worst = max(differences).item()
    assert worst < 1e-4, f"the batched MuonClip is not the reference's: {worst:.1e}"
    return worst
