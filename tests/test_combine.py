"""Merging, weighing and ranking, by hand and by properties."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.core.combine import (
    DEFAULT_WEIGHTS,
    Weights,
    combined_scores,
    fingerprint,
    merge_hypotheses,
    n_spoken_words,
    posteriors,
    rank_hypotheses,
)
from relisten.core.text import normaliser
from relisten.core.types import FormatError, Hypothesis, NBest, UsageError

BASIC = normaliser("basic")


def nbest(*pairs: tuple[str, float], reference: str | None = None) -> NBest:
    hypotheses = tuple(Hypothesis(text, {"asr": score}) for text, score in pairs)
    return NBest("utt", hypotheses, reference=reference)


def test_equal_texts_merge_by_log_sum_exp_and_keep_the_first_surface() -> None:
    """e^-1 + e^-2 + e^-4 of "hello there"; "" and "…" are the same silence."""
    ends = (0.2, 0.5)
    utterance = nbest(("Hello, there!", -1.0), ("", -1.5), ("hello there", -2.0), ("…", -3.0))
    first = replace(utterance.hypotheses[0], word_ends_s=ends, extra={"n_tokens": 4})
    twice = replace(first, text="Hello there.", scores={"asr": -4.0}, word_ends_s=None)
    utterance = replace(utterance, hypotheses=(first, *utterance.hypotheses[1:], twice))

    merged = merge_hypotheses(utterance, BASIC).hypotheses
    assert [h.text for h in merged] == ["Hello, there!", ""]
    assert merged[0].scores["asr"] == pytest.approx(
        math.log(math.exp(-1) + math.exp(-2) + math.exp(-4))
    )
    assert merged[1].scores["asr"] == pytest.approx(math.log(math.exp(-1.5) + math.exp(-3)))
    assert (merged[0].word_ends_s, merged[0].extra) == (ends, {"n_tokens": 4})


def test_merging_needs_no_scores_and_keeps_the_other_ones() -> None:
    hypotheses = (Hypothesis("a", {"text": -3.0}), Hypothesis("A.", {"text": -9.0}))
    merged = merge_hypotheses(NBest("utt", hypotheses), BASIC).hypotheses
    assert merged == hypotheses[:1]


@given(st.lists(st.tuples(st.sampled_from(["a", "A", "b", "b.", ""]), st.floats(-50, 0))))
def test_merging_keeps_the_total_probability_and_is_done_once(
    pairs: list[tuple[str, float]],
) -> None:
    utterance = nbest(*pairs)
    merged = merge_hypotheses(utterance, BASIC)
    total = sum(math.exp(h.scores["asr"]) for h in merged.hypotheses)
    assert total == pytest.approx(sum(math.exp(score) for _, score in pairs))
    assert merge_hypotheses(merged, BASIC) == merged


def test_combined_scores_by_hand() -> None:
    """-3 + 0.5 · -10 + 2 · 5 words, "0351" being spoken as four words."""
    hypothesis = Hypothesis("Code 0351", {"asr": -3.0, "text": -10.0, "unused": 1.0})
    weights = Weights({"asr": 1, "text": 0.5, "length": 2.0, "speech_given_text": 0.0})
    assert n_spoken_words("Code 0351") == 5
    assert combined_scores(NBest("utt", (hypothesis,)), weights).tolist() == [2.0]


def test_a_missing_score_is_named_with_its_remedy() -> None:
    utterance = nbest(("a", -1.0))
    with pytest.raises(FormatError, match=r"'utt'.*'text'.*relisten score --components text"):
        rank_hypotheses(utterance, Weights({"text": 0.1}))
    with pytest.raises(FormatError, match=r"'utt'.*'asr'.*first pass"):
        combined_scores(NBest("utt", (Hypothesis("a"),)), DEFAULT_WEIGHTS)


def test_ranking_is_stable_and_remembers_the_first_pass() -> None:
    """Scores 1, 3, 3, 2: both threes in first-pass order, then 2, then 1."""
    utterance = nbest(("a", 1.0), ("b", 3.0), ("c", 3.0), ("d", 2.0))
    by_asr, by_nothing = Weights({"asr": 1.0}), Weights({"asr": 0.0})
    ranked = rank_hypotheses(utterance, by_asr)
    assert [h.text for h in ranked.hypotheses] == ["b", "c", "d", "a"]
    assert [h.first_pass_rank for h in ranked.hypotheses] == [1, 2, 3, 0]
    assert rank_hypotheses(ranked, by_asr) == ranked
    back = rank_hypotheses(ranked, by_nothing)
    assert [h.text for h in back.hypotheses] == ["a", "b", "c", "d"]


def test_an_utterance_without_hypotheses_stays_one() -> None:
    assert rank_hypotheses(NBest("utt"), DEFAULT_WEIGHTS).hypotheses == ()
    assert merge_hypotheses(NBest("utt"), BASIC) == NBest("utt")


def test_posteriors_are_a_softmax_that_does_not_overflow() -> None:
    assert posteriors([math.log(3), 0.0]) == pytest.approx([0.75, 0.25])
    assert posteriors([-5000.0, -5000.0]).tolist() == [0.5, 0.5]
    assert posteriors([]).shape == (0,)
    assert posteriors([math.log(9), 0.0], temperature=2.0) == pytest.approx([0.75, 0.25])


@given(st.lists(st.floats(-1e4, 1e4), min_size=1), st.floats(-100, 100))
def test_posteriors_sum_to_one_and_forget_a_common_offset(
    scores: list[float], offset: float
) -> None:
    assert posteriors(scores).sum() == pytest.approx(1.0)
    assert np.allclose(posteriors(scores), posteriors(np.add(scores, offset)), atol=1e-9)


def test_weights_survive_json_and_refuse_what_they_do_not_know() -> None:
    weights = Weights(
        {"asr": 1.0, "length": -0.25},
        "basic",
        frozenset({"ab", "cd"}),
        temperature=2.5,
        ceiling=0.9,
        by="place",
        domains={"hall": {"asr": 1.0, "length": 0.5}},
    )
    data = json.loads(json.dumps(weights.to_json()))
    assert Weights.from_json(data) == weights
    with pytest.raises(FormatError, match="extra"):
        Weights.from_json({**data, "extra": 1})
    with pytest.raises(FormatError, match=r"'asr'.*finite"):
        Weights.from_json({"values": {"asr": math.nan}})
    for broken in ({}, [], {"values": 3}, {"values": {}, "tuned_on": "ab"}):
        with pytest.raises(FormatError):
            Weights.from_json(broken)
    with pytest.raises(UsageError, match="no number"):
        Weights({"asr": "1"})  # type: ignore[dict-item]


def test_weights_saved_before_confidence_was_fitted_still_load() -> None:
    old = {"values": {"asr": 1.0}, "normaliser": "basic", "tuned_on": ["ab"]}
    assert Weights.from_json(old) == Weights({"asr": 1.0}, "basic", frozenset({"ab"}))
    assert (Weights.from_json(old).temperature, Weights.from_json(old).ceiling) == (1.0, 1.0)
    for key, value in (("temperature", 0.0), ("temperature", "1"), ("ceiling", 1.1)):
        with pytest.raises(FormatError, match=f"the {key} of weights"):
            Weights.from_json({**old, key: value})


def test_weights_do_not_follow_the_callers_dictionary() -> None:
    values = {"asr": 1.0}
    weights = Weights(values)
    values["asr"] = 2.0
    assert weights.values["asr"] == 1.0


def test_fingerprints_tell_utterances_apart_by_id_and_reference() -> None:
    utterances = [
        NBest("a", reference="b"),
        NBest("ab", reference=""),
        NBest("ab"),
        NBest("b", reference="a"),
    ]
    marks = {fingerprint(utterance) for utterance in utterances}
    assert len(marks) == 4
    assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in marks)
    same_speech = nbest(("other", 0.0), reference="b")
    assert fingerprint(replace(same_speech, id="a")) == fingerprint(utterances[0])
