"""One way to train the stock transformers model, ready to be timed.

A configuration is a dictionary:

    model       folder of an export: config and first weights, the same that Troupe starts from
    way         f32       parameters and products in F32
                autocast  F32 parameters, `torch.autocast` to BF16
                pure      BF16 parameters and gradients, F32 masters in the optimizer
                medium    F32 parameters, products that may round their inputs to BF16
    experts     `experts_implementation` of transformers
    attention   `attn_implementation` of transformers
    compile     whether forward and loss go through `torch.compile`
    optimizer   fused or foreach (torch.optim.AdamW), muonclip, muonclip-bf16 (iterates in BF16)
    device      cpu or cuda, the processor if unsaid; muonclip is for the processor alone
    microbatch  sequences that go through the model at a time; all of the step if unsaid
"""

import time

import torch
from transformers import DeepseekV3ForCausalLM
from transformers.integrations import moe
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.deepseek_v3 import modeling_deepseek_v3

from batched import BatchedMuonClip

# As the library jobs have it, and a rate between warm-up and decay.
MUONCLIP = {
    "momentum": 0.95,
    "weight_decay": 0.1,
    "update_rms": 0.2,
    "nesterov": True,
    "steps": 5,
    "qk_clip": 100.0,
    "balance_rate": 1e-3,
    "rest": {"betas": (0.9, 0.95), "eps": 1e-8},
}
CLIP = 1.0
RATE = 1e-3


def load(folder, experts, attention, device):
    """The model in F32; its parameters lie in memory of their own, not in the file."""
    model = DeepseekV3ForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation=attention,
        experts_implementation=experts,
    )
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model.to(device).train()


def decoder_of(config):
    """The numbers that QK-Clip needs, under the names of the reference."""
    return {
        "heads": config.num_attention_heads,
        "nope": config.qk_nope_head_dim,
        "rope": config.qk_rope_head_dim,
        "value": config.v_head_dim,
        "q_rank": config.q_lora_rank,
    }


def eager_with_logits(module, query, key, value, attention_mask, scaling, **rest):
    """transformers' eager attention, whose logits are computed once and looked at on their way."""
    logits = torch.matmul(query, key.transpose(2, 3)) * scaling + attention_mask
    module.max_logits.copy_(logits.detach().amax(dim=(0, 2, 3)))
    shares = torch.nn.functional.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(shares, value).transpose(1, 2).contiguous(), shares


def sdpa_with_logits(module, query, key, value, attention_mask, scaling, **rest):
    """The fused attention, which shows no logits, and a second product for them."""
    with torch.no_grad():
        logits = torch.matmul(query, key.transpose(2, 3)) * scaling
        causal = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
        module.max_logits.copy_(logits.masked_fill_(~causal, float("-inf")).amax(dim=(0, 2, 3)))
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **rest
    )


def register():
    """Makes both attentions known to transformers, with the masks of the stock ones."""
    for name, function in (("eager", eager_with_logits), ("sdpa", sdpa_with_logits)):
        ALL_ATTENTION_FUNCTIONS.register(f"{name}_with_logits", function)
        mask = ALL_MASK_ATTENTION_FUNCTIONS[name]
        ALL_MASK_ATTENTION_FUNCTIONS.register(f"{name}_with_logits", mask)


def watch(model):
    """Lets attention note its largest logits and routers their loads; gives both by name."""
    logits, loads = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, modeling_deepseek_v3.DeepseekV3Attention):
            module.register_buffer("max_logits", torch.zeros(module.num_heads), persistent=False)
            logits[module.layer_idx] = module.max_logits
        if isinstance(module, modeling_deepseek_v3.DeepseekV3TopkRouter):
            load = torch.zeros(module.num_experts)
            module.register_buffer("load", load, persistent=False)
            module.register_forward_hook(count)
            loads[f"{name}.e_score_correction_bias"] = module.load
    return logits, loads


def count(router, _inputs, outputs):
    """Notes how many tokens each expert got."""
    chosen = outputs[2].flatten()
    ones = torch.ones(chosen.shape)
    router.load.copy_(torch.zeros_like(router.load).scatter_add_(0, chosen, ones))


def grouped_in_bf16(rows, weight, offs):
    """`grouped_mm` as autocast would have it, if it knew it: else experts would stay in F32."""
    return torch.nn.functional.grouped_mm(rows.bfloat16(), weight.bfloat16(), offs=offs)


class Training:
    """A model and its optimizer; `step` trains on tokens and targets `[sequences, context]`."""

    def __init__(self, about):
        self.way = about["way"]
        self.device = about.get("device", "cpu")
        self.microbatch = about.get("microbatch")
        if self.way == "autocast" and self.device == "cuda":
            moe._grouped_mm = grouped_in_bf16
        self.is_muon = about["optimizer"].startswith("muonclip")
        attention = about["attention"] + ("_with_logits" if self.is_muon else "")
        self.model = load(about["model"], about["experts"], attention, self.device)
        if self.way == "medium":
            torch.set_float32_matmul_precision("medium")
        self.masters = {p: p for p in self.model.parameters()}
        if self.way == "pure":
            self.masters = {p: torch.nn.Parameter(p.data.clone()) for p in self.model.parameters()}
            for parameter in self.model.parameters():
                parameter.data = parameter.data.bfloat16()
        self.optimizer = self.new_optimizer(about)
        self.loss = self.forward
        if about["compile"]:
            torch._dynamo.config.recompile_limit = 64
            self.loss = torch.compile(self.forward, dynamic=False)

    def new_optimizer(self, about):
        masters = list(self.masters.values())
        if self.is_muon:
            self.logits, self.loads = watch(self.model)
            dtype = torch.bfloat16 if about["optimizer"].endswith("bf16") else torch.float32
            decoder = decoder_of(self.model.config)
            return BatchedMuonClip(
                MUONCLIP, CLIP, decoder, self.model, self.masters, dtype, about["compile"]
            )
        kind = {about["optimizer"]: True}
        return torch.optim.AdamW(masters, lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, **kind)

    def forward(self, tokens, targets):
        is_cast = self.way == "autocast"
        with torch.autocast(self.device, torch.bfloat16, enabled=is_cast):
            logits = self.model(input_ids=tokens, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def step(self, tokens, targets, rate=RATE):
        """Trains one step; gives the loss before it."""
        loss = self.gradients(tokens, targets)
        if self.way == "pure":
            for parameter, master in self.masters.items():
                master.grad = parameter.grad.float()
        with torch.no_grad():
            self.update(rate)
            if self.way == "pure":
                torch._foreach_copy_(list(self.masters), list(self.masters.values()))
        for parameter, master in self.masters.items():
            parameter.grad = master.grad = None
        return loss.item()

    def gradients(self, tokens, targets):
        """Forward and backward of the step, one microbatch after another; gives the mean loss."""
        count, loss = len(tokens), 0.0
        size = self.microbatch or count
        for part, goal in zip(tokens.split(size), targets.split(size)):
            of_part = self.loss(part, goal) * (len(part) / count)
            of_part.backward()
            loss += of_part.detach()
        return loss

    def update(self, rate):
        if self.is_muon:
            self.optimizer.step(rate, self.logits, self.loads)
            return
        torch.nn.utils.clip_grad_norm_(list(self.masters.values()), CLIP, foreach=True)
        self.optimizer.step()


def random_steps(vocab, sequences, context):
    """Four steps of tokens that follow no rule, as `troupe bench` has them."""
    random = torch.Generator().manual_seed(42)
    text = torch.randint(vocab, (4, sequences, context + 1), generator=random)
    return [(step[:, :-1].contiguous(), step[:, 1:].contiguous()) for step in text]


class Timed:
    """What a worker does for training: some steps at each request."""

    def __init__(self, about):
        register()
        self.training = Training(about)
        vocab = self.training.model.config.vocab_size
        device = self.training.device
        steps = random_steps(vocab, about["sequences"], about["context"])
        self.texts = [(tokens.to(device), targets.to(device)) for tokens, targets in steps]
        self.done = 0

    def run(self, request):
        """Seconds of each step, until the number asked for, or the time, is reached."""
        begin, seconds = time.perf_counter(), []
        while len(seconds) < request["steps"]:
            before = time.perf_counter()
            loss = self.training.step(*self.texts[self.done % 4])
            self.wait()
            self.done += 1
            seconds.append(time.perf_counter() - before)
            if request["seconds"] < time.perf_counter() - begin:
                break
        return {"seconds": seconds, "loss": loss} | self.memory()

    def wait(self):
        """Until the device has done what was asked of it, the update included."""
        if self.training.device == "cuda":
            torch.cuda.synchronize()

    def memory(self):
        """The most bytes of tensors on a GPU; the worker tells those of the process."""
        if self.training.device != "cuda":
            return {}
        return {"memory": torch.cuda.max_memory_allocated()}
