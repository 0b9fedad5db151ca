"""Recordings of any container, rate and channel count, as one float32 array."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from relisten.core.types import AudioError

if TYPE_CHECKING:
    import av

RATE_HZ = 16_000
"""The sampling rate of every recogniser and encoder here."""

PRE_ROLL_S = 1.0
"""A seek in a compressed file goes this much too early: codecs need some frames to settle."""

EXACT_SEEKS = {"wav", "flac", "ogg", "mov,mp4,m4a,3gp,3g2,mj2", "nistsphere"}
"""Containers whose time stamps are exact after a seek; others (MP3) are read from the start."""


def load_audio(
    source: str | PathLike[str] | BinaryIO,
    rate_hz: int = RATE_HZ,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """The recording as float32 [T] in [-1, 1] at `rate_hz`, its channels averaged.

    source: a path, or a file object that can be read as bytes. WAV, FLAC, OGG, MP3, M4A and
    whatever else FFmpeg reads. `start_s` and `duration_s` select a segment (None: to the end; a
    segment that is longer than the file ends with it).
    Raises AudioError if the file is missing, is not audio, or ends before `start_s`.
    """
    path = Path(source) if isinstance(source, str | PathLike) else source
    if start_s < 0 or (duration_s is not None and duration_s <= 0):
        raise AudioError(
            f"{path}: cannot cut {duration_s} s from {start_s} s on; give a start of at least 0 "
            "and a duration above 0"
        )
    samples, source_rate_hz = _decode(path, start_s, duration_s)
    samples = from_samples(samples, source_rate_hz, rate_hz, str(path))
    return samples if duration_s is None else samples[: round(duration_s * rate_hz)]


def from_samples(
    samples: np.ndarray, rate_hz: int, to_rate_hz: int = RATE_HZ, name: str = "the samples"
) -> np.ndarray:
    """Samples [T] or [channels, T] at rate_hz as `load_audio` gives them: float32 [T] in [-1, 1].

    Integers count in full scale of their type; unsigned ones around its middle. Raises AudioError
    for another shape, a rate below 1 Hz, or samples that are not numbers.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or rate_hz < 1:
        raise AudioError(
            f"{name}: shape {samples.shape} at {rate_hz} Hz; give samples [T] or [channels, T] and "
            "their rate in Hz"
        )
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (info.max + 1) // 2
        samples = (samples.astype(np.float64) - middle) / (info.max + 1 - middle)
    if samples.ndim == 2:
        samples = samples.mean(axis=0)
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds samples that are not numbers; export it again")
    return _resample(samples, rate_hz, to_rate_hz).clip(-1.0, 1.0)


def _decode(
    path: Path | BinaryIO, start_s: float, duration_s: float | None
) -> tuple[np.ndarray, int]:
    """float32 [T] at the file's own rate, and that rate in Hz."""
    import av

    if isinstance(path, Path) and not path.is_file():
        raise AudioError(f"{path}: no such file")
    try:
        with av.open(str(path) if isinstance(path, Path) else path) as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: has no audio stream")
            return _decode_segment(container, path, start_s, duration_s)
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{path}: cannot be decoded as audio ({error}); convert it to WAV or FLAC"
        ) from error


def _decode_segment(
    container: av.container.InputContainer,
    path: Path | BinaryIO,
    start_s: float,
    duration_s: float | None,
) -> tuple[np.ndarray, int]:
    chunks: list[np.ndarray] = []
    rate_hz, position = 0, 0
    for rate_hz, first, samples in _frames(container, start_s):
        start = round(start_s * rate_hz)
        end = None if duration_s is None else start + math.ceil(duration_s * rate_hz)
        if first + len(samples) > start:
            chunks.append(samples[max(start - first, 0) : None if end is None else end - first])
        position = first + len(samples)
        if end is not None and position >= end:
            break
    if position == 0:
        raise AudioError(f"{path}: holds no audio")
    if not chunks:
        raise AudioError(f"{path}: ends at {position / rate_hz:.2f} s, before {start_s:.2f} s")
    return np.concatenate(chunks), rate_hz


def _frames(
    container: av.container.InputContainer, start_s: float
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(rate_hz, index of the first sample, float32 [T]) of each frame, from `start_s` or before.

    Sample 0 is the first one that decodes, whatever its time stamp.
    """
    import av

    stream = container.streams.audio[0]
    converter = av.AudioResampler(format="fltp")  # keeps rate and channels
    first = next(container.decode(stream), None)
    if first is None:
        return
    origin_s = first.time if container.format.name in EXACT_SEEKS else None
    frames = chain([first], container.decode(stream))
    if origin_s is not None and start_s > 2 * PRE_ROLL_S:
        container.seek(int((origin_s + start_s - PRE_ROLL_S) * av.time_base))
        frames = chain(container.decode(stream))
    position = None
    for frame in frames:
        if position is None:
            position = 0
            if origin_s is not None and frame.time is not None:
                position = round((frame.time - origin_s) * frame.rate)
        for part in converter.resample(frame):
            samples = part.to_ndarray().mean(axis=0, dtype=np.float32)
            yield part.rate, position, samples
            position += len(samples)


def _resample(samples: np.ndarray, rate_hz: int, to_rate_hz: int) -> np.ndarray:
    """float32 [round(T * to_rate_hz / rate_hz)], band-limited."""
    if rate_hz == to_rate_hz:
        return samples
    import av

    frame = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
    frame.sample_rate = rate_hz
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=to_rate_hz)
    parts = [
        part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))
    ]
    result = np.zeros(round(len(samples) * to_rate_hz / rate_hz), dtype=np.float32)
    made = np.concatenate(parts)[: len(result)] if parts else result[:0]
    result[: len(made)] = made
    return result
