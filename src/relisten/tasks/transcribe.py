"""Recordings in, the better transcript out: first pass, listen again, choose."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from relisten.core.biasing import Biasing, Phrase
from relisten.core.combine import Weights, merge_hypotheses, with_context
from relisten.core.pruning import prune_by_margin
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import (
    CTC,
    SPEECH_GIVEN_TEXT,
    TEXT,
    TEXT_GIVEN_SPEECH,
    AudioError,
    Hypothesis,
    NBest,
)
from relisten.io.audio import RATE_HZ, load_audio
from relisten.io.subtitles import Cue, to_srt, to_vtt
from relisten.lm.sequences import Speech
from relisten.speech.first_pass import DecodingOptions, FirstPass, FirstPassResult
from relisten.speech.load import load_first_pass
from relisten.speech.segmentation import split_audio
from relisten.tasks.bias import read_phrases
from relisten.tasks.cues import to_cues
from relisten.tasks.defaults import MODEL
from relisten.tasks.hypotheses.propose import Proposer, make_proposer
from relisten.tasks.loading import LoadedRescorer, load_rescorer
from relisten.tasks.rescore import rank
from relisten.tasks.score import add_scores
from relisten.tasks.streams import Refusal, Tick, all_accepted, no_tick

CHUNK_SIZE = 8
"""Segments heard at once."""
STAGES = ((CTC,), (TEXT, TEXT_GIVEN_SPEECH), (SPEECH_GIVEN_TEXT,))
"""Scores by what they cost. The last reads all units behind every text, and shares none of them."""
MARGIN = 8.0
"""Nats below the best by the scores known so far, beyond which a text gets no dearer ones. Of 1,240
lists with samples and finds (speechocean dev) it leaves 8.7 of 21.6 texts to `text`, and 99.2 % of
the choices: WER 22.31 instead of 22.35. For `speech_given_text` it was not measured."""


@dataclass(frozen=True, slots=True)
class Segment:
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


def transcribe(
    audio: Sequence[str],
    model: str = MODEL,
    first_pass: str | None = None,
    language: str = "en",
    beam: int = 10,
    n_best: int = 10,
    samples: int = 0,
    propose: int = 0,
    phrases: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    tick: Tick = no_tick,
) -> tuple[list[Transcript], tuple[Refusal, ...]]:
    """The transcripts of recordings, and the recordings that cannot be read.

    first_pass: by default the one that the model's weights are for. samples, propose: hypotheses
    that it draws, and that the model's CTC head finds, besides its beam. phrases: a file of phrases that
    are likely to be said, one a line.
    Raises AudioError where none can be read.
    """
    expected = read_phrases(phrases) if phrases else ()
    rescorer = load_rescorer(model, device, dtype)
    recogniser = load_first_pass(first_pass or rescorer.first_pass, device, dtype, language)
    options = DecodingOptions(beam, n_best, samples)
    transcripts: list[Transcript] = []
    refused: list[Refusal] = []
    for path in audio:
        try:
            one = transcribe_one(path, recogniser, rescorer, options, propose, expected)
            transcripts.append(one)
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
    options: DecodingOptions = DecodingOptions(),
    propose: int = 0,
    phrases: Sequence[Phrase] = (),
) -> Transcript:
    """The transcript of one recording of any length. Raises AudioError where it cannot be read.

    Recordings longer than the first pass hears at once are cut where they are quietest.
    options: of the first pass. propose: texts that the model's CTC head is to add. phrases: those
    that are likely to be said.
    """
    biasing = Biasing(tuple(phrases), normaliser_named(rescorer.weights.normaliser))
    proposer = make_proposer(rescorer.need_frontend(), propose) if propose else None
    again = _SecondPass(first_pass, rescorer, proposer, biasing, _Clock())
    clock = again.clock
    with clock("audio"):
        samples = load_audio(path)
        bounds = split_audio(samples, RATE_HZ, max_s=first_pass.max_duration_s)
    segments: list[Segment] = []
    for start in range(0, len(bounds), CHUNK_SIZE):
        some = bounds[start : start + CHUNK_SIZE]
        pieces = [samples[round(a * RATE_HZ) : round(b * RATE_HZ)] for a, b in some]
        with clock("first_pass"):
            decoded = first_pass.decode(pieces, options, timed=again.needs_word_ends)
        chosen = again.choose(pieces, decoded)
        segments += [Segment(a, b, one) for (a, b), one in zip(some, chosen, strict=True)]
    return Transcript(path, len(samples) / RATE_HZ, tuple(segments), clock.seconds)


@dataclass(frozen=True)
class _SecondPass:
    """Listens again to what a first pass made of pieces of a recording, and chooses."""

    first_pass: FirstPass
    rescorer: LoadedRescorer
    proposer: Proposer | None
    biasing: Biasing
    clock: _Clock

    @property
    def needs_word_ends(self) -> bool:
        """Whether all hypotheses need them, to be scored; else the chosen one's will do."""
        return TEXT_GIVEN_SPEECH in self.rescorer.weights.to_score

    def choose(
        self, pieces: Sequence[np.ndarray], decoded: Sequence[FirstPassResult]
    ) -> list[NBest]:
        """The hypotheses of each piece, the chosen one first, with its word ends."""
        components = self.rescorer.weights.to_score
        speeches: Sequence[Speech | None] = [None] * len(pieces)
        if self.proposer is not None or any(component != TEXT for component in components):
            asked = components if self.proposer is None else {*components, CTC}
            with self.clock("units"):
                frontend = self.rescorer.need_frontend()
                speeches = frontend.encode_decoded(self.first_pass, asked, pieces, decoded)
        lists = self._lists(pieces, decoded, speeches)
        with self.clock("scores"):
            weights = with_context(self.rescorer.weights)
            ranked = [rank(one, weights) for one in self._scored(lists, speeches, weights)]
        return self._timed(pieces, decoded, ranked)

    def _scored(
        self, lists: Sequence[NBest], speeches: Sequence[Speech | None], weights: Weights
    ) -> Sequence[NBest]:
        """With all scores that count, the cheap ones first; once what they cost grows with the
        list, only contenders get the dear ones."""
        unknown = set(weights.to_score)
        for stage in STAGES:
            asked = [component for component in stage if component in unknown]
            is_expensive = SPEECH_GIVEN_TEXT in asked or (
                self.proposer is not None and CTC not in asked
            )
            if asked and is_expensive:
                lists = [prune_by_margin(one, weights, MARGIN, unknown) for one in lists]
            if asked:
                lists = all_accepted(add_scores(self.rescorer, lists, speeches, asked))
            unknown.difference_update(asked)
        return lists

    def _lists(
        self,
        pieces: Sequence[np.ndarray],
        decoded: Sequence[FirstPassResult],
        speeches: Sequence[Speech | None],
    ) -> list[NBest]:
        """Merged lists: the first pass's, what the CTC head finds besides, and expected phrases."""
        normalise = self.biasing.normalise
        hypotheses = [result.hypotheses for result in decoded]
        if self.proposer is not None:
            with self.clock("proposals"):
                speech = [speech for speech in speeches if speech is not None]
                found = self.proposer.propose(pieces, self.first_pass, decoded, speech)
                if self.needs_word_ends:
                    found = self._all_timed(pieces, decoded, found)
                hypotheses = [(*own, *new) for own, new in zip(hypotheses, found, strict=True)]
        lists = [
            merge_hypotheses(NBest(str(i), some), normalise) for i, some in enumerate(hypotheses)
        ]
        if self.biasing.phrases:
            lists = [self.biasing.apply(one, inject=True) for one in lists]
        return lists

    def _timed(
        self,
        pieces: Sequence[np.ndarray],
        decoded: Sequence[FirstPassResult],
        ranked: Sequence[NBest],
    ) -> list[NBest]:
        """The same, the chosen one with its word ends where it has none yet."""
        untimed = [[h for h in one.hypotheses[:1] if h.word_ends_s is None] for one in ranked]
        if not any(untimed):
            return list(ranked)
        with self.clock("word_ends"):
            timed = self._all_timed(pieces, decoded, untimed)
        return [
            replace(one, hypotheses=(*chosen, *one.hypotheses[len(chosen) :]))
            for one, chosen in zip(ranked, timed, strict=True)
        ]

    def _all_timed(
        self,
        pieces: Sequence[np.ndarray],
        decoded: Sequence[FirstPassResult],
        lists: Sequence[Sequence[Hypothesis]],
    ) -> list[list[Hypothesis]]:
        """Hypotheses of each piece with the word ends that the first pass finds for them."""
        frames = [result.frames for result in decoded]
        texts = [[hypothesis.text for hypothesis in one] for one in lists]
        ends = self.first_pass.align(pieces, texts, frames)
        return [
            [replace(h, word_ends_s=ends_s) for h, ends_s in zip(one, its_ends, strict=True)]
            for one, its_ends in zip(lists, ends, strict=True)
        ]


def render(transcripts: Sequence[Transcript], format: str) -> str:
    """The transcripts as text (a line each), json (a line each), or srt or vtt (of one)."""
    if format == "text":
        return "".join(f"{transcript.text}\n" for transcript in transcripts)
    if format == "json":
        lines = (json.dumps(one.to_json(), ensure_ascii=False) for one in transcripts)
        return "".join(f"{line}\n" for line in lines)
    write = to_srt if format == "srt" else to_vtt
    return write([cue for transcript in transcripts for cue in _cues(transcript)])


def _cues(transcript: Transcript) -> list[Cue]:
    return [
        cue
        for segment in transcript.segments
        for chosen in segment.nbest.hypotheses[:1]
        for cue in to_cues(chosen.text, chosen.word_ends_s, segment.start_s, segment.end_s)
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
