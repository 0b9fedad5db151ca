"""Fragments and loops do not win where no score of the speech holds against them."""

from __future__ import annotations

import numpy as np
import pytest

from relisten.core.combine import Weights
from relisten.core.length_bounds import within_length_bounds
from relisten.core.scored_lists import ScoredLists
from relisten.core.types import Hypothesis, NBest
from relisten.tasks.second_pass import rank


def lists(*lengths: int) -> NBest:
    return NBest("u", tuple(Hypothesis(" ".join(["word"] * n)) for n in lengths))


@pytest.mark.parametrize(
    ("lengths", "within"),
    [
        ((23, 22, 1), [True, True, False]),  # a fragment
        ((10, 60), [True, False]),  # a loop
        ((1, 23, 24, 22), [True, True, True, True]),  # the fragment is the first pass's choice
        ((60, 10, 11, 12), [True, True, True, True]),  # so is the loop
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
