"""The transcript of a recording: its segments, and every form in which it is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from relisten.core.types import Hypothesis, NBest
from relisten.io.subtitles import Cue, to_srt, to_vtt
from relisten.tasks.cues import CueOptions, to_cues


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a recording: its hypotheses, merged and scored, the chosen one first.

    start_s, end_s: in the recording; the hypotheses' word ends count from start_s.
    """

    start_s: float
    end_s: float
    nbest: NBest

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
            cue
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
    """One recording: its segments, and the seconds that each stage of the work took."""

    audio: str
    duration_s: float
    segments: tuple[Segment, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The chosen words of the whole recording."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def first_pass_text(self) -> str:
        """The first pass's words of the whole recording."""
        return " ".join(s.first_pass_text for s in self.segments if s.first_pass_text)

    def to_json(self) -> dict[str, object]:
        """The transcript as `--format json` writes it."""
        return {
            "audio": self.audio,
            "duration_s": round(self.duration_s, 3),
            "first_pass_text": self.first_pass_text,
            "text": self.text,
            "segments": [segment.to_json() for segment in self.segments],
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }

    def to_srt(self, options: CueOptions = CueOptions()) -> str:
        """The transcript as SubRip subtitles."""
        return to_srt(cue for segment in self.segments for cue in segment.cues(options))

    def to_vtt(self, options: CueOptions = CueOptions()) -> str:
        """The transcript as WebVTT subtitles."""
        return to_vtt(cue for segment in self.segments for cue in segment.cues(options))


def render(transcripts: Sequence[Transcript], format: str, cues: CueOptions = CueOptions()) -> str:
    """The transcripts as text (a line each), json (a line each), or srt or vtt (of one)."""
    if format == "text":
        return "".join(f"{transcript.text}\n" for transcript in transcripts)
    if format == "json":
        lines = (json.dumps(one.to_json(), ensure_ascii=False) for one in transcripts)
        return "".join(f"{line}\n" for line in lines)
    written = (one.to_srt(cues) if format == "srt" else one.to_vtt(cues) for one in transcripts)
    return "".join(written)
