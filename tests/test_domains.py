"""Weights by domain: by hand, planted apart, and no gain where there is none to be had."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from relisten.core.combine import Weights, combined_scores
from relisten.core.domains import shrink
from relisten.core.types import FormatError, Hypothesis, NBest, UsageError
from relisten.tasks.weights import load_weights, save_weights
from test_tune import planted, without_intervals


def labelled(nbests: list[NBest], domain: str) -> list[NBest]:
    return [replace(nbest, extra={**nbest.extra, "place": domain}) for nbest in nbests]


def test_shrinkage_by_hand() -> None:
    """100 utterances against a strength of 300: a quarter of the way from 1 to 5."""
    shared, own = np.array([1.0, 1.0]), np.array([1.0, 5.0])
    assert shrink(shared, own, 100, 300.0).tolist() == [1.0, 2.0]
    assert shrink(shared, own, 100, 0.0).tolist() == own.tolist()
    assert shrink(shared, own, 100, math.inf).tolist() == shared.tolist()


@pytest.fixture(scope="module")
def apart():
    """Two domains in which `text` counts for and against, and one utterance of a third."""
    kitchen = labelled(planted({"asr": 1.0, "text": 0.3}, 60, seed=1), "kitchen")
    office = labelled(planted({"asr": 1.0, "text": -0.3}, 60, seed=2), "office")
    hall = labelled(planted({"asr": 1.0, "text": 0.3}, 1, seed=3), "hall")
    return without_intervals(
        [*kitchen, *office, *hall], components=["asr", "text"], folds=3, by="place"
    )


def test_domains_that_differ_get_weights_of_their_own(apart) -> None:
    assert apart.domains.n_utterances == {"hall": 1, "kitchen": 60, "office": 60}
    assert set(apart.weights.domains) == {"kitchen", "office"}, "one utterance is none to fit"
    assert apart.weights.domains["kitchen"]["text"] > 0.15
    assert apart.weights.domains["office"]["text"] < -0.15
    assert apart.domains.cross_validated_wer < 0.1 < apart.cross_validated_wer
    assert apart.domains.gain.absolute_low > 0
    assert apart.domains.strength < math.inf


def test_an_utterance_gets_the_weights_of_its_domain_an_unknown_one_the_shared(
    apart, tmp_path
) -> None:
    path = str(tmp_path / "weights.json")
    save_weights(apart.weights, path)
    weights = load_weights(path)
    assert weights == apart.weights
    hypothesis = Hypothesis("a", {"asr": -1.0, "text": -10.0})
    for place, values in (
        ("kitchen", weights.domains["kitchen"]),
        ("office", weights.domains["office"]),
        ("cellar", weights.values),
        (None, weights.values),
    ):
        nbest = NBest("u", (hypothesis,), extra={} if place is None else {"place": place})
        expected = -1.0 - 10.0 * values["text"]
        assert combined_scores(nbest, weights).tolist() == pytest.approx([expected])


def test_domains_that_do_not_differ_keep_the_shared_weights() -> None:
    """One plant, split by chance: own weights, from half the data, have nothing to add."""
    nbests = planted({"asr": 1.0, "text": 0.3}, 60, seed=4)
    mixed = [one for n, nbest in enumerate(nbests) for one in labelled([nbest], f"half {n % 2}")]
    result = without_intervals(mixed, components=["asr", "text"], folds=3, by="place")
    assert result.domains is not None
    assert result.domains.gain.absolute <= 0.01
    if math.isinf(result.domains.strength):
        assert result.weights.domains == {}
        assert result.weights.by is None


def test_a_key_that_nobody_has_is_refused() -> None:
    with pytest.raises(UsageError, match="'room'"):
        without_intervals(planted({"asr": 1.0, "text": 0.3}, 4, seed=5), by="room")


def test_weights_of_domains_are_checked() -> None:
    with pytest.raises(UsageError, match="no key 'by'"):
        Weights({"asr": 1.0}, domains={"a": {"asr": 1.0}})
    with pytest.raises(UsageError, match="'asr' is not finite"):
        Weights({"asr": 1.0}, by="x", domains={"a": {"asr": math.nan}})
    for broken in ({"by": 3}, {"by": "x", "domains": []}, {"by": "x", "domains": {"a": 1}}):
        with pytest.raises(FormatError, match="'by'"):
            Weights.from_json({"values": {"asr": 1.0}, **broken})
    weights = Weights({"asr": 1.0}, by="x", domains={"a": {"text": 0.5, "ctc": 0.0}})
    assert weights.to_score == ("text",)
