"""Recordings of any container, rate and channel count, as one float32 array.

A recording is decoded, mixed and resampled block by block, so that memory is that of the result
(230 MB an hour at 16 kHz), whatever the file holds.
"""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from os import PathLike
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from relisten.core.types import AudioError

if TYPE_CHECKING:
    import av

RATE_HZ = 16_000
"""The sampling rate of every recogniser and encoder here."""

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
"""Below there is no speech; above there is no recorder. At 1 Hz, 8 KB would become hours."""

MAX_DURATION_S = 8 * 3600.0
"""Of what is loaded at once: 1.8 GB at 16 kHz."""

PRE_ROLL_S = 1.0
"""A seek in a compressed file goes this much too early: codecs need some frames to settle."""

EXACT_SEEKS = {"wav", "flac", "ogg", "mov,mp4,m4a,3gp,3g2,mj2", "nistsphere"}
"""Containers whose time stamps are exact after a seek; others (MP3) are read from the start."""

LEAST_OF_MIX = 0.1
"""Channels cancel each other where their average has less than this share of the energy that the
average of unrelated channels would have (one active channel of n is exactly that)."""

BLOCK_SIZE = 1 << 16
BYTES_PER_SAMPLE = 4

Blocks = Iterator[tuple[int, np.ndarray]]
"""Consecutive pieces of a recording: rate in Hz, float32 [channels, T]."""


def load_audio(
    source: str | PathLike[str] | BinaryIO,
    rate_hz: int = RATE_HZ,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """The recording as float32 [T] in [-1, 1] at `rate_hz`, its channels averaged.

    source: a path, or a file object that can be read as bytes. WAV, FLAC, OGG, MP3, M4A and
    whatever else FFmpeg reads. `start_s` and `duration_s` select a segment (None: to the end; a
    segment that is longer than the file ends with it). Where the channels cancel each other, the
    loudest of them is taken, with a warning.
    Raises AudioError if the file is missing, is not audio, ends before `start_s`, or gives more
    than `MAX_DURATION_S`.
    """
    name = os.fspath(source) if isinstance(source, str | PathLike) else _file_name(source)
    if not start_s >= 0 or (duration_s is not None and not duration_s > 0):
        raise AudioError(
            f"{name}: cannot cut {duration_s} s from {start_s} s on; give a start of at least 0 "
            "and a duration above 0"
        )
    with _opened(source, name) as file:
        begin = file.tell() if file.seekable() else None

        def segment() -> Blocks:
            if begin is not None:
                file.seek(begin)
            return _segment(file, name, start_s, duration_s)

        samples = _mono(segment, rate_hz, name)
    wanted = len(samples)
    if duration_s is not None and duration_s < len(samples) / rate_hz:
        wanted = round(duration_s * rate_hz)
    if not wanted:
        raise AudioError(f"{name}: {duration_s} s hold no sample; give a longer duration")
    return samples[:wanted]


def _file_name(file: BinaryIO) -> str:
    """Of an open file, which may have none, or the number of a descriptor for one."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "the recording"


def from_samples(
    samples: np.ndarray, rate_hz: int, to_rate_hz: int = RATE_HZ, name: str = "the samples"
) -> np.ndarray:
    """Samples [T] or [channels, T] at rate_hz as `load_audio` gives them: float32 [T] in [-1, 1].

    Integers count in full scale of their type; unsigned ones around its middle. Raises AudioError
    for another shape, a rate out of bounds, no samples, or samples that are not numbers.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise AudioError(
            f"{name}: shape {samples.shape} at {rate_hz} Hz; give samples [T] or [channels, T] and "
            "their rate in Hz"
        )
    channels = np.atleast_2d(samples)

    def blocks() -> Blocks:
        for first in range(0, channels.shape[1], BLOCK_SIZE):
            yield rate_hz, _full_scale(channels[:, first : first + BLOCK_SIZE])

    return _mono(blocks, to_rate_hz, name)


def _full_scale(samples: np.ndarray) -> np.ndarray:
    """Samples of any type as float32; integers divided by the full scale of their type."""
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (info.max + 1) // 2
        samples = (samples.astype(np.float64) - middle) / (info.max + 1 - middle)
    return samples.astype(np.float32, copy=False)


def _mono(blocks: Callable[[], Blocks], to_rate_hz: int, name: str) -> np.ndarray:
    """The blocks as one signal, float32 [T] in [-1, 1] at to_rate_hz.

    blocks: gives them from the start; called again where their average cancels itself.
    """
    signal, energies, mixed = _Signal(to_rate_hz, name), np.zeros(0), 0.0
    for rate_hz, block in blocks():
        if not np.isfinite(block).all():
            raise AudioError(f"{name}: holds samples that are not numbers; export it again")
        mix = block.mean(axis=0, dtype=np.float32)
        if len(block) > 1:
            own = np.einsum("ct,ct->c", block, block, dtype=np.float64)
            energies = own + energies if len(own) == len(energies) else own
            mixed = float(np.dot(mix, mix)) + (mixed if len(own) == len(energies) else 0.0)
        signal.add(rate_hz, mix)
    if mixed < LEAST_OF_MIX * energies.sum() / max(1, len(energies)) ** 2:
        loudest = int(energies.argmax())
        warnings.warn(
            f"{name}: its channels cancel each other; channel {loudest + 1} alone is used",
            stacklevel=3,
        )
        signal = _Signal(to_rate_hz, name)
        for rate_hz, block in blocks():
            signal.add(rate_hz, block[min(loudest, len(block) - 1)])
    return signal.result()


class _Signal:
    """One signal at to_rate_hz, made of blocks [T] that may come at several rates."""

    def __init__(self, to_rate_hz: int, name: str) -> None:
        self._to_rate_hz, self._name = to_rate_hz, name
        self._samples = bytearray()  # grows without a second copy of what is there
        self._rate_hz = self._n_read = self._first = 0
        self._resampler: av.AudioResampler | None = None

    def add(self, rate_hz: int, block: np.ndarray) -> None:
        """Append a block. Raises AudioError for a rate or a duration out of bounds."""
        if rate_hz != self._rate_hz:
            self._start(rate_hz)
        self._n_read += len(block)
        if len(self._samples) > MAX_DURATION_S * self._to_rate_hz * BYTES_PER_SAMPLE:
            raise AudioError(
                f"{self._name}: lasts more than {MAX_DURATION_S / 3600:g} h; cut it, or select a "
                "part with start_s and duration_s"
            )
        if self._resampler is None:
            self._append(block)
        elif len(block):
            import av

            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block[None]), format="fltp", layout="mono"
            )
            frame.sample_rate = rate_hz
            for part in self._resampler.resample(frame):
                self._append(part.to_ndarray()[0])

    def result(self) -> np.ndarray:
        """Everything so far, float32 [T]. Raises AudioError where nothing was added."""
        self._finish()
        if not self._samples:
            raise AudioError(f"{self._name}: holds no audio")
        return np.frombuffer(self._samples, np.float32)

    def _append(self, block: np.ndarray) -> None:
        self._samples += block.clip(-1.0, 1.0).astype(np.float32, copy=False).data

    def _start(self, rate_hz: int) -> None:
        """Blocks of another rate follow."""
        import av

        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise AudioError(
                f"{self._name}: its sampling rate is {rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} "
                "Hz can be read; convert it"
            )
        self._finish()
        self._rate_hz, self._n_read, self._first = rate_hz, 0, len(self._samples)
        self._resampler = None
        if rate_hz != self._to_rate_hz:
            self._resampler = av.AudioResampler("fltp", "mono", self._to_rate_hz)

    def _finish(self) -> None:
        """What the resampler still holds; then exactly as long as what was read."""
        if self._resampler is None:
            return
        for part in self._resampler.resample(None):
            self._append(part.to_ndarray()[0])
        self._resampler = None
        wanted = round(self._n_read * self._to_rate_hz / self._rate_hz) * BYTES_PER_SAMPLE
        del self._samples[self._first + wanted :]
        self._samples += bytes(self._first + wanted - len(self._samples))


@contextmanager
def _opened(source: str | PathLike[str] | BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The source as a file. FFmpeg never opens one itself: to it, `12:30.wav` is a protocol."""
    if not isinstance(source, str | PathLike):
        yield source
        return
    try:
        if not stat.S_ISREG(os.stat(source).st_mode):
            raise AudioError(f"{name}: is not a plain file; name a recording")
        file = open(source, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte, half a surrogate pair
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{name}: cannot be opened ({reason}); check the path") from error
    with file:
        yield file


def _segment(file: BinaryIO, name: str, start_s: float, duration_s: float | None) -> Blocks:
    """The blocks from start_s on, duration_s long. Raises AudioError where there are none."""
    import av

    try:
        # Playlists name other files: they are not to be opened.
        with av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: has no audio stream")
            yield from _cut(_frames(container, start_s), name, start_s, duration_s)
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name}: cannot be decoded as audio ({error}); convert it to WAV or FLAC"
        ) from error


def _cut(
    frames: Iterator[tuple[int, int, np.ndarray]],
    name: str,
    start_s: float,
    duration_s: float | None,
) -> Blocks:
    rate_hz, position, is_found = 0, 0, False
    for rate_hz, first, samples in frames:
        last = first + samples.shape[1]
        start = _samples(start_s, rate_hz)
        end = None if duration_s is None else start + _samples(duration_s, rate_hz, math.ceil)
        if last > start:
            is_found = True
            yield rate_hz, samples[:, max(start - first, 0) : None if end is None else end - first]
        position = last
        if end is not None and position >= end:
            break
    if position == 0:
        raise AudioError(f"{name}: holds no audio")
    if not is_found:
        asked = f"{start_s:.2f}" if start_s < 1e9 else f"{start_s:g}"
        raise AudioError(f"{name}: ends at {position / rate_hz:.2f} s, before {asked} s")


def _samples(seconds: float, rate_hz: int, to_integer: Callable[[float], int] = round) -> int:
    """Seconds as a number of samples, at most those of 30 years."""
    return to_integer(min(seconds, 1e9) * rate_hz)


def _frames(
    container: av.container.InputContainer, start_s: float
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(rate_hz, index of the first sample, float32 [channels, T]) of each frame, from `start_s` or
    before.

    Sample 0 is the first one that decodes, whatever its time stamp.
    """
    import av

    stream = container.streams.audio[0]
    first = next(container.decode(stream), None)
    if first is None:
        return
    origin_s = first.time if container.format.name in EXACT_SEEKS else None
    frames = chain([first], container.decode(stream))
    ends_s = (container.duration or 0) / av.time_base  # a seek behind it fails
    if origin_s is not None and 2 * PRE_ROLL_S < start_s < ends_s:
        container.seek(int((origin_s + start_s - PRE_ROLL_S) * av.time_base))
        frames = chain(container.decode(stream))
    position = None
    for frame in frames:
        if position is None:
            position = 0
            if origin_s is not None and frame.time is not None:
                position = round((frame.time - origin_s) * frame.sample_rate)
        samples = _channels(frame)
        yield frame.sample_rate, position, samples
        position += samples.shape[1]


_SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


def _channels(frame: av.AudioFrame) -> np.ndarray:
    """The samples of a frame, float32 [channels, T].

    FFmpeg's own conversion ends the process for more than 8 channels.
    """
    kind, n_channels = frame.format.name, frame.layout.nb_channels
    dtype = np.dtype(_SAMPLE_TYPES[kind.removesuffix("p")])
    if kind.endswith("p"):
        planes = [np.frombuffer(plane, dtype, frame.samples) for plane in frame.planes]
        return _full_scale(np.stack(planes))
    packed = np.frombuffer(frame.planes[0], dtype, frame.samples * n_channels)
    return _full_scale(packed.reshape(-1, n_channels).T)
