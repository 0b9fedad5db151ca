"""The native format: one utterance as one JSON line, there and back.

A line holds `id`, and where known `audio` (relative to the file), `start_s`, `duration_s`,
`reference`, `context` and `hypotheses`; a hypothesis holds `text`, and where known `word_starts_s`,
`word_ends_s`, `scores`, `first_pass_rank`, `posterior`, `word_confidence`. A manifest line has no
hypotheses yet. Unknown keys are carried through unchanged. Numbers of known keys are written with
at most 6 decimals (a millionth of a nat, a microsecond), so a native line is read and written again
as the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from relisten.core.types import FORMER_NAMES, FormatError, Hypothesis, NBest, Refusal

CONTENT = ("hypotheses", "audio", "reference")
"""A line of ours holds at least one of these, unless nothing is known but where it lies."""
FOREIGN_TEXTS = ("text", "transcript", "transcription", "pred_text", "hypothesis", "hyp")
"""Keys of others that hold a text: beside nothing of ours it would be carried along unread."""
UTTERANCE_KEYS = ("id", "audio", "start_s", "duration_s", "reference", "context", "hypotheses")
HYPOTHESIS_KEYS = (
    "text",
    "word_starts_s",
    "word_ends_s",
    "scores",
    "first_pass_rank",
    "posterior",
    "word_confidence",
)
MOST_S = 10_000_000
"""Times beyond 115 days are no times of a recording; sample counts of them overflow."""
MOST_CHARACTERS = 1_000_000
"""Of a text: that is 18 hours of speech, and aligning two such texts takes days already."""


def read_lines(lines: Iterable[bytes], name: str) -> Iterator[NBest]:
    """The utterances of the lines of the file `name`; blank lines are skipped.

    Raises FormatError with file, line and id for the first line that does not fit.
    """
    for one in attempt_lines(lines, name):
        if isinstance(one, Refusal):
            raise FormatError(one.reason)
        yield one


def attempt_lines(lines: Iterable[bytes], name: str) -> Iterator[NBest | Refusal]:
    """As `read_lines`, but a line that does not fit is refused and the others are read.

    Refused is also an id that occurs twice. The ids are kept for that: some 130 bytes each.
    """
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            nbest = line_to_nbest(line, where)
        except FormatError as error:
            yield Refusal(where, str(error))
            continue
        if nbest.id in seen:
            reason = f"{where} '{nbest.id}': this id occurs twice; give each utterance its own"
            yield Refusal(nbest.id, reason)
            continue
        seen.add(nbest.id)
        yield nbest


def nbest_to_line(nbest: NBest) -> bytes:
    """One UTF-8 JSON line, newline included; keys in the order of the format, unknown ones last.

    Raises FormatError for whatever `line_to_nbest` would refuse, so that what is written is read.
    """
    where = f"'{nbest.id}'"
    record = _record(nbest, where)
    _utterance(record, "cannot be written:")
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{where}: an unknown key holds what is not JSON ({error})") from error
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair: only an escape can carry it
        return json.dumps(record).encode() + b"\n"


def _record(nbest: NBest, where: str) -> dict[str, Any]:
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
    record.update(_own_keys(nbest.extra, UTTERANCE_KEYS, where))
    if nbest.hypotheses:
        record["hypotheses"] = [_hypothesis_record(h, where) for h in nbest.hypotheses]
    return record


def _own_keys(extra: Mapping[str, Any], ours: Sequence[str], where: str) -> Mapping[str, Any]:
    if taken := extra.keys() & set(ours):
        raise FormatError(f"{where}: extra holds {min(taken)!r}, a key of the format; rename it")
    return extra


def _hypothesis_record(hypothesis: Hypothesis, where: str) -> dict[str, Any]:
    record: dict[str, Any] = {"text": hypothesis.text}
    if hypothesis.word_starts_s is not None:
        record["word_starts_s"] = [_rounded(start, where) for start in hypothesis.word_starts_s]
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
    record.update(_own_keys(hypothesis.extra, HYPOTHESIS_KEYS, where))
    return record


def _rounded(number: float, where: str) -> float:
    if not math.isfinite(number):
        raise FormatError(f"{where}: cannot write {number}; scores and times are finite numbers")
    return round(float(number), 6) + 0.0  # + 0.0 turns -0.0 into 0.0


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, as `object_pairs_hook` takes it. Raises ValueError for a key that occurs
    twice: which of its values counts, nobody can know."""
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in record if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return record


def line_to_nbest(line: bytes, where: str) -> NBest:
    """The utterance of one JSON line. Raises FormatError that begins with `where`."""
    not_numbers: list[str] = []  # NaN and Infinity: Python reads them, JSON has none

    def note(name: str) -> float:
        not_numbers.append(name)
        return float(name)

    try:
        record = json.loads(line.decode(), parse_constant=note, object_pairs_hook=unique_keys)
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: is not UTF-8 ({error.reason}); convert the file") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{where}: is not one JSON object ({error}); truncated? Write the file again"
        ) from error
    if not isinstance(record, dict) or "id" not in record:
        raise FormatError(f"{where}: has no 'id'; every line is an object with at least an id")
    nbest = _utterance(record, where)
    where = f"{where} '{nbest.id}'"
    if not_numbers:
        raise FormatError(f"{where}: holds {not_numbers[0]}, which JSON does not know; drop it")
    unread = next((key for key in FOREIGN_TEXTS if record.get(key)), None)
    if unread and not any(record.get(key) for key in CONTENT):
        raise FormatError(
            f"{where}: has a {unread!r} that is neither hypothesis nor reference; write it as "
            '"hypotheses": [{"text": …}] or as "reference"'
        )
    return nbest


def _utterance(record: Mapping[str, Any], where: str) -> NBest:
    """The utterance of an object with keys of the format. Raises FormatError for bad values."""
    if not isinstance(record["id"], str) or not record["id"]:
        raise FormatError(f"{where}: id is {record['id']!r}; it must be a text, not empty")
    where = f"{where} '{record['id']}'"
    hypotheses = record.get("hypotheses") or []
    if not isinstance(hypotheses, list):
        raise FormatError(f"{where}: hypotheses is {type(hypotheses).__name__}; it must be a list")
    return NBest(
        id=record["id"],
        hypotheses=tuple(
            _to_hypothesis(item, f"{where}: hypothesis {n}") for n, item in enumerate(hypotheses, 1)
        ),
        audio=_text_or_none(record, "audio", where),
        start_s=_seconds_or_none(record, "start_s", where) or 0.0,
        duration_s=_seconds_or_none(record, "duration_s", where),
        reference=_text_or_none(record, "reference", where),
        context=_text_or_none(record, "context", where),
        extra=_unknown(record, UTTERANCE_KEYS),
    )


def _to_hypothesis(item: object, where: str) -> Hypothesis:
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise FormatError(
            f"{where}: has no 'text'; write it as an object with a text, \"\" if empty"
        )
    if len(item["text"]) > MOST_CHARACTERS:
        raise FormatError(
            f"{where}: its text has {len(item['text']):,} characters; at most {MOST_CHARACTERS:,} "
            "are read, so cut the recording into segments"
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
    starts_s = _word_times(item, "word_starts_s", where)
    ends_s = _word_times(item, "word_ends_s", where)
    if starts_s and ends_s and any(s > e for s, e in zip(starts_s, ends_s, strict=True)):
        raise FormatError(f"{where}: a word starts after its end; correct the times or drop them")
    return Hypothesis(
        text=item["text"],
        scores={FORMER_NAMES.get(name, name): float(score) for name, score in scores.items()},
        word_ends_s=ends_s,
        first_pass_rank=rank,
        extra=_unknown(item, HYPOTHESIS_KEYS),
        posterior=_posterior(item, where),
        word_confidence=_word_confidence(item, where),
        word_starts_s=starts_s,
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


def _word_times(item: Mapping[str, Any], key: str, where: str) -> tuple[float, ...] | None:
    times = item.get(key)
    if times is None:
        return None
    if not isinstance(times, list) or not all(map(_is_seconds, times)):
        raise FormatError(
            f"{where}: {key} is {_short(times)}; it must be a list of seconds, 0 to {MOST_S:,}"
        )
    n_words = len(item["text"].split())
    if len(times) != n_words:
        raise FormatError(
            f"{where}: {len(times)} {key} for {n_words} words; give one for each "
            "whitespace-separated word of the text, or none at all"
        )
    if any(later < earlier for earlier, later in pairwise(times)):
        raise FormatError(f"{where}: {key} decreases; words come in the order of speaking")
    return tuple(map(float, times))


def _text_or_none(record: Mapping[str, Any], key: str, where: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"{where}: {key} is {value!r}; it must be a text")
    return value


def _seconds_or_none(record: Mapping[str, Any], key: str, where: str) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    if not _is_seconds(value):
        raise FormatError(
            f"{where}: {key} is {value!r}; it must be seconds, 0 or more, at most {MOST_S:,}"
        )
    return float(value)


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer beyond 1e308
        return False


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= MOST_S


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _is_probability(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _unknown(record: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in known}
