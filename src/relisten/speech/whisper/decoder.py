"""Teacher forcing with Whisper's decoder, for all texts of a recording at once.

CTranslate2 projects 30 s of frames anew for every text that it is given. Here its weights run in
torch: the frames are projected once, a beginning that several texts share is computed once, and
texts that come later continue from what was computed before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from relisten.core.types import ModelError
from relisten.io.ct2 import read_ct2_weights
from relisten.speech.whisper.suppression import Suppression

LOGIT_ROWS = 128
"""Rows whose logits over all 51,864 tokens are held at a time."""
CrossKV = Sequence[tuple[Tensor, ...]]
"""Keys and values [T, dim] of a recording's frames, for each layer."""


class WhisperDecoder:
    """The decoder of a Whisper in CTranslate2 form (arXiv:2212.04356), in float32."""

    def __init__(self, folder: Path, device: str, suppression: Suppression) -> None:
        weights = read_ct2_weights(folder / "model.bin", "decoder/")
        if "num_heads" not in weights or "embeddings/weight" not in weights:
            raise ModelError(f"{folder}: holds no decoder of a Whisper")
        self.n_heads = int(weights["num_heads"])
        self.n_layers = sum(name.endswith("ffn/linear_0/weight") for name in weights)
        self.suppression = suppression
        self._at = {name: torch.from_numpy(value).to(device) for name, value in weights.items()}

    @torch.inference_mode()
    def cross_kv(self, frames: np.ndarray) -> CrossKV:
        """Keys and values of the encoder's frames, float32 [T, dim], for each layer."""
        encoded = torch.from_numpy(frames).to(self._at["embeddings/weight"].device)
        return [
            self._linear(f"layer_{i}/attention/linear_1", encoded).chunk(2, -1)
            for i in range(self.n_layers)
        ]

    def forced_scorer(
        self, cross_kv: CrossKV, prompt: Sequence[int], context: int | None = None
    ) -> ForcedScorer:
        """A scorer of texts behind this prompt; context: see `FirstPass.scorer`."""
        return ForcedScorer(self, cross_kv, prompt, context)

    def embed(self, tokens: Sequence[int], depth: Tensor) -> Tensor:
        """Embeddings [n, dim] of tokens at positions depth int64 [n]."""
        ids = torch.tensor(tokens, device=depth.device)
        return self._at["embeddings/weight"][ids] + self._at["position_encodings/encodings"][depth]

    def keys(self, i: int, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of layer i's attention to the text, each [n, dim]."""
        layer = f"layer_{i}/self_attention"
        return self._linear(f"{layer}/linear_0", self._norm(f"{layer}/layer_norm", x)).chunk(3, -1)

    def layer(self, i: int, x: Tensor, text: Tensor, cross_kv: tuple[Tensor, ...]) -> Tensor:
        """Output [n, dim] of layer i; text: the output of its self-attention, [n, dim]."""
        layer = f"layer_{i}"
        x = x + self._linear(f"{layer}/self_attention/linear_1", text)
        query = self._linear(
            f"{layer}/attention/linear_0", self._norm(f"{layer}/attention/layer_norm", x)
        )
        x = x + self._linear(f"{layer}/attention/linear_2", self.attend(query, *cross_kv))
        fed = self._linear(f"{layer}/ffn/linear_0", self._norm(f"{layer}/ffn/layer_norm", x))
        return x + self._linear(f"{layer}/ffn/linear_1", functional.gelu(fed))

    def last_norm(self, x: Tensor) -> Tensor:
        """The input of the projection, [n, dim]."""
        return self._norm("layer_norm", x)

    @property
    def projection(self) -> Tensor:
        """Output embeddings, [V, dim]."""
        return self._at["projection/weight"]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Output of attention, [n, dim]; mask: bool [n, keys], True where a query may attend."""
        q, k, v = (x.unflatten(-1, (self.n_heads, -1)).transpose(0, 1) for x in (query, key, value))
        return functional.scaled_dot_product_attention(q, k, v, mask).transpose(0, 1).flatten(1)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], self._at[f"{name}/gamma"], self._at[f"{name}/beta"]
        )

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._at[f"{name}/weight"], self._at[f"{name}/bias"])


class ForcedScorer:
    """Scores texts over the frames of one recording. All texts form one tree of tokens, and no
    node of the tree is computed twice, however often it is asked for."""

    def __init__(
        self, decoder: WhisperDecoder, cross_kv: CrossKV, prompt: Sequence[int], context: int | None
    ) -> None:
        self._decoder, self._cross_kv = decoder, cross_kv
        self._tree = TokenTree(prompt, context)
        self._sees = np.zeros((0, 0), bool)
        empty = decoder.projection[:0]
        self._text = [(empty, empty)] * decoder.n_layers  # keys and values computed so far
        self._hidden, self._log_z = empty, empty[:, 0]

    @torch.inference_mode()
    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Summed log-probability, nats, of each sequence after the prompt, as it stands.

        An end of transcript counts where the sequence has one.
        """
        if not sequences:
            return []
        decoder = self._decoder
        paths = [self._tree.add(ids[:-1]) for ids in sequences]
        self._extend()
        rows = np.concatenate(paths)
        targets = np.concatenate([np.array(ids, np.int64) for ids in sequences])
        at, ids = (torch.from_numpy(x).to(self._hidden.device) for x in (rows, targets))
        logits = (self._hidden[at] * decoder.projection[ids]).sum(-1)
        found = decoder.suppression.logprobs(
            logits, self._log_z[at], targets, rows == self._tree.root
        )
        ends = np.cumsum([len(path) for path in paths])[:-1]
        return [float(part.sum()) for part in np.split(found, ends)]

    def _extend(self) -> None:
        """Compute the nodes of the tree that are new."""
        decoder, tree = self._decoder, self._tree
        start, end = len(self._sees), len(tree.tokens)
        if start == end:
            return
        sees = np.eye(end, dtype=bool)
        sees[:start, :start] = self._sees
        for node in range(max(start, 1), end):
            sees[node] |= sees[tree.parents[node]]
        self._sees = sees
        mask, depth = (
            torch.from_numpy(x).to(self._hidden.device)
            for x in (sees[start:], sees[start:].sum(1) - 1)
        )
        x = decoder.embed(tree.tokens[start:], depth)
        for i, cross_kv in enumerate(self._cross_kv):
            query, *new = decoder.keys(i, x)
            key, value = (torch.cat(pair) for pair in zip(self._text[i], new, strict=True))
            self._text[i] = key, value
            x = decoder.layer(i, x, decoder.attend(query, key, value, mask), cross_kv)
        hidden = decoder.last_norm(x)
        self._hidden = torch.cat([self._hidden, hidden])
        self._log_z = torch.cat([self._log_z, *self._log_zs(hidden, start)])

    def _log_zs(self, hidden: Tensor, start: int) -> Iterator[Tensor]:
        """`Suppression.log_z` after each node from start on, LOGIT_ROWS at a time; before the end
        of the prompt it is not used."""
        decoder, root = self._decoder, self._tree.root
        for first in range(0, len(hidden), LOGIT_ROWS):
            logits = functional.linear(hidden[first : first + LOGIT_ROWS], decoder.projection)
            row = root - start - first
            is_here = 0 <= row < len(logits)
            yield decoder.suppression.log_z(logits, row if is_here else None)


class TokenTree:
    """Texts behind a prompt, as a tree of tokens, parents before children (-1: none).

    root: the last token of the prompt, which predicts a text's first. context: a text continues in
    an existing branch where its last `context` tokens and all that follow are those of the branch.
    """

    def __init__(self, prompt: Sequence[int], context: int | None = None) -> None:
        self.tokens, self.parents = list(prompt), list(range(-1, len(prompt) - 1))
        self.root, self.context = len(prompt) - 1, context
        self._known: dict[tuple[int, int], int] = {}  # (parent, token) → node
        self._alike: dict[tuple[int, ...], int] = {}  # (last tokens, all that follow) → node

    def add(self, ids: Sequence[int]) -> np.ndarray:
        """The nodes of a text, from the root on: int64 [1 + n]; new ones are appended."""
        path, ids = [self.root], tuple(ids)
        for i, token in enumerate(ids):
            rest = None
            if self.context is not None and i >= self.context:
                rest = ids[i - self.context + 1 :]
            node = self._known.get((path[-1], token))
            if node is None and rest is not None:
                node = self._alike.get(rest)
            if node is None:
                node = self._known[path[-1], token] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(path[-1])
                if rest is not None:
                    self._alike[rest] = node
            path.append(node)
        return np.array(path)
