"""Subtitle cues: a segment of speech, cut where its words end into pieces short enough to read."""

from __future__ import annotations

from collections.abc import Sequence

from relisten.io.subtitles import Cue

MAX_CUE_S = 6.0
MAX_CUE_CHARS = 84
"""Two lines of 42 characters, what subtitle guidelines allow."""


def to_cues(
    text: str, word_ends_s: Sequence[float] | None, start_s: float, end_s: float
) -> list[Cue]:
    """Cues that hold the words of `text`, in order, from start_s to end_s of the recording.

    word_ends_s: when each word ends, from start_s on; without it the segment is one cue. A cue ends
    before the word that would make it longer than `MAX_CUE_S` or `MAX_CUE_CHARS`.
    """
    words = text.split()
    if not words:
        return []
    if word_ends_s is None or len(word_ends_s) != len(words):
        return [Cue(start_s, end_s, text)]
    cues: list[Cue] = []
    held: list[str] = []
    cue_start_s = last_s = start_s
    for word, word_end in zip(words, word_ends_s, strict=True):
        word_end_s = min(start_s + word_end, end_s)
        is_long = len(" ".join([*held, word])) > MAX_CUE_CHARS
        if held and (is_long or word_end_s - cue_start_s > MAX_CUE_S):
            cues.append(Cue(cue_start_s, last_s, " ".join(held)))
            held, cue_start_s = [], last_s
        held.append(word)
        last_s = word_end_s
    return [*cues, Cue(cue_start_s, last_s, " ".join(held))]
