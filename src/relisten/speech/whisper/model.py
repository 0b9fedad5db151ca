"""A whole Whisper in torch, to be trained; what it has learnt goes back into CTranslate2's form.

Scoring and decoding do not need it: they run in `whisper.ctranslate2` and `whisper.decoder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from relisten.core.types import ModelError
from relisten.io.ct2 import read_ct2_weights

FROZEN = ("conv", "position_encodings", "embeddings", "projection")
"""Parts of a name: what an hour of speech cannot better, and half of a small model's weights."""


class WhisperModel(nn.Module):
    """Encoder and decoder (arXiv:2212.04356), float32; variables are named as in CTranslate2.

    Its parameters are what is trained: all matrices, biases and norms of the layers. `state_dict`
    holds nothing else.
    """

    def __init__(self, folder: Path, dropout: float = 0.0) -> None:
        """The model of a folder in CTranslate2 form. Raises ModelError where it is none."""
        super().__init__()
        weights = read_ct2_weights(folder / "model.bin", "")
        if "encoder/conv1/weight" not in weights or "decoder/embeddings/weight" not in weights:
            raise ModelError(f"{folder}: holds no Whisper")
        self.n_mels = weights["encoder/conv1/weight"].shape[1]
        self.dropout = dropout
        self._n_heads = {side: int(weights[f"{side}/num_heads"]) for side in ("encoder", "decoder")}
        self._n_layers = {side: _n_layers(weights, side) for side in ("encoder", "decoder")}
        self._trained = nn.ParameterDict()
        for name, value in weights.items():
            if value.ndim == 0:
                continue
            if any(part in name for part in FROZEN):
                self.register_buffer(_key(name), torch.from_numpy(value), persistent=False)
            else:
                self._trained[name] = nn.Parameter(torch.from_numpy(value))

    def trained(self) -> dict[str, nn.Parameter]:
        """Name of a variable in CTranslate2's file → its parameter."""
        return dict(self._trained.items())

    def forward(self, mels: Tensor, tokens: Tensor) -> Tensor:
        """Hidden states of the decoder [B, L, dim], the input of the projection.

        mels: float [B, n_mels, 2 T], log-mel features of windows of T frames; tokens: int64 [B, L].
        """
        frames = self.encode(mels)
        x = functional.embedding(tokens, self._at("decoder/embeddings/weight"))
        x = x + self._at("decoder/position_encodings/encodings")[: tokens.shape[1]]
        for i in range(self._n_layers["decoder"]):
            layer = f"decoder/layer_{i}"
            x = x + self._self_attention(f"{layer}/self_attention", x, is_causal=True)
            x = x + self._cross_attention(f"{layer}/attention", x, frames)
            x = x + self._feed_forward(f"{layer}/ffn", x)
        return self._norm("decoder/layer_norm", x)

    def encode(self, mels: Tensor) -> Tensor:
        """Frames [B, T, dim] of log-mel features [B, n_mels, 2 T]."""
        x = mels
        for name, stride in (("encoder/conv1", 1), ("encoder/conv2", 2)):
            weight, bias = self._at(f"{name}/weight"), self._at(f"{name}/bias")
            x = functional.gelu(functional.conv1d(x, weight, bias, stride, padding=1))
        x = x.mT
        x = x + self._at("encoder/position_encodings/encodings")[: x.shape[1]]
        for i in range(self._n_layers["encoder"]):
            layer = f"encoder/layer_{i}"
            x = x + self._self_attention(f"{layer}/self_attention", x, is_causal=False)
            x = x + self._feed_forward(f"{layer}/ffn", x)
        return self._norm("encoder/layer_norm", x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] of hidden states [..., dim]."""
        return functional.linear(hidden, self._at("decoder/projection/weight"))

    def _self_attention(self, name: str, x: Tensor, is_causal: bool) -> Tensor:
        n_heads = self._n_heads[name.partition("/")[0]]
        parts = self._linear(f"{name}/linear_0", self._norm(f"{name}/layer_norm", x)).chunk(3, -1)
        return self._drop(self._linear(f"{name}/linear_1", _attend(*parts, n_heads, is_causal)))

    def _cross_attention(self, name: str, x: Tensor, frames: Tensor) -> Tensor:
        query = self._linear(f"{name}/linear_0", self._norm(f"{name}/layer_norm", x))
        key, value = self._linear(f"{name}/linear_1", frames).chunk(2, -1)
        attended = _attend(query, key, value, self._n_heads["decoder"], is_causal=False)
        return self._drop(self._linear(f"{name}/linear_2", attended))

    def _feed_forward(self, name: str, x: Tensor) -> Tensor:
        fed = self._linear(f"{name}/linear_0", self._norm(f"{name}/layer_norm", x))
        return self._drop(self._linear(f"{name}/linear_1", functional.gelu(fed)))

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        gamma, beta = self._at(f"{name}/gamma"), self._at(f"{name}/beta")
        return functional.layer_norm(x, x.shape[-1:], gamma, beta)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._at(f"{name}/weight"), self._at(f"{name}/bias"))

    def _at(self, name: str) -> Tensor:
        return self._trained[name] if name in self._trained else self.get_buffer(_key(name))


def _attend(query: Tensor, key: Tensor, value: Tensor, n_heads: int, is_causal: bool) -> Tensor:
    """Output of attention [B, L, dim]."""
    q, k, v = (x.unflatten(-1, (n_heads, -1)).transpose(1, 2) for x in (query, key, value))
    attended = functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    return attended.transpose(1, 2).flatten(2)


def _n_layers(weights: Mapping[str, np.ndarray], side: str) -> int:
    return sum(n.startswith(side) and n.endswith("ffn/linear_0/weight") for n in weights)


def _key(name: str) -> str:
    return name.replace("/", "_")
