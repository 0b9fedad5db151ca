"""The one place where Parquet files are written and read; pyarrow comes with `relisten[train]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from relisten.core.types import FormatError
from relisten.io.extras import need_extra
from relisten.io.files import written_whole

ColumnType = Literal[
    "string", "binary", "int64", "float64", "list<int32>", "list<float32>", "list<list<int32>>"
]


def write_table(path: Path, columns: Mapping[str, tuple[ColumnType, Sequence[Any]]]) -> None:
    """Write a table to a file, which is whole or not there. None is a missing value.

    columns: name → type and values. Raises UsageError where pyarrow is not installed, or
    the file cannot be written.
    """
    pa = _pyarrow()
    import pyarrow.parquet as pq

    types = {
        "string": pa.string(),
        "binary": pa.binary(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "list<int32>": pa.list_(pa.int32()),
        "list<float32>": pa.list_(pa.float32()),
        "list<list<int32>>": pa.list_(pa.list_(pa.int32())),
    }
    arrays = {name: pa.array(values, types[kind]) for name, (kind, values) in columns.items()}
    with written_whole(path) as made:
        pq.write_table(pa.table(arrays), made)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, column name → value. Raises FormatError where it is not Parquet."""
    return list(_read(path).to_pylist())


def read_column(path: Path, name: str) -> list[Any]:
    """One column of a file; nothing else of it is read."""
    return list(_read(path, [name]).column(name).to_pylist())


def read_flat_lists(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists: all values behind each other, and the length of each list, int64."""
    column = _read(path, [name]).column(name).combine_chunks()
    return column.flatten().to_numpy(), np.diff(column.offsets.to_numpy()).astype(np.int64)


def _read(path: Path, columns: list[str] | None = None) -> Any:
    pa = _pyarrow()
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(
            f"{path}: cannot be read as Parquet ({error}); delete it if relisten "
            "made it, and it is made anew"
        ) from error


def _pyarrow() -> Any:
    need_extra("train", "Parquet (JSON lines, a file instead of a folder, do not)", "pyarrow")
    import pyarrow as pa

    return pa
