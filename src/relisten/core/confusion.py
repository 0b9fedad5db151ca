"""Word confusion network: aligned hypotheses, so that each word of each can be voted on.

The hypotheses are aligned one after the other, best first, to the slots that those before them
made. At no cost a word joins a slot that contains it already, and a slot stays empty where another
hypothesis left it empty; a word beside other words, a slot left empty for the first time and a new
slot cost 1 each, and the cheapest alignment is taken. So the alignment does not depend on the
probabilities: these are used afterwards, as the weight of each hypothesis's vote.

Source: ROVER, Fiscus, "A post-processing system to yield reduced word error rates", ASRU 1997.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    an empty slot, and an empty slot to a new one. Time grows with N · words · slots / 64, and 1,000
    hypotheses of 100 words take 0.4 s.
    """
    numbers: dict[str, int] = {}
    numbered = [[numbers.setdefault(word, len(numbers)) for word in words] for words in texts]
    slots = _Slots(len(numbers))
    slots_of_words = [slots.add(words) for words in numbered]
    column = np.empty(len(slots.order), dtype=np.int64)
    column[slots.order] = np.arange(len(column))
    words = np.full((len(numbered), len(column)), EPSILON, dtype=np.int64)
    places = words.copy()
    for n, (own, of_words) in enumerate(zip(numbered, slots_of_words, strict=True)):
        columns = column[of_words]
        words[n, columns] = own
        places[n, columns] = np.arange(len(own))
    return ConfusionNetwork(words, places)


class _Slots:
    """The slots that hypotheses have made so far, numbered as they were made.

    order: their order in the text. A set of slots is an integer: bit 0 is the last slot of the
    text, so that the additions of `_cheapest` carry from the end to the start.
    """

    def __init__(self, n_words: int) -> None:
        self.order: list[int] = []
        self._bits: list[int] = []  # of each slot
        self._with_word: list[list[int]] = [[] for _ in range(n_words)]
        self._required: set[int] | None = None  # slots in which all hypotheses have a word

    def add(self, words: Sequence[int]) -> list[int]:
        """The slots of the words of the next hypothesis, which are new where that is cheapest."""
        matches = [self._set(self._with_word[word]) for word in words]
        steps = _cheapest(matches, self._set(self._required or ()), len(self.order))
        grown: list[int] = []
        own: list[int] = []
        before = 0
        for place, is_new in steps:
            grown += self.order[before:place]
            before = place
            own.append(len(self._bits) if is_new else self.order[place])
            if is_new:
                grown.append(own[-1])
                self._bits.append(0)
        if len(self._bits) > len(self.order):
            self.order = grown + self.order[before:]
            for bit, slot in enumerate(reversed(self.order)):
                self._bits[slot] = 1 << bit
        for word, slot in zip(words, own, strict=True):
            if slot not in self._with_word[word]:
                self._with_word[word].append(slot)
        self._required = set(own) if self._required is None else self._required.intersection(own)
        return own

    def _set(self, slots: Iterable[int]) -> int:
        found = 0
        for slot in slots:
            found |= self._bits[slot]
        return found


def _cheapest(matches: Sequence[int], required: int, n_slots: int) -> list[tuple[int, bool]]:
    """The cheapest alignment: of each word a place in the text, and whether it is a new slot there.

    matches: of each word, the set of slots that contain it. required: those that cost 1 when empty.
    With cost[w, s] that of aligning the words from w on with the slots from s on,

        cost[w, s] = min(cost[w + 1, s + 1] + [no match], cost[w, s + 1] + [required],
                         cost[w + 1, s] + 1)

    Neighbours in this table differ by -1, 0 or 1, and a row of differences is two sets of slots; a
    difference that is passed on from slot to slot is the carry of an addition. Source: Myers, "A
    fast bit-vector algorithm for approximate string matching", Journal of the ACM 46 (1999), whose
    slots are all required.
    """
    every = (1 << n_slots) - 1
    optional = every ^ required
    # Along a row, cost[w, s] - cost[w, s + 1] is 1 (rises), -1 (falls) or 0.
    rises, falls = required, 0
    rows = []
    for match in reversed(matches):
        bound = match | falls
        free = every ^ bound
        # Where cost[w, s + 1] - cost[w + 1, s + 1] is -1 (less), or 1 (more): sums of where such a
        # difference begins, and of where it passes through.
        passing = optional & ~falls
        begin = rises & match
        less = ((rises | passing) + begin ^ (rises ^ begin | passing)) & every
        less_required = required & less
        may_join = every ^ less ^ less_required
        swaps = free & (required ^ less_required)
        passing = free & optional
        begin = falls & may_join | swaps & ~rises
        more = ((begin | passing) + begin + 1 ^ passing) & every
        joins = match & may_join | swaps | passing & more
        rises, falls = less_required | swaps & ~more, more & bound
        rows.append((joins, joins | required ^ rises | optional & falls))
    steps = []
    place = 0
    for joins, stops in reversed(rows):
        # The first slot, from here on, that is not left empty; none: a new one at the end.
        from_end = (stops & (1 << n_slots - place) - 1).bit_length()
        place = n_slots - from_end
        is_new = not (from_end and joins >> from_end - 1 & 1)
        steps.append((place, is_new))
        place += not is_new
    return steps
