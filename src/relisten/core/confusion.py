"""Word confusion network: aligned hypotheses, so that each word of each can be voted on.

The hypotheses are aligned one after the other, best first, to the slots that those before them
made. At no cost a word joins a slot that contains it already, and a slot stays empty where another
hypothesis left it empty; a word beside other words, a slot left empty for the first time and a new
slot cost 1 each, and the cheapest alignment is taken. So the alignment does not depend on the
probabilities: these are used afterwards, as the weight of each hypothesis's vote.

Source: ROVER, Fiscus, "A post-processing system to yield reduced word error rates", ASRU 1997.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relisten.core.arrays import BoolArray, FloatArray, IntArray

EPSILON = -1
"""In a slot: the hypothesis has no word there (an epsilon arc)."""


@dataclass(frozen=True, slots=True)
class ConfusionNetwork:
    """Which word of each of N hypotheses is in each of S slots.

    words: int64 [N, S], a number for each distinct word, EPSILON for none. places: int64 [N, S],
    which word of its hypothesis that is, counted from 0; EPSILON for none.
    """

    words: IntArray
    places: IntArray

    def agreement(self, n: int) -> BoolArray:
        """Which hypotheses have word w of hypothesis n in its slot, too: bool [N, W]."""
        slots = np.flatnonzero(self.places[n] != EPSILON)
        return np.asarray(self.words[:, slots] == self.words[n, slots])

    def vote(self, probabilities: FloatArray) -> tuple[IntArray, FloatArray]:
        """For each slot the hypothesis whose word, or lack of one, has won, int64 [S]; and the sum
        of the probabilities of all that agree with it, float64 [S].

        probabilities: float64 [N]. Of equal sums, the one of the earlier hypothesis wins, and of
        those that agree the first is named.
        """
        support = np.empty(self.words.shape)
        for slot, numbers in enumerate((self.words - EPSILON).T):
            support[:, slot] = np.bincount(numbers, probabilities)[numbers]
        # Sums of the same votes in another order differ in their last digits.
        winner = np.argmax(support > support.max(axis=0) - 1e-12, axis=0)
        return winner, support[winner, np.arange(support.shape[1])]


def align(texts: Sequence[Sequence[str]]) -> ConfusionNetwork:
    """The network of N hypotheses, each its words, best first.

    Of equally cheap alignments the one is chosen that, from the left, prefers a word in a slot to
    an empty slot, and an empty slot to a new one. Time grows with
    N · words · slots.
    """
    slots: list[dict[int, tuple[str, int]]] = []  # of each: hypothesis → its word and place
    words_in: list[set[str | None]] = []  # of each: its words, and None where one has no word
    for n, words in enumerate(texts):
        steps = _cheapest(words, words_in)
        grown: list[dict[int, tuple[str, int]]] = []
        grown_words: list[set[str | None]] = []
        for slot, place in steps:
            entries = {} if slot is None else slots[slot]
            kinds: set[str | None] = ({None} if n else set()) if slot is None else words_in[slot]
            if place is None:
                kinds.add(None)
            else:
                entries[n] = (words[place], place)
                kinds.add(words[place])
            grown.append(entries)
            grown_words.append(kinds)
        slots, words_in = grown, grown_words
    return _as_arrays(len(texts), slots)


def _as_arrays(n: int, slots: Sequence[dict[int, tuple[str, int]]]) -> ConfusionNetwork:
    numbers: dict[str, int] = {}
    words = np.full((n, len(slots)), EPSILON, dtype=np.int64)
    places = np.full((n, len(slots)), EPSILON, dtype=np.int64)
    for column, entries in enumerate(slots):
        for row, (word, place) in entries.items():
            words[row, column] = numbers.setdefault(word, len(numbers))
            places[row, column] = place
    return ConfusionNetwork(words, places)


def _cheapest(
    words: Sequence[str], words_in: Sequence[set[str | None]]
) -> list[tuple[int | None, int | None]]:
    """The cheapest alignment, from the left: pairs of slot and place of a word.

    Slot None: a new one; place None: the slot stays empty.
    """
    n_slots, n_words = len(words_in), len(words)
    empty = [0 if None in kinds else 1 for kinds in words_in]
    # costs[i][j]: of aligning what follows word i and slot j, filled from the end.
    costs = [[0] * (n_slots + 1) for _ in range(n_words + 1)]
    for i in range(n_words, -1, -1):
        row = costs[i]
        below = costs[i + 1] if i < n_words else None
        if below is not None:
            row[n_slots] = n_words - i
        for j in range(n_slots - 1, -1, -1):
            best = row[j + 1] + empty[j]
            if below is not None:
                put = below[j + 1] + (words[i] not in words_in[j])
                new = below[j] + 1
                best = min(best, put, new)
            row[j] = best

    steps: list[tuple[int | None, int | None]] = []
    i = j = 0
    while i < n_words or j < n_slots:
        cost = costs[i][j]
        is_put = i < n_words and j < n_slots
        if is_put and cost == costs[i + 1][j + 1] + (words[i] not in words_in[j]):
            steps.append((j, i))
            i, j = i + 1, j + 1
        elif j < n_slots and cost == costs[i][j + 1] + empty[j]:
            steps.append((j, None))
            j += 1
        else:
            steps.append((None, i))
            i += 1
    return steps
