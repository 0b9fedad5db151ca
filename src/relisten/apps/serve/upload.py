"""A recording that was sent: what its head says, and its pieces as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from relisten.core.types import AudioError
from relisten.io.audio import RATE_HZ, probe_audio, stream_audio
from relisten.speech.segmentation import speech_segments


@dataclass(frozen=True)
class SegmentAudio:
    """A span of a recording that is transcribed at once. samples: 16 kHz float32 [T]."""

    id: str
    start_s: float
    end_s: float
    samples: np.ndarray


class Upload:
    """A recording as its pieces that hold speech, each at most piece_s long, cut as they are asked
    for: memory does not grow with its length.

    name: as its pieces' ids begin. Raises AudioError where it cannot be read, or its head says that
    it lasts longer than max_s; iteration raises it for what the head does not tell.
    """

    def __init__(self, name: str, file: BinaryIO, max_s: float, piece_s: float) -> None:
        self.name, self._file, self._max_s, self._piece_s = name, file, max_s, piece_s
        self._n_samples = 0
        self.stated_s = probe_audio(file).duration_s
        self._check(self.stated_s or 0.0)

    @property
    def duration_s(self) -> float:
        """How much was read, all of it once iteration has ended."""
        return self._n_samples / RATE_HZ

    @property
    def likely_s(self) -> float:
        """Its duration, as far as it is known by now."""
        return max(self.stated_s or 0.0, self.duration_s)

    def __iter__(self) -> Iterator[SegmentAudio]:
        for one in speech_segments(self._blocks(), self._piece_s):
            start_s, end_s = one.start_s, one.end_s
            yield SegmentAudio(f"{self.name}:{start_s:.3f}", start_s, end_s, one.samples)

    def _blocks(self) -> Iterator[np.ndarray]:
        for block in stream_audio(self._file):
            self._n_samples += len(block)
            self._check(self.duration_s)
            yield block

    def _check(self, duration_s: float) -> None:
        if duration_s > self._max_s:
            raise AudioError(
                f"the recording lasts more than {self._max_s:g} s, the limit of this server; cut it"
            )
