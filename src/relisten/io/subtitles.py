"""Subtitles: SubRip (SRT) and WebVTT."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from relisten.core.types import UsageError


@dataclass(frozen=True, slots=True)
class Cue:
    """A span of a recording and the text shown with it; times in seconds from its start."""

    start_s: float
    end_s: float
    text: str
    speaker: str | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.start_s <= self.end_s < math.inf):
            raise UsageError(
                f"a subtitle cannot run from {self.start_s} s to {self.end_s} s: {self.text!r}"
            )


_ARROW = re.compile("--+>")
"""SRT has no escapes: within a text a player would take this for a line of times."""


def to_srt(cues: Iterable[Cue]) -> str:
    """The cues as SRT, in their order, a speaker's name before the text; those without text show
    nothing and are left out."""
    blocks = [
        f"{n}\n{_clock(s.start_s, ',')} --> {_clock(s.end_s, ',')}\n"
        + _ARROW.sub("->", f"{_line(s.speaker)}: {text}" if s.speaker else text)
        + "\n"
        for n, (s, text) in enumerate(_shown(cues), 1)
    ]
    return "\n".join(blocks)


def to_vtt(cues: Iterable[Cue]) -> str:
    """The cues as WebVTT, with the characters escaped that would be markup."""
    blocks = [
        f"{_clock(s.start_s, '.')} --> {_clock(s.end_s, '.')}\n"
        + (f"<v {_escaped(_line(s.speaker))}>" if s.speaker else "")
        + _escaped(text)
        + "\n"
        for s, text in _shown(cues)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _line(name: str) -> str:
    return " ".join(name.split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shown(cues: Iterable[Cue]) -> Iterable[tuple[Cue, str]]:
    """The cues that have a text; its empty lines are dropped, since one would end the cue."""
    for cue in cues:
        if text := "\n".join(filter(None, map(str.strip, cue.text.splitlines()))):
            yield cue, text


def _clock(seconds: float, decimal_mark: str) -> str:
    """01:02:03.004, rounded to the millisecond."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{decimal_mark}{milliseconds % 1000:03}"
    )
