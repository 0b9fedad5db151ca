"""What the report's page is made of, by hand: columns, confusions, bins, sweeps, parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from relisten.core.bootstrap import paired_bootstrap
from relisten.core.combine import Weights
from relisten.core.types import Hypothesis, NBest, UsageError
from relisten.tasks.evaluation.analysis import (
    NO_SCORES,
    NO_WEIGHTS,
    ErrorAnalyser,
    ErrorAnalysis,
)
from relisten.tasks.evaluation.breakdown import MIN_RESAMPLED, N_RESAMPLES, UNKNOWN
from relisten.tasks.evaluation.confusions import (
    ConfidenceBin,
    Confusion,
    ConfusionTally,
    confidence_bins,
    effect_of,
)
from relisten.tasks.evaluation.evaluate import evaluate
from relisten.tasks.evaluation.sweep import N_POINTS, SweepTally
from relisten.tasks.ranking import rank


def decoded(id: str, reference: str | None, *texts: str, chosen: int = 0, **extra: object) -> NBest:
    """An utterance whose first pass gave asr = 0, -1, -2, …; `chosen` was put first."""
    hypotheses = [
        Hypothesis(text, {"asr": -float(n)}, first_pass_rank=n) for n, text in enumerate(texts)
    ]
    hypotheses.insert(0, hypotheses.pop(chosen)) if hypotheses else None
    return NBest(id, tuple(hypotheses), reference=reference, extra=extra)


def reported(
    utterances: Sequence[NBest], weights: Weights | None = None, by: Sequence[str] = ()
) -> ErrorAnalysis:
    tally = ErrorAnalyser("basic", by, weights)
    evaluation = evaluate(utterances, "basic", n_resamples=50, by=by, watch=tally.add)
    return tally.result(evaluation)


def test_what_choosing_did() -> None:
    same, wrong, corrected, introduced = (
        ("a", "a", "a"),
        ("a", "x", "x"),
        ("a", "x", "a"),
        ("a", "a", "x"),
    )
    assert effect_of([same]) == effect_of([]) == "correct"
    assert effect_of([same, wrong]) == "wrong"
    assert effect_of([wrong, corrected]) == effect_of([(None, "uh", None)]) == "improved"
    assert effect_of([introduced, same]) == "worsened"
    assert effect_of([corrected, introduced]) == effect_of([("a", "x", "y")]) == "changed"


def test_confusions_by_hand() -> None:
    """Twice "cat" was recognised as "hat": one is corrected, the other becomes "that", which is
    not. An insertion, "uh", is corrected, and a deletion, of "a", introduced."""
    tally = ConfusionTally()
    tally.add([("cat", "hat", "cat"), (None, "uh", None), ("a", "a", None)])
    tally.add([("cat", "hat", "that"), ("sat", "sat", "sat")])
    assert tally.most_common(9) == (
        Confusion("cat", "hat", first_pass=2, rescored=0, corrected=1, introduced=0),
        Confusion(None, "uh", first_pass=1, rescored=0, corrected=1, introduced=0),
        Confusion("a", None, first_pass=0, rescored=1, corrected=0, introduced=1),
        Confusion("cat", "that", first_pass=0, rescored=1, corrected=0, introduced=0),
    )
    assert len(tally.most_common(1)) == 1


def test_confidence_bins_by_hand() -> None:
    """Two bins of three utterances; the fourth, as sure as the third, stands beside it."""
    bins = confidence_bins(
        [0.9, 0.1, 0.5, 0.5, 0.3, 1.0],
        [(1, 0, 0), (2, 2, 1), (3, 1, 1), (4, 2, 3), (5, 5, 0), (6, 0, 1)],
        n_bins=2,
    )
    assert bins == (
        ConfidenceBin(0.1, 0.5, 4, 14, 10, 5),
        ConfidenceBin(0.9, 1.0, 2, 7, 0, 1),
    )
    assert confidence_bins([], []) == ()
    [sure] = confidence_bins([1.0] * 5, [(1, 0, 0)] * 5)
    assert (sure.low, sure.high, sure.n_utterances) == (1.0, 1.0, 5)


def made_up(n: int) -> list[NBest]:
    """Utterances with lists of one to four hypotheses, some of them alike, and three scores."""
    rng = np.random.default_rng(3)
    utterances = []
    for i in range(n):
        hypotheses = tuple(
            Hypothesis(
                " ".join(rng.choice(["a", "b", "c"], rng.integers(0, 4))),
                {"asr": float(rng.normal()), "text": float(rng.integers(-3, 0))},
                first_pass_rank=place,
            )
            for place in range(rng.integers(1, 5))
        )
        utterances.append(NBest(f"u{i}", hypotheses, reference="a b c"[: int(rng.integers(1, 6))]))
    return utterances


def test_a_sweep_is_what_ranking_anew_would_give() -> None:
    weights = Weights({"asr": 1.0, "text": 0.5, "length": -0.25, "ctc": 0.0}, "basic")
    ranked = [rank(utterance, weights) for utterance in made_up(30)]
    report = reported(ranked, weights)
    assert [sweep.component for sweep in report.sweeps] == ["asr", "text", "length"]
    assert report.n_other == 0
    for sweep in report.sweeps:
        assert sweep.weights[N_POINTS // 2] == sweep.weight == weights.values[sweep.component]
        assert sweep.weights[0] <= 0 <= sweep.weights[-1]
        assert sweep.errors[N_POINTS // 2] == report.evaluation.rescored.words.errors
        assert min(sweep.errors) < max(sweep.errors)
        for place in range(0, N_POINTS, 8):
            other = Weights({**weights.values, sweep.component: sweep.weights[place]}, "basic")
            again = evaluate([rank(one, other) for one in ranked], "basic", n_resamples=1)
            assert sweep.errors[place] == again.rescored.words.errors


def test_a_small_weight_is_moved_until_it_matters() -> None:
    """asr differs by 4 nats times weight 1, text by 2: a quarter of that is a weight of 0.5."""
    tally = SweepTally(Weights({"asr": 1.0, "text": 0.001}))
    pair = (Hypothesis("a", {"asr": 0, "text": -2}), Hypothesis("b", {"asr": -4, "text": 0}))
    tally.add(NBest("u", pair), [1, 0])
    asr, text = tally.result()
    assert (asr.weights[0], asr.weights[-1]) == (0.0, 2.0)
    assert (text.weights[0], text.weights[-1]) == pytest.approx((0.001 - 0.5, 0.001 + 0.5))


def test_what_cannot_be_shown_says_why() -> None:
    utterances = [
        decoded("u", "a", "a", "b"),
        NBest("v", (Hypothesis("x"), Hypothesis("y")), reference="x"),
    ]
    report = reported(utterances)
    assert report.left_out == {"sweep": NO_WEIGHTS}
    assert report.sweeps == ()
    report = reported(utterances, Weights({"asr": 1.0}))
    assert "'v': hypothesis 0 has no score 'asr'" in report.left_out["sweep"]
    assert reported(utterances[1:]).left_out["confidence"] == NO_SCORES
    assert len(reported(utterances).confidence) == 1


def test_other_weights_are_noticed() -> None:
    ranked = decoded("u", "b", "a", "b", chosen=1)
    assert reported([ranked], Weights({"asr": 1.0}, "basic")).n_other == 1
    assert reported([ranked], Weights({"asr": -1.0}, "basic")).n_other == 0


def test_rows_by_hand() -> None:
    """asr 0 and -1: the first pass is e / (e + 1) sure of "one too"; its list has better."""
    ranked = decoded("u", "One two.", "one too", "One, two!", chosen=1, speaker="s1")
    silent = NBest("v", reference="")
    unknown = decoded("w", None, "x")
    report = reported([ranked, silent, unknown], Weights({"asr": 2.0}, "basic"), by=["speaker"])
    first, second = report.utterances
    assert first.columns == (("one", "one", "one"), ("two", "too", "two"))
    assert (first.effect, first.oracle_errors, first.labels) == ("improved", 0, ("s1",))
    assert first.confidence == pytest.approx(np.e / (np.e + 1))
    assert json.loads(first.hypotheses) == [
        ["One, two!", 0, 1, [-1.0], -2.0, None, None],
        ["one too", 1, 0, [0.0], 0.0, None, None],
    ]
    assert (second.columns, second.effect, second.confidence) == ((), "correct", None)
    assert second.labels == (UNKNOWN,)
    assert json.loads(second.hypotheses) == [["", 0, None, [None], None, None, None]]
    assert report.effects == {"improved": 1, "worsened": 0, "changed": 0, "correct": 1, "wrong": 0}
    assert report.components == ("asr",)
    assert [refusal.id for refusal in report.evaluation.refused] == ["w"]


def test_a_list_of_one_voted_text() -> None:
    """No first pass proposed it, so the first pass has no words. It was an IndexError."""
    voted = NBest("v", (Hypothesis("x y", extra={"made_by": "rover"}),), reference="x y")
    report = reported([voted], Weights({"asr": 1.0}, "basic"))
    assert report.evaluation.first_pass.words.deletions == 2
    assert report.evaluation.rescored.words.errors == 0
    assert report.utterances[0].effect == "improved"


def test_a_placeholder_is_no_score_to_sweep() -> None:
    pair = (Hypothesis("a", {"asr": -1.0}), Hypothesis("b", {"asr": -1e308}))
    report = reported([NBest("u", pair, reference="a")], Weights({"asr": 1.0}, "basic"))
    assert "score 'asr' is -1e+308" in report.left_out["sweep"]


def test_nothing_to_evaluate_is_refused() -> None:
    """A manifest without hypotheses had a WER of 100 %; one list among others may be empty."""
    with pytest.raises(UsageError, match="no utterance has hypotheses"):
        evaluate([NBest("u", reference="x"), NBest("v", reference="y")])
    some = [NBest("u", reference="x"), decoded("v", "y", "y")]
    assert evaluate(some, n_resamples=5).first_pass.words.rate == 0.5


def test_parts_by_hand() -> None:
    """Rooms 2 and 10, in the order of numbers, and one utterance without a room."""
    utterances = [
        decoded("a", "x y", "x", "x y", chosen=1, room=10),
        decoded("b", "x y", "z z", room=2),
        decoded("c", "x", "x", room=10),
        decoded("d", "x", "x"),
    ]
    evaluation = evaluate(utterances, "basic", n_resamples=20, by=["room", "nothing"])
    [room] = evaluation.by
    assert room.key == "room"
    counts = [
        (part.value, part.n_utterances, part.first_pass.errors, part.rescored.errors)
        for part in room.subsets
    ]
    assert counts == [("2", 1, 2, 2), ("10", 2, 1, 0), (UNKNOWN, 1, 0, 0)]
    assert [part.gain for part in room.subsets] == [None] * 3
    [ten] = [part for part in evaluation.to_json()["by"]["room"] if part["value"] == "10"]
    assert (ten["n_words"], ten["first_pass"]["wer"], ten["rescored"]["wer"]) == (3, 1 / 3, 0)
    assert ten["absolute_reduction_ci95"] is None


def test_parts_keep_speakers_whole() -> None:
    """Eight speakers of two utterances each are eight draws; seven are too few."""
    utterances = [
        decoded(f"u{i}", "x y", "x", "x y", chosen=i % 3 == 0, speaker=str(i // 2), room="r")
        for i in range(2 * MIN_RESAMPLED)
    ]
    [room] = evaluate(utterances, "basic", n_resamples=20, by=["room"]).by
    rescored = [0 if i % 3 == 0 else 1 for i in range(2 * MIN_RESAMPLED)]
    n = len(utterances)
    groups = [i // 2 for i in range(n)]
    expected = paired_bootstrap([1] * n, rescored, [2] * n, groups, n_resamples=N_RESAMPLES)
    assert room.subsets[0].gain == expected
    [room] = evaluate(utterances[2:], "basic", n_resamples=20, by=["room"]).by
    assert room.subsets[0].gain is None


def test_every_rate_has_its_interval() -> None:
    """A speaker without errors and one who is only errors: anything from 0 to 1 is possible."""
    utterances = [
        replace(decoded(f"u{i}", "x", *(["x"] if i % 2 else ["y", "x"])), extra={"speaker": i % 2})
        for i in range(8)
    ]
    evaluation = evaluate(utterances, "basic", n_resamples=100)
    assert evaluation.n_resampled == 2
    assert evaluation.wer_ci95 == {
        "first_pass": (0.0, 1.0),
        "merged": (0.0, 1.0),
        "rescored": (0.0, 1.0),
        "oracle": (0.0, 0.0),
    }
    as_json = evaluation.to_json()
    assert as_json["merged"]["wer_ci95"] == [0, 1]
    assert as_json["oracle"]["wer_ci95"] == [0, 0]
    bare = [NBest("a", (Hypothesis("x"), Hypothesis("y")), reference="x")]
    assert "merged" not in evaluate(bare, n_resamples=10).wer_ci95
