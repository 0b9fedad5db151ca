"""Recordings in, the better transcripts out: first pass and second pass, segment by segment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import BinaryIO

import numpy as np

from relisten.core.types import AudioError, NBest
from relisten.io.audio import RATE_HZ, from_samples, load_audio
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.segmentation import split_audio
from relisten.tasks.defaults import MODEL
from relisten.tasks.loading import load_listeners, load_rescorer
from relisten.tasks.second_pass import Clock, SecondPass, SecondPassOptions
from relisten.tasks.streams import Refusal, Tick, no_tick
from relisten.tasks.transcript import Segment, Transcript

CHUNK_SIZE = 8
"""Segments decoded and rescored together, of one recording or of several."""

Audio = str | PathLike[str] | BinaryIO | np.ndarray
"""A recording: a path, a file object, or samples float [T] or [channels, T] with their rate."""


def transcribe(
    audio: Sequence[str],
    model: str = MODEL,
    first_pass: tuple[str, ...] = (),
    language: str | None = None,
    decoding: DecodingOptions = DecodingOptions(),
    options: SecondPassOptions = SecondPassOptions(),
    device: str = "auto",
    dtype: str = "auto",
    tick: Tick = no_tick,
) -> tuple[list[Transcript], tuple[Refusal, ...]]:
    """The transcripts of recordings, and the recordings that cannot be read.

    first_pass: recognisers; by default the one that the model's weights are for. language: of
    multilingual ones, by default the model's.
    Raises AudioError where none can be read.
    """
    rescorer = load_rescorer(model, device, dtype)
    listeners = load_listeners(model, first_pass, language, device, dtype)
    second_pass = SecondPass.of(rescorer, listeners, decoding, options)
    transcripts: list[Transcript] = []
    refused: list[Refusal] = []
    for one in transcribe_each(audio, second_pass):
        if isinstance(one, Refusal):
            refused.append(one)
        else:
            transcripts.append(one)
        tick(1)
    if not transcripts:
        raise AudioError(refused[0].reason)
    return transcripts, tuple(refused)


def transcribe_each(
    audio: Iterable[Audio], second_pass: SecondPass, rate_hz: int | None = None
) -> Iterator[Transcript | Refusal]:
    """The transcript of each recording, of any length, in order, or why it cannot be read.

    Recordings longer than the first pass decodes at once are cut where they are quietest; segments
    of several recordings are worked on together. rate_hz: of recordings that are arrays.
    """
    waiting: list[_Recording] = []
    for number, source in enumerate(audio):
        clock = Clock()
        name = _name(source, number)
        try:
            with clock("audio"):
                samples = _load(source, rate_hz)
        except AudioError as error:
            yield from _transcribed(waiting, second_pass)
            waiting = []
            yield Refusal(name, str(error))
            continue
        bounds = split_audio(samples, RATE_HZ, max_s=second_pass.max_duration_s)
        waiting.append(_Recording(name, samples, bounds, clock))
        if sum(len(one.bounds) for one in waiting) >= CHUNK_SIZE:
            yield from _transcribed(waiting, second_pass)
            waiting = []
    yield from _transcribed(waiting, second_pass)


@dataclass(frozen=True)
class _Recording:
    """A recording on its way. bounds: start and end of its segments, s."""

    name: str
    samples: np.ndarray
    bounds: list[tuple[float, float]]
    clock: Clock
    segments: list[Segment] = field(default_factory=list)


def _transcribed(recordings: Sequence[_Recording], second_pass: SecondPass) -> Iterator[Transcript]:
    """Their transcripts. What a chunk of segments took is shared out by the segments' lengths."""
    pieces = [(one, start, end) for one in recordings for start, end in one.bounds]
    for first in range(0, len(pieces), CHUNK_SIZE):
        chunk, clock = pieces[first : first + CHUNK_SIZE], Clock()
        ranked = second_pass.run(
            [NBest(f"{one.name}:{start:.3f}") for one, start, _ in chunk],
            [
                one.samples[round(start * RATE_HZ) : round(end * RATE_HZ)]
                for one, start, end in chunk
            ],
            clock,
        )
        total_s = sum(end - start for _, start, end in chunk)
        for (one, start, end), nbest in zip(chunk, ranked, strict=True):
            one.segments.append(Segment(start, end, nbest))
            one.clock.add(clock.seconds, (end - start) / total_s)
    for one in recordings:
        duration_s = len(one.samples) / RATE_HZ
        yield Transcript(one.name, duration_s, tuple(one.segments), one.clock.seconds)


def _load(source: Audio, rate_hz: int | None) -> np.ndarray:
    if isinstance(source, np.ndarray):
        if rate_hz is None:
            raise AudioError("samples without their rate; give rate_hz")
        return from_samples(source, rate_hz)
    return load_audio(source)


def _name(source: Audio, number: int) -> str:
    if isinstance(source, str | PathLike):
        return str(source)
    return str(getattr(source, "name", None) or f"recording {number + 1}")
