"""Whisper's decoder reading given texts, all texts of a recording at once.

CTranslate2 projects 30 s of frames anew for every text that it is given. Here its weights run in
torch: the frames are projected once, texts that begin alike are read once up to where they part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from relisten.core.types import ModelError
from relisten.io.ct2 import read_ct2_weights
from relisten.speech.first_pass import forced_logprobs

LOGIT_ROWS = 128
"""Rows whose logits over all 51,864 tokens are held at a time."""
Heard = Sequence[tuple[Tensor, ...]]
"""Keys and values [T, dim] of a recording's frames, for each layer."""


class WhisperDecoder:
    """The decoder of a Whisper in CTranslate2 form (arXiv:2212.04356), in float32.

    suppressed, suppressed_first: tokens taken out everywhere, and at the beginning.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        suppressed: Sequence[int] = (),
        suppressed_first: Sequence[int] = (),
    ) -> None:
        weights = read_ct2_weights(folder / "model.bin", "decoder/")
        if "num_heads" not in weights or "embeddings/weight" not in weights:
            raise ModelError(f"{folder}: holds no decoder of a Whisper")
        self.n_heads = int(weights["num_heads"])
        self.n_layers = sum(name.endswith("ffn/linear_0/weight") for name in weights)
        self.suppressed, self.suppressed_first = list(suppressed), list(suppressed_first)
        self._at = {name: torch.from_numpy(value).to(device) for name, value in weights.items()}

    @torch.inference_mode()
    def hear(self, frames: np.ndarray) -> Heard:
        """Frames of the encoder, float32 [T, dim], as each layer attends to them."""
        encoded = torch.from_numpy(frames).to(self._at["embeddings/weight"].device)
        return [
            self._linear(f"layer_{i}/attention/linear_1", encoded).chunk(2, -1)
            for i in range(self.n_layers)
        ]

    @torch.inference_mode()
    def logprobs(
        self,
        heard: Heard,
        prompt: Sequence[int],
        sequences: Sequence[Sequence[int]],
        context: int | None = None,
    ) -> list[float]:
        """Summed log-probability, nats, of each sequence after the prompt, as it stands.

        An end of transcript counts where the sequence has one. context: see `FirstPass.score`.
        """
        if not sequences:
            return []
        nodes, parents, paths = _tree(prompt, [ids[:-1] for ids in sequences], context)
        hidden = self._read(heard, nodes, parents)[len(prompt) - 1 :]
        rows = np.concatenate(paths) - (len(prompt) - 1)
        targets = np.concatenate([np.array(ids, np.int64) for ids in sequences])
        found = np.zeros(len(rows))
        for start in range(0, len(hidden), LOGIT_ROWS):
            logits = functional.linear(
                hidden[start : start + LOGIT_ROWS], self._at["projection/weight"]
            )
            here = (rows >= start) & (rows < start + LOGIT_ROWS)
            first = [] if start else self.suppressed_first
            found[here] = forced_logprobs(
                logits, rows[here] - start, targets[here], self.suppressed, first
            )
        ends = np.cumsum([len(path) for path in paths])[:-1]
        return [float(part.sum()) for part in np.split(found, ends)]

    def _read(self, heard: Heard, nodes: Sequence[int], parents: Sequence[int]) -> Tensor:
        """The last hidden state [M, dim] of a tree of tokens; parents stand before children."""
        at = self._at
        sees = torch.eye(len(nodes), dtype=torch.bool)
        for node, parent in enumerate(parents):
            if parent >= 0:
                sees[node] |= sees[parent]
        depth = sees.sum(1) - 1
        device = at["embeddings/weight"].device
        sees, depth = sees.to(device), depth.to(device)
        x = at["embeddings/weight"][torch.tensor(nodes, device=device)]
        x = x + at["position_encodings/encodings"][depth]
        for i, (key, value) in enumerate(heard):
            layer = f"layer_{i}/"
            normed = self._norm(f"{layer}self_attention/layer_norm", x)
            own = self._linear(f"{layer}self_attention/linear_0", normed).chunk(3, -1)
            attended = self._attend(own[0], own[1], own[2], sees)
            x = x + self._linear(f"{layer}self_attention/linear_1", attended)
            query = self._linear(
                f"{layer}attention/linear_0", self._norm(f"{layer}attention/layer_norm", x)
            )
            attended = self._attend(query, key, value)
            x = x + self._linear(f"{layer}attention/linear_2", attended)
            fed = self._linear(f"{layer}ffn/linear_0", self._norm(f"{layer}ffn/layer_norm", x))
            x = x + self._linear(f"{layer}ffn/linear_1", functional.gelu(fed))
        return self._norm("layer_norm", x)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], self._at[f"{name}/gamma"], self._at[f"{name}/beta"]
        )

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._at[f"{name}/weight"], self._at[f"{name}/bias"])

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.n_heads, -1)).transpose(0, 1) for x in (query, key, value))
        return functional.scaled_dot_product_attention(q, k, v, mask).transpose(0, 1).flatten(1)


def _tree(
    prompt: Sequence[int], sequences: Sequence[Sequence[int]], context: int | None = None
) -> tuple[list[int], list[int], list[np.ndarray]]:
    """The tokens that are read, the parent of each (-1: none), and the path of each sequence.

    A path begins with the last token of the prompt, which predicts the sequence's first. context:
    a path joins another where the last so many tokens and all that follow are the same.
    """
    nodes, parents = list(prompt), list(range(-1, len(prompt) - 1))
    known: dict[tuple[int, int], int] = {}  # (parent, token) → node
    alike: dict[tuple[int, ...], int] = {}  # the last tokens, and all that follow → node
    paths = []
    for ids in map(tuple, sequences):
        path = [len(prompt) - 1]
        for i, token in enumerate(ids):
            node = known.get((path[-1], token))
            if node is None and context is not None and i >= context:
                node = alike.get(ids[i - context + 1 :])
            if node is None:
                node = known[path[-1], token] = len(nodes)
                nodes.append(token)
                parents.append(path[-1])
                if context is not None and i >= context:
                    alike[ids[i - context + 1 :]] = node
            path.append(node)
        paths.append(np.array(path))
    return nodes, parents, paths
