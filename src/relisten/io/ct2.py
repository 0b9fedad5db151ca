"""Weights of a CTranslate2 model as arrays, and back; the library itself does not export them.

A `model.bin` is a header, then for each variable its name, shape, type and bytes, then further
names of the same variables, all little endian, as CTranslate2's converters write them
(`ctranslate2.specs.ModelSpec`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from relisten.core.types import ModelError

_VERSION = 6
_TYPES: dict[int, type[np.generic]] = {
    0: np.float32,
    1: np.int8,
    2: np.int16,
    3: np.int32,
    4: np.float16,
}
_SCALE = "_scale"


def read_ct2_weights(path: Path, prefix: str = "") -> dict[str, np.ndarray]:
    """The float variables of a `model.bin` whose names begin with prefix, without it: float32.

    Weights that were quantised to int8 or int16 are scaled back. Raises ModelError for another
    version of the layout.
    """
    try:
        with path.open("rb") as file:
            model = _Model.read(file, path)
            found = {}
            for name, variable in (model.variables | model.aliased).items():
                if name.startswith(prefix):
                    values = variable.values(file)
                    found[name.removeprefix(prefix)] = values.astype(np.float32)
    except (OSError, struct.error, KeyError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as a CTranslate2 model: {error}") from error
    for name in [name for name in found if name.endswith(f"/weight{_SCALE}")]:
        scale, weight = found.pop(name), found[name.removesuffix(_SCALE)]
        weight /= scale.reshape(-1, *[1] * (weight.ndim - 1))  # one for all, or one per row
    return found


def write_ct2_weights(source: Path, target: Path, values: Mapping[str, np.ndarray]) -> None:
    """The model `source` as the file `target`, the variables that `values` names replaced.

    Each keeps its type: what was int8 is quantised anew, with a scale for each row. The new ones
    stand at the end of the file, so that a hash of its end tells them from the old. Raises
    ModelError for a variable that the model does not have in this shape, or that is int16.
    """
    try:
        with source.open("rb") as file, target.open("wb") as written:
            model = _Model.read(file, source)
            replaced: dict[str, np.ndarray] = {}
            for name, value in values.items():
                replaced |= model.encoded(name, value)
            written.write(model.header)
            for name, variable in model.variables.items():
                if name not in replaced:
                    _write_variable(written, name, variable.values(file))
            for name, value in replaced.items():
                _write_variable(written, name, value)
            written.write(struct.pack("<I", len(model.aliases)))
            for alias, name in model.aliases.items():
                written.write(_named(alias) + _named(name))
    except (OSError, struct.error, KeyError, ValueError) as error:
        raise ModelError(f"{source}: cannot be written as {target}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Variable:
    """Where a variable stands in the file."""

    kind: type[np.generic]
    shape: tuple[int, ...]
    start: int
    n_bytes: int

    def values(self, file: BinaryIO) -> np.ndarray:
        file.seek(self.start)
        return np.frombuffer(file.read(self.n_bytes), self.kind).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class _Model:
    """What stands where in a `model.bin`. header: up to and with the number of variables."""

    path: Path
    header: bytes
    variables: dict[str, _Variable]
    aliases: dict[str, str]

    @classmethod
    def read(cls, file: BinaryIO, path: Path) -> _Model:
        version = _number(file, "I")
        if version != _VERSION:
            raise ModelError(
                f"{path}: layout {version} of CTranslate2, wanted {_VERSION}; convert it again"
            )
        _text(file), _number(file, "I")  # which kind of model, and its revision
        n_variables, end = _number(file, "I"), file.tell()
        file.seek(0)
        header, variables = file.read(end), {}
        for _ in range(n_variables):
            name = _text(file)
            shape = tuple(_number(file, "I") for _ in range(_number(file, "B")))
            kind, n_bytes = _TYPES[_number(file, "B")], _number(file, "I")
            variables[name] = _Variable(kind, shape, file.tell(), n_bytes)
            file.seek(n_bytes, 1)
        aliases = {_text(file): _text(file) for _ in range(_number(file, "I"))}
        return cls(path, header, variables, aliases)

    @property
    def aliased(self) -> dict[str, _Variable]:
        """The variables by their further names; their scales have such names, not listed."""
        return {
            alias + end: self.variables[name + end]
            for alias, name in self.aliases.items()
            for end in ("", _SCALE)
            if name + end in self.variables
        }

    def encoded(self, name: str, value: np.ndarray) -> dict[str, np.ndarray]:
        """A new value as the model stores it, under its name, with its scale if it has one."""
        name = self.aliases.get(name, name)
        variable = self.variables.get(name)
        if variable is None or variable.shape != value.shape or variable.kind is np.int16:
            has = "nothing" if variable is None else f"{variable.kind.__name__} {variable.shape}"
            raise ModelError(
                f"{self.path}: {name} is {has}, to be replaced by {value.shape}; take the model "
                "in float16 or float32"
            )
        if variable.kind is not np.int8:
            return {name: value.astype(variable.kind)}
        largest = np.abs(value).max(axis=1)
        scale = np.where(largest > 0, 127 / np.maximum(largest, 1e-30), 1.0).astype(np.float32)
        return {
            name: np.rint(value * scale[:, None]).astype(np.int8),
            name + _SCALE: scale,
        }


def _write_variable(file: BinaryIO, name: str, values: np.ndarray) -> None:
    kind = next(number for number, one in _TYPES.items() if values.dtype == one)
    content = np.ascontiguousarray(values).tobytes()
    sizes = struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
    file.write(_named(name) + sizes + struct.pack("<BI", kind, len(content)) + content)


def _named(text: str) -> bytes:
    content = text.encode() + b"\0"
    return struct.pack("<H", len(content)) + content


def _number(file: BinaryIO, kind: str) -> int:
    return int(struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0])


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()
