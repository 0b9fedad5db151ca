"""Ways to score the same token sequences with the same causal LM: ours and what people use.

Each takes a Problem and returns for each utterance a list of sums of the log-probabilities (nats)
of the tokens that follow the prefix. All have the same budget of tokens per forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relisten.lm.backend.linear import OneDNNLinear
from relisten.lm.model import SpeechTextLM
from relisten.lm.scorer import BATCH_TOKENS, score_sequences
from relisten.lm.sequences import TokenSequence
from relisten.lm.tree import PrefixTree, build_tree

Scores = list[list[float]]


@dataclass(frozen=True)
class Problem:
    """What is scored: sequences[u][n], the token ids BOS, prefix, text, EOS of a hypothesis.

    The first n_given tokens are not scored. The prefix stands for the speech: random text tokens of
    each utterance, as many as there would be units, since the peers know no units.
    """

    sequences: list[list[list[int]]]
    n_given: int

    @property
    def n_scored(self) -> int:
        return sum(len(s) - self.n_given for utterance in self.sequences for s in utterance)

    @property
    def padded_tokens(self) -> int:
        """Positions that a padded batch of full sequences computes."""
        return sum(
            len(rows) * (max(map(len, rows)) - 1)
            for u in self.sequences
            for rows in _row_batches(u)
        )

    def token_sequences(self) -> list[list[TokenSequence]]:
        return [
            [TokenSequence.of_text(ids, self.n_given) for ids in utterance]
            for utterance in self.sequences
        ]

    def trees(self) -> list[PrefixTree]:
        return [build_tree(utterance) for utterance in self.token_sequences()]


def tree(model: SpeechTextLM) -> Callable[[Problem], Scores]:
    """relisten: one prefix tree per utterance, trees of all utterances batched."""

    def score(problem: Problem) -> Scores:
        sequences = problem.token_sequences()
        scores = score_sequences(model, sequences, [None] * len(sequences))
        return [s.tolist() for s in scores]

    return score


def hf_batch(causal: nn.Module) -> Callable[[Problem], Scores]:
    """transformers: padded batches of full sequences, logits only where something is scored."""

    @torch.inference_mode()
    def score(problem: Problem) -> Scores:
        given = problem.n_given
        scores: Scores = []
        for utterance in problem.sequences:
            scores.append([])
            for rows in _row_batches(utterance):
                ids, mask = _padded(rows)
                logits = causal(
                    ids[:, :-1],
                    attention_mask=mask[:, :-1],
                    logits_to_keep=ids.shape[1] - given,
                    use_cache=False,
                ).logits
                scores[-1] += _summed(logits, ids[:, given:], mask[:, given:])
        return scores

    return score


def hf_cached_prefix(causal: nn.Module) -> Callable[[Problem], Scores]:
    """transformers: keys and values of the prefix computed once per utterance, then the texts."""

    @torch.inference_mode()
    def score(problem: Problem) -> Scores:
        given = problem.n_given
        scores: Scores = []
        for utterance in problem.sequences:
            scores.append([])
            prefix = torch.tensor([utterance[0][: given - 1]])
            for rows in _row_batches(utterance):
                ids, mask = _padded(rows)
                cache = None
                if given > 1:
                    cache = causal.base_model(prefix, use_cache=True).past_key_values
                    cache.batch_repeat_interleave(len(rows))
                logits = causal(
                    ids[:, given - 1 : -1],
                    attention_mask=mask[:, :-1],
                    past_key_values=cache,
                    use_cache=given > 1,
                ).logits
                scores[-1] += _summed(logits, ids[:, given:], mask[:, given:])
        return scores

    return score


def minicons(causal: nn.Module, tokenizer: Any) -> Callable[[Problem], Scores]:
    """minicons: IncrementalLMScorer.compute_stats, on which its own scores are built."""
    from minicons.scorer import IncrementalLMScorer
    from transformers import BatchEncoding

    scorer = IncrementalLMScorer(causal, device="cpu", tokenizer=tokenizer)

    def score(problem: Problem) -> Scores:
        scores: Scores = []
        for utterance in problem.sequences:
            scores.append([])
            for rows in _row_batches(utterance):
                ids, mask = _padded(rows)
                encoded = BatchEncoding({"input_ids": ids, "attention_mask": mask})
                offsets = [problem.n_given - 1] * len(rows)
                values = scorer.compute_stats((encoded, offsets), return_tensors=True)
                scores[-1] += [float(v.double().sum()) for v in values]
        return scores

    return score


def through_onednn(score: Callable[[Problem], Scores]) -> Callable[[Problem], Scores]:
    """A peer with our matrix products, to separate their gain from that of the tree."""

    def scored(problem: Problem) -> Scores:
        with OneDNNLinear():
            return score(problem)

    return scored


@torch.inference_mode()
def dense(model: SpeechTextLM, shapes: list[tuple[int, int]], head_rows: int) -> None:
    """Plain causal forward passes of the backbone, and the text log-softmax at head_rows places."""
    hidden = torch.zeros(1, 1)
    for n_rows, length in shapes:
        ids = torch.arange(n_rows * length) % model.vocabulary.n_text
        embedded = model.embed(ids).view(n_rows, length, -1)
        hidden = model.hidden(embedded, torch.arange(length).expand(n_rows, -1))
    if head_rows:
        rows = hidden.flatten(0, 1)[torch.arange(head_rows) % hidden.shape[:2].numel()]
        index = np.arange(head_rows)
        model.log_probs(rows, index, index % model.vocabulary.n_text, as_text=True)


def _row_batches(utterance: list[list[int]]) -> Iterator[list[list[int]]]:
    n_rows = max(1, BATCH_TOKENS // max(map(len, utterance)))
    for start in range(0, len(utterance), n_rows):
        yield utterance[start : start + n_rows]


def _padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """ids [B, L] padded on the right, and the mask [B, L], 1 where there is no padding."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


def _summed(logits: Tensor, targets: Tensor, mask: Tensor) -> list[float]:
    values = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    return (values.double() * mask).sum(1).tolist()
