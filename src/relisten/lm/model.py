"""Any causal LM, its vocabulary extended by speech units.

The LM's own weights are left as they are. Markers and units have their own small embedding and
output tables beside it, so that an extension is a few megabytes, the text head needs no copy, and
at each position logits are computed only of tokens that can follow there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from relisten.core.quarters import N_QUARTERS
from relisten.core.types import ModelError
from relisten.lm.attention import Attend
from relisten.lm.backend.linear import own_products
from relisten.lm.backend.llama import LlamaLM
from relisten.lm.vocabulary import Vocabulary

_LOGIT_ROWS, _GPU_LOGIT_ROWS = 128, 2048
"""Rows of hidden states whose logits are held at a time: 25 MB in float32 for 49,152 tokens on the
CPU. glibc returns buffers above 32 MB to the kernel after each use; 256 rows were 1.4 x slower."""


@dataclass(frozen=True)
class SpeechShape:
    """How speech enters a model.

    n_units: codes of the first codebook level. levels: codes per unit. frame_dim: D of
    `chunk_features` (0: this model takes no chunks). n_words: classes of its projector.
    """

    n_units: int
    levels: int = 1
    frame_dim: int = 0
    n_words: int = 0


class ChunkProjector(nn.Module):
    """One vector of the LM's embedding space for the speech of one word.

    Most of it is a guess of the word: a classifier over `word_tokens` (the first tokens of known
    words), whose output rows are the LM's own embeddings, gives the expected embedding. A linear
    map that starts at zero adds what the guess leaves out. The classifier is trained in a minute
    without the LM. The LM is trained with guesses for speakers on which the classifier was not
    trained (cross-fitting); with guesses for its training speakers the LM would trust them too
    much.
    """

    word_tokens: Tensor

    def __init__(self, frame_dim: int, embedding_dim: int, n_words: int, width: int = 1024) -> None:
        super().__init__()
        self.register_buffer("word_tokens", torch.arange(n_words))
        self.norm = nn.LayerNorm(frame_dim)
        self.up = nn.Linear(N_QUARTERS * frame_dim + 1, width)
        self.query = nn.Linear(width, embedding_dim)
        self.prior = nn.Parameter(torch.zeros(n_words))
        self.rest = nn.Linear(width, embedding_dim)
        self.dropout = nn.Dropout(0.3)
        nn.init.zeros_(self.rest.weight)
        nn.init.zeros_(self.rest.bias)

    def wide(self, chunks: Tensor) -> Tensor:
        """The hidden layer [n, width] from `chunk_features` [n, N_QUARTERS * D + 1]."""
        parts = self.norm(chunks[:, :-1].unflatten(1, (N_QUARTERS, -1))).flatten(1)
        return nn.functional.gelu(self.up(self.dropout(torch.cat([parts, chunks[:, -1:]], 1))))

    def word_logits(self, wide: Tensor, table: Tensor) -> Tensor:
        """Logits [n, W] over `word_tokens`; table [V, E]: the LM's input embeddings."""
        rows = table[self.word_tokens].float()
        rows = (rows - rows.mean(0)) / rows.std()
        return self.query(self.dropout(wide)) @ rows.T + self.prior

    def guess(self, wide: Tensor, table: Tensor) -> Tensor:
        """The expected embedding [n, E] of the word's first token."""
        posterior = self.word_logits(wide, table).softmax(-1)
        return posterior @ table[self.word_tokens].float()

    def forward(self, chunks: Tensor, table: Tensor, guess: Tensor | None = None) -> Tensor:
        """[n, E] from `chunk_features` [n, N_QUARTERS * D + 1]; guess: [n, E], not its own."""
        wide = self.wide(chunks)
        expected = self.guess(wide, table) if guess is None else guess
        return expected + self.rest(self.dropout(wide))


class SpeechExtension(nn.Module):
    """Embeddings and output rows of markers and units, and the projector of chunks.

    A unit enters as the sum of its levels' embeddings [levels, K, E] and is predicted by its first
    level alone. A chunk enters as its marker's embedding plus the projector's vector.
    """

    def __init__(self, shape: SpeechShape, embedding_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.shape = shape
        scale = 0.02
        self.marker_embedding = nn.Parameter(torch.randn(2, embedding_dim) * scale)
        self.marker_head = nn.Parameter(torch.zeros(2, hidden_dim))
        self.unit_head = nn.Parameter(torch.zeros(shape.n_units, hidden_dim))
        self.unit_embedding = nn.Parameter(
            torch.randn(shape.levels, shape.n_units, embedding_dim) * scale
        )
        self.projector: ChunkProjector | None = None
        if shape.frame_dim:
            self.projector = ChunkProjector(shape.frame_dim, embedding_dim, shape.n_words)

    def embed_units(self, codes: Tensor) -> Tensor:
        """Embeddings of units, [n, E], from codes [n, levels]."""
        levels = torch.arange(self.shape.levels, device=codes.device)
        return self.unit_embedding[levels, codes].sum(1)


class SpeechTextLM(nn.Module):
    """A causal LM over the joint vocabulary (Speech-Text Foundation Model, arXiv:2409.16654).

    causal: a `LlamaLM`, or a transformers `...ForCausalLM`, of which only what `LlamaLM` has is
    used. extension: None for a text-only LM, which is a valid rescorer too. Raises ModelError where
    the tokenizer has more tokens than the LM has embeddings.
    """

    def __init__(
        self, causal: nn.Module, vocabulary: Vocabulary, extension: SpeechExtension | None = None
    ) -> None:
        super().__init__()
        n_rows = causal.get_input_embeddings().weight.shape[0]
        if n_rows < vocabulary.n_text:
            raise ModelError(
                f"the tokenizer has {vocabulary.n_text} tokens but the LM embeds only {n_rows}; "
                "they do not belong together"
            )
        self.causal = causal
        self.vocabulary = vocabulary
        self.extension = extension

    @property
    def device(self) -> torch.device:
        return self.text_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.text_embedding.weight.dtype

    @property
    def text_embedding(self) -> nn.Embedding:
        return self.causal.get_input_embeddings()

    @property
    def sliding_window(self) -> int | None:
        """How many positions a layer sees, its own included; None: all before it.

        Mistral's window is on where its configuration has one, Qwen2's only where
        `use_sliding_window` is true.
        """
        config = self.causal.config
        if getattr(config, "use_sliding_window", True) is False:
            return None
        return getattr(config, "sliding_window", None)

    def embed(
        self,
        ids: Tensor,
        codes: Tensor | None = None,
        chunks: Tensor | None = None,
        guesses: Tensor | None = None,
    ) -> Tensor:
        """Input embeddings [n, E] of joint ids [n].

        codes: [n_units, levels] of the positions that hold units, in order. chunks: features
        [n_chunks, F] of the <speech> markers, in order, where those carry a chunk (all or none).
        guesses: [n_chunks, E], to use instead of the projector's own. Raises ModelError where there
        are chunks but no projector.
        """
        vocabulary = self.vocabulary
        embedded = self.text_embedding(ids.clamp(max=vocabulary.n_text - 1))
        if self.extension is None:
            return embedded
        extension = self.extension
        speech, text = extension.marker_embedding
        if chunks is not None:
            if extension.projector is None:
                raise ModelError("this model takes units one by one, not chunks of them")
            speech = speech + extension.projector(chunks, self.text_embedding.weight, guesses)
        parts = [(ids == vocabulary.speech_id, speech), (ids == vocabulary.text_id, text)]
        if codes is not None:
            parts.append((ids >= vocabulary.first_unit_id, extension.embed_units(codes)))
        for where, value in parts:
            index = where.nonzero().squeeze(1)
            value = value.to(embedded.dtype).expand(len(index), -1)
            embedded = embedded.index_copy(0, index, value)
        return embedded

    @property
    def takes_attend(self) -> bool:
        """Whether `hidden` takes an `Attend` in place of a mask."""
        return isinstance(self.causal, LlamaLM)

    def hidden(
        self,
        embedded: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Last hidden states [B, L, H].

        embedded: [B, L, E]. positions: int64 [B, L]. mask: additive [B, 1, L, L]. attend: how a
        `LlamaLM` attends, in place of a mask. Neither: plain causal attention.
        """
        own = {} if attend is None else {"attend": attend}
        with own_products(self.device):
            output = self.causal.base_model(
                inputs_embeds=embedded,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                **own,
            )
        return output.last_hidden_state

    def _output_blocks(self, as_text: bool) -> list[tuple[Callable[[Tensor], Tensor], int]]:
        """What can follow, as (hidden [R, H] to logits [R, W], joint id of the first column): text
        and markers, or markers and units. In blocks, since joining them would copy the text head.
        """
        n_text = self.vocabulary.n_text
        blocks: list[tuple[Callable[[Tensor], Tensor], int]] = []
        if as_text:
            head = self.causal.get_output_embeddings()
            blocks.append((lambda hidden: head(hidden.to(self.dtype))[:, :n_text], 0))
        if self.extension is not None:
            tables = [(self.extension.marker_head, self.vocabulary.speech_id)]
            if not as_text:
                tables.append((self.extension.unit_head, self.vocabulary.first_unit_id))
            blocks += [(partial(_logits, table), first_id) for table, first_id in tables]
        return blocks

    def log_probs(
        self, hidden: Tensor, row: np.ndarray, target: np.ndarray, as_text: bool
    ) -> Tensor:
        """log P(target[k] | hidden[row[k]]) in nats, float32 [K].

        hidden: [R, H], the distinct positions; row, target: int64 [K]. The log-softmax runs over
        the part of the vocabulary that can follow, over some rows at a time.
        """
        blocks = self._output_blocks(as_text)
        n_rows = _LOGIT_ROWS if hidden.device.type == "cpu" else _GPU_LOGIT_ROWS
        order = np.argsort(row, kind="stable")
        bounds = np.searchsorted(row[order], np.arange(0, len(hidden) + n_rows, n_rows))
        pieces = []
        for i, (start, end) in enumerate(pairwise(bounds)):
            some = order[start:end]
            rows, wanted = (
                torch.from_numpy(x).to(hidden.device)
                for x in (row[some] - i * n_rows, target[some])
            )
            states = hidden[i * n_rows :][:n_rows]
            log_z, picked = [], hidden.new_zeros(len(some), dtype=torch.float32)
            for to_logits, first_id in blocks:
                with own_products(self.device):
                    logits = to_logits(states).float()
                # log-sum-exp, in half the time of torch.logsumexp
                log_z.append(logits[:, 0] - logits.log_softmax(-1)[:, 0])
                column = wanted - first_id
                inside = (column >= 0) & (column < logits.shape[1])
                value = logits[rows, column.clamp(0, logits.shape[1] - 1)]
                picked = torch.where(inside, value, picked)
            pieces.append(picked - torch.stack(log_z).logsumexp(0)[rows])
        out = hidden.new_zeros(len(target), dtype=torch.float32)
        where = torch.from_numpy(order).to(hidden.device)
        return out.index_copy(0, where, torch.cat(pieces)) if pieces else out


def _logits(table: Tensor, hidden: Tensor) -> Tensor:
    """Logits [R, W] of hidden states [R, H] by output rows [W, H]."""
    return nn.functional.linear(hidden.to(table.dtype), table)
