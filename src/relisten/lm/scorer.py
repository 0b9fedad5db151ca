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
from relisten.lm.attention import Attend, Forest, additive, in_blocks
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
from relisten.lm.tree import PrefixTree, build_tree, group_sequences, visible

Component = Literal["text", "text_given_speech", "speech_given_text"]
SpeechOrder = Literal["speech_first", "interleaved", "chunked"]

BATCH_TOKENS, GPU_BATCH_TOKENS = 1024, 16_384
"""Tokens of a batch on the CPU and elsewhere, padding included; a wider tree is cut into groups of
hypotheses. On the CPU attention grows with the square of a tree's nodes, and two cores gain nothing
beyond this."""


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


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the nodes of a batch of trees stand: first[b] is the place of tree b's first one in the
    flattened [n_rows, length]. sight: how `SpeechTextLM.hidden` is told who sees whom."""

    n_rows: int
    length: int
    first: np.ndarray
    positions: np.ndarray
    sight: Tensor | Attend


def _in_one_row(model: SpeechTextLM, trees: Seq[PrefixTree]) -> _Layout:
    """The trees one behind the other."""
    fill = in_blocks(model.device)
    forest = Forest.of(trees, model.sliding_window, fill)
    if fill:
        attend = forest.attend_in_blocks(model.device)
    else:
        attend = forest.attend_apart(model.device, model.dtype)
    return _Layout(1, len(forest), forest.bounds[:-1], forest.depth, attend)


def _padded(model: SpeechTextLM, trees: Seq[PrefixTree]) -> _Layout:
    """A row a tree, and an additive mask [B, 1, L, L], which every architecture takes."""
    length = max(map(len, trees))
    seen = np.zeros((len(trees), length, length), bool)
    seen[:, np.arange(length), np.arange(length)] = True
    positions = np.zeros((len(trees), length), np.int64)
    for b, tree in enumerate(trees):
        n = len(tree)
        seen[b, :n, :n] = visible(tree.stop, tree.depth, model.sliding_window)
        positions[b, :n] = tree.depth
    mask = additive(seen[:, None], model.dtype).to(model.device)
    first = np.arange(len(trees)) * length
    return _Layout(len(trees), length, first, positions, mask)


def _embedded(
    model: SpeechTextLM,
    layout: _Layout,
    trees: Seq[PrefixTree],
    speeches: Seq[Speech | None],
    guesses: Seq[np.ndarray] | None,
) -> Tensor:
    """Input embeddings [n_rows, length, E]; guesses: see `tree_log_probs`."""
    ids = np.full(layout.n_rows * layout.length, model.vocabulary.bos_id, np.int64)
    codes, chunks = [], []
    for first, tree, speech in zip(layout.first, trees, speeches, strict=True):
        ids[first : first + len(tree)] = tree.ids
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
    embedded = model.embed(
        torch.from_numpy(ids).to(model.device), code_rows, chunk_rows, guess_rows
    )
    return embedded.view(layout.n_rows, layout.length, -1)


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
    layout = (_in_one_row if model.attends_as_told else _padded)(model, trees)
    hidden = model.hidden(
        _embedded(model, layout, trees, speeches, guesses),
        layout.sight,
        torch.from_numpy(layout.positions.reshape(layout.n_rows, -1)).to(model.device),
    ).flatten(0, 1)
    node = np.concatenate(
        [tree.target_node + first for tree, first in zip(trees, layout.first, strict=True)]
    )
    target = np.concatenate([t.target_id for t in trees])
    scored = np.concatenate([t.target_scored for t in trees])
    log_probs = torch.zeros(len(node), device=model.device)
    for kind in (AS_TEXT, AS_SPEECH):
        where = np.flatnonzero(scored == kind)
        if not len(where):
            continue
        needed, row = np.unique(node[where], return_inverse=True)
        values = model.log_probs(
            hidden[torch.from_numpy(needed).to(model.device)],
            row.reshape(-1),
            target[where],
            as_text=kind == AS_TEXT,
        )
        log_probs = log_probs.index_copy(0, torch.from_numpy(where).to(model.device), values)
    return list(log_probs.split([len(t.target_node) for t in trees]))


class Scorer:
    """Scores N-best lists with one model.

    speech_order: the order `text_given_speech` is asked in. batch_tokens: tokens of one forward
    pass, padding included; it bounds memory and changes no score (None: what the device likes).
    components: what the model was trained to score.
    """

    def __init__(
        self,
        model: SpeechTextLM,
        texts: TextEncoder,
        speech_order: SpeechOrder = "chunked",
        batch_tokens: int | None = None,
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
    batch_tokens: int | None = None,
) -> list[np.ndarray]:
    """Sum of the scored tokens' log-probabilities, nats: float64 [N] for each utterance's N.

    batch_tokens: as `Scorer` takes it.
    """
    if batch_tokens is None:
        batch_tokens = BATCH_TOKENS if model.device.type == "cpu" else GPU_BATCH_TOKENS
    jobs = (
        _Job(u, tuple(group), build_tree([utterance[n] for n in group]), speeches[u])
        for u, utterance in enumerate(sequences)
        for group in group_sequences(utterance, batch_tokens)
    )
    # A GPU is not waited for until all batches are under way: trees are built while it works.
    done = [
        (batch, tree_log_probs(model, [j.tree for j in batch], [j.speech for j in batch]))
        for batch in _batches(jobs, batch_tokens, padded=not model.attends_as_told)
    ]
    scores = [np.zeros(len(utterance)) for utterance in sequences]
    for batch, found in done:
        logs = torch.cat(found).double().cpu().numpy()
        ends = np.cumsum([len(j.tree.target_node) for j in batch])[:-1]
        for job, its in zip(batch, np.split(logs, ends), strict=True):
            for n, path in zip(job.members, job.tree.paths, strict=True):
                scores[job.utterance][n] = its[path].sum()
    return scores


def _batches(jobs: Iterable[_Job], batch_tokens: int, padded: bool) -> Iterator[list[_Job]]:
    """Each batch within batch_tokens (a larger job goes alone); where jobs are to be padded to the
    longest, those of like size together."""
    batch: list[_Job] = []
    n_tokens = 0
    for job in sorted(jobs, key=lambda job: -len(job.tree)) if padded else jobs:
        added = len(batch[0].tree) if batch and padded else len(job.tree)
        if batch and n_tokens + added > batch_tokens:
            yield batch
            batch, n_tokens, added = [], 0, len(job.tree)
        batch.append(job)
        n_tokens += added
    if batch:
        yield batch
