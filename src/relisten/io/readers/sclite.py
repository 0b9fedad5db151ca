"""The layouts of NIST's scoring tools, for texts of recognisers and for references: trn, ctm, stm.

`;;` begins a comment. Source: the manual of SCTK, "Input file formats" (infmts).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

from relisten.core.types import FormatError, Hypothesis, NBest, Refusal
from relisten.io.readers.common import attempt, number
from relisten.io.readers.tables import lines_of

_IGNORED = "ignore_time_segment_in_scoring"
_TRN = re.compile(r"(.*)\(([^()\s]+)\)\s*")


def recognise_sclite(path: Path) -> str | None:
    """`trn`, `ctm` or `stm` where the first line that is no comment has that layout."""
    line = next((line for _, line in _content(path)), "")
    fields = line.split()
    if len(fields) >= 5 and _are_numbers(fields[3:5]):
        return "stm"
    if len(fields) in (5, 6) and _are_numbers(fields[2:4]):
        return "ctm"
    return "trn" if _TRN.fullmatch(line) else None


def read_trn(path: Path) -> Iterator[NBest | Refusal]:
    """Lines `text (id)`: one text each, without a score."""
    for n, line in _content(path):
        yield attempt(f"line {n}", path, partial(_trn_utterance, line, f"{path}:{n}"))


def _trn_utterance(line: str, where: str) -> NBest:
    match = _TRN.fullmatch(line)
    if match is None:
        raise FormatError(f"{where}: does not end with its id in brackets: {line[-40:]!r}")
    return NBest(match[2], (Hypothesis(match[1].strip()),))


def read_ctm(path: Path) -> Iterator[NBest | Refusal]:
    """Lines `recording channel start duration word`, maybe with a confidence, which is no score.

    The words of one channel of a recording are one text; it is called after the recording, and
    also after the channel where there are several.
    """
    lines: dict[tuple[str, str], list[tuple[int, list[str]]]] = {}
    for n, line in _content(path):
        fields = line.split()
        lines.setdefault((fields[0], [*fields, ""][1]), []).append((n, fields))
    n_channels = Counter(recording for recording, _ in lines)
    for (recording, channel), own in lines.items():
        utterance_id = recording if n_channels[recording] == 1 else f"{recording}-{channel}"
        yield attempt(utterance_id, path, partial(_ctm_utterance, utterance_id, own, path))


def _ctm_utterance(utterance_id: str, lines: list[tuple[int, list[str]]], path: Path) -> NBest:
    words = []
    for n, fields in lines:
        where = f"{path}:{n} '{utterance_id}'"
        if len(fields) not in (5, 6):
            raise FormatError(
                f"{where}: has {len(fields)} columns; it must have recording, channel, start, "
                "duration, word, and maybe a confidence"
            )
        start_s = number(fields[2], "start", where)
        words.append((start_s, start_s + number(fields[3], "duration", where), fields[4]))
    words.sort(key=lambda word: word[0])
    starts_s, ends_s, texts = zip(*words, strict=True)
    if starts_s[0] < 0:
        raise FormatError(f"{path}: '{utterance_id}': a word starts at {starts_s[0]} s")
    # Words may overlap; ends that we keep are in order.
    hypothesis = Hypothesis(
        " ".join(texts), word_ends_s=tuple(accumulate(ends_s, max)), word_starts_s=starts_s
    )
    return NBest(
        utterance_id,
        (hypothesis,),
        extra={"recording": lines[0][1][0], "channel": lines[0][1][1]},
    )


def read_stm(path: Path) -> Iterator[NBest | Refusal]:
    """Lines `recording channel speaker start end <label> text`: references, the label optional.

    One utterance a line, numbered behind its recording where that has several. What is to be
    ignored is no utterance; alternatives in braces are refused, since one would have to be chosen.
    """
    segments = stm_segments(path)
    n_of = Counter(s.recording for s in segments if not s.is_ignored)
    numbers: Counter[str] = Counter()
    for segment in segments:
        if segment.is_ignored:
            continue
        numbers[segment.recording] += 1
        utterance_id = segment.recording
        if n_of[segment.recording] > 1:
            utterance_id += f"-{numbers[segment.recording]:04d}"
        if re.search(r"\{.*/.*\}", segment.text):
            reason = (
                f"{path}: '{utterance_id}': has alternatives in braces; write the one that counts"
            )
            yield Refusal(utterance_id, reason)
            continue
        yield NBest(
            utterance_id,
            start_s=segment.start_s,
            duration_s=max(segment.end_s - segment.start_s, 0.0),
            reference=segment.text,
            extra={
                "recording": segment.recording,
                "channel": segment.channel,
                "speaker": segment.speaker,
            },
        )


@dataclass(frozen=True, slots=True)
class StmSegment:
    """A line of an stm."""

    recording: str
    channel: str
    speaker: str
    start_s: float
    end_s: float
    text: str

    @property
    def is_ignored(self) -> bool:
        """Whether scoring leaves it out, with all that was recognised in it."""
        return self.text.casefold().replace(" ", "_") == _IGNORED


def stm_segments(path: Path) -> list[StmSegment]:
    """The lines of an stm, those to be ignored too. Raises FormatError where one does not fit."""
    segments = []
    for n, line in _content(path):
        fields = line.split()
        where = f"{path}:{n}"
        if len(fields) < 5:
            raise FormatError(
                f"{where}: has {len(fields)} columns; it must have recording, channel, speaker, "
                "start, end, and the text"
            )
        start_s, end_s = (number(one, "time", where) for one in fields[3:5])
        words = fields[5:]
        if words and words[0].startswith("<") and words[0].endswith(">"):
            words = words[1:]
        segments.append(StmSegment(*fields[:3], start_s, end_s, " ".join(words)))
    return segments


def _content(path: Path) -> Iterator[tuple[int, str]]:
    return ((n, line) for n, line in lines_of(path) if not line.lstrip().startswith(";;"))


def _are_numbers(fields: list[str]) -> bool:
    try:
        return all(float(field) >= 0 for field in fields)
    except ValueError:
        return False
