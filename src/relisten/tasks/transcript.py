"""The transcript of a recording: its segments, and every form in which it is written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from itertools import groupby

from relisten.core.types import Hypothesis, NBest
from relisten.io.subtitles import Cue, to_srt, to_vtt
from relisten.tasks.cues import CueOptions, to_cues


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a recording: its hypotheses, merged and scored, the chosen one first.

    start_s, end_s: in the recording; the hypotheses' word ends count from start_s. speaker: where a
    list of turns named one.
    """

    start_s: float
    end_s: float
    nbest: NBest
    speaker: str | None = None

    @property
    def text(self) -> str:
        """What was chosen."""
        return self.nbest.hypotheses[0].text if self.nbest.hypotheses else ""

    @property
    def first_pass_text(self) -> str:
        """What the first pass alone would have chosen."""
        first = [h.text for h in self.nbest.hypotheses if h.first_pass_rank == 0]
        return first[0] if first else ""

    def cues(self, options: CueOptions = CueOptions()) -> list[Cue]:
        """The chosen text as subtitles."""
        return [
            replace(cue, speaker=self.speaker)
            for h in self.nbest.hypotheses[:1]
            for cue in to_cues(
                h.text, h.word_ends_s, self.start_s, self.end_s, options, h.word_starts_s
            )
        ]

    def to_json(self) -> dict[str, object]:
        """The segment as in the JSON; times of words count from the recording's start."""
        return {
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            **({"speaker": self.speaker} if self.speaker else {}),
            "first_pass_text": self.first_pass_text,
            "text": self.text,
            "words": [word for chosen in self.nbest.hypotheses[:1] for word in self._words(chosen)],
        }

    def _words(self, chosen: Hypothesis) -> list[dict[str, object]]:
        texts = chosen.text.split()
        words: list[dict[str, object]] = [{"text": text} for text in texts]
        if chosen.word_starts_s is not None:
            for word, start_s in zip(words, chosen.word_starts_s, strict=True):
                word["start_s"] = round(self.start_s + start_s, 3)
        if chosen.word_ends_s is not None:
            for word, end_s in zip(words, chosen.word_ends_s, strict=True):
                word["end_s"] = round(self.start_s + end_s, 3)
        if chosen.word_confidence is not None:
            for word, confidence in zip(words, chosen.word_confidence, strict=True):
                word["confidence"] = round(confidence, 3)
        return words


@dataclass(frozen=True, slots=True)
class Transcript:
    """One recording, or one channel of it: the segments that hold speech, and the seconds that
    each stage of the work took."""

    audio: str
    duration_s: float
    segments: tuple[Segment, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    channel: str | None = None

    @property
    def label(self) -> str:
        """The recording's name, with its channel where that has a transcript of its own."""
        return f"{self.audio}#{self.channel}" if self.channel else self.audio

    @property
    def text(self) -> str:
        """The chosen words of the whole recording."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def first_pass_text(self) -> str:
        """The first pass's words of the whole recording."""
        return " ".join(s.first_pass_text for s in self.segments if s.first_pass_text)

    def to_text(self) -> str:
        """The chosen words in a line; where speakers are known, a line a turn, `Ann: Good day.`"""
        turns = groupby((one for one in self.segments if one.text), lambda one: one.speaker)
        lines = [(speaker, " ".join(one.text for one in its)) for speaker, its in turns]
        return "\n".join(f"{who}: {text}" if who else text for who, text in lines) + "\n"

    def to_json(self) -> dict[str, object]:
        """The transcript as `--format json` writes it."""
        return {
            "audio": self.audio,
            **({"channel": self.channel} if self.channel else {}),
            "duration_s": round(self.duration_s, 3),
            "first_pass_text": self.first_pass_text,
            "text": self.text,
            "segments": [segment.to_json() for segment in self.segments],
        }

    def to_srt(self, options: CueOptions = CueOptions()) -> str:
        """The transcript as SubRip subtitles."""
        return to_srt(cue for segment in self.segments for cue in segment.cues(options))

    def to_vtt(self, options: CueOptions = CueOptions()) -> str:
        """The transcript as WebVTT subtitles."""
        return to_vtt(cue for segment in self.segments for cue in segment.cues(options))

    def render(self, format: str, cues: CueOptions = CueOptions(), is_named: bool = False) -> str:
        """The transcript as text, json (a line), srt or vtt. is_named: lines of text begin with
        the recording's name and a tab."""
        if format == "json":
            return json.dumps(self.to_json(), ensure_ascii=False) + "\n"
        if format == "text":
            lines = self.to_text().splitlines() or [""]
            return "".join(f"{self.label}\t{line}\n" if is_named else f"{line}\n" for line in lines)
        return self.to_srt(cues) if format == "srt" else self.to_vtt(cues)
