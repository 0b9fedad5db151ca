"""Scores of every hypothesis of an N-best list, one prefix tree per utterance.

`text` is log P(y), `text_given_speech` log P(y|speech), `speech_given_text` log P(speech|y):
natural logarithms summed over tokens. The token that closes a segment (EOS, or the marker after the
last unit) is counted, BOS and the marker that opens the first segment are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from relisten.core.types import LM_COMPONENTS, ModelError, UsageError
from relisten.lm.forward import tree_log_probs
from relisten.lm.model import SpeechTextLM
from relisten.lm.sequences import Order, Speech, TokenSequence, build_sequence
from relisten.lm.texts import TextEncoder
from relisten.lm.tree import PrefixTree, build_tree, group_sequences

Component = Literal["text", "text_given_speech", "speech_given_text"]
SpeechOrder = Literal["speech_first", "interleaved", "chunked"]

BATCH_TOKENS, GPU_BATCH_TOKENS = 1024, 16_384
"""Tokens of a batch on the CPU and elsewhere, padding included; a larger tree is cut into groups of
hypotheses. On the CPU the cost of attention grows with the square of a tree's nodes, and two cores
gain nothing beyond this."""


@dataclass(frozen=True, slots=True)
class ScoringInput:
    """What one utterance's hypotheses are scored from.

    texts: surface forms, N of them. word_ends_s: for each, the seconds at which each of its
    `text.split()` words ends (needed for the interleaved and chunked orders). speech: its units.
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


class Scorer:
    """Scores N-best lists with one model.

    texts: tokenises hypotheses. speech_order: the order of `text_given_speech`. batch_tokens: most
    tokens of a forward pass, padding included; it bounds memory and changes no score (None: the
    default for the device). components: what the model was trained to score.
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
        """The order of a component's sequences.

        Raises ModelError where the model does not score the component.
        """
        if component == "text":
            return "text"
        if self.model.extension is None:
            raise ModelError(
                f"{component} needs a speech-text model; this one knows text only: "
                "score `text` alone"
            )
        if component not in self.components:
            known = ", ".join(self.components)
            raise ModelError(f"this model was not trained for {component}; it scores {known}")
        return "text_first" if component == "speech_given_text" else self.speech_order

    def sequences(self, utterance: ScoringInput, component: Component) -> list[TokenSequence]:
        """One token sequence per hypothesis, in the component's order; raises as `score` does."""
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
                    f"the {order} order needs one word end per word; '{text}' has "
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
        """Scores of every hypothesis, nats: float64 [N] for each utterance; inputs are not changed.

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
    """Sums of the scored tokens' log-probabilities, nats: float64 [N] for each utterance.

    speeches: one per utterance. batch_tokens: as `Scorer` takes it.
    """
    if batch_tokens is None:
        batch_tokens = BATCH_TOKENS if model.device.type == "cpu" else GPU_BATCH_TOKENS
    jobs = (
        _Job(u, tuple(group), build_tree([utterance[n] for n in group]), speeches[u])
        for u, utterance in enumerate(sequences)
        for group in group_sequences(utterance, batch_tokens)
    )
    # Results are read only when all batches have been issued: trees are built while a GPU works.
    done = [
        (batch, tree_log_probs(model, [j.tree for j in batch], [j.speech for j in batch]))
        for batch in _batches(jobs, batch_tokens, is_padded=not model.takes_attend)
    ]
    scores = [np.zeros(len(utterance)) for utterance in sequences]
    for batch, found in done:
        log_probs = torch.cat(found).double().cpu().numpy()
        ends = np.cumsum([len(j.tree.target_node) for j in batch])[:-1]
        for job, of_targets in zip(batch, np.split(log_probs, ends), strict=True):
            for n, path in zip(job.members, job.tree.paths, strict=True):
                scores[job.utterance][n] = of_targets[path].sum()
    return scores


def _batches(jobs: Iterable[_Job], batch_tokens: int, is_padded: bool) -> Iterator[list[_Job]]:
    """Jobs in batches of at most batch_tokens (a larger job goes alone); where they are padded to
    the longest, jobs of similar size together."""
    batch: list[_Job] = []
    n_tokens = 0
    for job in sorted(jobs, key=lambda job: -len(job.tree)) if is_padded else jobs:
        added = len(batch[0].tree) if batch and is_padded else len(job.tree)
        if batch and n_tokens + added > batch_tokens:
            yield batch
            batch, n_tokens, added = [], 0, len(job.tree)
        batch.append(job)
        n_tokens += added
    if batch:
        yield batch
