"""Where speech is in a recording of any length: segments cut at pauses, found while it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from relisten.io.audio import RATE_HZ
from relisten.speech.vad import VAD_FRAME, VAD_FRAME_S, VoiceActivityDetector

STARTS, ENDS = 0.5, 0.35
"""Probabilities of speech above which it starts, and below which it ends; the package's own."""
LEAST_SPEECH_FRAMES = 5
"""Of a segment: 0.16 s. Of 2,570 real utterances (read, accented, acted, shouted; `LOG.md`,
2026-11-28) five have fewer frames of speech; of 147 pieces of silence, hiss, hum, tones, chords,
melodies, drums, clicks and sweeps of 0.02 to 20 s none has more than four."""
PAUSE_S = 1.0
"""A longer pause separates two segments."""
PAD_S = 0.4
"""Of what lies before and behind speech, a segment keeps so much: the ends of words are soft."""

_SECTION = VAD_FRAME * 312  # 10 s: what the detector sees at once
_PAUSE, _PAD = round(PAUSE_S / VAD_FRAME_S), round(PAD_S / VAD_FRAME_S)
_SMOOTH = 9  # frames, 0.3 s: shorter than a pause between sentences, longer than a stop consonant


@dataclass(frozen=True, slots=True)
class SpeechSegment:
    """A part of a recording that holds speech. samples: 16 kHz float32 [T]."""

    start_s: float
    samples: np.ndarray

    @property
    def end_s(self) -> float:
        """Where it ends in the recording."""
        return self.start_s + len(self.samples) / RATE_HZ


def speech_segments(blocks: Iterable[np.ndarray], max_s: float = 30.0) -> Iterator[SpeechSegment]:
    """The segments of a recording that hold speech, in order, none longer than max_s.

    blocks: the recording at 16 kHz, float32 [t] each, of any sizes, which change nothing. They are
    read as segments are asked for; memory is that of some 40 s.
    A segment ends before a pause of `PAUSE_S`, or, where there is none in time, where speech is
    least likely in the second half of what may still fit. Silence, noise and tones give none.
    Shorter segments have longer lists, and still lose: a first pass needs what was said before
    (speechocean without its pauses, 212 words: at most 30 s 25.5 % WER; 10 s 29.7, after the second
    pass 27.8, in 1.5 times the time).
    """
    detector = VoiceActivityDetector()
    samples, probabilities = np.zeros(0, np.float32), np.zeros(0, np.float32)
    first = 0  # frames of the recording before these
    max_frames = int(max_s / VAD_FRAME_S)
    for section in chain(_sections(blocks), [None]):
        if section is not None:
            samples = np.concatenate([samples, section])
            probabilities = np.concatenate([probabilities, detector(section)])
        is_last = section is None
        while len(probabilities):
            span, n_done = _next(probabilities, max_frames, is_last)
            if span is not None:
                begin, end = span
                yield SpeechSegment(
                    (first + begin) * VAD_FRAME_S, samples[begin * VAD_FRAME : end * VAD_FRAME]
                )
            if not n_done:
                break
            samples, probabilities = samples[n_done * VAD_FRAME :], probabilities[n_done:]
            first += n_done


def _next(
    probabilities: np.ndarray, max_frames: int, is_last: bool
) -> tuple[tuple[int, int] | None, int]:
    """The first segment in frames of these probabilities [T], as (begin, end), None where none is
    complete; and how many frames are done with, 0 where more must be read."""
    is_speech = _is_speech(probabilities)
    if not is_speech.any():
        return None, len(is_speech) if is_last else max(0, len(is_speech) - _PAD)
    spoken = int(is_speech.argmax())
    begin = max(0, spoken - _PAD)
    end = _end(is_speech, spoken, is_last)
    if (len(is_speech) if end is None else end) - begin > max_frames:
        end = begin + _least_likely(probabilities[begin : begin + max_frames])
    if end is None:
        return None, begin
    is_enough = is_speech[begin:end].sum() >= LEAST_SPEECH_FRAMES
    return ((begin, end) if is_enough else None), end


def _is_speech(probabilities: np.ndarray) -> np.ndarray:
    """Speech is on from STARTS until below ENDS, bool [T]."""
    changes = (probabilities >= STARTS) | (probabilities < ENDS)
    last_change = np.maximum.accumulate(np.where(changes, np.arange(len(changes)), -1))
    return (last_change >= 0) & (probabilities[last_change] >= STARTS)


def _end(is_speech: np.ndarray, spoken: int, is_last: bool) -> int | None:
    """Where the segment ends that begins to speak at a frame: at the first long pause, or with the
    recording; None where neither is in sight."""
    edges = np.flatnonzero(np.diff(is_speech[spoken:], append=True, prepend=True)) + spoken
    for start, stop in zip(edges[::2], edges[1::2], strict=False):
        if stop - start >= _PAUSE:
            return min(int(start) + _PAD, int(stop))
    last_spoken = len(is_speech) - int(is_speech[::-1].argmax())
    return min(last_spoken + _PAD, len(is_speech)) if is_last else None


def _least_likely(probabilities: np.ndarray) -> int:
    """The frame of the second half at which speech, smoothed over 0.3 s, is least likely; of equal
    ones the last."""
    padded = np.pad(probabilities, _SMOOTH // 2, "edge")
    smoothed = np.convolve(padded, np.full(_SMOOTH, 1 / _SMOOTH), "valid")
    half = len(smoothed) // 2
    return len(smoothed) - int(smoothed[half:][::-1].argmin())


def _sections(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks joined and cut to 10 s; the last one is shorter."""
    held: list[np.ndarray] = []
    n_held = 0
    for block in blocks:
        held.append(block)
        n_held += len(block)
        if n_held >= _SECTION:
            joined = np.concatenate(held)
            whole = len(joined) // _SECTION * _SECTION
            yield from np.split(joined[:whole], whole // _SECTION)
            held, n_held = [joined[whole:]], len(joined) - whole
    if n_held:
        yield np.concatenate(held)
