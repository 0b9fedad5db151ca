"""A Whisper that was taught a user's speech, and knows when it hears other speech."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from relisten.core.familiarity import Familiarity
from relisten.core.types import ADAPTED, ModelError
from relisten.io.tensors import save_tensors
from relisten.speech.frames import n_frames
from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper

FAMILIARITY = "familiarity.safetensors"


class AdaptedWhisper(CTranslate2Whisper):
    """The recogniser of a bundle; its score is `asr.adapted`."""

    def __init__(
        self, folder: Path, device: str = "auto", dtype: str = "auto", language: str = "en"
    ) -> None:
        super().__init__(folder, device, dtype, language, ADAPTED.rpartition(".")[2])

    @cached_property
    def _familiarity(self) -> Familiarity | None:
        path = self.encoder.folder / FAMILIARITY
        return load_familiarity(path) if path.is_file() else None

    def is_strange(self, recording: np.ndarray, window: np.ndarray) -> bool:
        """Whether a recording, 16 kHz [samples], is of other speech than was taught.

        window: what the decoder attends to, float32 [T, dim]; see `windows`.
        """
        frames = window[: n_frames(recording)]
        if self._familiarity is None or not len(frames):
            return False
        return not self._familiarity.knows(frames.mean(axis=0).astype(np.float64))


def save_familiarity(familiarity: Familiarity, path: Path) -> None:
    """Write it as safetensors."""
    import torch

    tensors = {name: torch.tensor(value) for name, value in vars(familiarity).items()}
    save_tensors({name: one.double() for name, one in tensors.items()}, path)


def load_familiarity(path: Path) -> Familiarity:
    """What `save_familiarity` wrote. Raises ModelError where it is something else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path)
        return Familiarity(
            found["mean"],
            found["directions"].reshape(-1, len(found["mean"])),
            float(found["residual"]),
            float(found["limit"]),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}; copy the bundle again") from error
