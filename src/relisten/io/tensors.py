"""The one place where safetensors files are written, and where those of a model are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from relisten.core.types import ModelError, UsageError
from relisten.io.files import written_whole

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any device to a safetensors file, which is whole or not there.

    Raises UsageError where it cannot be written, for example because the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with written_whole(path) as made:
        try:
            save_file(on_cpu, made, dict(metadata) if metadata else None)
        except SafetensorError as error:
            raise UsageError(f"{path}: cannot be written ({error})") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file by its name, on the CPU.

    Raises ModelError where there is no such file, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors ({error})") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """As `read_tensors`, as arrays and without loading torch."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors ({error})") from error
