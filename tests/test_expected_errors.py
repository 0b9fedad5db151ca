"""Weights of combined lists: what is minimised, that it is found, and that nothing else decides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from relisten.core.expected_errors import _minimise, fewest_expected_errors
from relisten.core.scored_lists import ScoredLists
from relisten.core.text import cached_normaliser
from relisten.core.types import Hypothesis, NBest
from relisten.tasks.hypotheses.combine import combine_utterance

TEXT = "the old house on the hill was sold to a man from the north last year"
WORDS = TEXT.split()


def lists_of_three(n: int, seed: int = 0) -> list[NBest]:
    """Lists of three systems that get words wrong independently: 5, 10 and 30 % of them."""
    rng = np.random.default_rng(seed)
    normalise = cached_normaliser("english")
    combined = []
    for row in range(n):
        right = list(rng.permutation(WORDS)[: rng.integers(3, 12)])
        parts = {}
        for name, rate in (("good", 0.05), ("fair", 0.1), ("poor", 0.3)):
            heard = [f"{w}{name[0]}" if rng.random() < rate else w for w in right]
            parts[name] = NBest(str(row), (Hypothesis(" ".join(heard)),), reference=" ".join(right))
        combined.append(combine_utterance(parts, ["good", "fair", "poor"], normalise, mix=True))
    return combined


def arrays(lists: list[NBest], systems: tuple[str, ...] = ("good", "fair", "poor")) -> ScoredLists:
    components = (*(f"agreement.{name}" for name in systems), "pace", "length")
    return ScoredLists.of(lists, components, "english")


def test_the_cost_by_hand_and_its_minimum() -> None:
    """Two lists of two texts, one score of 1 and −1. The first list has 1 error where w > 0, else
    0, the second 0 and 3: expected 1·p + 3·(1 − p) with p = P(second text | w), + w² / 2."""
    scores = np.array([[[0.0], [1.0]], [[0.0], [1.0]]])
    errors = np.array([[0, 1], [3, 0]])
    (found,) = fewest_expected_errors(scores, errors, np.zeros(1))

    def cost(w: float) -> float:
        p = 1 / (1 + math.exp(-w))
        return p + 3 * (1 - p) + w * w / 2

    assert found == pytest.approx(min(np.linspace(-3, 3, 60_001), key=cost), abs=1e-2)


def test_the_minimum_of_a_valley_is_found() -> None:
    """Rosenbrock's function, whose minimum (1, 1) lies in a bent valley."""

    def rosenbrock(x):
        a, b = 1 - x[0], x[1] - x[0] ** 2
        return 1 + a * a + 100 * b * b, np.array([-2 * a - 400 * x[0] * b, 200 * b])

    assert _minimise(rosenbrock, np.array([-1.2, 1.0])) == pytest.approx([1, 1], abs=0.02)


def test_better_systems_count_more_and_the_order_of_scores_nothing() -> None:
    lists = lists_of_three(150)
    good, fair, poor, *_ = arrays(lists).fit(0)
    assert good > fair > poor
    turned = arrays(lists, ("poor", "good", "fair"))
    centre = np.array([0.5, 0.75, 0.5, 0.0, 0.0])  # the same for each system
    again = dict(zip(turned.components, turned.fit(0, centre), strict=True))
    assert again["agreement.good"] == pytest.approx(good, rel=0.05)
    assert again["agreement.poor"] == pytest.approx(poor, rel=0.05, abs=0.02)


def test_fewer_errors_on_new_lists_and_copies_change_nothing() -> None:
    fitted, new = arrays(lists_of_three(150)), arrays(lists_of_three(150, seed=1))
    weights = fitted.fit(0)
    assert new.errors_with(weights).sum() < 0.8 * new.errors[:, 0].sum()
    padded = ScoredLists(
        fitted.components,
        np.pad(fitted.scores, ((0, 0), (0, 5), (0, 0))),
        np.concatenate([fitted.errors, np.repeat(fitted.errors[:, :1], 5, axis=1)], axis=1),
        fitted.n_words,
        np.pad(fitted.is_within, ((0, 0), (0, 5)), constant_values=True),
    )
    assert padded.fit(0) == pytest.approx(weights)


def test_pace_lets_words_count_otherwise_in_long_utterances() -> None:
    """The first system drops a word of short utterances, the second adds one to long ones: by
    words alone one of the two stays, with pace none."""
    rng = np.random.default_rng(0)
    normalise = cached_normaliser("english")
    lists = []
    for row in range(80):
        right = list(rng.permutation(WORDS)[: 3 if row % 2 else 14])
        first, second = (right[1:], right) if row % 2 else (right, [*right, "so"])
        parts = {
            name: NBest(str(row), (Hypothesis(" ".join(said)),), reference=" ".join(right))
            for name, said in (("a", first), ("b", second))
        }
        lists.append(combine_utterance(parts, ["a", "b"], normalise))
    names = ("agreement.a", "agreement.b", "length")
    for components, errors in ((names, 40), ((*names, "pace"), 0)):
        scored = ScoredLists.of(lists, components, "english")
        assert scored.errors_with(scored.fit(0)).sum() == errors
