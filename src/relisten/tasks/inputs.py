"""What is transcribed: files, folders, patterns, lists of turns and standard input as recordings,
and the parts of a recording that hold speech."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Literal, cast

import numpy as np

from relisten.core.types import AudioError, NBest, Refusal, UsageError
from relisten.io.audio import (
    RATE_HZ,
    from_samples,
    is_recording,
    probe_audio,
    stream_audio,
)
from relisten.io.corpora import corpora_at, read_corpus
from relisten.io.corpora.common import natural_order
from relisten.io.nbest import resolve_audio
from relisten.speech.segmentation import speech_segments
from relisten.tasks.streams import say_nothing

Audio = str | PathLike[str] | BinaryIO | np.ndarray
"""A recording: a path, a file object, or samples float [T] or [channels, T] with their rate."""
Channels = Literal["mix", "split", "left", "right"]
"""What becomes of several channels: their average, a transcript each, or one of them alone."""

LIST_ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".tsv", ".csv")
"""Of files that name recordings and their turns, in any form that `relisten learn` reads."""
SIDES = ("left", "right")


@dataclass(frozen=True, slots=True)
class Turn:
    """A part of a recording, and who speaks in it; duration_s None: to the end."""

    start_s: float = 0.0
    duration_s: float | None = None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class AudioInput:
    """A recording to be transcribed, or one channel of it.

    name: as it was given. place: where its transcript lies in a folder of transcripts, without an
    ending. rate_hz: of samples. channel: None for all of them, mixed; side: what it is called.
    turns: its parts, where they are known.
    """

    source: Audio
    name: str
    place: str = "recording"
    rate_hz: int | None = None
    channel: int | None = None
    side: str | None = None
    turns: tuple[Turn, ...] = (Turn(),)

    @property
    def label(self) -> str:
        """Its name, and its channel where that has a transcript of its own."""
        return f"{self.name}#{self.side}" if self.side else self.name


@dataclass(frozen=True, slots=True)
class SpeechPiece:
    """A part of a recording that holds speech, 16 kHz float32 [T]; speaker: where known."""

    start_s: float
    end_s: float
    samples: np.ndarray
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """What is known once a recording was read. refused: its turns that could not be read whole."""

    duration_s: float
    refused: tuple[Refusal, ...] = ()


def find_inputs(sources: Sequence[str], channels: Channels = "mix") -> list[AudioInput | Refusal]:
    """The recordings that paths name, and what cannot be read of them, in order.

    sources: recordings, folders (with all below them), patterns such as `talks/**/*.mp3`, lists of
    recordings or of their turns (`LIST_ENDINGS`), "-" for standard input.
    Raises UsageError for a folder without recordings, and where a pattern fits nothing.
    """
    found = [one for source in sources for one in _named(source)]
    split = [one for each in found for one in _channels(each, channels)]
    return _with_places(split)


def input_of(
    source: Audio, number: int, rate_hz: int | None = None, channel: int | None = None
) -> AudioInput:
    """What Python hands over as a recording. rate_hz: of samples."""
    if isinstance(source, str | PathLike):
        name = str(source)
    else:
        name = str(getattr(source, "name", None) or f"recording {number + 1}")
    return AudioInput(source, name, rate_hz=rate_hz, channel=channel)


def seconds_named(sources: Sequence[str], channels: Channels) -> float | None:
    """What the recordings that paths name last together; None where not all say, as a stream."""
    return None if "-" in sources else total_seconds(find_inputs(sources, channels))


def total_seconds(recordings: Sequence[AudioInput | Refusal]) -> float | None:
    """What they last together, by what their heads say; None where one does not say."""
    total = 0.0
    for one in recordings:
        if isinstance(one, Refusal) or isinstance(one.source, np.ndarray):
            continue
        try:
            whole_s = probe_audio(one.source).duration_s
        except AudioError:
            continue
        if whole_s is None:
            return None
        total += sum(turn.duration_s or whole_s - turn.start_s for turn in one.turns)
    return total


def pieces_of(recording: AudioInput, max_s: float) -> Iterator[SpeechPiece | EndOfInput]:
    """The parts that hold speech, in order, read as they are asked for; then the end.

    max_s: the longest that they may be. A recording that breaks off with an error is refused at the
    end, and what came before it is kept.
    """
    duration_s, refused = 0.0, []
    for turn in recording.turns:
        blocks = _Blocks(recording, turn)
        for one in speech_segments(blocks, max_s):
            start_s, end_s = turn.start_s + one.start_s, turn.start_s + one.end_s
            yield SpeechPiece(start_s, end_s, one.samples, turn.speaker)
        read_s = blocks.n_samples / RATE_HZ
        if read_s:
            duration_s = max(duration_s, turn.start_s + read_s)
        if blocks.problem:
            kept = f"; its transcript ends at {turn.start_s + read_s:.1f} s" if read_s else ""
            refused.append(Refusal(recording.label, f"{blocks.problem}{kept}"))
    yield EndOfInput(duration_s, tuple(refused))


class _Blocks:
    """The samples of a turn, block by block, up to the first problem, which is kept."""

    def __init__(self, recording: AudioInput, turn: Turn) -> None:
        self._recording, self._turn = recording, turn
        self.n_samples = 0
        self.problem: str | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            for block in self._read():
                self.n_samples += len(block)
                yield block
        except AudioError as error:
            self.problem = str(error)

    def _read(self) -> Iterator[np.ndarray]:
        one, turn = self._recording, self._turn
        if not isinstance(one.source, np.ndarray):
            if not isinstance(one.source, str | PathLike) and one.source.seekable():
                one.source.seek(0)  # another channel or turn of it was read before
            return stream_audio(
                one.source, RATE_HZ, turn.start_s, turn.duration_s, channel=one.channel
            )
        if one.rate_hz is None:
            raise AudioError("samples without their rate; give rate_hz")
        return iter([from_samples(one.source, one.rate_hz, channel=one.channel)])


def _named(source: str) -> Iterator[AudioInput | Refusal]:
    """The recordings that one path names, each with its place."""
    if source == "-":
        yield AudioInput(_copied(sys.stdin.buffer), "standard input", "stdin")
    elif os.path.isdir(source):
        yield from _of_folder(Path(source))
    elif source.lower().endswith(LIST_ENDINGS):
        yield from _of_list(source)
    elif glob.has_magic(source) and not os.path.exists(source):
        paths = sorted(filter(os.path.isfile, glob.glob(source, recursive=True)), key=natural_order)
        if not paths:
            raise UsageError(f"{source}: fits no file; check the pattern")
        top = os.path.commonpath([os.path.dirname(path) for path in paths])
        for path in paths:
            yield AudioInput(path, path, _bare(os.path.relpath(path, top or ".")))
    else:
        yield AudioInput(source, source, _bare(os.path.basename(source)))


def _copied(stream: BinaryIO) -> BinaryIO:
    """A stream as a file that can be read twice, as most containers ask for; it has no name, so
    that nothing stays behind."""
    file = TemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(stream, file)
    file.seek(0)
    return cast(BinaryIO, file)


def _of_folder(folder: Path) -> Iterator[AudioInput]:
    below = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    shown = [one for one in below if not any(part[0] in "._" for part in one.parts)]
    names = sorted((one.as_posix() for one in shown), key=natural_order)
    recordings = [name for name in names if is_recording(name)]
    if not recordings:
        raise UsageError(f"{folder}: holds no recordings; name another folder, or the files")
    for name in recordings:
        path = str(folder / name)
        yield AudioInput(path, path, _bare(name))


def _of_list(path: str) -> Iterator[AudioInput | Refusal]:
    """The recordings of a list, each with its turns, in the order of their first."""
    turns: dict[str, list[Turn]] = {}
    for corpus in corpora_at(path):
        for one in read_corpus(corpus, say_nothing):
            if isinstance(one, Refusal):
                yield one
            elif one.audio is None:
                yield Refusal(one.id, "it names no recording; add the key 'audio'")
            else:
                audio = str(resolve_audio(one, corpus.file))
                turns.setdefault(audio, []).append(_turn(one))
    for audio, its in turns.items():
        yield AudioInput(audio, audio, _bare(os.path.basename(audio)), turns=tuple(its))


def _turn(utterance: NBest) -> Turn:
    return Turn(utterance.start_s, utterance.duration_s, utterance.speaker)


def _bare(path: str) -> str:
    return os.path.splitext(path)[0]


def _channels(
    recording: AudioInput | Refusal, channels: Channels
) -> Iterator[AudioInput | Refusal]:
    """The recording's channels that are to be transcribed; all of them, mixed, as one."""
    if isinstance(recording, Refusal) or channels == "mix":
        yield recording
        return
    if channels != "split":
        yield replace(recording, channel=SIDES.index(channels))
        return
    try:
        n_channels = probe_audio(cast(str, recording.source)).n_channels
    except AudioError as error:
        yield Refusal(recording.name, str(error))
        return
    names = SIDES if n_channels == 2 else [f"channel-{n + 1}" for n in range(n_channels)]
    for channel, side in enumerate(names):
        if n_channels == 1:
            yield recording
        else:
            place = f"{recording.place}.{side}"
            yield replace(recording, channel=channel, side=side, place=place)


def _with_places(recordings: Sequence[AudioInput | Refusal]) -> list[AudioInput | Refusal]:
    """The same, each once. Recordings whose transcripts would take the same place keep their
    endings in it, or else their folders."""
    once = list(
        {one.label if isinstance(one, AudioInput) else one: one for one in recordings}.values()
    )
    places = {one.label: _places(one) for one in once if isinstance(one, AudioInput)}
    counts = [Counter(level) for level in zip(*places.values(), strict=True)]
    return [
        replace(
            one,
            place=next(
                (p for p, n in zip(places[one.label], counts, strict=True) if n[p] == 1), one.place
            ),
        )
        if isinstance(one, AudioInput)
        else one
        for one in once
    ]


def _places(recording: AudioInput) -> tuple[str, str, str]:
    """Where a transcript may lie, the shortest first."""
    place, ending = recording.place, os.path.splitext(recording.name)[1]
    whole = os.path.abspath(recording.name).lstrip(os.sep) + (
        f".{recording.side}" if recording.side else ""
    )
    return place, place + ending, whole
