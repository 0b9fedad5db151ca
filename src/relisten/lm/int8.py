"""Linear layers in 8-bit integers on the CPU, through oneDNN.

Weights are rounded once, by output; inputs as they come, row by row, so that no row's values depend
on what stands beside it in the batch. Products and sums are exact integers on every CPU: weights
have 7 bits, since without VNNI instructions two products of 8-bit numbers are added in 16 bits,
which hold 2 · 255 · 63 but not 2 · 255 · 127.

What it gains is the CPU's affair. With VNNI an instruction does four times the products of a
float32 one. Without it (AVX2), 16 products take two instructions, `vpmaddubsw` and `vpmaddwd`, and
an addition; on AMD's first EPYC, which has one unit of 128 bits for the former two and two such
units for float32, that is 8 products a cycle either way: nothing is gained but memory.

It has its price: scores of SmolLM2-135M move by 1.3 nats within a list (rms), mostly for the inputs
rounded to 8 bits, and on 300 lists of non-native English one choice in 25 changed: WER 25.45 % to
26.25 %. So it is chosen by name alone, never by `auto`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relisten.core.types import UsageError

_WEIGHT_STEPS = 63
_INPUT_STEPS = 127
_NOTHING = 128


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
        weight = weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / _WEIGHT_STEPS
        rounded = (weight / scale[:, None]).round_().to(torch.int8)
        # plain attributes: the packed weights are opaque to everything that moves or saves modules
        self.packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.scale = scale
        self.zero = torch.zeros(len(scale), dtype=torch.int32)
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).float()
        step = rows.abs().amax(1, keepdim=True).clamp_(min=1e-12).div_(_INPUT_STEPS)
        # from 0 with 128 for nothing: a fifth faster than signed numbers in the head, without VNNI
        rounded = (rows / step).round_().to(torch.int8).view(torch.uint8).add_(_NOTHING)
        out = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, _NOTHING, self.packed, self.scale, self.zero, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        out.mul_(step)
        if self.bias is not None:
            out.add_(self.bias)
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)


def is_available() -> bool:
    """Whether this torch has the integer product."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")


def to_int8(causal: nn.Module) -> None:
    """Replace every `nn.Linear` of a model, its head too; embeddings stay as they are.

    Raises UsageError where torch has no integer product.
    """
    if not is_available():
        raise UsageError("dtype int8: this torch is built without oneDNN; score in float32")
    for module in list(causal.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child.weight, child.bias))
