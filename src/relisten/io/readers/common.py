"""What all readers of foreign formats need: JSON values, numbers, word times."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from relisten.core.types import FormatError

CONFIDENCE_FLOOR = 1e-6
"""A confidence of 0 is a rounded small number; its logarithm must stay finite."""


def read_text(path: Path) -> str:
    """A whole text file. Raises FormatError if it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not UTF-8 ({error.reason}); convert the file") from error


def json_values(path: Path) -> list[Any]:
    """The JSON values of a file, one after the other or one per line."""
    text = read_text(path)
    decoder, values, position = json.JSONDecoder(), [], 0
    while tail := len(text[position:].lstrip()):
        start = len(text) - tail
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, getattr(error, "pos", start)) + 1
            raise FormatError(
                f"{path}:{line}: is not JSON ({error}); truncated? Write the file again"
            ) from error
        values.append(value)
    return values


def get(record: object, key: str, kind: type, where: str) -> Any:
    """record[key], which must exist and be of `kind`."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise FormatError(f"{where}: {key!r} is {_short(value)}; it must be a {kind.__name__}")
    return value


def number(value: object, what: str, where: str) -> float:
    """A finite number, which some services write as text."""
    try:
        result = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        result = math.nan
    if isinstance(value, bool) or not math.isfinite(result):
        raise FormatError(
            f"{where}: {what} is {_short(value)}; re-export it or drop the hypothesis"
        )
    return result


def log_confidence(value: object, where: str) -> float:
    """The natural logarithm of a confidence in [0, 1]; 0 counts as a millionth."""
    confidence = number(value, "confidence", where)
    if not 0 <= confidence <= 1:
        raise FormatError(f"{where}: confidence is {confidence}; it must lie between 0 and 1")
    return math.log(max(confidence, CONFIDENCE_FLOOR))


def fitting_word_ends(text: str, ends_s: Sequence[float]) -> tuple[float, ...] | None:
    """The times rounded to a microsecond, or None where they cannot be those of the text's words.

    Services give the times of the spoken words ("two forty"), but may write "2:40".
    """
    ends = tuple(round(end, 6) for end in ends_s)
    if len(ends) != len(text.split()) or any(later < earlier for earlier, later in pairwise(ends)):
        return None
    return ends


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
