"""Quicker matrix products on processors: the shapes of decoding steps, and 16-bit weights without 16-bit arithmetic.

Two facts about processors, measured on a Xeon without 16-bit arithmetic (Cascade Lake, torch 2.13): with two threads a
product of 8 to 64 rows is 1.5 to 2.6 times quicker with its factors exchanged, and one of bfloat16 weights about four
times quicker in float32. Sums are float32 either way and rounded once to the weights' dtype, but in another order: in
bfloat16 some greedy choices differ, as they do between batch sizes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from heretic_tui.engine.hardware import free_memory

FEW, MANY = 8, 64
"""Rows between which exchanging the factors pays; below `FEW`, reading the weights takes most of the time."""
TALL = 16
"""Outputs for each input beyond which it does not pay, as in a head over a vocabulary: the result is copied once."""
WORTH_A_COPY = 32
"""Rows from which a product in float32 pays although the copy of its weights is made for it alone."""
SHARE_OF_MEMORY = 0.25
"""Float32 copies of the weights may take this share of the free memory; else they are made anew for each product."""

Product = Callable[[Tensor], Tensor]


class Products:
    """The matrix products of one network for as long as its weights stay what they are.

    `rows` is how many tokens a step has: from `FEW` on, float32 copies of 16-bit weights are kept between steps.
    """

    def __init__(self, network: nn.Module, rows: int) -> None:
        self.linears = [module for module in network.modules() if isinstance(module, nn.Linear) and _quickened(module)]
        in_16_bits = [module for module in self.linears if module.weight.dtype != torch.float32]
        wanted = sum(4 * module.weight.numel() for module in in_16_bits)
        self.keeps = rows >= FEW and wanted < SHARE_OF_MEMORY * free_memory(torch.device("cpu"))
        self._copies: dict[nn.Linear, Tensor] = {}

    @contextmanager
    def used(self) -> Iterator[None]:
        """The network's linear modules compute by these products inside."""
        for module in self.linears:
            module.__dict__["forward"] = self._product(module)
        try:
            yield
        finally:
            for module in self.linears:
                del module.__dict__["forward"]

    def _product(self, module: nn.Linear) -> Product:
        def product(inputs: Tensor) -> Tensor:
            rows = inputs.numel() // inputs.shape[-1]
            if module.weight.dtype == torch.float32:
                return _float32_product(inputs, module.weight, module.bias, rows)
            if rows < (FEW if self.keeps else WORTH_A_COPY):
                return linear(inputs, module.weight, module.bias)
            bias = None if module.bias is None else module.bias.float()
            return _float32_product(inputs.float(), self._float32(module), bias, rows).to(inputs.dtype)

        return product

    def _float32(self, module: nn.Linear) -> Tensor:
        if not self.keeps:
            return module.weight.float()
        if module not in self._copies:
            self._copies[module] = module.weight.detach().float()
        return self._copies[module]


def _quickened(module: nn.Linear) -> bool:
    if type(module) is not nn.Linear or module.weight.device.type != "cpu" or "forward" in module.__dict__:
        return False
    dtype = module.weight.dtype
    return dtype == torch.float32 or (dtype in (torch.bfloat16, torch.float16) and float32_is_quicker(dtype))


def _float32_product(inputs: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    if not FEW <= rows <= MANY or weight.shape[0] > TALL * weight.shape[1]:
        return linear(inputs, weight, bias)
    flat = inputs.reshape(rows, inputs.shape[-1])
    # (W x^T)^T: the same sums, but MKL splits a wide first factor among threads and vectors far better.
    found = torch.mm(weight, flat.t()).t().contiguous()
    return (found if bias is None else found + bias).view(*inputs.shape[:-1], weight.shape[0])


@cache
def float32_is_quicker(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies in less than 2/3 of the time with a float32 copy of weights in `dtype`."""
    inputs, weight = torch.ones(64, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    copy = weight.float()
    products: list[Callable[[], Tensor]] = [
        lambda: linear(inputs, weight),
        lambda: linear(inputs.float(), copy).to(dtype),
    ]
    # Turn about, and the quickest of each, since other programs may be at work.
    times = [[_seconds(product) for product in products] for _ in range(6)]
    native, copied = (float(min(found)) for found in zip(*times, strict=True))
    return copied < native * 2 / 3


def _seconds(product: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    product()
    return time.perf_counter() - began
