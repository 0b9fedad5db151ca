"""Confidence: right words, ECE, Brier and the reliability curve by hand; planted temperatures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from relisten.core.calibration import (
    CalibrationTally,
    ReliabilityBin,
    WordVotes,
    cross_fit_confidence,
    fit_confidence,
    right_words,
)
from relisten.core.combine import Weights
from relisten.core.decide import decide
from relisten.core.text import normaliser
from relisten.core.types import Hypothesis, NBest
from relisten.tasks.evaluation.evaluate import evaluate

BASIC, ENGLISH = normaliser("basic"), normaliser("english")


def test_right_words_by_hand() -> None:
    """One substituted, one inserted, one missing: what is missing makes no word of ours wrong."""
    assert right_words("the cat sat down", "The hat, sat up down", BASIC).tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert right_words("a b c", "a c", BASIC).tolist() == [True, True]
    assert right_words("", "a", BASIC).tolist() == [False]
    assert right_words("a", "", BASIC).tolist() == []


def test_a_word_of_several_parts_is_right_where_all_are() -> None:
    assert right_words("I will not go", "I won't go", ENGLISH).tolist() == [True] * 3
    assert right_words("I will go", "I won't go", ENGLISH).tolist() == [True, False, True]


def test_ece_brier_and_curve_by_hand() -> None:
    """0.95 right and wrong, 0.85 right, 0.3 wrong. Bins: 0.95 · 2 against 1; 0.85 against 1; 0.3
    against 0: (0.9 + 0.15 + 0.3) / 4. Brier: (0.05² + 0.95² + 0.15² + 0.3²) / 4."""
    tally = CalibrationTally()
    tally.add([0.95, 0.95], [True, False])
    tally.add([0.85, 0.3], [True, False])
    result = tally.result()
    assert result is not None
    assert result.n_words == 4
    assert result.ece == pytest.approx(1.35 / 4)
    assert result.brier == pytest.approx((0.0025 + 0.9025 + 0.0225 + 0.09) / 4)
    assert [one.n_words for one in result.bins] == [1, 1, 2]
    assert result.bins[2] == ReliabilityBin(2, pytest.approx(0.95), 0.5)


def test_certainty_has_a_bin_and_no_word_is_no_figure() -> None:
    tally = CalibrationTally()
    assert tally.result() is None
    tally.add([], [])
    assert tally.result() is None
    tally.add([1.0, 0.0], [True, False])
    result = tally.result()
    assert result is not None
    assert (result.ece, result.brier, len(result.bins)) == (0.0, 0.0, 2)


def planted(n: int, temperature: float, ceiling: float, seed: int = 0) -> WordVotes:
    """Two hypotheses a list and two words, one that both have and one that the first alone has;
    each is right as often as these two numbers say."""
    rng = np.random.default_rng(seed)
    lead = rng.exponential(3.0, size=n)
    scores = np.stack([lead, np.zeros(n)], axis=1)
    alone = ceiling / (1 + np.exp(-lead / temperature))
    sure = np.stack([np.full(n, ceiling), alone], axis=1).ravel()
    agreement = np.tile([[True, True], [True, False]], (n, 1))
    return WordVotes(scores, np.repeat(np.arange(n), 2), agreement, rng.random(2 * n) < sure)


@pytest.mark.parametrize(("temperature", "ceiling"), [(1.0, 0.95), (3.0, 0.8), (0.5, 0.9)])
def test_planted_temperature_and_ceiling_are_recovered(temperature: float, ceiling: float) -> None:
    found = fit_confidence(planted(20_000, temperature, ceiling))
    assert found == pytest.approx((temperature, ceiling), rel=0.1)


def test_the_temperature_is_the_likeliest_by_brute_force() -> None:
    votes = planted(300, 2.0, 0.9)
    temperature, ceiling = fit_confidence(votes)

    def cost(t: float) -> float:
        sure = np.clip(votes.confidence(t, ceiling), 0.001, 0.999)
        return -sum(math.log(c if r else 1 - c) for c, r in zip(sure, votes.is_right, strict=True))

    assert cost(temperature) <= min(map(cost, np.geomspace(0.1, 100, 500))) + 1e-4


def test_cross_fitted_confidence_is_true_on_what_it_did_not_see() -> None:
    fit = cross_fit_confidence(planted(5_000, 4.0, 0.85), np.arange(5_000) % 5)
    assert fit.before is not None
    assert fit.after is not None
    assert fit.before.ece > 0.1
    assert fit.after.ece < 0.02
    assert fit.after.brier < fit.before.brier


def test_votes_are_those_of_the_decision() -> None:
    """At any temperature, the same numbers as `decide` writes; lists of different lengths."""
    lists = [
        NBest("u", tuple(Hypothesis(t, {"asr": s}) for t, s in pairs), reference="the cat sat")
        for pairs in (
            [("the cat sat", -1.0), ("the hat sat", -1.5), ("a cat sat", -3.0)],
            [("cat", -1.0), ("hat", -0.5)],
            [],
        )
    ]
    combined = [np.array([h.scores["asr"] for h in nbest.hypotheses]) for nbest in lists]
    votes = WordVotes.of(lists, combined, BASIC)
    for temperature, ceiling in ((1.0, 1.0), (2.5, 0.7)):
        weights = Weights({"asr": 1.0}, "basic", temperature=temperature, ceiling=ceiling)
        decided = [decide(nbest, weights) for nbest in lists]
        written = [c for one in decided for h in one.hypotheses[:1] for c in h.word_confidence]
        assert votes.confidence(temperature, ceiling) == pytest.approx(written)
    assert votes.is_right.tolist() == [True, True, True, False]
    assert votes.is_undisputed.tolist() == [False, False, True, False]


def test_without_words_nothing_is_fitted() -> None:
    votes = WordVotes.of([NBest("u", reference="a")], [np.zeros(0)], BASIC)
    fit = cross_fit_confidence(votes, np.zeros(1, np.int64))
    assert (fit.temperature, fit.ceiling, fit.before, fit.after) == (1.0, 1.0, None, None)


def test_evaluate_reports_confidence_where_there_is_any() -> None:
    """Chosen "a b" with 1.0 and 0.6, b wrong: Brier 0.36 / 2."""
    pairs = (("a b", math.log(0.6)), ("a c", math.log(0.4)))
    listed = NBest("u", tuple(Hypothesis(t, {"asr": s}) for t, s in pairs), reference="a c")
    bare = evaluate([listed], "basic", n_resamples=10)
    assert bare.confidence is None
    assert bare.to_json()["confidence"] is None
    report = evaluate([decide(listed, Weights({"asr": 1.0}, "basic"))], "basic", n_resamples=10)
    figures = report.to_json()["confidence"]
    assert figures["n_words"] == 2
    assert figures["n_bins"] == 10
    assert figures["brier"] == pytest.approx(0.18)
    assert figures["ece"] == pytest.approx(0.3)
    assert [point["accuracy"] for point in figures["reliability"]] == [0.0, 1.0]
