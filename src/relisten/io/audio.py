"""Recordings of any container, rate and channel count, as one float32 array.

A recording is decoded, mixed and resampled block by block: a stream takes some MB however long it
is, an array what it holds (230 MB an hour at 16 kHz).
"""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from os import PathLike
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from relisten.core.types import AudioError

if TYPE_CHECKING:
    import av

AUDIO_ENDINGS = (
    *(".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".aif", ".aiff", ".amr"),
    *(".sph", ".au", ".caf", ".mp4", ".mkv", ".webm"),
)
"""Of files that are taken for recordings, in lower case."""

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

SECTION_SIZE = 1 << 21
"""Samples of all channels that are mixed at once: 24 s of stereo at 44.1 kHz, 8 MB."""

BLOCK_SIZE = 1 << 16
BYTES_PER_SAMPLE = 4

Blocks = Iterator[tuple[int, np.ndarray]]
"""Consecutive pieces of a recording: rate in Hz, float32 [channels, T]."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the head of a recording says. duration_s: None where it does not say."""

    n_channels: int
    duration_s: float | None


def load_audio(
    source: str | PathLike[str] | BinaryIO,
    rate_hz: int = RATE_HZ,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channel: int | None = None,
) -> np.ndarray:
    """The recording as one array, float32 [T]; see `stream_audio`.

    Raises AudioError, too, where it gives more than `MAX_DURATION_S`.
    """
    name = _name(source)
    return _joined(stream_audio(source, rate_hz, start_s, duration_s, channel), rate_hz, name)


def stream_audio(
    source: str | PathLike[str] | BinaryIO,
    rate_hz: int = RATE_HZ,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channel: int | None = None,
) -> Iterator[np.ndarray]:
    """The recording as consecutive blocks, float32 [t] in [-1, 1] at `rate_hz`, of a second or so.

    source: a path, or a file object that can be read as bytes. WAV, FLAC, OGG, MP3, M4A and
    whatever else FFmpeg reads. `start_s` and `duration_s` select a segment (None: to the end; a
    segment that is longer than the file ends with it). channel: from 0 on; None averages all of
    them. Where the channels cancel each other, the loudest of them is taken, with a warning.
    Raises AudioError if the file is missing, is not audio, ends before `start_s`, lacks the
    channel, or breaks off with an error.
    """
    name = _name(source)
    if not start_s >= 0 or (duration_s is not None and not duration_s > 0):
        raise AudioError(
            f"{name}: cannot cut {duration_s} s from {start_s} s on; give a start of at least 0 "
            "and a duration above 0"
        )
    left = None if duration_s is None else round(min(duration_s, 1e9) * rate_hz)
    if left == 0:
        raise AudioError(f"{name}: {duration_s} s hold no sample; give a longer duration")
    with _opened(source, name) as file:
        mono = _mono(_segment(file, name, start_s, duration_s), name, channel)
        for block in _resampled(mono, rate_hz, name):
            yield block[:left]
            if left is not None and (left := left - len(block)) <= 0:
                return


def probe_audio(source: str | PathLike[str] | BinaryIO) -> AudioInfo:
    """Channels and duration, without decoding more than a frame; a file object is rewound.

    Raises AudioError where it is missing or is not audio.
    """
    import av

    name = _name(source)
    with _opened(source, name) as file, _container(file, name) as container:
        first = next(container.decode(audio=0), None)
        if first is None:
            raise AudioError(f"{name}: holds no audio")
        n_channels = first.layout.nb_channels
        duration = container.duration
    if not isinstance(source, str | PathLike):
        source.seek(0)
    return AudioInfo(n_channels, duration / av.time_base if duration and duration > 0 else None)


def is_recording(name: str) -> bool:
    """Whether a file is a recording by its ending."""
    return PurePosixPath(name.strip()).suffix.lower() in AUDIO_ENDINGS


def from_samples(
    samples: np.ndarray,
    rate_hz: int,
    to_rate_hz: int = RATE_HZ,
    name: str = "the samples",
    channel: int | None = None,
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
    blocks = (
        (rate_hz, _full_scale(channels[:, first : first + BLOCK_SIZE]))
        for first in range(0, channels.shape[1], BLOCK_SIZE)
    )
    return _joined(_resampled(_mono(blocks, name, channel), to_rate_hz, name), to_rate_hz, name)


def _name(source: str | PathLike[str] | BinaryIO) -> str:
    """Its path; an open file may have none, or the number of a descriptor for one."""
    name = os.fspath(source) if isinstance(source, str | PathLike) else source
    name = getattr(name, "name", name)
    return name if isinstance(name, str) else "the recording"


def _joined(blocks: Iterator[np.ndarray], rate_hz: int, name: str) -> np.ndarray:
    """All blocks as one array. Raises AudioError where there is nothing, or too much."""
    samples = bytearray()  # grows without a second copy of what is there
    for block in blocks:
        samples += block.data
        if len(samples) > MAX_DURATION_S * rate_hz * BYTES_PER_SAMPLE:
            raise AudioError(
                f"{name}: lasts more than {MAX_DURATION_S / 3600:g} h; cut it, or select a "
                "part with start_s and duration_s"
            )
    if not samples:
        raise AudioError(f"{name}: holds no audio")
    return np.frombuffer(samples, np.float32)


def _full_scale(samples: np.ndarray) -> np.ndarray:
    """Samples of any type as float32; integers divided by the full scale of their type."""
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (info.max + 1) // 2
        samples = (samples.astype(np.float64) - middle) / (info.max + 1 - middle)
    return samples.astype(np.float32, copy=False)


def _mono(blocks: Blocks, name: str, channel: int | None) -> Blocks:
    """The blocks with one channel, float32 [T]: the one that is asked for, or the average.

    Whether channels cancel each other is judged section by section, so that nothing is read twice.
    """
    is_said = False
    for rate_hz, section in _sections(blocks, 1 if channel is not None else SECTION_SIZE):
        if not np.isfinite(section).all():
            raise AudioError(f"{name}: holds samples that are not numbers; export it again")
        if channel is not None and channel >= len(section):
            raise AudioError(
                f"{name}: has {len(section)} channel{'s' * (len(section) > 1)} and no channel "
                f"{channel + 1}; take another one, or the average of all"
            )
        if channel is not None:
            yield rate_hz, section[channel]
            continue
        mix = section.mean(axis=0, dtype=np.float32)
        energies = np.einsum("ct,ct->c", section, section, dtype=np.float64)
        mixed = float(np.dot(mix, mix))
        if mixed < LEAST_OF_MIX * energies.sum() / len(energies) ** 2:
            loudest = int(energies.argmax())
            mix = section[loudest]
            if not is_said:
                warnings.warn(
                    f"{name}: its channels cancel each other; channel {loudest + 1} alone is used",
                    stacklevel=2,
                )
            is_said = True
        yield rate_hz, mix


def _sections(blocks: Blocks, size: int) -> Blocks:
    """The blocks joined to at least `size` samples of all channels, where rate and channels stay
    the same; shorter only at the end, and where there is one channel, which needs no mixing."""
    for (rate_hz, _), same in groupby(blocks, lambda one: (one[0], len(one[1]))):
        held: list[np.ndarray] = []
        for _, block in same:
            held.append(block)
            if len(block) == 1 or sum(one.size for one in held) >= size:
                yield rate_hz, np.concatenate(held, axis=1)
                held = []
        if held:
            yield rate_hz, np.concatenate(held, axis=1)


def _resampled(blocks: Blocks, to_rate_hz: int, name: str) -> Iterator[np.ndarray]:
    """Blocks [T], which may come at several rates, at to_rate_hz, clipped to [-1, 1].

    Together they last exactly as long as what was read. Raises AudioError for a rate out of bounds.
    """
    import av

    for rate_hz, same in groupby(blocks, itemgetter(0)):
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise AudioError(
                f"{name}: its sampling rate is {rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} "
                "Hz can be read; convert it"
            )
        resampler = av.AudioResampler("fltp", "mono", to_rate_hz)
        n_read = n_given = 0
        for block in chain((block for _, block in same), [None]):
            n_read += 0 if block is None else len(block)
            wanted = round(n_read * to_rate_hz / rate_hz)
            for part in _converted(resampler, rate_hz, block):
                part = part[: wanted - n_given].clip(-1.0, 1.0).astype(np.float32, copy=False)
                n_given += len(part)
                yield part
        if n_given < wanted:
            yield np.zeros(wanted - n_given, np.float32)


def _converted(
    resampler: av.AudioResampler, rate_hz: int, block: np.ndarray | None
) -> Iterator[np.ndarray]:
    """What the resampler makes of a block [T]; of None: what it still holds."""
    import av

    if resampler.rate == rate_hz:
        yield from [] if block is None else [block]
        return
    for first in range(0, len(block), BLOCK_SIZE) if block is not None else [0]:
        frame = None
        if block is not None:
            piece = np.ascontiguousarray(block[None, first : first + BLOCK_SIZE])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate = rate_hz
        yield from (part.to_ndarray()[0] for part in resampler.resample(frame))


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
    with _container(file, name) as container:
        yield from _cut(_frames(container, start_s), name, start_s, duration_s)


@contextmanager
def _container(file: BinaryIO, name: str) -> Iterator[av.container.InputContainer]:
    """The file opened by FFmpeg. Raises AudioError for what it cannot read, then and later."""
    import av

    try:
        # Playlists name other files: they are not to be opened.
        with av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: has no audio stream")
            yield container
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
