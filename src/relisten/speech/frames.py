"""Encoder frames: one vector for every 20 ms of speech, and the role of what makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from relisten.io.audio import RATE_HZ

FRAME_RATE_HZ = 50.0
SAMPLES_PER_FRAME = 320
FRAME_S = SAMPLES_PER_FRAME / RATE_HZ
BATCH_SIZE = 8

Item = TypeVar("Item")


class SpeechEncoder(Protocol):
    """Turns 16 kHz audio into frames.

    id names the weights and the layer: a codebook fits the frames of one id only.
    """

    @property
    def id(self) -> str: ...
    @property
    def frame_rate_hz(self) -> float: ...
    @property
    def dim(self) -> int: ...
    def encode(self, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames, float32 [T, dim] each, T = ceil(duration_s * frame_rate_hz).

        audio: 16 kHz mono float [samples] each, of any length. The frames of a recording do not
        depend on its neighbours in the list.
        """
        ...


def n_frames(samples: np.ndarray) -> int:
    """How many frames a 16 kHz recording [samples] has at 50 Hz, the last one partial."""
    return -(-len(samples) // SAMPLES_PER_FRAME)


def batches(items: Sequence[Item], size: int = BATCH_SIZE) -> Iterator[Sequence[Item]]:
    """The items in runs of at most size."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
