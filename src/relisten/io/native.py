"""The native format: one utterance as one JSON line, there and back.

A line holds `id`, and where known `audio` (relative to the file), `start_s`, `duration_s`,
`reference`, `context` and `hypotheses`; a hypothesis holds `text`, and where known `word_ends_s`,
`scores`, `first_pass_rank`, `posterior`, `word_confidence`. A manifest line has no hypotheses yet.
Unknown keys are carried through unchanged. Numbers of known keys are written with at most 6
decimals (a millionth of a nat, a microsecond), so a native line is read and written again as the
same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from relisten.core.types import FORMER_NAMES, FormatError, Hypothesis, NBest

_UTTERANCE_KEYS = ("id", "audio", "start_s", "duration_s", "reference", "context", "hypotheses")
_HYPOTHESIS_KEYS = (
    "text",
    "word_ends_s",
    "scores",
    "first_pass_rank",
    "posterior",
    "word_confidence",
)


def read_native(path: Path) -> Iterator[NBest]:
    """The utterances of a native file, one at a time; see `relisten.io.nbest.read_nbest`."""
    try:
        with open(path, "rb") as file:
            yield from read_lines(file, str(path))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error


def read_lines(lines: Iterable[bytes], name: str) -> Iterator[NBest]:
    """The utterances of the lines of the file `name`; blank lines are skipped.

    Raises FormatError with file, line and id, also for an id that occurs twice. The ids are kept
    for that: some 130 bytes each.
    """
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        nbest = line_to_nbest(line, f"{name}:{number}")
        if nbest.id in seen:
            raise FormatError(
                f"{name}:{number} '{nbest.id}': this id occurs twice; give each utterance its own"
            )
        seen.add(nbest.id)
        yield nbest


def nbest_to_line(nbest: NBest) -> bytes:
    """One UTF-8 JSON line, newline included; keys in the order of the format, unknown ones last."""
    where = f"'{nbest.id}'"
    record: dict[str, Any] = {"id": nbest.id}
    if nbest.audio is not None:
        record["audio"] = nbest.audio
    if start_s := _rounded(nbest.start_s, where):
        record["start_s"] = start_s
    if nbest.duration_s is not None:
        record["duration_s"] = _rounded(nbest.duration_s, where)
    if nbest.reference is not None:
        record["reference"] = nbest.reference
    if nbest.context is not None:
        record["context"] = nbest.context
    record.update(nbest.extra)
    if nbest.hypotheses:
        record["hypotheses"] = [_hypothesis_record(h, where) for h in nbest.hypotheses]
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{where}: an unknown key holds what is not JSON ({error})") from error
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair: only an escape can carry it
        return json.dumps(record).encode() + b"\n"


def _hypothesis_record(hypothesis: Hypothesis, where: str) -> dict[str, Any]:
    record: dict[str, Any] = {"text": hypothesis.text}
    if hypothesis.word_ends_s is not None:
        record["word_ends_s"] = [_rounded(end, where) for end in hypothesis.word_ends_s]
    if hypothesis.scores:
        record["scores"] = {name: _rounded(s, where) for name, s in hypothesis.scores.items()}
    if hypothesis.first_pass_rank is not None:
        record["first_pass_rank"] = hypothesis.first_pass_rank
    if hypothesis.posterior is not None:
        record["posterior"] = _rounded(hypothesis.posterior, where)
    if hypothesis.word_confidence is not None:
        record["word_confidence"] = [_rounded(one, where) for one in hypothesis.word_confidence]
    record.update(hypothesis.extra)
    return record


def _rounded(number: float, where: str) -> float:
    if not math.isfinite(number):
        raise FormatError(f"{where}: cannot write {number}; scores and times are finite numbers")
    return round(float(number), 6) + 0.0  # + 0.0 turns -0.0 into 0.0


def line_to_nbest(line: bytes, where: str) -> NBest:
    """The utterance of one JSON line. Raises FormatError that begins with `where`."""
    not_numbers: list[str] = []  # NaN and Infinity: Python reads them, JSON has none

    def note(name: str) -> float:
        not_numbers.append(name)
        return float(name)

    try:
        record = json.loads(line.decode(), parse_constant=note)
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: is not UTF-8 ({error.reason}); convert the file") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{where}: is not one JSON object ({error}); truncated? Write the file again"
        ) from error
    if not isinstance(record, dict) or "id" not in record:
        raise FormatError(f"{where}: has no 'id'; every line is an object with at least an id")
    if not isinstance(record["id"], str) or not record["id"]:
        raise FormatError(f"{where}: id is {record['id']!r}; it must be a text, not empty")
    where = f"{where} '{record['id']}'"
    hypotheses = record.get("hypotheses") or []
    if not isinstance(hypotheses, list):
        raise FormatError(f"{where}: hypotheses is {type(hypotheses).__name__}; it must be a list")
    nbest = NBest(
        id=record["id"],
        hypotheses=tuple(
            _to_hypothesis(item, f"{where}: hypothesis {n}") for n, item in enumerate(hypotheses, 1)
        ),
        audio=_text_or_none(record, "audio", where),
        start_s=_seconds_or_none(record, "start_s", where) or 0.0,
        duration_s=_seconds_or_none(record, "duration_s", where),
        reference=_text_or_none(record, "reference", where),
        context=_text_or_none(record, "context", where),
        extra=_unknown(record, _UTTERANCE_KEYS),
    )
    if not_numbers:
        raise FormatError(f"{where}: holds {not_numbers[0]}, which JSON does not know; drop it")
    return nbest


def _to_hypothesis(item: object, where: str) -> Hypothesis:
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise FormatError(
            f"{where}: has no 'text'; write it as an object with a text, \"\" if empty"
        )
    scores = item.get("scores") or {}
    if not isinstance(scores, dict):
        raise FormatError(f"{where}: scores is {scores!r}; it must map component to number")
    for name, score in scores.items():
        if not _is_number(score):
            raise FormatError(
                f"{where}: score {name!r} is {score!r}; re-export it or drop the hypothesis"
            )
    rank = item.get("first_pass_rank")
    if rank is not None and (type(rank) is not int or rank < 0):
        raise FormatError(f"{where}: first_pass_rank is {rank!r}; it must be 0, 1, 2, …")
    return Hypothesis(
        text=item["text"],
        scores={FORMER_NAMES.get(name, name): float(score) for name, score in scores.items()},
        word_ends_s=_word_ends(item, where),
        first_pass_rank=rank,
        extra=_unknown(item, _HYPOTHESIS_KEYS),
        posterior=_posterior(item, where),
        word_confidence=_word_confidence(item, where),
    )


def _posterior(item: Mapping[str, Any], where: str) -> float | None:
    posterior = item.get("posterior")
    if posterior is None:
        return None
    if not _is_probability(posterior):
        raise FormatError(f"{where}: posterior is {posterior!r}; it must be from 0 to 1")
    return float(posterior)


def _word_confidence(item: Mapping[str, Any], where: str) -> tuple[float, ...] | None:
    confidence = item.get("word_confidence")
    if confidence is None:
        return None
    n_words = len(item["text"].split())
    if (
        not isinstance(confidence, list)
        or len(confidence) != n_words
        or not all(map(_is_probability, confidence))
    ):
        raise FormatError(
            f"{where}: word_confidence is {confidence!r}; it must be {n_words} numbers from 0 to 1,"
            " one for each whitespace-separated word of the text"
        )
    return tuple(map(float, confidence))


def _word_ends(item: Mapping[str, Any], where: str) -> tuple[float, ...] | None:
    ends = item.get("word_ends_s")
    if ends is None:
        return None
    if not isinstance(ends, list) or not all(_is_number(end) for end in ends):
        raise FormatError(f"{where}: word_ends_s is {ends!r}; it must be a list of seconds")
    n_words = len(item["text"].split())
    if len(ends) != n_words:
        raise FormatError(
            f"{where}: {len(ends)} word ends for {n_words} words; give one for each "
            "whitespace-separated word of the text, or none at all"
        )
    if any(later < earlier for earlier, later in pairwise(ends)):
        raise FormatError(
            f"{where}: word_ends_s decreases; words end in the order in which they are spoken"
        )
    return tuple(float(end) for end in ends)


def _text_or_none(record: Mapping[str, Any], key: str, where: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"{where}: {key} is {value!r}; it must be a text")
    return value


def _seconds_or_none(record: Mapping[str, Any], key: str, where: str) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    if not _is_number(value) or value < 0:
        raise FormatError(f"{where}: {key} is {value!r}; it must be seconds, 0 or more")
    return float(value)


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer beyond 1e308
        return False


def _is_probability(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _unknown(record: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in known}
