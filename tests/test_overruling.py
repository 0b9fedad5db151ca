"""The margin by which another hypothesis must win, and the choice that stays where none is sure."""

from __future__ import annotations

import numpy as np
import pytest

from relisten.core.combine import Weights, rank_hypotheses
from relisten.core.overruling import choose_margin
from relisten.core.tune import fit_weights
from relisten.core.types import Hypothesis, NBest

FOLDS = np.arange(40) % 4


def test_small_advantages_that_mislead_are_kept_out() -> None:
    """Half of the utterances win by 1 nat and get an error, half win by 3 and lose two: the margin
    lies half way, at 2, and leaves 0 errors where the first pass has 2 and none wins 1."""
    advantage = np.where(np.arange(40) < 20, 1.0, 3.0)
    combined = np.stack([np.zeros(40), advantage], axis=1)
    errors = np.where(advantage[:, None] == 1.0, [[0, 1]], [[2, 0]])
    margin = choose_margin(combined, errors, FOLDS)
    assert margin.nats == 2.0
    assert margin.errors.tolist() == [0] * 40


def test_no_margin_where_every_advantage_helps() -> None:
    combined = np.stack([np.zeros(40), np.linspace(0.1, 4, 40)], axis=1)
    errors = np.tile([[2, 0]], (40, 1))
    margin = choose_margin(combined, errors, FOLDS)
    assert margin.nats == 0.0
    assert margin.errors.sum() == 0


def test_a_margin_is_ranked_as_it_was_tuned() -> None:
    """`first_pass` counts once, for the choice of rank 0, wherever it stands in the list."""
    nbest = NBest("u", (Hypothesis("b", {"asr": -1.0}), Hypothesis("a", {"asr": -2.0})))
    kept = Weights({"asr": -1.0, "first_pass": 1.5})
    overruled = Weights({"asr": -1.0, "first_pass": 0.5})
    assert rank_hypotheses(nbest, kept).hypotheses[0].text == "b"
    changed = rank_hypotheses(nbest, overruled)
    assert changed.hypotheses[0].text == "a"
    assert rank_hypotheses(changed, kept).hypotheses[0].text == "b"


@pytest.mark.parametrize("is_useful", [True, False])
def test_the_first_pass_stays_where_no_gain_is_certain(is_useful: bool) -> None:
    """The score `text` tells the right one of two texts, or is drawn by chance."""
    rng = np.random.default_rng(0)
    nbests = []
    for n in range(120):
        first_is_right = n % 3 > 0
        truth = 4.0 if first_is_right == is_useful else -4.0
        text = [truth if is_useful else float(rng.normal()), 0.0]
        scores = [{"asr": -1.0, "text": text[0]}, {"asr": -1.5, "text": text[1]}]
        texts = ("right", "wrong") if first_is_right else ("wrong", "right")
        listed = tuple(Hypothesis(t, s) for t, s in zip(texts, scores, strict=True))
        nbests.append(NBest(f"u{n}", listed, reference="right"))
    result = fit_weights(nbests, n_resamples=0)
    assert result.is_kept is not is_useful
    ranked = [rank_hypotheses(one, result.cautious_weights) for one in nbests]
    n_right = sum(one.hypotheses[0].text == "right" for one in ranked)
    assert n_right == (120 if is_useful else 80)
