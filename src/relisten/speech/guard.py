"""Keeps a taught recogniser from speech that it was not taught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from relisten.core.arrays import FloatArray
from relisten.core.familiarity import Familiarity
from relisten.core.types import ModelError
from relisten.io.audio import RATE_HZ
from relisten.io.tensors import save_tensors
from relisten.speech.first_pass import FirstPass
from relisten.speech.frames import SpeechEncoder
from relisten.speech.load import load_encoder

Statistics = TypeVar("Statistics")
BEGINNING_S = 10
"""Of a recording, tells what speech it is; Whisper's encoder takes it in one small window."""


@dataclass(frozen=True)
class Guard:
    """Tells strange speech, and knows who listens to it.

    load_untaught: loads the recogniser as it was before it was taught, when it is first needed.
    """

    familiarity: Familiarity
    load_untaught: Callable[[], FirstPass]
    device: str = "auto"

    @cached_property
    def untaught(self) -> FirstPass:
        """The recogniser that listens to strange speech."""
        return self.load_untaught()

    @cached_property
    def _encoder(self) -> SpeechEncoder:
        return load_encoder(self.familiarity.encoder, self.device)

    def are_strange(self, recordings: Sequence[np.ndarray]) -> list[bool]:
        """Whether recordings, 16 kHz float32 [T] each, are of speech that was not taught."""
        means = frame_means(self._encoder, recordings)
        return [mean is not None and not self.familiarity.knows(mean) for mean in means]


def frame_means(
    encoder: SpeechEncoder, recordings: Sequence[np.ndarray]
) -> list[FloatArray | None]:
    """The mean of the frames of a recording's beginning, float64 [D]; None of an empty one."""
    frames = encoder.encode([one[: BEGINNING_S * RATE_HZ] for one in recordings])
    return [one.mean(axis=0, dtype=np.float64) if len(one) else None for one in frames]


def save_statistics(statistics: Any, path: Path) -> None:
    """Write a `Familiarity` or an `OtherSpeech` as safetensors, float32."""
    import torch

    values = vars(statistics)
    names = {name: value for name, value in values.items() if isinstance(value, str)}
    tensors = {name: torch.tensor(values[name]).float() for name in values.keys() - names.keys()}
    save_tensors(tensors, path, names)


def load_statistics(kind: type[Statistics], path: Path) -> Statistics:
    """What `save_statistics` wrote. Raises ModelError where it is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            found: dict[str, Any] = dict(file.metadata() or {})
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                value = file.get_tensor(name).astype(np.float64)
                found[name] = value if value.ndim else float(value)
        return kind(**found)
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}; copy the bundle again") from error
