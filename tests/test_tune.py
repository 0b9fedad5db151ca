"""Tuning: exact along a line, finds answers built first, and does not overestimate its gain."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relisten.core.combine import (
    DEFAULT_WEIGHTS,
    Weights,
    combined_scores,
    fingerprint,
    merge_hypotheses,
    rank_hypotheses,
)
from relisten.core.error_rates import ErrorCounts, word_errors
from relisten.core.line_search import Intervals, best_step, errors_along
from relisten.core.text import normaliser
from relisten.core.tune import fit_weights, held_out_errors
from relisten.core.types import FormatError, Hypothesis, NBest, UsageError
from relisten.core.weight_search import resampled_weights

N_WORDS = 8
without_intervals = partial(fit_weights, n_resamples=0)
"""The intervals of weights take most of the time, and only the tests of intervals look at them."""
CTC = str.maketrans("0123456789", "bcdfghjklm")  # words without digits: no normaliser cuts them


def utterance(
    name: str,
    scores: dict[str, np.ndarray],
    wrong: np.ndarray,
    longer: np.ndarray | None = None,
    speaker: str | None = None,
) -> NBest:
    """Hypothesis n has wrong[n] words substituted, then longer[n] appended (or the last taken
    away), each an error."""
    words = [f"{name}w{k}" for k in range(N_WORDS)]
    longer = np.zeros_like(wrong) if longer is None else longer
    hypotheses = []
    for n, (n_wrong, n_longer) in enumerate(zip(wrong, longer, strict=True)):
        text = [f"{name}x{n}y{k}" for k in range(n_wrong)] + words[n_wrong:]
        text = text[: N_WORDS + n_longer] + [f"{name}z{n}y{k}" for k in range(n_longer)]
        values = {component: float(column[n]) for component, column in scores.items()}
        hypotheses.append(Hypothesis(" ".join(text).translate(CTC), values))
    extra = {} if speaker is None else {"speaker": speaker}
    return NBest(name, tuple(hypotheses), reference=" ".join(words).translate(CTC), extra=extra)


def planted(
    true: dict[str, float], n_utterances: int, seed: int, n_hypotheses: int = 8
) -> list[NBest]:
    """Lists in which the hypothesis that `true` weights rank first is right and others are not.

    Scores are noise of very different sizes; where `length` has a weight, wrong hypotheses are also
    up to two words longer or shorter.
    """
    rng = np.random.default_rng(seed)
    size = {"asr": 2.0, "text": 9.0, "text_given_speech": 6.0, "speech_given_text": 80.0}
    nbests: list[NBest] = []
    while len(nbests) < n_utterances:
        scores = {c: rng.normal(scale=size[c], size=n_hypotheses) for c in true if c != "length"}
        longer = rng.integers(-2, 3, n_hypotheses) * ("length" in true)
        total = true.get("length", 0.0) * longer
        total = total + sum(true[c] * column for c, column in scores.items())
        best = int(np.argmax(total))
        if longer[best] != 0:
            continue
        wrong = rng.integers(1, 4, n_hypotheses)
        wrong[best] = 0
        nbests.append(utterance(f"u{seed}n{len(nbests)}", scores, wrong, longer))
    return nbests


def wer(nbests: list[NBest], weights: Weights) -> float:
    """WER of the first after merging and ranking, through the public functions."""
    basic = normaliser(weights.normaliser)
    total = ErrorCounts()
    for nbest in nbests:
        ranked = rank_hypotheses(merge_hypotheses(nbest, basic), weights)
        total += word_errors(basic(nbest.reference or ""), basic(ranked.hypotheses[0].text))
    return total.rate


SMALL = st.integers(-3, 3)


@st.composite
def line_problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small whole numbers, so that equal lines and corners in one point abound."""
    u, n = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    cells = [draw(st.lists(SMALL, min_size=u * n, max_size=u * n)) for _ in range(3)]
    a, b, errors = (np.array(cell).reshape(u, n) for cell in cells)
    return a.astype(float), b.astype(float), np.abs(errors)


@settings(max_examples=300)
@given(line_problems())
def test_errors_along_a_line_are_exact_everywhere(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Against looking at every point between any two places where two hypotheses can cross."""
    intercepts, slopes, errors = problem
    along = errors_along(intercepts, slopes, errors)
    assert (np.diff(along.corners) >= 0).all()
    crossings = {
        -(a - c) / (b - d)
        for row_a, row_b in zip(intercepts, slopes, strict=True)
        for a, b in zip(row_a, row_b, strict=True)
        for c, d in zip(row_a, row_b, strict=True)
        if b != d
    }
    edges = np.array([-100.0, *sorted(crossings), 100.0])
    for t in (edges[1:] + edges[:-1]) / 2:
        if np.min(np.abs(edges - t)) < 1e-6:
            continue
        winners = np.argmax(intercepts + t * slopes, axis=1)
        by_hand = errors[np.arange(len(errors)), winners].sum()
        assert along.errors[np.searchsorted(along.corners, t)] == by_hand


def test_a_step_weighs_errors_against_distance_by_hand() -> None:
    """Errors 5 | 2 | 4 with corners at 1 and 3, starting at 0: the 2 is 1.05² away."""
    along = Intervals(np.array([1.0, 3.0]), np.array([5, 2, 4]))
    assert best_step(along, penalty=0.1, centre=0.0) == pytest.approx(1.05)
    assert best_step(along, penalty=0.1, centre=2.2) == pytest.approx(2.2)
    assert best_step(along, penalty=10.0, centre=0.0) == 0.0
    assert best_step(along, penalty=1e-6, centre=9.0) == pytest.approx(2.95)


def test_the_step_keeps_off_corners_and_out_of_hairlines() -> None:
    along = Intervals(np.array([1.0, 1.0 + 1e-12, 1.1]), np.array([5, 0, 3, 5]))
    assert best_step(along, penalty=0.01, centre=0.0) == pytest.approx(1.025)


PLANTS = {
    "one score": {"asr": 1.0, "text": 0.25},
    "length alone": {"asr": 1.0, "length": -1.5},
    "a language model to be divided out": {"asr": 1.0, "text_given_speech": 1.0, "text": -0.6},
    "all five": {
        "asr": 1.0,
        "speech_given_text": 0.02,
        "text": 0.15,
        "text_given_speech": 0.5,
        "length": -0.8,
    },
}


@pytest.mark.parametrize("true", PLANTS.values(), ids=PLANTS.keys())
def test_planted_weights_are_recovered(true: dict[str, float]) -> None:
    """First best is wrong seven times in eight; the built answer makes no error at all."""
    result = without_intervals(planted(true, 200, seed=1), components=list(true), folds=2)
    assert set(result.weights.values) == set(true)
    for component, weight in true.items():
        assert result.weights.values[component] == pytest.approx(weight, rel=0.3)
    assert result.weights.values["asr"] == 1.0
    assert result.first_pass_wer > 0.2
    assert result.fitted_wer < 0.01
    assert result.cross_validated_wer < 0.02
    assert wer(planted(true, 200, seed=2), result.weights) < 0.02
    assert result.is_gain_certain


def test_the_fitted_rate_is_what_ranking_gives() -> None:
    nbests = planted(PLANTS["all five"], 40, seed=3)
    result = without_intervals(nbests, folds=2)
    assert wer(nbests, result.weights) == pytest.approx(result.fitted_wer)
    assert result.first_pass_wer == pytest.approx(wer(nbests, Weights({})))


def test_a_score_in_other_units_gets_a_weight_in_other_units() -> None:
    """text in thousandths of a nat: the same choice with a thousandth of the weight."""
    nbests = planted(PLANTS["one score"], 80, seed=4)
    scaled = [
        replace(
            nbest,
            hypotheses=tuple(
                replace(h, scores={**h.scores, "text": 1000 * h.scores["text"]})
                for h in nbest.hypotheses
            ),
        )
        for nbest in nbests
    ]
    nats, millinats = (without_intervals(lists, folds=2) for lists in (nbests, scaled))
    assert millinats.weights.values["text"] == pytest.approx(nats.weights.values["text"] / 1000)
    assert millinats.cross_validated_wer == nats.cross_validated_wer


def test_without_asr_the_first_score_asked_for_is_fixed() -> None:
    true = {"text_given_speech": 1.0, "text": -0.5}
    nbests = planted(true, 150, seed=5)
    result = without_intervals(nbests, components=["text_given_speech", "text"], folds=2)
    assert result.weights.values["text_given_speech"] == 1.0
    assert result.weights.values["text"] == pytest.approx(-0.5, rel=0.15)


def test_cross_validation_does_not_flatter_where_there_is_nothing_to_learn() -> None:
    """12 utterances, three scores of pure noise, 8 times over; the five hypotheses have 0 to 4
    errors in 8 words in any order, so no weights do better than 25 %. Fitted ones seem to."""
    rng = np.random.default_rng(0)
    names = ("asr", "text", "text_given_speech")
    fitted, promised = [], []
    for problem in range(8):
        nbests = [
            utterance(f"p{problem}u{u}", {c: rng.normal(size=5) for c in names}, rng.permutation(5))
            for u in range(12)
        ]
        result = without_intervals(nbests, components=names, seed=problem, folds=3)
        fitted.append(result.fitted_wer)
        promised.append(result.cross_validated_wer)
    standard_error = np.sqrt(2 / (8 * 12)) / N_WORDS
    assert np.mean(fitted) < 0.25 - 1.5 * standard_error
    assert np.mean(promised) > 0.25 - 2 * standard_error


def test_a_useless_score_beside_a_length_that_helps_is_no_gain() -> None:
    """Length alone answers everything; it is the baseline, and noise adds nothing to it."""
    rng = np.random.default_rng(1)
    nbests = [
        replace(
            nbest,
            hypotheses=tuple(
                replace(h, scores={**h.scores, "text": rng.normal(scale=5.0)})
                for h in nbest.hypotheses
            ),
        )
        for nbest in planted(PLANTS["length alone"], 100, seed=6)
    ]
    result = without_intervals(nbests, folds=2)
    assert result.baseline_wer < 0.05 < result.first_pass_wer
    assert result.gain.absolute <= 0
    assert not result.is_gain_certain


def test_a_speaker_is_never_on_both_sides() -> None:
    """For one speaker more `text` is right, for the other less: what is right for one is wrong
    for the other, and only folds by speaker show it."""
    rng = np.random.default_rng(2)
    nbests = []
    for n in range(80):
        sign = 1 if n < 40 else -1
        text = rng.normal(scale=20.0, size=4)
        wrong = np.where(text * sign == (text * sign).max(), 0, 4)
        scores = {"asr": rng.normal(scale=0.1, size=4), "text": text}
        nbests.append(utterance(f"u{n}", scores, wrong, speaker=f"speaker {sign}"))
    apart = without_intervals(nbests, components=["asr", "text"], folds=5)
    mixed = without_intervals(
        [replace(nbest, extra={}) for nbest in nbests], components=["asr", "text"], folds=5
    )
    assert (apart.n_folds, apart.n_groups) == (2, 2)
    assert (mixed.n_folds, mixed.n_groups) == (5, 80)
    anonymous = [replace(nbest, extra={}) for nbest in nbests]
    by_weights = [
        held_out_errors(some, "english", ["asr", "text"]).sum() / apart.n_words.sum()
        for some in (nbests, anonymous)
    ]
    assert by_weights[0] > 0.48
    assert by_weights[1] < 0.4
    assert apart.cross_validated_wer < by_weights[0]  # the margin keeps the first pass


def test_lists_already_ranked_are_tuned_as_the_first_pass_had_them() -> None:
    nbests = planted(PLANTS["one score"], 40, seed=7)
    ranked = [rank_hypotheses(nbest, Weights({"text": 1.0})) for nbest in nbests]
    assert without_intervals(ranked, folds=2) == without_intervals(nbests, folds=2)


def test_merged_texts_share_their_probability() -> None:
    """ "a" twice at ln 0.3 beats "b" at ln 0.5 once they are merged, so nothing is left to tune."""
    texts = [("b", 0.5), ("a", 0.3), ("A.", 0.3)]
    hypotheses = tuple(Hypothesis(text, {"asr": float(np.log(p))}) for text, p in texts)
    nbests = [NBest(f"u{n}", hypotheses, reference="a") for n in range(4)]
    result = without_intervals(nbests, normaliser="basic", folds=2)
    assert (result.first_pass_wer, result.cross_validated_wer) == (1.0, 0.0)


def test_where_nothing_can_change_the_default_weights_stay() -> None:
    nbests = [NBest(f"u{n}", (Hypothesis("a", {"asr": -1.0}),), reference="a b") for n in range(3)]
    nbests.append(NBest("silent", (), reference="c d"))
    result = without_intervals(nbests)
    assert dict(result.weights.values) == dict(DEFAULT_WEIGHTS.values)
    assert result.first_pass_wer == result.cross_validated_wer == 5 / 8
    assert result.gain.absolute == 0.0


def test_the_result_remembers_what_it_was_tuned_on_and_what_it_left_out() -> None:
    nbests = planted(PLANTS["one score"], 10, seed=8)
    first = nbests[0].hypotheses[0]
    spotty = replace(first, scores={**first.scores, "speech_given_text": -3.0})
    nbests[0] = replace(nbests[0], hypotheses=(spotty, *nbests[0].hypotheses[1:]))
    result = without_intervals(nbests, normaliser="basic", folds=2)
    assert result.weights.tuned_on == {fingerprint(nbest) for nbest in nbests}
    assert result.weights.normaliser == "basic"
    assert result.left_out == ("speech_given_text",)
    assert set(result.weights.values) == {"asr", "text", "length"}
    assert combined_scores(nbests[0], result.weights).shape == (8,)


def noisy(n_utterances: int, seed: int) -> list[NBest]:
    """Lists of which the planted weights are right on six in ten."""
    rng = np.random.default_rng(seed)
    return [
        replace(nbest, reference=nbest.hypotheses[rng.integers(8)].text)
        if rng.random() < 0.4
        else nbest
        for nbest in planted(PLANTS["one score"], n_utterances, seed)
    ]


def test_intervals_hold_the_planted_weight_and_narrow_with_data() -> None:
    few, many = (
        fit_weights(noisy(n, seed=10), components=["asr", "text"], folds=2) for n in (50, 200)
    )
    for result in (few, many):
        low, high = result.intervals["text"]
        assert low < PLANTS["one score"]["text"] < high
        assert low < result.weights.values["text"] < high
        assert result.intervals["asr"] == (1.0, 1.0)
    assert np.diff(many.intervals["text"]) < 0.7 * np.diff(few.intervals["text"])


def test_weights_are_resampled_by_whole_groups() -> None:
    """Of one group, only that group can be drawn: every draw is the same. Of single utterances,
    they vary."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 4, 2))
    errors = rng.integers(0, 4, (40, 4))
    centre = np.array([1.0, 0.0])
    draw = partial(resampled_weights, scores, errors, centre, centre, n_resamples=5)
    assert np.ptp(draw(["one"] * 40, np.random.default_rng(0))[:, 1]) == 0.0
    assert np.ptp(draw([str(u) for u in range(40)], np.random.default_rng(0))[:, 1]) > 0.0


def test_what_cannot_be_tuned_is_refused_with_the_reason() -> None:
    nbests = planted(PLANTS["one score"], 3, seed=9)
    with pytest.raises(UsageError, match="at least 2 utterances"):
        without_intervals(nbests[:1])
    with pytest.raises(UsageError, match=r"'u9n1' has no reference"):
        without_intervals([nbests[0], replace(nbests[1], reference=None)])
    with pytest.raises(UsageError, match="2 folds"):
        without_intervals(nbests, folds=1)
    with pytest.raises(UsageError, match="beside length"):
        without_intervals(nbests, components=["length"])
    with pytest.raises(FormatError, match=r"'u9n0'.*relisten score"):
        without_intervals(nbests, components=["asr", "speech_given_text"])


@pytest.mark.parametrize("placeholder", [-1e308, 1e308, float(np.finfo(np.float32).min), -1e10])
def test_a_placeholder_is_no_score(placeholder: float) -> None:
    """Its square overflowed, and the search ended in an IndexError."""
    nbests = planted(PLANTS["one score"], 3, seed=9)
    worst = replace(nbests[1].hypotheses[2], scores={"asr": -1.0, "text": placeholder})
    hypotheses = (*nbests[1].hypotheses[:2], worst, *nbests[1].hypotheses[3:])
    nbests[1] = replace(nbests[1], hypotheses=hypotheses)
    with pytest.raises(FormatError, match=r"'u9n1': hypothesis 2: score 'text' is .*drop"):
        without_intervals(nbests)


def test_held_out_errors_are_those_of_tuning() -> None:
    nbests = planted(PLANTS["one score"], 20, seed=11)
    result = without_intervals(nbests, components=["asr", "text"], folds=2)
    errors = held_out_errors(nbests, "english", ["asr", "text"], folds=2)
    assert errors.tolist() == result.held_out_errors.tolist()
    assert result.intervals == {}
