"""Which errors there are and what rescoring did to them: confused words, effects, confidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Column = tuple[str | None, str | None, str | None]
"""Word of the reference, of the first pass and of the chosen text; see `core.align_words`."""

Effect = Literal["improved", "worsened", "changed", "correct", "wrong"]
EFFECTS: tuple[Effect, ...] = ("improved", "worsened", "changed", "correct", "wrong")


def effect_of(columns: Sequence[Column]) -> Effect:
    """The effect of rescoring on an utterance.

    improved: fewer errors than the first pass's choice. worsened: more. changed: other words, as
    many errors. correct, wrong: the same words, without or with errors.
    """
    saved = sum(reference != first for reference, first, _ in columns)
    saved -= sum(reference != chosen for reference, _, chosen in columns)
    if saved:
        return "improved" if saved > 0 else "worsened"
    if any(first != chosen for _, first, chosen in columns):
        return "changed"
    return "wrong" if any(reference != first for reference, first, _ in columns) else "correct"


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often one word was recognised as another, and the effect of rescoring on it.

    reference: None for an insertion. hypothesis: None for a deletion.
    first_pass, rescored: how often it is in the first pass's choice and in the chosen text.
    corrected: of the first pass's, those where the chosen text is right. introduced: of the chosen
    text's, those where the first pass was right. The others became, or were, other errors.
    """

    reference: str | None
    hypothesis: str | None
    first_pass: int
    rescored: int
    corrected: int
    introduced: int


Pair = tuple[str | None, str | None]


@dataclass
class ConfusionTally:
    """Confusions of the utterances seen so far."""

    _first_pass: Counter[Pair] = field(default_factory=Counter)
    _rescored: Counter[Pair] = field(default_factory=Counter)
    _corrected: Counter[Pair] = field(default_factory=Counter)
    _introduced: Counter[Pair] = field(default_factory=Counter)

    def add(self, columns: Iterable[Column]) -> None:
        for reference, first, chosen in columns:
            if first != reference:
                self._first_pass[reference, first] += 1
                self._corrected[reference, first] += chosen == reference
            if chosen != reference:
                self._rescored[reference, chosen] += 1
                self._introduced[reference, chosen] += first == reference

    def most_common(self, n: int) -> tuple[Confusion, ...]:
        """The n that occur most often in the first pass or in the chosen text; ties by spelling."""
        counted = self._first_pass | self._rescored
        pairs = sorted(counted, key=lambda pair: (-counted[pair], pair[0] or "", pair[1] or ""))
        return tuple(
            Confusion(
                *pair,
                self._first_pass[pair],
                self._rescored[pair],
                self._corrected[pair],
                self._introduced[pair],
            )
            for pair in pairs[:n]
        )


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """Word errors of the utterances whose first pass has a confidence from low to high."""

    low: float
    high: float
    n_utterances: int
    n_words: int
    first_pass_errors: int
    rescored_errors: int


def confidence_bins(
    confidences: Sequence[float], counts: Sequence[tuple[int, int, int]], n_bins: int = 10
) -> tuple[ConfidenceBin, ...]:
    """Bins of about as many utterances each, lowest confidence first; equal ones share a bin.

    confidences: [U]. counts: [U], words, errors of the first pass's choice, errors of the chosen.
    """
    if not confidences:
        return ()
    values = np.array(confidences)
    table = np.array(counts, np.int64)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, n_bins + 1)[1:-1], method="lower"))
    membership = np.searchsorted(edges, values, side="left")  # a bin holds its upper edge
    bins = []
    for place in np.unique(membership):
        inside = membership == place
        of_bin = values[inside]
        sums = table[inside].sum(axis=0).tolist()
        bins.append(ConfidenceBin(float(of_bin.min()), float(of_bin.max()), len(of_bin), *sums))
    return tuple(bins)
