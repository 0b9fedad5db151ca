"""Recordings in, the better transcript out: first pass, listen again, choose."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from relisten.core.biasing import Biasing, Phrase
from relisten.core.combine import merge_hypotheses, with_context
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import TEXT, AudioError, Hypothesis, NBest
from relisten.io.audio import load_audio
from relisten.io.subtitles import Segment, to_srt, to_vtt
from relisten.speech.features import RATE_HZ
from relisten.speech.first_pass import FirstPass, Listening, load_first_pass
from relisten.speech.segmentation import split_audio
from relisten.tasks.bias import read_phrases
from relisten.tasks.cues import to_cues
from relisten.tasks.defaults import MODEL
from relisten.tasks.loading import LoadedRescorer, load_rescorer
from relisten.tasks.rescore import rank
from relisten.tasks.score import add_scores
from relisten.tasks.streams import Refusal, Tick, all_accepted, no_tick

CHUNK_SIZE = 8
"""Stretches heard at once."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a recording: its hypotheses, merged and scored, the chosen one first.

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
        """What the first pass alone would have said."""
        first = [h.text for h in self.nbest.hypotheses if h.first_pass_rank == 0]
        return first[0] if first else ""

    def to_json(self) -> dict[str, object]:
        """The stretch as a segment of the JSON; times of words count from the recording's start."""
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
        if chosen.word_ends_s is not None:
            for word, end_s in zip(words, chosen.word_ends_s, strict=True):
                word["end_s"] = round(self.start_s + end_s, 3)
        if chosen.word_confidence is not None:
            for word, confidence in zip(words, chosen.word_confidence, strict=True):
                word["confidence"] = round(confidence, 3)
        return words


@dataclass(frozen=True, slots=True)
class Transcript:
    """One recording: its stretches, and the seconds that each stage of the work took."""

    audio: str
    duration_s: float
    stretches: tuple[Stretch, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The chosen words of the whole recording."""
        return " ".join(stretch.text for stretch in self.stretches if stretch.text)

    @property
    def first_pass_text(self) -> str:
        """The first pass's words of the whole recording."""
        return " ".join(s.first_pass_text for s in self.stretches if s.first_pass_text)

    def to_json(self) -> dict[str, object]:
        """The transcript as `--format json` writes it."""
        return {
            "audio": self.audio,
            "duration_s": round(self.duration_s, 3),
            "first_pass_text": self.first_pass_text,
            "text": self.text,
            "segments": [stretch.to_json() for stretch in self.stretches],
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }


def transcribe(
    audio: Sequence[str],
    model: str = MODEL,
    first_pass: str | None = None,
    language: str = "en",
    beam: int = 10,
    n_best: int = 10,
    phrases: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    tick: Tick = no_tick,
) -> tuple[list[Transcript], tuple[Refusal, ...]]:
    """The transcripts of recordings, and the recordings that cannot be read.

    first_pass: by default the one that the model's weights are for. phrases: a file of phrases that
    are likely to be said, one a line. dtype int8 is for the first pass alone.
    Raises AudioError where none can be read.
    """
    expected = read_phrases(phrases) if phrases else ()
    rescorer = load_rescorer(model, device, "auto" if dtype == "int8" else dtype)
    recogniser = load_first_pass(first_pass or rescorer.first_pass, device, dtype, language)
    transcripts: list[Transcript] = []
    refused: list[Refusal] = []
    for path in audio:
        try:
            transcripts.append(transcribe_one(path, recogniser, rescorer, beam, n_best, expected))
        except AudioError as error:
            refused.append(Refusal(path, str(error)))
        tick(1)
    if not transcripts:
        raise AudioError(refused[0].reason)
    return transcripts, tuple(refused)


def transcribe_one(
    path: str,
    first_pass: FirstPass,
    rescorer: LoadedRescorer,
    beam: int = 10,
    n_best: int = 10,
    phrases: Sequence[Phrase] = (),
) -> Transcript:
    """The transcript of one recording of any length. Raises AudioError where it cannot be read.

    Recordings longer than the first pass hears at once are cut where they are quietest.
    phrases: those that are likely to be said.
    """
    biasing = Biasing(tuple(phrases), normaliser_named(rescorer.weights.normaliser))
    clock = _Clock()
    with clock("audio"):
        samples = load_audio(path)
        bounds = split_audio(samples, RATE_HZ, max_s=first_pass.max_duration_s)
    stretches: list[Stretch] = []
    for start in range(0, len(bounds), CHUNK_SIZE):
        some = bounds[start : start + CHUNK_SIZE]
        pieces = [samples[round(a * RATE_HZ) : round(b * RATE_HZ)] for a, b in some]
        with clock("first_pass"):
            listenings = first_pass.listen(pieces, beam=beam, n_best=n_best)
        ranked = _listen_again(clock, first_pass, rescorer, pieces, listenings, biasing)
        stretches += [Stretch(a, b, one) for (a, b), one in zip(some, ranked, strict=True)]
    return Transcript(path, len(samples) / RATE_HZ, tuple(stretches), clock.seconds)


def _listen_again(
    clock: _Clock,
    first_pass: FirstPass,
    rescorer: LoadedRescorer,
    pieces: Sequence[np.ndarray],
    listenings: Sequence[Listening],
    biasing: Biasing,
) -> list[NBest]:
    merged = [
        merge_hypotheses(NBest(str(i), listening.hypotheses), biasing.normalise)
        for i, listening in enumerate(listenings)
    ]
    if biasing.phrases:
        merged = [biasing.apply(utterance, inject=True) for utterance in merged]
    components = rescorer.weights.to_score
    speeches = [None] * len(pieces)
    if any(component != TEXT for component in components):
        with clock("units"):
            listener = rescorer.need_listener()
            is_heard = first_pass.encoder.id == listener.codebook.encoder_id
            frames = [listening.frames for listening in listenings] if is_heard else None
            speeches = listener.hear_for(components, pieces, frames)
    with clock("scores"):
        if components:
            merged = all_accepted(add_scores(rescorer, merged, speeches, components))
        return [rank(utterance, with_context(rescorer.weights)) for utterance in merged]


def render(transcripts: Sequence[Transcript], format: str) -> str:
    """The transcripts as text (a line each), json (a line each), or srt or vtt (of one)."""
    if format == "text":
        return "".join(f"{transcript.text}\n" for transcript in transcripts)
    if format == "json":
        lines = (json.dumps(one.to_json(), ensure_ascii=False) for one in transcripts)
        return "".join(f"{line}\n" for line in lines)
    write = to_srt if format == "srt" else to_vtt
    return write([cue for transcript in transcripts for cue in _cues(transcript)])


def _cues(transcript: Transcript) -> list[Segment]:
    return [
        cue
        for stretch in transcript.stretches
        for chosen in stretch.nbest.hypotheses[:1]
        for cue in to_cues(chosen.text, chosen.word_ends_s, stretch.start_s, stretch.end_s)
    ]


class _Clock:
    """Seconds spent under each name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
