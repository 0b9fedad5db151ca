"""Linear layers in float32 on the CPU through oneDNN instead of torch's default, MKL.

The product is the same to rounding. On CPUs that are not Intel's, MKL uses AVX2 only: 92 GFLOP/s
per core (Zen 5, 1024 × 576 × 1536) where oneDNN reaches 199, forward and backward. By itself torch
uses oneDNN for bfloat16 only. Without AVX-512 (Zen 1) oneDNN reaches 36 forward and MKL 34, but
for gradients, whose operands are transposed, 18 to 33 and MKL 32 to 36: those are left to torch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def _has_avx512() -> bool:
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


def _gradient(a: Tensor, b: Tensor) -> Tensor:
    """a [..., N] · b [N, K], by the library that is faster on this kind of CPU.

    A rule rather than a trial, so that a resumed run gives the same bits.
    """
    return _product(a, b.t()) if _has_avx512() else a @ b


class _Linear(torch.autograd.Function):
    """x [..., K] · weight [N, K]ᵀ + bias [N], and its gradients."""

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
            _gradient(grad, weight) if to_x else None,
            _gradient(rows.t(), x.flatten(0, -2)) if to_weight else None,
            rows.sum(0) if to_bias else None,
        )


def _is_supported(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
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

    Gradients of what is computed inside also run through oneDNN where the CPU has AVX-512. Where
    torch is built without oneDNN nothing changes.
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
            if _is_supported(*inputs):
                return _Linear.apply(*inputs) if torch.is_grad_enabled() else _product(*inputs)
        return func(*args, **kwargs)


def own_products(device: torch.device) -> AbstractContextManager[object]:
    """`OneDNNLinear` on the CPU, nothing elsewhere."""
    return OneDNNLinear() if device.type == "cpu" else nullcontext()


def _linear_inputs(
    input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments of `nn.functional.linear`, given by position or by name."""
    return input, weight, bias
