"""The one place where safetensors files are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any device to a safetensors file, which is whole or not there."""
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(on_cpu, partial, dict(metadata) if metadata else None)
    partial.replace(path)
