"""MuonClip in plain PyTorch, written from the papers and not from Troupe.

Kimi K2, arXiv:2507.20534, algorithm 1; Moonlight, arXiv:2502.16982, sections 2.2 and 2.3 (and its
centred form of the routers' bias update); AdamW, arXiv:1711.05101.
"""

import math

import torch


def newton_schulz(gradient, steps):
    """Five quintic steps towards the orthogonal factor of one matrix, in its own precision."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradient.T if gradient.shape[0] > gradient.shape[1] else gradient
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if gradient.shape[0] > gradient.shape[1] else x


def is_adamw(name, value):
    """Embedding, head and everything that is not a matrix."""
    return value.ndim != 2 or "embed_tokens" in name or "lm_head" in name


def rate(about, step):
    """Warm-up, stable, decay; `step` counts from 1, the rate is that at the end of the step."""
    if step < about["warmup_steps"]:
        return about["peak"] * step / about["warmup_steps"]
    over = (step - about["decay_begin"]) / about["decay_steps"]
    left = 0.5 * (1.0 + math.cos(math.pi * min(max(over, 0.0), 1.0)))
    return about["to"] + (about["peak"] - about["to"]) * left


class MuonClip:
    """The optimizer of one model: `values` are views by name that are updated in place."""

    def __init__(self, about, clip, decoder, values):
        self.about = about
        self.clip = clip
        self.decoder = decoder
        self.values = values
        self.state = {name: [torch.zeros_like(v)] * 2 for name, v in values.items()}
        self.steps = 0
        self.clipped_heads = 0

    def scale(self, gradients):
        """The factor of gradients that AdamW takes; Newton-Schulz would undo one."""
        norm = math.sqrt(sum(g.double().pow(2).sum().item() for g in gradients.values()))
        return 1.0 if self.clip is None else min(1.0, self.clip / norm)

    def step(self, lr, gradients, max_logits, loads):
        """One update from the gradients, and the largest logits and loads of the same step."""
        self.steps += 1
        scale = self.scale(gradients)
        for name, gradient in gradients.items():
            value = self.values[name]
            if is_adamw(name, value):
                update = self.adamw(name, gradient * scale)
            else:
                update = self.muon(name, gradient)
            value.mul_(1.0 - lr * self.about["weight_decay"]).sub_(lr * update)
        for name, load in loads.items():
            self.balance(self.values[name], load)
        for layer, logits in max_logits.items():
            self.clip_heads(f"model.layers.{layer}.self_attn.", logits)

    def muon(self, name, gradient):
        mu = self.about["momentum"]
        momentum = mu * self.state[name][0] + gradient
        self.state[name] = [momentum, momentum]
        ahead = gradient + mu * momentum if self.about["nesterov"] else momentum
        factor = self.about["update_rms"] * math.sqrt(max(gradient.shape))
        return factor * newton_schulz(ahead, self.about["steps"])

    def adamw(self, name, gradient):
        first, second = self.about["rest"]["betas"]
        m, v = self.state[name]
        m = first * m + (1.0 - first) * gradient
        v = second * v + (1.0 - second) * gradient * gradient
        self.state[name] = [m, v]
        m = m / (1.0 - first**self.steps)
        v = v / (1.0 - second**self.steps)
        return m / (v.sqrt() + self.about["rest"]["eps"])

    def balance(self, bias, load):
        load = load.double()
        sign = torch.sign(load.mean() - load)
        bias.add_((self.about["balance_rate"] * (sign - sign.mean())).float())

    def clip_heads(self, prefix, logits):
        """QK-Clip: every logit of head h shrinks by tau / S of that head."""
        nope, rope = self.decoder["nope"], self.decoder["rope"]
        low_rank = self.decoder.get("q_rank") is not None
        query = self.values[prefix + ("q_b_proj" if low_rank else "q_proj") + ".weight"]
        query = query.view(self.decoder["heads"], nope + rope, -1)
        keys = self.values[prefix + "kv_b_proj.weight"]
        keys = keys.view(self.decoder["heads"], nope + self.decoder["value"], -1)
        for head, most in enumerate(logits.tolist()):
            if most > self.about["qk_clip"]:
                gamma = self.about["qk_clip"] / most
                query[head, :nope] *= math.sqrt(gamma)
                query[head, nope:] *= gamma
                keys[head, :nope] *= math.sqrt(gamma)
                self.clipped_heads += 1


def check_against_torch():
    """Meets `torch.optim`: AdamW to rounding, Muon to the bfloat16 in which torch iterates."""
    random = torch.Generator().manual_seed(11)
    about = {"weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "update_rms": 0.2}
    about |= {"steps": 5, "rest": {"betas": (0.9, 0.95), "eps": 1e-8}}
    start = {"norm": (24,), "tall": (48, 16)}
    start = {name: torch.randn(shape, generator=random) for name, shape in start.items()}
    ours = MuonClip(about, None, {}, {name: value.clone() for name, value in start.items()})
    norm, tall = (torch.nn.Parameter(value.clone()) for value in start.values())
    shared = {"lr": 0.05, "weight_decay": 0.1}
    theirs = [
        torch.optim.AdamW([norm], betas=(0.9, 0.95), **shared),
        torch.optim.Muon([tall], adjust_lr_fn="match_rms_adamw", **shared),
    ]
    for _ in range(5):
        norm.grad, tall.grad = (torch.randn(p.shape, generator=random) for p in (norm, tall))
        ours.step(0.05, {"norm": norm.grad, "tall": tall.grad}, {}, {})
        for optimizer in theirs:
            optimizer.step()
    torch.testing.assert_close(ours.values["norm"], norm.data, rtol=1e-5, atol=1e-6)
    moved = (tall.data - start["tall"]).norm()
    assert (ours.values["tall"] - tall.data).norm() < 0.02 * moved, "Muon is not torch's Muon"
