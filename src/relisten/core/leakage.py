"""What a model was trained on, as fingerprints, and whether an utterance is among it.

An error rate on utterances that a model was trained on says nothing about others. One on new
recordings of sentences that it has read is too low as well, and by how much is measured by leaving
them out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from relisten.core.arrays import IntArray
from relisten.core.text import normaliser
from relisten.core.types import NBest

Seen = Literal["utterance", "reference"]
"""An utterance that a model was trained on; or one of whose reference alone it was."""


def _none() -> IntArray:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class TrainedOn:
    """Fingerprints of 64 bits, int64, sorted, each once.

    utterances: of id and reference together, since ids such as 0001 come again in other speech; of
    the id alone where it was trained on without its reference. texts: of references and sentences.
    References and sentences are compared by their words: case and punctuation do not matter.
    """

    utterances: IntArray = field(default_factory=_none)
    texts: IntArray = field(default_factory=_none)

    @classmethod
    def of(cls, utterances: Iterable[NBest] = (), texts: Iterable[str] = ()) -> TrainedOn:
        """Of utterances, with or without a reference, and of texts without speech."""
        own, read = set[int](), {_words(text) for text in texts}
        for one in utterances:
            words = _words(one.reference)
            own.add(_mark(f"{one.id}\n{words}"))
            read.add(words)
        return cls(_sorted(own), _sorted({_mark(words) for words in read if words}))

    def __or__(self, other: TrainedOn) -> TrainedOn:
        return TrainedOn(
            np.union1d(self.utterances, other.utterances), np.union1d(self.texts, other.texts)
        )

    def has_seen(self, utterance: NBest) -> Seen | None:
        """Whether the model was trained on the utterance, or on its reference; None: on neither."""
        words = _words(utterance.reference)
        marks = {_mark(f"{utterance.id}\n{text}") for text in (words, "")}
        if any(_holds(self.utterances, mark) for mark in marks):
            return "utterance"
        return "reference" if words and _holds(self.texts, _mark(words)) else None


@dataclass(frozen=True)
class TrainingOverlap:
    """How much of what is judged by the models that scored it were trained on.

    models: those that say what they were trained on; silent: the others → why it is not known.
    n_utterances: trained on, and left out. n_references: of the n_judged others, those whose
    reference is a text that a model was trained on.
    """

    models: tuple[str, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    n_utterances: int = 0
    n_references: int = 0
    n_judged: int = 0

    def sentences(self) -> list[str]:
        """What a person should know of it."""
        told = []
        if self.models:
            told.append(
                f"{' and '.join(self.models)}: trained on {self.n_utterances:,} of these "
                f"utterances{', left out' if self.n_utterances else ''}, and on the text of "
                f"{self.n_references:,} of the {self.n_judged:,} references"
            )
        return told + [f"{name}: {reason}" for name, reason in self.silent.items()]


def _words(text: str | None) -> str:
    return normaliser("basic")(text or "")


def _mark(text: str) -> int:
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _sorted(marks: set[int]) -> IntArray:
    return np.array(sorted(marks), dtype=np.int64)


def _holds(marks: IntArray, mark: int) -> bool:
    place = int(np.searchsorted(marks, mark))
    return place < len(marks) and int(marks[place]) == mark
