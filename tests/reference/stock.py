"""The stock transformers model behind an export: loading it, looking into it, its tensors by name.

Nothing of the architecture is written here: `DeepseekV3ForCausalLM` computes everything.
"""

import math
import re

import torch
from transformers import AutoConfig, AutoTokenizer, DeepseekV3ForCausalLM
from transformers.models.deepseek_v3 import modeling_deepseek_v3


def load(folder):
    """Loads an export in float32 and insists that every tensor found its place."""
    model, loading = DeepseekV3ForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not loading.get(kind), f"{folder}: {kind}: {loading[kind]}"
    assert all(p.dtype == torch.float32 for p in model.parameters())
    return model.eval()


def check_companions(folder, vocab):
    """Loads config and tokenizer as a user would, and sends a text there and back."""
    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == "deepseek_v3" and config.vocab_size == vocab
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "let x = \"ü 世界\";\n"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    assert max(tokens) < vocab, f"token {max(tokens)} is outside the vocabulary of {vocab}"
    assert tokenizer.decode(tokens) == text, f"{folder}: the tokenizer changed {text!r}"


def named(model, of):
    """Views of `of(parameter)` under the names of the checkpoint, one for each expert matrix.

    transformers keeps the experts of a layer in two tensors, `[e, 2f, d]` and `[e, d, f]`.
    """
    views = {}
    for name, parameter in model.named_parameters():
        tensor = of(parameter)
        merged = re.fullmatch(r"(.*\.mlp\.experts\.)(gate_up_proj|down_proj)", name)
        if merged is None:
            views[name] = tensor
            continue
        for expert, matrix in enumerate(tensor):
            prefix = f"{merged[1]}{expert}."
            if merged[2] == "down_proj":
                views[prefix + "down_proj.weight"] = matrix
            else:
                gate, up = matrix.chunk(2, dim=0)
                views[prefix + "gate_proj.weight"] = gate
                views[prefix + "up_proj.weight"] = up
    return views


def values(model):
    """All trained tensors and the routers' biases, as views that can be written to."""
    biases = {name: b for name, b in model.named_buffers() if name.endswith("correction_bias")}
    return named(model, lambda parameter: parameter.data) | biases


def gradients(model):
    """Gradients of the last backward pass; zeros for experts that saw no token."""
    zero = torch.zeros_like
    return named(model, lambda p: zero(p) if p.grad is None else p.grad)


def gap(scores, chosen):
    """Smallest distance between the last chosen score of a row and the first not chosen."""
    if chosen == scores.shape[-1]:
        return math.inf
    best = scores.topk(chosen + 1, dim=-1).values
    return (best[..., -2] - best[..., -1]).min().item()


def margin(router, logits):
    """How far the router was from another choice, of groups or of experts within them."""
    scores = logits.sigmoid() + router.e_score_correction_bias
    in_groups = scores.view(len(scores), router.num_group, -1)
    groups = in_groups.topk(2, dim=-1).values.sum(dim=-1)
    shut = torch.ones_like(groups, dtype=torch.bool)
    shut.scatter_(1, groups.topk(router.topk_group, dim=-1).indices, False)
    open_scores = in_groups.masked_fill(shut.unsqueeze(-1), float("-inf")).flatten(1)
    return min(gap(groups, router.topk_group), gap(open_scores, router.top_k))


class Watch:
    """Sees the softmax inputs of every head and the load of every expert while it is open.

    `max_logits[layer]` is `[h]`, over causal pairs only; `loads[name of bias]` is `[e]`. `margin`
    is the smallest distance in score between what a router chose and what it did not.
    """

    def __init__(self, model):
        self.model = model
        self.max_logits = {}
        self.loads = {}
        self.margin = math.inf

    def __enter__(self):
        self.eager = modeling_deepseek_v3.eager_attention_forward
        modeling_deepseek_v3.eager_attention_forward = self.attention
        routers = [
            (name, module)
            for name, module in self.model.named_modules()
            if isinstance(module, modeling_deepseek_v3.DeepseekV3TopkRouter)
        ]
        self.hooks = [module.register_forward_hook(self.count(name)) for name, module in routers]
        return self

    def __exit__(self, *_):
        modeling_deepseek_v3.eager_attention_forward = self.eager
        for hook in self.hooks:
            hook.remove()

    def attention(self, module, query, key, value, attention_mask, scaling, **rest):
        with torch.no_grad():
            logits = torch.matmul(query, key.transpose(2, 3)) * scaling
            causal = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
            most = logits.masked_fill(~causal, float("-inf")).amax(dim=(0, 2, 3))
            self.max_logits[module.layer_idx] = most
        return self.eager(module, query, key, value, attention_mask, scaling, **rest)

    def count(self, router):
        def hook(module, _inputs, outputs):
            chosen = outputs[2].flatten()
            load = torch.bincount(chosen, minlength=module.num_experts)
            self.loads[f"{router}.e_score_correction_bias"] = load
            self.margin = min(self.margin, margin(module, outputs[0].detach()))

        return hook
