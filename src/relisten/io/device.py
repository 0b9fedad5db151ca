"""Where torch models run, and in which precision."""

from __future__ import annotations

from typing import Any

from relisten.core.types import UsageError


def torch_placement(device: str, dtype: str) -> tuple[str, Any]:
    """Device name and torch dtype for the options auto|cpu|cuda and auto|float32|bfloat16.

    auto is float32 on the CPU, bfloat16 on CUDA. Raises UsageError for another dtype.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"dtype {dtype}: a transformers model runs in float32 or bfloat16")
    return device, getattr(torch, dtype)
