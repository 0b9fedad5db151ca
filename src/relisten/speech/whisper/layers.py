"""Whisper's encoder in two parts: lower layers, frozen, and upper layers, which can be trained.

The first pass runs the encoder in CTranslate2, which returns the last output only and cannot train.
Here its weights run in torch, on the recording's own length instead of a window of 30 s. What is
trained of the upper layers is small: low-rank updates of their matrices (LoRA, arXiv:2106.09685)
and their norms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from relisten.core.types import ModelError
from relisten.io.ct2 import read_ct2_weights
from relisten.io.sources import weights_hash
from relisten.speech.frames import FRAME_RATE_HZ, n_frames
from relisten.speech.whisper.features import cut_windows, log_mel

MARGIN_S = 0.5
"""Silence kept behind the speech for the lower layers, which were trained on padded speech."""

EncoderWeights = Mapping[str, np.ndarray]
"""Name of a variable of the encoder, without the prefix `encoder/` → its values."""


class LowRankLinear(nn.Module):
    """x · (W + up · down)ᵀ + bias, where up and down are trained; up starts at zero.

    rank 0: nothing is trained.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, rank: int) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / math.sqrt(weight.shape[1]))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, x: Tensor) -> Tensor:
        product = functional.linear(x, self.weight, self.bias)
        if not len(self.down):
            return product
        return product + functional.linear(functional.linear(x, self.down), self.up)


class EncoderLayer(nn.Module):
    """One layer of Whisper's encoder (arXiv:2212.04356); weights: named as in CTranslate2."""

    def __init__(self, weights: EncoderWeights, n_heads: int, rank: int) -> None:
        super().__init__()

        def norm(name: str) -> nn.LayerNorm:
            made = nn.LayerNorm(len(weights[f"{name}/gamma"]))
            made.weight.data = torch.from_numpy(weights[f"{name}/gamma"])
            made.bias.data = torch.from_numpy(weights[f"{name}/beta"])
            return made

        def linear(name: str) -> LowRankLinear:
            weight, bias = weights[f"{name}/weight"], weights[f"{name}/bias"]
            return LowRankLinear(torch.from_numpy(weight), torch.from_numpy(bias), rank)

        self.n_heads = n_heads
        self.attention_norm = norm("self_attention/layer_norm")
        self.query_key_value = linear("self_attention/linear_0")
        self.attention_out = linear("self_attention/linear_1")
        self.feed_norm = norm("ffn/layer_norm")
        self.feed_up = linear("ffn/linear_0")
        self.feed_down = linear("ffn/linear_1")
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: [B, T, D]; mask: bool [B, 1, 1, T], False where there is nothing to attend to."""
        heads = self.query_key_value(self.attention_norm(x)).unflatten(-1, (3, self.n_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, mask)
        x = x + self.dropout(self.attention_out(attended.transpose(1, 2).flatten(2)))
        fed = self.feed_down(functional.gelu(self.feed_up(self.feed_norm(x))))
        return x + self.dropout(fed)


class UpperLayers(nn.Module):
    """The last n_layers of the encoder, to be trained; its state holds only what is trained.

    rank: of the low-rank updates.
    """

    def __init__(self, weights: EncoderWeights, n_layers: int, rank: int = 32) -> None:
        super().__init__()
        last = n_encoder_layers(weights)
        if not 0 < n_layers <= last:
            raise ModelError(f"{n_layers} upper layers asked for, the encoder has {last}")
        self.layers = nn.ModuleList(_layers(weights, range(last - n_layers, last), rank))
        self.norm = nn.LayerNorm(len(weights["layer_norm/gamma"]))
        self.norm.weight.data = torch.from_numpy(weights["layer_norm/gamma"])
        self.norm.bias.data = torch.from_numpy(weights["layer_norm/beta"])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames [B, T, D] from the output of the lower layers; mask as in `EncoderLayer`."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


class LowerLayers:
    """A `SpeechEncoder`: the first layers of a Whisper in CTranslate2 form, in float32 on the CPU.

    n_upper: how many layers are left out at the end. The id names the layer, as in `HFEncoder`.
    """

    frame_rate_hz = FRAME_RATE_HZ

    def __init__(self, folder: Path, n_upper: int) -> None:
        weights = read_encoder_weights(folder)
        n_lower = n_encoder_layers(weights) - n_upper
        self.id = layer_id(f"whisper-{weights_hash(folder)}", n_lower)
        self.dim = weights["conv2/weight"].shape[0]
        self.n_mels = weights["conv1/weight"].shape[1]
        self._at = {name: torch.from_numpy(value) for name, value in weights.items()}
        self._layers = [layer.eval() for layer in _layers(weights, range(n_lower), rank=0)]

    @torch.inference_mode()
    def encode(self, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames, float32 [T, dim] each; see `SpeechEncoder.encode`."""
        encoded = []
        for samples in audio:
            frames = [self._encode(piece) for piece in cut_windows(samples)]
            encoded.append(np.concatenate([np.zeros((0, self.dim), np.float32), *frames]))
        return encoded

    def _encode(self, samples: np.ndarray) -> np.ndarray:
        n_spoken = n_frames(samples)
        n_encoded = min(n_spoken + round(MARGIN_S * FRAME_RATE_HZ), len(self._position))
        x = torch.from_numpy(log_mel([samples], n_encoded / FRAME_RATE_HZ, self.n_mels))
        for name, stride in (("conv1", 1), ("conv2", 2)):
            weight, bias = self._at[f"{name}/weight"], self._at[f"{name}/bias"]
            x = functional.gelu(functional.conv1d(x, weight, bias, stride, padding=1))
        x = x.mT + self._position[:n_encoded]
        for layer in self._layers:
            x = layer(x)
        return x[0, :n_spoken].numpy()

    @property
    def _position(self) -> Tensor:
        return self._at["position_encodings/encodings"]


def layer_id(encoder_id: str, n_lower: int) -> str:
    """The id of the frames that the first n_lower layers of an encoder give."""
    return f"{encoder_id}@{n_lower}"


def read_encoder_weights(folder: Path) -> dict[str, np.ndarray]:
    """The encoder of a Whisper in CTranslate2 form. Raises ModelError where there is none."""
    path = folder / "model.bin"
    if not path.is_file():
        raise ModelError(f"{folder}: no model.bin here; name a CTranslate2 Whisper folder")
    weights = read_ct2_weights(path, "encoder/")
    if "num_heads" not in weights or "conv1/weight" not in weights:
        raise ModelError(f"{path}: holds no encoder of a Whisper")
    return weights


def n_encoder_layers(weights: EncoderWeights) -> int:
    """How many layers the encoder has."""
    return sum(name.endswith("ffn/linear_0/weight") for name in weights)


def _layers(weights: EncoderWeights, which: range, rank: int) -> list[EncoderLayer]:
    made = []
    for i in which:
        prefix = f"layer_{i}/"
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        made.append(EncoderLayer(own, int(weights["num_heads"]), rank))
    return made
