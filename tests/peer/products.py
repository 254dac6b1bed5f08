"""Rates of PyTorch's matrix products, the best burst of several."""

import time

import torch


class Timed:
    """What a worker does for products: one shape at each request."""

    def __init__(self, about):
        torch.manual_seed(42)

    @torch.inference_mode()
    def run(self, request):
        """GFLOP/s of `[m, k] x [k, n]`, the second matrix by rows or by columns, as is faster."""
        torch.set_num_threads(request["threads"])
        m, n, k = request["shape"]
        dtype = getattr(torch, request["dtype"])
        a, out = torch.randn(m, k).to(dtype), torch.empty(m, n, dtype=dtype)
        seconds = []
        for b in (torch.randn(k, n).to(dtype), torch.randn(n, k).to(dtype).T):
            seconds.append(best(lambda: torch.mm(a, b, out=out)))
        return {"gflops": 2e-9 * m * n * k / min(seconds)}


def best(product, bursts=12, burst=0.03):
    """Seconds of one product in the best of several bursts."""
    before = time.perf_counter()
    product()
    product()
    once = (time.perf_counter() - before) / 2
    count, least = max(1, int(burst / once)), float("inf")
    for _ in range(bursts):
        before = time.perf_counter()
        for _ in range(count):
            product()
        least = min(least, (time.perf_counter() - before) / count)
    return least
