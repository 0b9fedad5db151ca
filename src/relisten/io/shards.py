"""Speech units as Parquet shards: a folder of files that training frameworks read by column.

id · reference · unit_s · units (a list of codes for each unit) · unit_durations (or null)
utterance: everything else, as one JSON line
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from relisten.core.types import FormatError, NBest
from relisten.io.native import line_to_nbest, nbest_to_line
from relisten.io.parquet import read_column, read_rows, write_table

UNIT_KEYS = ("unit_s", "units", "unit_durations")
"""The keys that the line of an utterance gains with its units."""


def write_shard(path: Path, utterances: Sequence[NBest]) -> None:
    """Write utterances that have units. Raises UsageError where Parquet cannot be written here."""
    codes = [[u if isinstance(u, list) else [u] for u in n.extra["units"]] for n in utterances]
    write_table(
        path,
        {
            "id": ("string", [n.id for n in utterances]),
            "reference": ("string", [n.reference for n in utterances]),
            "unit_s": ("float64", [n.extra["unit_s"] for n in utterances]),
            "units": ("list<list<int32>>", codes),
            "unit_durations": ("list<int32>", [n.extra.get("unit_durations") for n in utterances]),
            "utterance": ("binary", [nbest_to_line(_without_units(n)) for n in utterances]),
        },
    )


def read_shards(folder: Path | str) -> Iterator[NBest]:
    """The utterances of a folder of shards, as the same command's JSON lines hold them.

    Raises FormatError where a file is no shard of units.
    """
    for path in shards(folder):
        rows = read_rows(path)
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
    return read_column(path, "id")


def _without_units(utterance: NBest) -> NBest:
    kept = {key: value for key, value in utterance.extra.items() if key not in UNIT_KEYS}
    return replace(utterance, extra=kept)


def _unit_extra(row: dict[str, Any]) -> dict[str, Any]:
    units = row["units"]
    is_plain = all(len(codes) == 1 for codes in units)
    found = {"unit_s": row["unit_s"], "unit_durations": row["unit_durations"]}
    found["units"] = [codes[0] for codes in units] if is_plain else units
    return {key: value for key, value in found.items() if value is not None}
