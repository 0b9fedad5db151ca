"""Numbers about lists: by hand, and recovered from lists made with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relisten.core.list_statistics import (
    agreement,
    elasticity,
    errors_of_best,
    exponent,
    mean_estimate,
)


def test_agreement_by_hand() -> None:
    """Scores -1, -3, -2 at places 0, 1, 2: two of three pairs agree; a second list agrees in its
    only pair; the third has none that both tell apart. Mean of 2/3 and 1."""
    scores = [np.array([-1.0, -3.0, -2.0]), np.array([-1.0, -2.0]), np.array([-1.0, -1.0])]
    estimate = agreement(scores, [np.arange(len(one)) for one in scores])
    assert estimate.value == pytest.approx(5 / 6)
    assert estimate.n_lists == 2
    assert agreement(scores[2:], [np.arange(2)]).n_lists == 0


def test_the_wrong_sign_mirrors_agreement() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=8) for _ in range(40)]
    errors = [rng.integers(0, 4, 8) for _ in range(40)]
    right, wrong = agreement(scores, errors), agreement([-one for one in scores], errors)
    assert right.value + wrong.value == pytest.approx(1)
    assert right.low < 0.5 < right.high  # drawn by lot


def test_mean_estimate_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation 1, so 2 ± 1.96 / √3."""
    estimate = mean_estimate([1, 2, 3])
    half = 1.96 / 3**0.5
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((2 - half, 2, 2 + half))
    assert not mean_estimate([]).low > 0
    assert mean_estimate([7]).high == np.inf


@given(arrays(np.float64, st.integers(2, 20), elements=st.floats(-50, -0.01)))
def test_exponent_makes_the_sum_one(scores: np.ndarray) -> None:
    assert np.exp(exponent(scores) * scores).sum() == pytest.approx(1, rel=1e-6)


def test_exponent_of_known_scales() -> None:
    """All of the probability on the list: 1 in natural logarithms, ln 10 in log10, and as many
    times more as averages were divided by."""
    natural = np.log([0.5, 0.3, 0.2])
    assert exponent(natural) == pytest.approx(1)
    assert exponent(np.log10([0.5, 0.3, 0.2])) == pytest.approx(np.log(10))
    assert exponent(natural / 7) == pytest.approx(7)
    assert exponent(natural[:2]) < 1  # the third's probability is missing
    assert np.isnan(exponent(np.array([-1.0, 0.0])))
    assert np.isnan(exponent(np.array([-1.0])))


def test_elasticity_recovers_a_power() -> None:
    lengths = np.array([2.0, 3, 5, 8, 13, 21])
    estimate = elasticity(4 * lengths**0.6, lengths)
    assert estimate.value == pytest.approx(0.6)
    assert estimate.high - estimate.low < 1e-6
    with_holes = np.array([4 * 2**0.6, np.nan, -1.0, 4 * 8**0.6, 0.0, 4 * 21**0.6])
    assert elasticity(with_holes, lengths).value == pytest.approx(0.6)
    assert np.isnan(elasticity(lengths, np.full(6, 3.0)).value)


def test_errors_of_best_by_hand() -> None:
    """Reference a b c. First list: 3, 1, 2 errors, so 3, 1, 1; the second has one text, the third
    none: as many errors as words."""
    texts = [["x y z", "a b z", "a"], ["a b c"], []]
    errors = errors_of_best(texts, ["a b c"] * 3)
    assert errors.tolist() == [[3, 1, 1], [0, 0, 0], [3, 3, 3]]
