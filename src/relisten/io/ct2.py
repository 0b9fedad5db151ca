"""Weights of a CTranslate2 model as arrays; the library itself does not export them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from relisten.core.types import ModelError

_VERSION = 6
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ct2_weights(path: Path, prefix: str) -> dict[str, np.ndarray]:
    """The float variables of a `model.bin` whose names begin with prefix, without it: float32.

    The file is a header, then for each variable its name, shape, type and bytes, then further names
    of the same variables, all little endian, as CTranslate2's converters write them
    (`ctranslate2.specs.ModelSpec`). Weights that were quantised to int8 or int16 are scaled back.
    Raises ModelError for another version of the layout.
    """
    try:
        with path.open("rb") as file:
            places = _places(file, path)
            found = {}
            for name, (kind, shape, start, n_bytes) in places.items():
                if name.startswith(prefix):
                    file.seek(start)
                    values = np.frombuffer(file.read(n_bytes), kind).reshape(shape)
                    found[name.removeprefix(prefix)] = values.astype(np.float32)
    except (OSError, struct.error, KeyError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as a CTranslate2 model: {error}") from error
    for name in [name for name in found if name.endswith("/weight_scale")]:
        scale, weight = found.pop(name), found[name.removesuffix("_scale")]
        weight /= scale.reshape(-1, *[1] * (weight.ndim - 1))  # one for all, or one per row
    return found


_Place = tuple[Any, list[int], int, int]


def _places(file: BinaryIO, path: Path) -> dict[str, _Place]:
    """Variable → type, shape, where it starts, bytes."""
    version = _number(file, "I")
    if version != _VERSION:
        raise ModelError(
            f"{path}: layout {version} of CTranslate2, wanted {_VERSION}; convert it again"
        )
    _text(file), _number(file, "I")  # which kind of model, and its revision
    places: dict[str, _Place] = {}
    for _ in range(_number(file, "I")):
        name = _text(file)
        shape = [_number(file, "I") for _ in range(_number(file, "B"))]
        kind, n_bytes = _TYPES[_number(file, "B")], _number(file, "I")
        places[name] = (kind, shape, file.tell(), n_bytes)
        file.seek(n_bytes, 1)
    for _ in range(_number(file, "I")):
        alias, name = _text(file), _text(file)
        for end in ("", "_scale"):  # the scales have further names too, which are not listed
            if name + end in places:
                places[alias + end] = places[name + end]
    return places


def _number(file: BinaryIO, kind: str) -> int:
    return int(struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0])


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()
