"""Where errors come from and where they go: confused words, confidence, what a second pass did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Column = tuple[str | None, str | None, str | None]
"""A word that was said, the first pass's word and the chosen one; see `core.align_words`."""

Change = Literal["mended", "broken", "even", "right", "wrong"]
CHANGES: tuple[Change, ...] = ("mended", "broken", "even", "right", "wrong")


def change_of(columns: Sequence[Column]) -> Change:
    """What choosing did to an utterance.

    mended: fewer errors than the first pass's choice. broken: more. even: other words, as many
    errors. right, wrong: the same words, without or with errors.
    """
    saved = sum(said != first for said, first, _ in columns)
    saved -= sum(said != chosen for said, _, chosen in columns)
    if saved:
        return "mended" if saved > 0 else "broken"
    if any(first != chosen for _, first, chosen in columns):
        return "even"
    return "wrong" if any(said != first for said, first, _ in columns) else "right"


@dataclass(frozen=True, slots=True)
class Confusion:
    """What stood for a word that was said, how often, and what choosing did to it.

    said: None where nothing was said (an insertion). heard: None where nothing was heard.
    first_pass, rescored: how often it is in the first pass's choice and in the chosen text.
    mended: of the first pass's, those where the chosen text is right. broken: of the chosen text's,
    those where the first pass was right. The others became, or were, other errors.
    """

    said: str | None
    heard: str | None
    first_pass: int
    rescored: int
    mended: int
    broken: int


@dataclass
class ConfusionTally:
    """Confusions of the utterances seen so far."""

    _first_pass: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    _rescored: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    _mended: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    _broken: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)

    def add(self, columns: Iterable[Column]) -> None:
        for said, first, chosen in columns:
            if first != said:
                self._first_pass[said, first] += 1
                self._mended[said, first] += chosen == said
            if chosen != said:
                self._rescored[said, chosen] += 1
                self._broken[said, chosen] += first == said

    def most_common(self, n: int) -> tuple[Confusion, ...]:
        """The n that occur most often in the first pass, or in the chosen text; ties by letters."""
        counted = self._first_pass | self._rescored
        pairs = sorted(counted, key=lambda pair: (-counted[pair], pair[0] or "", pair[1] or ""))
        return tuple(
            Confusion(
                *pair,
                self._first_pass[pair],
                self._rescored[pair],
                self._mended[pair],
                self._broken[pair],
            )
            for pair in pairs[:n]
        )


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """Word errors of the utterances of whose first pass's choice the confidence is low … high."""

    low: float
    high: float
    n_utterances: int
    n_words: int
    first_pass_errors: int
    rescored_errors: int


def confidence_bins(
    confidences: Sequence[float], counts: Sequence[tuple[int, int, int]], n_bins: int = 10
) -> tuple[ConfidenceBin, ...]:
    """Bins of like many utterances, the least sure first; equal confidences share a bin.

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
        held = values[inside]
        sums = table[inside].sum(axis=0).tolist()
        bins.append(ConfidenceBin(float(held.min()), float(held.max()), len(held), *sums))
    return tuple(bins)
