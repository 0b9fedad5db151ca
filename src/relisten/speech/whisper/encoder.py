"""Whisper's encoder as a `SpeechEncoder`, through CTranslate2 and through transformers.

The first pass runs the same encoder, so units made of its frames cost no second encoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from relisten.core.types import ModelError
from relisten.io.audio import RATE_HZ
from relisten.io.files import read_object
from relisten.io.sources import weights_hash
from relisten.speech.frames import FRAME_RATE_HZ, batches, n_frames
from relisten.speech.whisper.features import WINDOW_S, cut_windows, log_mel

SHORT_WINDOWS = "relisten_window_silence_s"
"""Key of config.json: silence, s, that a model trained on short windows is given behind speech."""


class WhisperEncoder:
    """The encoder of a Whisper model in CTranslate2 form.

    On its own it pads to the next 5 s (10 to 30 s) instead of Whisper's 30 s: for 10 s of speech
    that costs a fifth or less, and the frames have cosine 0.96 to 0.99 with those of the full
    window. Recordings longer than 30 s are encoded window by window. A model that was trained on
    short windows says so in its config.json (`SHORT_WINDOWS`): it always gets the next half second
    and that much of silence.
    """

    frame_rate_hz = FRAME_RATE_HZ

    def __init__(self, folder: Path | str, device: str = "auto", dtype: str = "auto") -> None:
        """Load the model. Raises ModelError if there is none, or if it does not load.

        dtype: auto (int8 on the CPU, float16 on CUDA), float32, bfloat16, int8.
        """
        import ctranslate2

        self.folder = Path(folder)
        if not (self.folder / "model.bin").is_file():
            raise ModelError(f"{folder}: no model.bin here; name a CTranslate2 Whisper folder")
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        if dtype == "auto":
            dtype = "int8" if device == "cpu" else "float16"
        try:
            self.model = ctranslate2.models.Whisper(
                str(self.folder), device=device, compute_type=dtype
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{folder}: CTranslate2 cannot load it on {device}: {error}"
            ) from error
        self.id = f"whisper-{weights_hash(self.folder)}"
        config = self.folder / "config.json"
        known = read_object(config, "a recogniser's configuration") if config.is_file() else {}
        self._silence_s = known.get(SHORT_WINDOWS)

    @cached_property
    def dim(self) -> int:
        """Width of a frame: 384 for tiny, 512 for base."""
        return int(self.to_numpy(self.encode_window([np.zeros(0, np.float32)], 1)).shape[-1])

    def windows(self, audio: Sequence[np.ndarray]) -> Iterator[tuple[Sequence[int], float]]:
        """Rows of recordings to be decoded together, and the window they are padded to, s.

        A recording's window does not depend on its neighbours.
        """
        if self._silence_s is None:
            lengths = [float(WINDOW_S)] * len(audio)
        else:
            lengths = [self._padded_s(samples) for samples in audio]
        return _batches_of(lengths)

    def encode_window(self, audio: Sequence[np.ndarray], window_s: float = WINDOW_S) -> Any:
        """The encoder's output on padded recordings: a CTranslate2 view [B, window_s * 50, dim]."""
        import ctranslate2

        features = log_mel(audio, window_s, self.model.n_mels)
        return self.model.encode(ctranslate2.StorageView.from_array(features))

    def to_numpy(self, view: Any) -> np.ndarray:
        """A CTranslate2 view of any type and device as a float32 array."""
        import ctranslate2

        on_cpu = view.to_device(ctranslate2.Device.cpu)
        return np.array(on_cpu.to(ctranslate2.DataType.float32), np.float32)

    def encode(self, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames, float32 [T, dim] each; see `SpeechEncoder.encode`."""
        pieces = [(i, piece) for i, samples in enumerate(audio) for piece in cut_windows(samples)]
        encoded: dict[int, np.ndarray] = {}
        for batch, window_s in _batches_of([self._padded_s(piece) for _, piece in pieces]):
            view = self.encode_window([pieces[p][1] for p in batch], window_s)
            for p, output in zip(batch, self.to_numpy(view), strict=True):
                encoded[p] = output[: n_frames(pieces[p][1])].copy()
        frames = [[np.zeros((0, self.dim), np.float32)] for _ in audio]
        for p, (i, _) in enumerate(pieces):
            frames[i].append(encoded[p])
        return [np.concatenate(parts) for parts in frames]

    def _padded_s(self, samples: np.ndarray) -> float:
        if self._silence_s is None:
            return float(max(10, 5 * -(-len(samples) // (5 * RATE_HZ))))
        return short_window_s(len(samples) / RATE_HZ, self._silence_s)


def _batches_of(lengths_s: Sequence[float]) -> Iterator[tuple[Sequence[int], float]]:
    """Rows that are padded to the same length, and that length, s."""
    for window_s in sorted(set(lengths_s)):
        same = [row for row, length_s in enumerate(lengths_s) if length_s == window_s]
        yield from ((rows, window_s) for rows in batches(same))


def short_window_s(duration_s: float, silence_s: float) -> float:
    """The window of a recording for a model trained on short ones: whole halves of a second and the
    silence behind, at most 30 s."""
    return min(float(WINDOW_S), math.ceil(2 * duration_s) / 2 + silence_s)


class TransformersWhisperEncoder:
    """The encoder of a transformers Whisper, always on the full 30 s window."""

    frame_rate_hz = FRAME_RATE_HZ

    def __init__(self, model: Any, id: str) -> None:
        self.model = model
        self.id = id
        self.dim = int(model.config.d_model)

    def encode_window(self, audio: Sequence[np.ndarray]) -> Any:
        """The encoder's output, torch [B, 1500, dim], for recordings of at most 30 s."""
        import torch

        features = log_mel(audio, WINDOW_S, self.model.config.num_mel_bins)
        inputs = torch.from_numpy(features).to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            return self.model.get_encoder()(inputs).last_hidden_state

    def encode(self, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames, float32 [T, dim] each; see `SpeechEncoder.encode`."""
        frames = []
        for samples in audio:
            parts = [np.zeros((0, self.dim), np.float32)]
            for piece in cut_windows(samples):
                output = self.encode_window([piece])[0, : n_frames(piece)]
                parts.append(output.float().cpu().numpy())
            frames.append(np.concatenate(parts))
        return frames
