"""Speech units as Parquet shards: a folder of files that training frameworks read in columns.

    id · reference · unit_s · units (a list of codes for each unit) · unit_durations (or null)
    utterance: all else that is known, as one JSON line

A shard is whole or not there: it is written as NAME.partial, then renamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from relisten.core.types import FormatError, NBest, UsageError
from relisten.io.lines import line_to_nbest, nbest_to_line

UNIT_KEYS = ("unit_s", "units", "unit_durations")
"""What an utterance's line has besides when its units are known."""


def write_shard(path: Path, utterances: Sequence[NBest]) -> None:
    """Write utterances that have units. Raises UsageError where Parquet cannot be written here."""
    pa = _pyarrow()
    import pyarrow.parquet as pq

    codes = [[u if isinstance(u, list) else [u] for u in n.extra["units"]] for n in utterances]
    columns = {
        "id": pa.array([n.id for n in utterances], pa.string()),
        "reference": pa.array([n.reference for n in utterances], pa.string()),
        "unit_s": pa.array([n.extra["unit_s"] for n in utterances], pa.float64()),
        "units": pa.array(codes, pa.list_(pa.list_(pa.int32()))),
        "unit_durations": pa.array(
            [n.extra.get("unit_durations") for n in utterances], pa.list_(pa.int32())
        ),
        "utterance": pa.array([nbest_to_line(_without_units(n)) for n in utterances], pa.binary()),
    }
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table(columns), partial)
    partial.rename(path)


def read_shards(folder: Path | str) -> Iterator[NBest]:
    """The utterances of a folder of shards, as the same command's JSON lines hold them.

    Raises FormatError where a file is no shard of units.
    """
    pa = _pyarrow()
    import pyarrow.parquet as pq

    for path in shards(folder):
        try:
            rows = pq.read_table(path).to_pylist()
        except pa.ArrowException as error:
            raise FormatError(f"{path}: cannot be read as Parquet ({error})") from error
        if rows and not {"id", "utterance", *UNIT_KEYS} <= set(rows[0]):
            raise FormatError(f"{path}: holds no units; name a folder that `relisten units` wrote")
        for row in rows:
            utterance = line_to_nbest(row["utterance"], f"{path}")
            yield replace(utterance, extra={**utterance.extra, **_unit_extra(row)})


def shards(folder: Path | str) -> list[Path]:
    """The shards of a folder, in order."""
    return sorted(Path(folder).glob("*.parquet"))


def shard_path(folder: Path | str, number: int) -> Path:
    """Where shard `number`, from 0 on, lies or will lie."""
    return Path(folder) / f"{number:05d}.parquet"


def shard_ids(path: Path) -> list[str]:
    """The ids of a shard's utterances, nothing else of it read."""
    import pyarrow.parquet as pq

    return list(pq.read_table(path, columns=["id"]).column("id").to_pylist())


def _without_units(utterance: NBest) -> NBest:
    kept = {key: value for key, value in utterance.extra.items() if key not in UNIT_KEYS}
    return replace(utterance, extra=kept)


def _unit_extra(row: dict[str, Any]) -> dict[str, Any]:
    units = row["units"]
    is_plain = all(len(codes) == 1 for codes in units)
    found = {"unit_s": row["unit_s"], "unit_durations": row["unit_durations"]}
    found["units"] = [codes[0] for codes in units] if is_plain else units
    return {key: value for key, value in found.items() if value is not None}


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow, not installed here; run `pip install 'relisten[train]'`, or "
            "write JSON lines: name a file, not a folder"
        ) from error
    return pa
