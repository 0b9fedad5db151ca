"""Subtitle cues: a segment of speech, cut where its words end into pieces short enough to read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from relisten.io.subtitles import Cue

_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！", "।", "؟")


@dataclass(frozen=True, slots=True)
class CueOptions:
    """How much a cue may hold, and how long it is shown; the defaults follow common guidelines."""

    max_s: float = 6.0
    min_s: float = 1.0
    """Unless the next cue or the end of the segment comes before."""
    max_line_chars: int = 42
    max_lines: int = 2
    max_pause_s: float = 1.0
    """A longer pause separates two cues."""


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
) -> list[Cue]:
    """Cues that hold the words of `text`, in order, from start_s to end_s of the recording.

    word_ends_s: when each word ends, from start_s on; without it the segment is one cue. A cue ends
    with a sentence, before a pause, and before the word that would make it too long. Where it
    starts behind a pause follows from the end of its first word and the time that takes to say.
    """
    words = text.split()
    if not words:
        return []
    if word_ends_s is None or len(word_ends_s) != len(words):
        return [Cue(start_s, end_s, text)]
    ends_s = [min(start_s + max(end, 0.0), end_s) for end in word_ends_s]
    cues: list[Cue] = []
    held: list[_Piece] = []
    for piece in _pieces(words, ends_s, start_s, options):
        if held and _is_full(held, piece, options):
            cues.append(_cue(held, options))
            held = []
        held.append(piece)
    cues.append(_cue(held, options))
    latest = [following.start_s for _, following in pairwise(cues)] + [end_s]
    return [
        replace(cue, end_s=max(cue.end_s, min(cue.start_s + options.min_s, limit)))
        for cue, limit in zip(cues, latest, strict=True)
    ]


def _pieces(
    words: Sequence[str], ends_s: Sequence[float], last_s: float, options: CueOptions
) -> Iterator[_Piece]:
    for word, end_s in zip(words, ends_s, strict=True):
        word_start_s = max(last_s, end_s - _longest_s(word))
        if len(word) <= options.max_line_chars:
            yield _Piece(" " + word, word_start_s, end_s)
        else:  # a script without spaces: its characters share the time
            step_s = (end_s - word_start_s) / len(word)
            for n, character in enumerate(word):
                first_s = word_start_s + n * step_s
                yield _Piece(character if n else " " + character, first_s, first_s + step_s)
        last_s = end_s


def _longest_s(word: str) -> float:
    """The time that a word takes where it is said slowly: 10 characters a second, and 0.2 s."""
    return 0.2 + 0.1 * len(word)


def _is_full(held: Sequence[_Piece], piece: _Piece, options: CueOptions) -> bool:
    """Whether a cue ends before this piece."""
    start_s, last_s = held[0].start_s, held[-1].end_s
    ends_sentence = held[-1].text.endswith(_SENTENCE_ENDS) and last_s - start_s >= options.min_s
    return (
        ends_sentence
        or piece.start_s - last_s > options.max_pause_s
        or piece.end_s - start_s > options.max_s
        or len(_lines([*held, piece], options)) > options.max_lines
    )


def _cue(held: Sequence[_Piece], options: CueOptions) -> Cue:
    return Cue(held[0].start_s, held[-1].end_s, "\n".join(_lines(held, options)))


def _lines(held: Sequence[_Piece], options: CueOptions) -> list[str]:
    text = "".join(piece.text for piece in held)
    return textwrap.wrap(text.strip(), options.max_line_chars, break_on_hyphens=False)
