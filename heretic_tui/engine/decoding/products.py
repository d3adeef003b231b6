"""Quicker matrix products on processors: the shapes of decoding steps, and 16-bit weights without 16-bit arithmetic.

Three facts about processors, measured on a Xeon without 16-bit arithmetic (Cascade Lake, 2 threads, torch 2.13):
a product of 8 to 128 rows spends most of its time bringing the weights into the order that the processor multiplies
in, and is up to 4 times quicker where oneDNN keeps them in that order; where it cannot, exchanging the factors makes it
up to 2.6 times quicker; and a product of bfloat16 weights is about four times quicker in float32. Sums are float32
either way and rounded once to the weights' dtype, but in another order: in bfloat16 some greedy choices differ, as they
do between batch sizes.
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

    `rows` is how many tokens a step has: from `FEW` on, the weights are kept between steps as the steps need them,
    packed or in float32.
    """

    def __init__(self, network: nn.Module, rows: int) -> None:
        self.linears = [module for module in network.modules() if isinstance(module, nn.Linear) and _quickened(module)]
        room = SHARE_OF_MEMORY * free_memory(torch.device("cpu")) if self.linears and rows >= FEW else 0.0
        in_16_bits = [module for module in self.linears if module.weight.dtype != torch.float32]
        self.packs = 0.0 < _float32_bytes(self.linears) < room and packing_is_quicker()
        self.keeps = 0.0 < _float32_bytes(in_16_bits) < room and not self.packs
        self._packed: dict[nn.Linear, Tensor] = {}
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
            if self.packs and rows >= FEW:
                return _multiplied(inputs.float(), self._packed_weight(module), _float32_bias(module)).to(inputs.dtype)
            if module.weight.dtype == torch.float32:
                return _float32_product(inputs, module.weight, module.bias, rows)
            if rows < (FEW if self.keeps else WORTH_A_COPY):
                return linear(inputs, module.weight, module.bias)
            return _float32_product(inputs.float(), self._float32(module), _float32_bias(module), rows).to(inputs.dtype)

        return product

    def _packed_weight(self, module: nn.Linear) -> Tensor:
        if module not in self._packed:
            self._packed[module] = _packed(module.weight.float())
        return self._packed[module]

    def _float32(self, module: nn.Linear) -> Tensor:
        if not self.keeps:
            return module.weight.float()
        if module not in self._copies:
            self._copies[module] = module.weight.detach().float()
        return self._copies[module]


def _float32_bytes(modules: list[nn.Linear]) -> int:
    return sum(4 * module.weight.numel() for module in modules)


def _float32_bias(module: nn.Linear) -> Tensor | None:
    return None if module.bias is None else module.bias.float()


def _packed(weight: Tensor) -> Tensor:
    """A float32 weight in oneDNN's own order; it takes as much memory again."""
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return found


def _multiplied(inputs: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """The product of float32 inputs `(..., in)` and a packed weight."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, "none", [], "")
    return found


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
def packing_is_quicker() -> bool:
    """Whether this processor multiplies more quickly with a packed weight, and rightly."""
    if not packs_rightly():
        return False
    inputs, weight = torch.randn(48, 1024), torch.randn(1024, 1024)
    packed = _packed(weight)
    plain, quick = _quickest(
        lambda: _float32_product(inputs, weight, None, len(inputs)), lambda: _multiplied(inputs, packed, None)
    )
    return quick < plain


@torch.inference_mode()
def packs_rightly() -> bool:
    """Whether this build of torch has oneDNN and its products with packed weights, and they give what plain ones do."""
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not all(hasattr(torch.ops.mkldnn, name) for name in operators):
        return False
    inputs, weight, bias = torch.randn(9, 40), torch.randn(24, 40), torch.randn(24)
    found = _multiplied(inputs, _packed(weight), bias)
    return torch.allclose(found, linear(inputs, weight, bias), atol=1e-4)


@cache
def float32_is_quicker(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies in less than 2/3 of the time with a float32 copy of weights in `dtype`."""
    inputs, weight = torch.ones(64, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    copy = weight.float()
    native, copied = _quickest(lambda: linear(inputs, weight), lambda: linear(inputs.float(), copy).to(dtype))
    return copied < native * 2 / 3


def _quickest(*products: Callable[[], Tensor]) -> list[float]:
    """Seconds of each product: turn about, and the quickest of each, since other programs may be at work."""
    times = [[_seconds(product) for product in products] for _ in range(6)]
    return [min(found) for found in zip(*times, strict=True)]


def _seconds(product: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    product()
    return time.perf_counter() - began
