"""The word confusion network, by hand, by property, and against plain edit distance."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from relisten.core.confusion import EPSILON, align

WORDS = st.lists(st.sampled_from("abcd"), max_size=6)


def laid_out(*texts: str) -> list[list[str]]:
    """What each slot holds, one text a row: "_" for no word."""
    split = [text.split() for text in texts]
    network = align(split)
    return [
        ["_" if place == EPSILON else words[place] for place in row]
        for words, row in zip(split, network.places, strict=True)
    ]


def test_slots_by_hand() -> None:
    """sat a | sat | sat on a: the second leaves the last slot empty, the third opens one before it.

    A fourth hypothesis then finds "on" and the empty slots of those that came before at no cost.
    """
    assert laid_out("cat sat a", "cat sat", "cat sat on a", "hat sat on") == [
        ["cat", "sat", "_", "a"],
        ["cat", "sat", "_", "_"],
        ["cat", "sat", "on", "a"],
        ["hat", "sat", "on", "_"],
    ]


def test_the_vote_by_hand() -> None:
    """0.4 "the cat", 0.35 "the hat sat", 0.25 "a hat sat": the, 0.75; hat, 0.6; sat, 0.6; and the
    text "the hat sat" is not the best hypothesis, nor is "the" the most frequent word."""
    network = align([["the", "cat"], ["the", "hat", "sat"], ["a", "hat", "sat"]])
    winners, support = network.vote(np.array([0.4, 0.35, 0.25]))
    assert winners.tolist() == [0, 1, 1]
    assert np.allclose(support, [0.75, 0.6, 0.6])
    assert np.allclose(np.array([0.4, 0.35, 0.25]) @ network.agreement(0), [0.75, 0.4])
    assert np.allclose(np.array([0.4, 0.35, 0.25]) @ network.agreement(2), [0.25, 0.6, 0.6])


def test_nothing_may_win_a_slot_and_ties_go_to_the_better_hypothesis() -> None:
    """0.5 against 0.2 + 0.3 ties, whatever the rounding: the first hypothesis has the word."""
    network = align([["a", "b"], ["a"], ["a"]])
    winners, support = network.vote(np.array([0.5, 0.2, 0.3]))
    assert (winners.tolist(), support.tolist()) == ([0, 0], [1.0, 0.5])
    winners, support = network.vote(np.array([0.4, 0.3, 0.3]))
    assert network.places[winners, [0, 1]].tolist() == [0, EPSILON]
    assert np.allclose(support, [1.0, 0.6])


def test_no_hypothesis_and_no_word() -> None:
    assert align([]).words.shape == (0, 0)
    network = align([[], ["a"]])
    winners, support = network.vote(np.array([0.9, 0.1]))
    assert network.places[winners, [0]].tolist() == [EPSILON]
    assert support.tolist() == [0.9]


@given(WORDS, WORDS)
def test_two_hypotheses_are_aligned_as_by_edit_distance(one: list[str], other: list[str]) -> None:
    network = align([one, other])
    assert (network.words[0] != network.words[1]).sum() == Levenshtein.distance(one, other)


@given(st.lists(WORDS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_every_word_has_one_slot_in_its_order_and_votes_sum_to_one(
    texts: list[list[str]], random
) -> None:
    network = align(texts)
    for words, row in zip(texts, network.places, strict=True):
        assert [int(place) for place in row if place != EPSILON] == list(range(len(words)))
    votes = np.array([random.random() + 0.01 for _ in texts])
    votes /= votes.sum()
    for slot in network.words.T:
        assert (slot != EPSILON).any(), "a slot that no one has a word in"
        total = sum(votes[slot == word].sum() for word in np.unique(slot))
        assert np.isclose(total, 1.0)


@given(st.lists(WORDS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_support_is_the_sum_of_those_that_agree(texts: list[list[str]], random) -> None:
    network = align(texts)
    votes = np.array([random.random() + 0.01 for _ in texts])
    winners, support = network.vote(votes)
    for slot, winner in enumerate(winners):
        sums = [votes[network.words[:, slot] == word].sum() for word in network.words[:, slot]]
        assert np.isclose(support[slot], max(sums))
        assert np.isclose(sums[winner], max(sums))


@given(st.lists(WORDS, min_size=1, max_size=4, unique_by=tuple), st.integers(0, 3))
def test_who_has_all_probability_wins_every_slot(texts: list[list[str]], n: int) -> None:
    n %= len(texts)
    votes = np.zeros(len(texts))
    votes[n] = 1.0
    network = align(texts)
    winners, support = network.vote(votes)
    slots = np.arange(len(winners))
    assert (network.words[winners, slots] == network.words[n]).all()
    assert (support == 1.0).all()


def cheapest_by_table(texts: list[list[str]]) -> list[list[int]]:
    """The slots of the words of each hypothesis, counted along the final network: the documented
    recurrence and preferences, by a table of costs."""
    slots: list[tuple[int, set[str]]] = []
    required: set[int] = set()
    chosen: list[list[int]] = []
    for n, words in enumerate(texts):
        n_words, n_slots = len(words), len(slots)
        price = [[int(w not in held) for _, held in slots] for w in words]
        empty = [int(slot in required) for slot, _ in slots]
        cost = [[0] * (n_slots + 1) for _ in range(n_words + 1)]
        for w in range(n_words, -1, -1):
            for s in range(n_slots, -1, -1):
                ways = [cost[w + 1][s + 1] + price[w][s]] if w < n_words and s < n_slots else []
                ways += [cost[w][s + 1] + empty[s]] if s < n_slots else []
                ways += [cost[w + 1][s] + 1] if w < n_words else []
                cost[w][s] = min(ways, default=0)
        w = s = 0
        own, grown = [], []
        while w < n_words or s < n_slots:
            has_slot = s < n_slots
            if w < n_words and has_slot and cost[w][s] == cost[w + 1][s + 1] + price[w][s]:
                slots[s][1].add(words[w])
                own.append(slots[s][0])
                grown.append(slots[s])
                w, s = w + 1, s + 1
            elif has_slot and cost[w][s] == cost[w][s + 1] + empty[s]:
                grown.append(slots[s])
                s += 1
            else:
                own.append(sum(map(len, chosen)) + len(own))  # a number that no slot has yet
                grown.append((own[-1], {words[w]}))
                w += 1
        slots, required = grown, set(own) if n == 0 else required.intersection(own)
        chosen.append(own)
    place = {slot: k for k, (slot, _) in enumerate(slots)}
    return [[place[slot] for slot in own] for own in chosen]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=7))
def test_sets_of_slots_as_integers_agree_with_a_table_of_costs(texts: list[list[str]]) -> None:
    places = align(texts).places
    found = [np.flatnonzero(row != EPSILON).tolist() for row in places]
    assert found == cheapest_by_table(texts)


def test_more_slots_than_a_machine_word_has_bits() -> None:
    """200 words, of which each of 8 hypotheses lacks, doubles or replaces one."""
    words = [f"w{n % 37}" for n in range(200)]
    texts = [[*words[:n], *["x"] * (n % 3), *words[n + (n % 2) :]] for n in range(0, 200, 25)]
    found = [np.flatnonzero(row != EPSILON).tolist() for row in align(texts).places]
    assert found == cheapest_by_table(texts)
