"""Linear layers in float32 on the CPU through oneDNN instead of torch's default, MKL.

The product is the same to rounding. On CPUs that are not Intel's, MKL keeps to AVX2: 92 GFLOP/s a
core here (Zen 5, 1024 × 576 × 1536) where oneDNN reaches 199, forward and backward. torch takes
oneDNN by itself for bfloat16 only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """x [..., K] · weight [N, K]ᵀ + bias [N], and its gradients by the same product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            _product(grad, weight.t()) if to_x else None,
            _product(rows.t(), x.flatten(0, -2).t()) if to_weight else None,
            rows.sum(0) if to_bias else None,
        )


def _is_ours(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and (bias is None or bias.dtype == torch.float32)
        and x.dim() > 1
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


class OneDNNLinear(TorchFunctionMode):
    """Context in which every float32 `nn.functional.linear` on the CPU runs through oneDNN.

    Also for training: what is computed inside has its gradients through oneDNN too. Where torch is
    built without oneDNN nothing changes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = torch.backends.mkldnn.is_available() and hasattr(
            torch.ops.mkldnn, "_linear_pointwise"
        )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.linear and self.enabled:
            inputs = _linear_inputs(*args, **kwargs)
            if _is_ours(*inputs):
                return _Linear.apply(*inputs) if torch.is_grad_enabled() else _product(*inputs)
        return func(*args, **kwargs)


def own_products(device: torch.device) -> AbstractContextManager[object]:
    """`OneDNNLinear` on the CPU, nothing elsewhere."""
    return OneDNNLinear() if device.type == "cpu" else nullcontext()


def _linear_inputs(
    input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments of `nn.functional.linear`, however they were given."""
    return input, weight, bias
