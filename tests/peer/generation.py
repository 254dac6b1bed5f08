"""Greedy generation with transformers, as its `generate` does it, ready to be timed.

A configuration: `model`, `dtype`, `experts`, `cache` (`dynamic` or `static`), `compile`, `batch`,
`prompt` and `tokens`, the numbers of tokens given and written.
"""

import time

import torch
from transformers import DeepseekV3ForCausalLM


class Timed:
    """What a worker does for generation: one whole batch at each request."""

    def __init__(self, about):
        self.about = about
        model = DeepseekV3ForCausalLM.from_pretrained(
            about["model"],
            dtype=getattr(torch, about["dtype"]),
            attn_implementation="sdpa",
            experts_implementation=about["experts"],
        )
        self.model = model.eval()
        if about["compile"]:
            self.model.forward = torch.compile(self.model.forward)
        random = torch.Generator().manual_seed(42)
        shape = (about["batch"], about["prompt"])
        self.prompt = torch.randint(model.config.vocab_size, shape, generator=random)

    @torch.inference_mode()
    def run(self, request):
        """Seconds of each whole batch, the prompt included."""
        cache = {"cache_implementation": "static"} if self.about["cache"] == "static" else {}
        seconds = []
        for _ in range(request["steps"]):
            before = time.perf_counter()
            text = self.model.generate(
                self.prompt,
                attention_mask=torch.ones_like(self.prompt),
                do_sample=False,
                min_new_tokens=self.about["tokens"],
                max_new_tokens=self.about["tokens"],
                pad_token_id=0,
                **cache,
            )
            seconds.append(time.perf_counter() - before)
        assert text.shape[1] == self.about["prompt"] + self.about["tokens"]
        return {"seconds": seconds}
