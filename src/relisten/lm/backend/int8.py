"""Linear layers in 8-bit integers on the CPU, through oneDNN.

Weights are rounded once, with one scale per output; inputs when they arrive, with one scale per
row, so that no row's values depend on the rows beside it in the batch. Both are first rotated, 64
numbers at a time, by a Hadamard matrix. This leaves the product as it is, but spreads an outlier a
hundred times as large as its neighbours, which language models have, over all 64 numbers, and so
leaves the others their precision (QuaRot, arXiv:2404.00456). Scores of SmolLM2-135M within a list
are 0.3 nats off (root mean square) instead of 1.0, and choices are as good: WER 27.28 % on 1,240
lists, 27.23 % in float32.

Products and sums are exact integers. Without VNNI instructions a CPU adds the products of two
neighbours in 16 bits, which hold 255 · 128: there the scale is that of the largest sum of two
neighbouring weights, a third larger than that of the largest weight.

The gain in speed depends on the CPU. With VNNI an instruction computes four times as many products
as in float32. Without it (AVX2), 16 products take the two instructions `vpmaddubsw` and `vpmaddwd`
and an addition. AMD's first EPYC has one 128-bit unit for the former two and two such units for
float32, which makes 8 products per cycle either way: only memory is gained. So int8 is used only
where it is asked for by name, never by `auto`.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from relisten.core.types import UsageError

_LARGEST = 127  # integer of the largest input of a row, and of the largest weight of an output
_ZERO_POINT = 128
_ROWS = 4096  # of weights, rounded at a time
_ROTATED = 64
"""Numbers rotated together, at most. With 16 the scores are 1.6 times as far off; 64 cost a tenth
of a layer's time."""


class Int8Linear(nn.Module):
    """x · weightᵀ + bias in 8-bit integers; floats in, floats of the same type out.

    weight: [N, K], any float type, not kept; bias: [N] or None.
    """

    packed: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.rotation = hadamard(self.in_features)
        # some rows at a time: a float32 copy of the head alone takes 113 MB
        scales, rounded = [], []
        for rows in weight.detach().split(_ROWS):
            rotated = self._rotated(rows.float())
            scales.append(largest(rotated).clamp(min=1e-12) / _LARGEST)
            rounded.append(rotated.div_(scales[-1][:, None]).round_().to(torch.int8))
        scale = torch.cat(scales)
        # not buffers: modules cannot move or save packed weights
        self.packed = torch.ops.onednn.qlinear_prepack(torch.cat(rounded), None)
        self.scale = scale
        self.zero = torch.zeros(len(scale), dtype=torch.int32)
        self.bias = None if bias is None else bias.detach().float()

    def _rotated(self, rows: Tensor) -> Tensor:
        parts = rows.reshape(-1, len(self.rotation))
        # MKL has another kernel for a single row, which rounds differently with AVX-512: two rows
        several = parts.expand(2, -1) if len(parts) == 1 else parts
        return (several @ self.rotation)[: len(parts)].view(rows.shape)

    def forward(self, x: Tensor) -> Tensor:
        rows = self._rotated(x.reshape(-1, x.shape[-1]).float())
        scale = rows.abs().amax(1, keepdim=True).clamp_(min=1e-12).div_(_LARGEST)
        # unsigned, 128 for zero: a fifth faster than signed numbers in the head, without VNNI
        rounded = (rows / scale).round_().to(torch.int8).view(torch.uint8).add_(_ZERO_POINT)
        out = _integer_product(rounded, self.packed, self.scale, self.zero).mul_(scale)
        if self.bias is not None:
            out.add_(self.bias)
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)


def _integer_product(rounded: Tensor, packed: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Exact sums of (rounded - 128) · weight, times each output's scale: float32 [R, N]."""
    return torch.ops.onednn.qlinear_pointwise(
        rounded, 1.0, _ZERO_POINT, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip


def hadamard(n: int) -> Tensor:
    """The orthonormal Hadamard matrix (Sylvester's) of the largest power of two that divides n, at
    most 64; it is its own inverse."""
    matrix = torch.ones(1, 1)
    while len(matrix) < _ROTATED and n % (2 * len(matrix)) == 0:
        top, bottom = torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)
        matrix = torch.cat([top, bottom])
    return matrix / len(matrix) ** 0.5


def largest(weight: Tensor) -> Tensor:
    """What becomes the integer 127, for each output [N]: the largest weight or, where the CPU adds
    two products in 16 bits, the largest sum of two neighbours if that is larger."""
    single = torch.maximum(weight.amax(1), -weight.amin(1))
    if not adds_in_16_bits():
        return single
    pairs = nn.functional.pad(weight, (0, weight.shape[1] % 2)).unflatten(1, (-1, 2)).sum(-1)
    return torch.maximum(single, pairs.abs().amax(1))


@lru_cache
def adds_in_16_bits() -> bool:
    """Whether this CPU adds two products in 16 bits: found by trying the largest possible sums."""
    packed = torch.ops.onednn.qlinear_prepack(torch.full((16, 64), 127, dtype=torch.int8), None)
    rounded = torch.full((16, 64), 255, dtype=torch.uint8)
    ones, zeros = torch.ones(16), torch.zeros(16, dtype=torch.int32)
    sums = _integer_product(rounded, packed, ones, zeros)
    return bool((sums != 64 * 127 * (255 - _ZERO_POINT)).any())


def is_available() -> bool:
    """Whether this torch has the integer product."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")


def to_int8(causal: nn.Module) -> None:
    """Replace every `nn.Linear` of a model, its head too, in place; embeddings stay as they are.

    Raises UsageError where torch has no integer product.
    """
    if not is_available():
        raise UsageError("dtype int8: this torch is built without oneDNN; score in float32")
    for module in list(causal.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child.weight, child.bias))
