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
        support: FloatArray = np.empty(self.words.shape)
        for slot, numbers in enumerate((self.words - EPSILON).T):
            support[:, slot] = np.bincount(numbers, probabilities)[numbers]
        # Sums of the same votes in another order differ in their last digits.
        winner: IntArray = np.argmax(support > support.max(axis=0) - 1e-12, axis=0)
        return winner, support[winner, np.arange(support.shape[1])]


def align(texts: Sequence[Sequence[str]]) -> ConfusionNetwork:
    """The network of N hypotheses, each its words, best first.

    Of equally cheap alignments the one is chosen that, from the left, prefers a word in a slot to
    an empty slot, and an empty slot to a new one. Time grows with N · words · slots.
    """
    numbers: dict[str, int] = {}
    numbered = [
        np.array([numbers.setdefault(word, len(numbers)) for word in words], dtype=np.int64)
        for words in texts
    ]
    # Slots are numbered as they are made; `order` is their order in the text.
    order = np.empty(0, dtype=np.int64)
    contains = np.empty((0, len(numbers)), dtype=np.bool_)
    is_optional = np.empty(0, dtype=np.bool_)  # a hypothesis has no word there
    slots_of_words = []
    for n, words in enumerate(numbered):
        slots, places = _cheapest(~contains[order][:, words].T, ~is_optional[order])
        is_new, has_word = slots == EPSILON, places != EPSILON
        n_new = int(is_new.sum())
        grown = np.empty(len(slots), dtype=np.int64)
        grown[~is_new] = order[slots[~is_new]]
        grown[is_new] = np.arange(len(order), len(order) + n_new)
        order = grown
        contains = np.concatenate([contains, np.zeros((n_new, len(numbers)), dtype=np.bool_)])
        contains[order[has_word], words] = True
        is_optional = np.append(is_optional, np.full(n_new, n > 0))
        is_optional[order[~has_word]] = True
        slots_of_words.append(order[has_word])
    return _network(numbered, slots_of_words, order)


def _network(
    numbered: Sequence[IntArray], slots_of_words: Sequence[IntArray], order: IntArray
) -> ConfusionNetwork:
    column = np.empty(len(order), dtype=np.int64)
    column[order] = np.arange(len(order))
    words = np.full((len(numbered), len(order)), EPSILON, dtype=np.int64)
    places = words.copy()
    for n, (own, slots) in enumerate(zip(numbered, slots_of_words, strict=True)):
        words[n, column[slots]] = own
        places[n, column[slots]] = np.arange(len(own))
    return ConfusionNetwork(words, places)


def _cheapest(costs_of_words: BoolArray, costs_of_empty: BoolArray) -> tuple[IntArray, IntArray]:
    """The cheapest alignment, from the left: slots, and places of words in them, int64 [K] each.

    A slot EPSILON is a new one; a place EPSILON leaves the slot empty. costs_of_words: whether word
    w costs 1 in slot s, bool [W, S]. costs_of_empty: whether the slot costs 1 when empty, bool [S].
    """
    n_words, n_slots = costs_of_words.shape
    skipped = np.append(0, np.cumsum(costs_of_empty))  # what all slots before s cost when empty
    # costs[w, s]: of aligning the words from w on with the slots from s on, filled from the end.
    costs = np.empty((n_words + 1, n_slots + 1), dtype=np.int64)
    costs[n_words] = skipped[-1] - skipped
    for word in range(n_words - 1, -1, -1):
        below = costs[word + 1]
        used = below + 1  # a new slot
        np.minimum(used[:-1], below[1:] + costs_of_words[word], out=used[:-1])
        # The word goes before or into some later slot, and those on the way stay empty.
        costs[word] = np.minimum.accumulate((used + skipped)[::-1])[::-1] - skipped

    steps: list[tuple[int, int]] = []
    word = slot = 0
    while word < n_words or slot < n_slots:
        cost = costs[word, slot]
        has_both = word < n_words and slot < n_slots
        if has_both and cost == costs[word + 1, slot + 1] + costs_of_words[word, slot]:
            steps.append((slot, word))
            word, slot = word + 1, slot + 1
        elif slot < n_slots and cost == costs[word, slot + 1] + costs_of_empty[slot]:
            steps.append((slot, EPSILON))
            slot += 1
        else:
            steps.append((EPSILON, word))
            word += 1
    slots, places = np.array(steps, dtype=np.int64).reshape(-1, 2).T
    return slots, places
