"""Frames of HuBERT, wav2vec 2.0 and WavLM through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relisten.core.types import ModelError
from relisten.io.audio import RATE_HZ
from relisten.io.device import torch_placement
from relisten.io.extras import need_transformers
from relisten.io.pretrained import from_pretrained
from relisten.io.sources import weights_hash
from relisten.speech.frames import FRAME_RATE_HZ, SAMPLES_PER_FRAME, n_frames


class HFEncoder:
    """One hidden layer of HuBERT, wav2vec 2.0 or WavLM, through transformers.

    Recordings run one at a time: the base models normalise over time, so padding in a batch would
    change every frame.
    """

    frame_rate_hz = FRAME_RATE_HZ

    def __init__(
        self,
        folder: Path | str,
        layer: int,
        device: str = "auto",
        dtype: str = "auto",
        model: Any = None,
    ) -> None:
        """Load the model. layer: 0 is the input of the first transformer layer, -1 the last output.

        model: the folder's base model if it is loaded already. Raises ModelError if the model has
        no such layer.
        """
        need_transformers()
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

        self.device, torch_dtype = torch_placement(device, dtype)
        config = from_pretrained(AutoConfig, folder)
        n_layers = getattr(config, "num_hidden_layers", None)
        if n_layers is None:
            raise ModelError(f"{folder}: is no encoder of layers; name HuBERT, wav2vec2 or WavLM")
        if not -1 <= layer <= n_layers:
            raise ModelError(f"{folder}: layer {layer} asked for, it has 0 to {n_layers}")
        self.layer = n_layers if layer == -1 else layer
        if model is None:
            model = from_pretrained(AutoModel, folder, dtype=torch_dtype, use_safetensors=True)
        # Upper layers are never run; one more is kept, as some models normalise the last output.
        model.encoder.layers = model.encoder.layers[: self.layer + 1]
        self.model = model.to(self.device).eval()
        self.prepare = from_pretrained(AutoFeatureExtractor, folder)
        self.dim = int(config.hidden_size)
        name = weights_hash(Path(folder)) if Path(folder).is_dir() else str(folder)
        self.id = f"{config.model_type}-{name}@{self.layer}"

    def encode(self, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames, float32 [T, dim] each; see `SpeechEncoder.encode`."""
        return [self._encode_one(samples) for samples in audio]

    def _encode_one(self, samples: np.ndarray) -> np.ndarray:
        import torch

        if not len(samples):
            return np.zeros((0, self.dim), np.float32)
        values = self.prepare(samples, sampling_rate=RATE_HZ).input_values[0]
        # The convolutions take 400 samples and hop 320: pad so that every started hop has a frame.
        padded = np.zeros(n_frames(samples) * SAMPLES_PER_FRAME + 80, np.float32)
        padded[: len(values)] = values
        inputs = torch.from_numpy(padded)[None].to(self.device, self.model.dtype)
        with torch.inference_mode():
            hidden = self.model(inputs, output_hidden_states=True).hidden_states[self.layer]
        return hidden[0].float().cpu().numpy()
