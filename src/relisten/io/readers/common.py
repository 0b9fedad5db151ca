"""What all readers of foreign formats need: JSON values, refusals, numbers, times of words."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from relisten.core.text import join_unspaced
from relisten.core.types import FormatError, Hypothesis, NBest, Refusal
from relisten.io.files import opened
from relisten.io.native import FOREIGN_TEXTS, unique_keys

CONFIDENCE_FLOOR = 1e-6
"""A confidence of 0 is a rounded small number; its logarithm must stay finite."""


def read_text(path: Path) -> str:
    """A whole text file. Raises FormatError if it is missing or not UTF-8."""
    try:
        with opened(path) as file:
            return io.TextIOWrapper(file, encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not UTF-8 ({error.reason}); convert the file") from error


def json_values(path: Path) -> Iterator[Any]:
    """The JSON values of a file, one after the other or one per line.

    Raises FormatError where it is not JSON, or a key occurs twice in an object.
    """
    text = read_text(path)
    position = 0
    while match := _NOT_SPACE.search(text, position):
        start = match.start()
        try:
            value, position = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, getattr(error, "pos", start)) + 1
            raise FormatError(
                f"{path}:{line}: is not JSON ({error}); truncated? Write the file again"
            ) from error
        yield value


def json_items(path: Path) -> Iterator[Any]:
    """The JSON values of a file, of each list among them its items."""
    for value in json_values(path):
        yield from value if isinstance(value, list) else [value]


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)
_NOT_SPACE = re.compile(r"\S")


def attempt(utterance_id: str, path: Path, make: Callable[[], NBest]) -> NBest | Refusal:
    """The utterance that `make` gives, or why there is none: one odd element, not the file."""
    try:
        return make()
    except FormatError as error:
        return Refusal(utterance_id, str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{path}: '{utterance_id}' does not have the layout of the others ({error!r})"
        return Refusal(utterance_id, reason)


def numbered(
    path: Path, items: Iterable[Any], make: Callable[[Any, str, str], NBest], digits: int = 4
) -> Iterator[NBest | Refusal]:
    """Utterances of items without ids, numbered behind the file's name.

    make: item, id, and how an error about it begins → its utterance.
    """
    for n, item in enumerate(items, 1):
        utterance_id = f"{path.stem}-{n:0{digits}d}"
        where = f"{path}: '{utterance_id}'"
        yield attempt(utterance_id, path, partial(make, item, utterance_id, where))


def get(record: object, key: str, kind: type, where: str) -> Any:
    """record[key], which must exist and be of `kind`."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise FormatError(f"{where}: {key!r} is {_short(value)}; it must be a {kind.__name__}")
    return value


def optional_list(record: object, key: str, where: str) -> list[Any]:
    """record[key], empty where it is missing or null: services leave empty lists out."""
    if isinstance(record, dict) and record.get(key) is None:
        return []
    items: list[Any] = get(record, key, list, where)
    return items


def refuse_other_text(record: object, where: str) -> None:
    """Raises FormatError where an element without the text of its format holds another one, which
    would vanish."""
    for name in (*FOREIGN_TEXTS, "content") if isinstance(record, dict) else ():
        if isinstance(record.get(name), str) and record[name].strip():
            raise FormatError(
                f"{where}: has its text under {name!r}, as another format does; name its format, "
                "or write the text as the others have it"
            )


def comparable(hypotheses: Iterable[Hypothesis]) -> tuple[Hypothesis, ...]:
    """The hypotheses, their scores only if all have one: a list must not compare one with none."""
    made = tuple(hypotheses)
    if all(hypothesis.scores for hypothesis in made):
        return made
    return tuple(replace(hypothesis, scores={}) for hypothesis in made)


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


def seconds(value: object, what: str, where: str) -> float:
    """A time in s, as services write it: 1.4, "1.4", "1.4s", "PT1.4S", "00:00:01,400", or
    {"seconds": "1", "nanos": 400000000}, where protobuf leaves out what is 0."""
    if isinstance(value, dict) and value.keys() <= {"seconds", "nanos"}:
        whole = number(value.get("seconds", 0), what, where)
        return whole + number(value.get("nanos", 0), what, where) / 1e9
    if isinstance(value, str):
        if match := _DURATION.fullmatch(value.strip()):
            h, m, s, *clock = (float((part or "0").replace(",", ".")) for part in match.groups())
            return 3600 * (h + clock[0]) + 60 * (m + clock[1]) + s + clock[2]
        value = value.strip().removesuffix("s")
    return number(value, what, where)


_DURATION = re.compile(
    r"PT(?=.)(?:([\d.]+)H)?(?:([\d.]+)M)?(?:([\d.]+)S)?|(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)"
)


def log_confidence(value: object, where: str) -> float:
    """The natural logarithm of a confidence in [0, 1]; 0 counts as a millionth."""
    confidence = number(value, "confidence", where)
    if not 0 <= confidence <= 1:
        raise FormatError(f"{where}: confidence is {confidence}; it must lie between 0 and 1")
    return math.log(max(confidence, CONFIDENCE_FLOOR))


class Piece(NamedTuple):
    """A word, a character or a token, when it ends and when it starts, s; None where unknown."""

    text: str
    end_s: float | None = None
    start_s: float | None = None


def joined(pieces: Iterable[Piece]) -> str:
    """The text of the pieces. Where spaces stand in them, those are all there are; else one stands
    between words, and none in scripts that are written without."""
    texts = [piece.text for piece in pieces]
    if any(text != text.strip() for text in texts):
        return "".join(texts).strip()
    return join_unspaced(" ".join(texts))


def timed(text: str, scores: Mapping[str, float], pieces: Iterable[Piece]) -> Hypothesis:
    """The hypothesis with the times of its whitespace-separated words, s to a microsecond; without
    them where the pieces do not tell.

    They tell them where their letters and digits, in order, are those of the text: a word starts
    with the piece that holds its first one and ends with that of its last, and a piece that reaches
    into the next word tells nothing. Or where there are as many as words. Services give the times
    of the spoken words ("two forty"), but may write "2:40".
    """
    words, pieces = text.split(), list(pieces)
    starts, ends = [piece.start_s for piece in pieces], [piece.end_s for piece in pieces]
    letters = [_letters(piece.text) for piece in pieces]
    if pieces and "".join(letters) == _letters(text):
        piece_bounds = [0, *accumulate(map(len, letters))]
        word_bounds = [0, *accumulate(len(_letters(word)) for word in words)]
        spoken = [place for place, own in enumerate(letters) if own]
        start_at = {piece_bounds[place]: starts[place] for place in spoken}
        end_at = {piece_bounds[place + 1]: ends[place] for place in spoken}
        starts = [start_at.get(n) for n in word_bounds[:-1]]
        ends = [end_at.get(n) for n in word_bounds[1:]]
    ends_s, starts_s = _in_order(ends, len(words)), _in_order(starts, len(words))
    if ends_s and starts_s and any(s > e for s, e in zip(starts_s, ends_s, strict=True)):
        starts_s = None
    return Hypothesis(text, scores, word_ends_s=ends_s, word_starts_s=starts_s)


def _in_order(times: Sequence[float | None], n_words: int) -> tuple[float, ...] | None:
    """Times of words, where there is one for each, none is negative and none decreases."""
    known = tuple(round(time, 6) for time in times if time is not None)
    if not known or not len(known) == len(times) == n_words or known[0] < 0:
        return None
    return None if any(later < earlier for earlier, later in pairwise(known)) else known


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
