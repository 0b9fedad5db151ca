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


def aligned_by_table(texts: list[list[str]]) -> list[list[str]]:
    """What `align` does, a cell of the table at a time: slots as lists of words, "" for none."""
    slots: list[list[str]] = []  # of each slot the word of every hypothesis so far
    for n, words in enumerate(texts):
        n_words, n_slots = len(words), len(slots)
        no_match = [[word not in slot for slot in slots] for word in words]
        required = ["" not in slot for slot in slots]
        cost = [[0] * (n_slots + 1) for _ in range(n_words + 1)]
        for w in range(n_words, -1, -1):
            for s in range(n_slots, -1, -1):
                options = []
                if w < n_words and s < n_slots:
                    options.append(cost[w + 1][s + 1] + no_match[w][s])
                if s < n_slots:
                    options.append(cost[w][s + 1] + required[s])
                if w < n_words:
                    options.append(cost[w + 1][s] + 1)
                cost[w][s] = min(options, default=0)
        grown, w, s = [], 0, 0
        while w < n_words or s < n_slots:
            if w < n_words and s < n_slots and cost[w][s] == cost[w + 1][s + 1] + no_match[w][s]:
                grown.append([*slots[s], words[w]])
                w, s = w + 1, s + 1
            elif s < n_slots and cost[w][s] == cost[w][s + 1] + required[s]:
                grown.append([*slots[s], ""])
                s += 1
            else:
                grown.append([*[""] * n, words[w]])
                w += 1
        slots = grown
    return [list(row) for row in zip(*slots, strict=True)]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9), min_size=1, max_size=7))
def test_sets_of_slots_give_the_alignment_of_the_table(texts: list[list[str]]) -> None:
    network = align(texts)
    held = [
        ["" if place == EPSILON else words[place] for place in row]
        for words, row in zip(texts, network.places, strict=True)
    ]
    expected = aligned_by_table(texts)
    assert held == expected or not any(texts)


def test_more_slots_than_a_machine_word_has_bits() -> None:
    """200 words, of which each of 40 hypotheses lacks, doubles or replaces one."""
    words = [f"w{n % 37}" for n in range(200)]
    texts = [[*words[:n], *["x"] * (n % 3), *words[n + (n % 2) :]] for n in range(0, 200, 25)]
    expected = aligned_by_table(texts)
    network = align(texts)
    held = [
        ["" if place == EPSILON else own[place] for place in row]
        for own, row in zip(texts, network.places, strict=True)
    ]
    assert held == expected
