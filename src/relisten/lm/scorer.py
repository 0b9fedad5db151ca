"""Scores of every hypothesis of an N-best list, one prefix tree an utterance.

`text` is log P(y), `text_given_speech` log P(y|speech), `speech_given_text` log P(speech|y):
natural logs summed over tokens, what closes the stretch (EOS, or the marker after the last unit)
counted, BOS and the markers that open a stretch not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from relisten.core.types import LM_COMPONENTS, ModelError, UsageError
from relisten.lm.model import SpeechTextLM
from relisten.lm.sequences import (
    AS_SPEECH,
    AS_TEXT,
    Order,
    Speech,
    TokenSequence,
    build_sequence,
    speech_inputs,
)
from relisten.lm.texts import TextEncoder
from relisten.lm.tree import PrefixTree, build_tree, group_sequences

Component = Literal["text", "text_given_speech", "speech_given_text"]
SpeechOrder = Literal["speech_first", "interleaved", "chunked"]

BATCH_TOKENS = 1024
"""Tokens of a batch on the CPU, padding included; a wider tree is cut into groups of hypotheses.
Attention grows with the square of a tree's nodes, and two cores gain nothing beyond this."""
_MASKED = -1e9  # additive; finite, so that a padded row has no NaN


@dataclass(frozen=True, slots=True)
class ScoringInput:
    """What one utterance's hypotheses are scored from.

    texts: surface forms, N of them. word_ends_s: for each, seconds at which each of its
    `text.split()` words ends (needed for the orders cut at words). speech: its units.
    """

    texts: tuple[str, ...]
    word_ends_s: tuple[tuple[float, ...] | None, ...] = ()
    speech: Speech | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """A group of one utterance's hypotheses as a tree."""

    utterance: int
    members: tuple[int, ...]
    tree: PrefixTree
    speech: Speech | None


def batch_attention(
    trees: Seq[PrefixTree], window: int | None, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Additive mask [B, 1, L, L] and positions [B, L] of trees padded to the longest."""
    length = max(len(t) for t in trees)
    allowed = np.zeros((len(trees), length, length), bool)
    allowed[:, np.arange(length), np.arange(length)] = True
    positions = np.zeros((len(trees), length), np.int64)
    for b, tree in enumerate(trees):
        n = len(tree)
        allowed[b, :n, :n] = tree.ancestors
        if window is not None:
            allowed[b, :n, :n] &= tree.depth[:, None] - tree.depth[None, :] < window
        positions[b, :n] = tree.depth
    mask = torch.zeros(allowed.shape, dtype=dtype)
    mask.masked_fill_(torch.from_numpy(~allowed), _MASKED)
    return mask[:, None].to(device), torch.from_numpy(positions).to(device)


def embed_trees(
    model: SpeechTextLM,
    trees: Seq[PrefixTree],
    speeches: Seq[Speech | None],
    guesses: Seq[np.ndarray] | None = None,
) -> Tensor:
    """Input embeddings [B, L, E] of trees padded to the longest; guesses: see `tree_log_probs`."""
    length = max(len(t) for t in trees)
    ids = np.full((len(trees), length), model.vocabulary.bos_id, np.int64)
    codes, chunks = [], []
    for b, (tree, speech) in enumerate(zip(trees, speeches, strict=True)):
        ids[b, : len(tree)] = tree.ids
        if speech is None:
            continue
        units, features = speech_inputs(model.vocabulary, tree.ids, tree.rows, speech)
        codes.append(units)
        chunks.append(features)
    code_rows, chunk_rows, guess_rows = (
        torch.from_numpy(np.concatenate([r for r in rows if len(r)])).to(model.device)
        if any(map(len, rows))
        else None
        for rows in (codes, chunks, guesses or [])
    )
    flat = torch.from_numpy(ids).to(model.device).reshape(-1)
    return model.embed(flat, code_rows, chunk_rows, guess_rows).view(*ids.shape, -1)


def tree_log_probs(
    model: SpeechTextLM,
    trees: Seq[PrefixTree],
    speeches: Seq[Speech | None],
    guesses: Seq[np.ndarray] | None = None,
) -> list[Tensor]:
    """The log-probability of each target of each tree, nats, float32 [K]; differentiable.

    guesses: for each tree float32 [n_chunks, E], what the projector is to guess for the chunks of
    its nodes, in their order.
    """
    mask, positions = batch_attention(trees, model.sliding_window, model.dtype, model.device)
    hidden = model.hidden(embed_trees(model, trees, speeches, guesses), mask, positions)
    length = hidden.shape[1]
    hidden = hidden.reshape(-1, hidden.shape[-1])
    node = np.concatenate([t.target_node + b * length for b, t in enumerate(trees)])
    target = np.concatenate([t.target_id for t in trees])
    scored = np.concatenate([t.target_scored for t in trees])
    log_probs = torch.zeros(len(node), device=model.device)
    for kind in (AS_TEXT, AS_SPEECH):
        where = np.flatnonzero(scored == kind)
        if not len(where):
            continue
        positions_needed, row = np.unique(node[where], return_inverse=True)
        values = model.log_probs(
            hidden[torch.from_numpy(positions_needed).to(model.device)],
            torch.from_numpy(row.reshape(-1)).to(model.device),
            torch.from_numpy(target[where]).to(model.device),
            as_text=kind == AS_TEXT,
        )
        log_probs = log_probs.index_copy(0, torch.from_numpy(where).to(model.device), values)
    return list(log_probs.split([len(t.target_node) for t in trees]))


class Scorer:
    """Scores N-best lists with one model.

    speech_order: the order `text_given_speech` is asked in. batch_tokens: tokens of one forward
    pass, padding included; it bounds memory and changes no score. components: what the model was
    trained to score.
    """

    def __init__(
        self,
        model: SpeechTextLM,
        texts: TextEncoder,
        speech_order: SpeechOrder = "chunked",
        batch_tokens: int = BATCH_TOKENS,
        components: Seq[str] = LM_COMPONENTS,
    ) -> None:
        self.model = model.eval()
        self.texts = texts
        self.speech_order: SpeechOrder = speech_order
        self.batch_tokens = batch_tokens
        self.components = tuple(components)

    def order_of(self, component: Component) -> Order:
        if component == "text":
            return "text"
        if self.model.extension is None:
            raise ModelError(
                f"{component} needs a speech-text model; this one knows text only: "
                "score with --components text"
            )
        if component not in self.components:
            known = ", ".join(self.components)
            raise ModelError(f"this model was not trained for {component}; it scores {known}")
        return "text_first" if component == "speech_given_text" else self.speech_order

    def sequences(self, utterance: ScoringInput, component: Component) -> list[TokenSequence]:
        """One token sequence a hypothesis, in the component's order."""
        order = self.order_of(component)
        if order != "text" and utterance.speech is None:
            raise UsageError(f"{component} needs the utterance's speech, and it has none")
        ends: Seq[tuple[float, ...] | None] = utterance.word_ends_s or (None,) * len(
            utterance.texts
        )
        built = []
        for text, word_ends_s in zip(utterance.texts, ends, strict=True):
            words = self.texts.words(text)
            if order in ("interleaved", "chunked") and len(word_ends_s or ()) != len(words):
                raise UsageError(
                    f"the {order} order needs one word end a word; '{text}' has "
                    f"{len(words)} words and {len(word_ends_s or ())} ends: make the N-best list "
                    "with `relisten nbest`, or add word_ends_s"
                )
            built.append(
                build_sequence(
                    order, self.model.vocabulary, words, utterance.speech, word_ends_s or ()
                )
            )
        return built

    def score(self, utterances: Seq[ScoringInput], component: Component) -> list[np.ndarray]:
        """Scores of every hypothesis, a float64 [N] an utterance, nats; inputs are not changed.

        Raises ModelError when the model has no such component, UsageError when an utterance lacks
        the speech or the word ends it needs.
        """
        sequences = [self.sequences(u, component) for u in utterances]
        speeches = [u.speech for u in utterances]
        return score_sequences(self.model, sequences, speeches, self.batch_tokens)


@torch.inference_mode()
def score_sequences(
    model: SpeechTextLM,
    sequences: Seq[Seq[TokenSequence]],
    speeches: Seq[Speech | None],
    batch_tokens: int = BATCH_TOKENS,
) -> list[np.ndarray]:
    """Sum of the scored tokens' log-probabilities, nats: float64 [N] for each utterance's N."""
    jobs = [
        _Job(u, tuple(group), build_tree([utterance[n] for n in group]), speeches[u])
        for u, utterance in enumerate(sequences)
        for group in group_sequences(utterance, batch_tokens)
    ]
    scores = [np.zeros(len(utterance)) for utterance in sequences]
    for batch in _batches(jobs, batch_tokens):
        values = tree_log_probs(model, [j.tree for j in batch], [j.speech for j in batch])
        for job, value in zip(batch, values, strict=True):
            logs = value.double().cpu().numpy()
            for n, path in zip(job.members, job.tree.paths, strict=True):
                scores[job.utterance][n] = logs[path].sum()
    return scores


def _batches(jobs: Iterable[_Job], batch_tokens: int) -> Iterator[list[_Job]]:
    """Jobs of like size together, each batch within batch_tokens (a larger job goes alone)."""
    batch: list[_Job] = []
    for job in sorted(jobs, key=lambda job: -len(job.tree)):
        if batch and len(batch[0].tree) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch
