"""Subtitle cues: a segment of speech, cut where its words end into pieces short enough to read."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from relisten.core.types import UsageError
from relisten.io.subtitles import Cue
from relisten.speech.alignment import longest_word_s

_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！", "।", "؟")


@dataclass(frozen=True, slots=True)
class CueOptions:
    """How much a cue may hold, and how long it is shown; the defaults follow common guidelines."""

    max_cue_s: float = 6.0
    min_cue_s: float = 1.0
    """Unless the next cue or the end of the segment comes before."""
    line_width: int = 42
    """Characters."""
    cue_lines: int = 2
    max_pause_s: float = 1.0
    """A longer pause separates two cues."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_cue_s <= self.max_cue_s < math.inf or not self.max_cue_s:
            raise UsageError(
                f"cues of {self.min_cue_s:g} to {self.max_cue_s:g} s: the shortest is 0 or more, "
                "the longest above 0 and not below it"
            )
        if self.line_width < 1 or self.cue_lines < 1:
            raise UsageError(
                f"{self.cue_lines} lines of {self.line_width} characters: a cue holds 1 or more"
            )


@dataclass(frozen=True, slots=True)
class _Piece:
    """A word, or a character of one that is longer than a line, with the space before it."""

    text: str
    start_s: float
    end_s: float


def to_cues(
    text: str,
    word_ends_s: Sequence[float] | None,
    start_s: float,
    end_s: float,
    options: CueOptions = CueOptions(),
    word_starts_s: Sequence[float] | None = None,
) -> list[Cue]:
    """Cues that hold the words of `text`, in order, from start_s to end_s of the recording.

    word_ends_s, word_starts_s: when each word ends and starts, from start_s on. Without ends the
    segment is one cue; without starts a word takes as long as a slow speaker needs for it, or less.
    A cue ends with a sentence, before a pause, and before the word that would make it too long.
    """
    words = text.split()
    if not words:
        return []
    if word_ends_s is None or len(word_ends_s) != len(words):
        return [Cue(start_s, end_s, text)]
    ends_s = [min(start_s + max(end, 0.0), end_s) for end in word_ends_s]
    if word_starts_s is None or len(word_starts_s) != len(words):
        before_s = [start_s, *ends_s[:-1]]
        starts_s = [
            max(before, end - longest_word_s(word))
            for word, before, end in zip(words, before_s, ends_s, strict=True)
        ]
    else:
        starts_s = [min(start_s + max(start, 0.0), end_s) for start in word_starts_s]
    cues: list[Cue] = []
    held: list[_Piece] = []
    for piece in _pieces(words, starts_s, ends_s, options):
        if held and _is_full(held, piece, options):
            cues.append(_cue(held, options))
            held = []
        held.append(piece)
    cues.append(_cue(held, options))
    latest = [following.start_s for _, following in pairwise(cues)] + [end_s]
    return [
        replace(cue, end_s=_end_s(cue, limit, options))
        for cue, limit in zip(cues, latest, strict=True)
    ]


def _end_s(cue: Cue, limit_s: float, options: CueOptions) -> float:
    """No later than a cue may stand: one word may seem to last for many seconds."""
    at_least_s = min(cue.start_s + options.min_cue_s, limit_s)
    return min(max(cue.end_s, at_least_s), cue.start_s + options.max_cue_s)


def _pieces(
    words: Sequence[str], starts_s: Sequence[float], ends_s: Sequence[float], options: CueOptions
) -> Iterator[_Piece]:
    for word, start_s, end_s in zip(words, starts_s, ends_s, strict=True):
        if len(word) <= options.line_width:
            yield _Piece(" " + word, start_s, end_s)
        else:  # a script without spaces: its characters share the time
            step_s = (end_s - start_s) / len(word)
            for n, character in enumerate(word):
                first_s = start_s + n * step_s
                yield _Piece(character if n else " " + character, first_s, first_s + step_s)


def _is_full(held: Sequence[_Piece], piece: _Piece, options: CueOptions) -> bool:
    """Whether a cue ends before this piece."""
    start_s, last_s = held[0].start_s, held[-1].end_s
    ends_sentence = held[-1].text.endswith(_SENTENCE_ENDS) and last_s - start_s >= options.min_cue_s
    return (
        ends_sentence
        or piece.start_s - last_s > options.max_pause_s
        or piece.end_s - start_s > options.max_cue_s
        or len(_lines([*held, piece], options)) > options.cue_lines
    )


def _cue(held: Sequence[_Piece], options: CueOptions) -> Cue:
    return Cue(held[0].start_s, held[-1].end_s, "\n".join(_lines(held, options)))


def _lines(held: Sequence[_Piece], options: CueOptions) -> list[str]:
    text = "".join(piece.text for piece in held)
    return textwrap.wrap(text.strip(), options.line_width, break_on_hyphens=False)
