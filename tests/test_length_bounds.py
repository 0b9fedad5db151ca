"""Fragments and loops do not win where no score of the speech holds against them."""

from __future__ import annotations

import numpy as np
import pytest

from relisten.core.combine import Weights
from relisten.core.length_bounds import is_loop, is_too_fast, within_length_bounds
from relisten.core.scored_lists import ScoredLists
from relisten.core.types import Hypothesis, NBest
from relisten.tasks.ranking import rank


def lists(*lengths: int) -> NBest:
    words = [f"{letter}{vowel}" for letter in "bcdfghjklmnp" for vowel in "aeiou"]
    return NBest("u", tuple(Hypothesis(" ".join(words[:n])) for n in lengths))


@pytest.mark.parametrize(
    ("lengths", "within"),
    [
        ((23, 22, 1), [True, True, False]),  # a fragment
        ((10, 60), [True, False]),  # far too long
        ((1, 23, 24, 22), [True, True, True, True]),  # the fragment is the first pass's choice
        ((60, 10, 11, 12), [True, True, True, True]),  # so is the long one
        ((2, 1, 0, 6), [True, True, True, True]),  # short texts differ by few words
        ((2, 7), [True, False]),
        ((23, 1), [True, False]),
        ((0,), [True]),
        ((), []),
    ],
)
def test_bounds(lengths: tuple[int, ...], within: list[bool]) -> None:
    """From half of the usual words less 2 to twice as many and 2 more."""
    assert within_length_bounds(lists(*lengths)).tolist() == within


@pytest.mark.parametrize(
    "text",
    [
        "the " * 9,
        "Thank you. " * 4,
        "I don't know, I DON'T KNOW I don't know... I don't know",
        "so we are going to " * 40,
        "right then la-la-la-la-la-la-la-la-la goodbye",
        "no no no no no no no no no and so on",
        "谢谢" * 9,
        "我们走吧，" * 10,
        "ขอบคุณ" * 8,
        "あ" * 18,
        "da " * 20_000,
    ],
)
def test_what_nobody_says_is_a_loop(text: str) -> None:
    assert is_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "in in in in in human health",  # a speaker of Earnings22
        "ha ha ha ha har",
        "bye bye, bye bye, bye bye",
        "no no no no no no no no",
        "knock knock knock, who is there",
        "谢谢谢谢谢谢",
        "哈哈哈哈哈哈",
        "one two one two three",
        "a " + " ".join(f"w{n}" for n in range(5000)),
    ],
)
def test_what_people_say_is_no_loop(text: str) -> None:
    assert not is_loop(text)


def test_speed_is_bounded_where_the_duration_is_known() -> None:
    """8 words a second and 2 more: 18 in 2 s. "0351" is four."""
    words = "a b c d e f g h i j k l m n o p q r"
    assert not is_too_fast(words, 2.0)
    assert is_too_fast(f"{words} s", 2.0)
    assert is_too_fast(f"{words[:-4]} 0351", 2.0)
    assert not is_too_fast(f"{words} s", None)


LOOP = "down by the river " * 40


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_loop_loses_wherever_it_stands(order: tuple[int, int]) -> None:
    """A file need not be sorted: where the loop came first, it set the usual length, and the
    speech stood last."""
    both = [
        Hypothesis("We ought to leave before the rain.", {"asr": -6.0}),
        Hypothesis(LOOP, {"asr": -31.0}),
    ]
    weights = Weights({"asr": 1.0, "length": 0.4})
    ranked = rank(NBest("u", tuple(both[place] for place in order)), weights)
    assert ranked.hypotheses[0].text.startswith("We ought")
    assert ranked.hypotheses[1].posterior == 0.0


def test_a_long_invention_that_comes_first_is_not_the_measure() -> None:
    invention = " ".join(f"word{n}x" for n in range(80))
    both = (
        Hypothesis(invention, {"asr": -31.0}),
        Hypothesis("We ought to leave before the rain.", {"asr": -6.0}),
    )
    assert within_length_bounds(NBest("u", both)).tolist() == [False, True]


def test_where_all_loop_the_first_pass_chooses() -> None:
    both = (Hypothesis("the " * 50, {"asr": -2.0}), Hypothesis("the " * 49, {"asr": -1.0}))
    assert within_length_bounds(NBest("u", both)).tolist() == [True, True]
    weights = Weights({"asr": 1.0})
    assert rank(NBest("u", both), weights).hypotheses[0].text == "the " * 49


def test_nobody_says_thirty_words_in_two_seconds() -> None:
    """Without its duration the list would be taken as it is: the two are of one length."""
    fast, speech = lists(30).hypotheses[0], lists(14).hypotheses[0]
    nbest = NBest("u", (fast, speech), duration_s=2.0)
    assert within_length_bounds(nbest).tolist() == [False, True]
    assert within_length_bounds(NBest("u", nbest.hypotheses)).tolist() == [True, True]


SENTENCE = "in order to realise the evils entailed by incarceration in those days"


def test_a_language_model_cannot_choose_a_fragment() -> None:
    """On a list of a read sentence "in order" won, having 16 tokens fewer to pay for."""
    nbest = NBest(
        "u",
        (
            Hypothesis(SENTENCE, {"asr": -2.9, "text": -60.0, "ctc": -54.0}),
            Hypothesis("in order", {"asr": -5.6, "text": -18.0, "ctc": -780.0}),
        ),
    )
    by_text = rank(nbest, Weights({"asr": 1.0, "text": 0.44, "length": 0.4}))
    assert [h.text for h in by_text.hypotheses] == [SENTENCE, "in order"]
    assert [h.posterior for h in by_text.hypotheses] == [1.0, 0.0]
    assert [h.first_pass_rank for h in by_text.hypotheses] == [0, 1]
    by_speech = rank(nbest, Weights({"asr": 1.0, "text": 0.44, "ctc": 0.001}))
    assert by_speech.hypotheses[0].text == "in order", "a score of the speech is believed"


def test_a_length_bonus_cannot_choose_a_loop() -> None:
    loop = " ".join(["the"] * 60)
    nbest = NBest("u", (Hypothesis("so it is", {"asr": -5.0}), Hypothesis(loop, {"asr": -20.0})))
    ranked = rank(nbest, Weights({"asr": 1.0, "length": 0.4}))
    assert ranked.hypotheses[0].text == "so it is"
    assert rank(ranked, Weights({"asr": 1.0, "length": 0.4})) == ranked, "ranking again is safe"


def test_tuning_and_ranking_choose_alike() -> None:
    """A fragment that ranking never chooses is none of tuning's errors either; where the score of
    the speech counts, both may choose it."""
    nbest = NBest(
        "u",
        (
            Hypothesis(SENTENCE, {"asr": -2.9, "text": -60.0, "ctc": -54.0}),
            Hypothesis("in order", {"asr": -5.6, "text": -18.0, "ctc": -780.0}),
        ),
        reference=SENTENCE,
    )
    lists = ScoredLists.of([nbest], ("asr", "text", "ctc"), "basic")
    assert lists.errors_with(np.array([1.0, 0.44, 0.0])).tolist() == [10]
    without = lists.only(("asr", "text"))
    assert without.errors_with(np.array([1.0, 0.44])).tolist() == [0]
    assert ScoredLists.of([nbest], ("asr", "text"), "basic").errors.tolist() == [[0, 0]]
    assert without.rows(np.array([True])).is_within.tolist() == [[True, False]]
