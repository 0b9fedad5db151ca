"""Training examples: transcribed speech ready for any order, speech or text alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from relisten.core.leakage import TrainedOn
from relisten.core.text import lower_if_capitals
from relisten.core.types import NBest, UsageError
from relisten.lm.sequences import Order, Speech, chunk_features
from relisten.lm.texts import TextEncoder
from relisten.tasks.training.features import CachedUtterance

Item = TypeVar("Item")
WeightedSets = Sequence[tuple[Sequence[Item], float]]
"""Sets of alike items, each with how often one of its items is drawn."""


@dataclass
class Example:
    """One utterance.

    words: text tokens of each word; none where it has no transcript. speech: its frames, and what
    the stages of training have added: units and CTC log-probabilities, held as float16. guesses:
    float16 [n_words + 1, E], what a projector that was not trained on its speaker guesses for each
    of its chunks.
    """

    cached: CachedUtterance
    words: list[list[int]]
    speech: Speech
    guesses: np.ndarray | None = None

    def set_ctc_log_probs(self, ctc_log_probs: np.ndarray) -> None:
        """Add a CTC head's output to its speech."""
        self.speech = replace(self.speech, ctc_log_probs=ctc_log_probs.astype(np.float16))

    def chunk_features(self) -> np.ndarray:
        """Features of its chunks, float16 [n_words + 1, F]: one per word, and one of the speech
        after the last word."""
        spans = self.speech.chunks(self.cached.word_ends_s)
        return chunk_features(self.speech, spans).astype(np.float16)

    def serves(self, order: Order) -> bool:
        """Whether it has what a sequence of that order is made of."""
        has_text, has_speech = bool(self.words), len(self.speech) > 0
        return (has_text or order == "speech") and (has_speech or order == "text")


@dataclass(frozen=True)
class TrainingData:
    """What a stage trains on. sets: each of examples that serve the same orders. dev: transcribed
    recordings that nothing is trained on."""

    sets: WeightedSets[Example]
    dev: Sequence[Example] = ()

    @property
    def transcribed(self) -> WeightedSets[Example]:
        """The sets that have both speech and text."""
        return [one for one in self.sets if one[0] and one[0][0].serves("chunked")]

    @property
    def recordings(self) -> list[Example]:
        """The examples that have speech, with a transcript or without."""
        return all_of([one for one in self.sets if one[0] and one[0][0].serves("speech")])


def trained_on(sets: WeightedSets[Example], are_references: bool = True) -> TrainedOn:
    """Fingerprints of the utterances in the sets, and of their transcripts.

    are_references: whether a transcript is what was said, not what a model took it for. Sentences
    of text corpora are no utterances (`text_corpus.read_sentences` has them).
    """
    known = [one.cached for one in all_of([s for s in sets if s[0] and s[0][0].cached.id])]
    own = [NBest(one.id, reference=one.text if are_references else None) for one in known]
    return TrainedOn.of(own, {one.text for one in known})


def make_example(cached: CachedUtterance, texts: TextEncoder) -> Example | None:
    """None where words and word ends do not match, or the transcript holds no word."""
    words = texts.words(lower_if_capitals(cached.text))
    if not any(words) or len(words) != len(cached.word_ends_s):
        return None
    return Example(cached, words, cached.speech)


def untranscribed_example(cached: CachedUtterance) -> Example:
    """It serves the order `speech` alone."""
    return Example(cached, [], cached.speech)


def all_of(sets: WeightedSets[Item]) -> list[Item]:
    """The items of all sets, in order."""
    return [item for items, _ in sets for item in items]


def serving(sets: WeightedSets[Example], order: Order) -> WeightedSets[Example]:
    """The sets that can serve an order and have a weight."""
    return [
        (examples, weight)
        for examples, weight in sets
        if weight and examples and examples[0].serves(order)
    ]


def check_served(sets: WeightedSets[Example], tasks: Mapping[Order, float]) -> None:
    """Raises UsageError where no set can serve one of the tasks."""
    needed = {"text": "text or transcripts", "speech": "recordings"}
    for order, share in tasks.items():
        if share and not serving(sets, order):
            raise UsageError(
                f"no source can serve the task {order}: it is made of "
                f"{needed.get(order, 'transcribed recordings')}; name some, or leave it out"
            )
