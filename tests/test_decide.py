"""MAP, MBR and the vote: by hand, against brute force, and that nothing is lost."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.core.combine import MADE_BY, Weights, in_first_pass_order, posteriors, rank_hypotheses
from relisten.core.confusion import align
from relisten.core.decide import DECISIONS, Decision, decide, expected_errors
from relisten.core.error_rates import word_errors
from relisten.core.tune import fit_weights
from relisten.core.types import Hypothesis, NBest
from relisten.io.nbest import load_nbest, save_nbest
from relisten.tasks.evaluation.evaluate import evaluate
from relisten.tasks.ranking import rank

ASR = Weights({"asr": 1.0}, "basic")


def decoded(*pairs: tuple[str, float], reference: str | None = None, timed: bool = False) -> NBest:
    """Hypotheses with these probabilities; their words end at 1, 2, … s, plus 0.1 s a place."""
    hypotheses = tuple(
        Hypothesis(
            text,
            {"asr": math.log(p)},
            tuple(k + 1 + n / 10 for k in range(len(text.split()))) if timed else None,
        )
        for n, (text, p) in enumerate(pairs)
    )
    return NBest("u", hypotheses, reference=reference)


THREE = (("the cat", 0.4), ("the hat sat", 0.35), ("a hat sat", 0.25))


def texts(nbest: NBest) -> list[str]:
    return [h.text for h in nbest.hypotheses]


def test_map_by_hand() -> None:
    """the: 0.4 + 0.35; cat: 0.4 alone."""
    decided = decide(decoded(*THREE), ASR)
    assert texts(decided) == ["the cat", "the hat sat", "a hat sat"]
    assert [h.posterior for h in decided.hypotheses] == pytest.approx([0.4, 0.35, 0.25])
    assert decided.hypotheses[0].word_confidence == pytest.approx((0.75, 0.4))
    assert all(h.word_confidence is None for h in decided.hypotheses[1:])


def test_mbr_by_hand() -> None:
    """Errors between the three: 2, 3 and 1. Expected: 0.35 · 2 + 0.25 · 3 = 1.45; 0.4 · 2 + 0.25 =
    1.05; 0.4 · 3 + 0.35 = 1.55: the second, though the first has the highest probability."""
    risk = expected_errors([text for text, _ in THREE], [0.4, 0.35, 0.25])
    assert risk.tolist() == pytest.approx([1.45, 1.05, 1.55])
    decided = decide(decoded(*THREE), ASR, "mbr")
    assert texts(decided) == ["the hat sat", "the cat", "a hat sat"]
    assert decided.hypotheses[0].word_confidence == pytest.approx((0.75, 0.6, 0.6))
    assert decided.hypotheses[0].posterior == pytest.approx(0.35)


WORDS = st.lists(st.sampled_from("abcd"), max_size=5).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(0, 10_000))
def test_expected_errors_agree_with_brute_force(candidates: list[str], seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(len(candidates)))
    by_hand = [
        sum(p * word_errors(y, text).errors for y, p in zip(candidates, probabilities, strict=True))
        for text in candidates
    ]
    assert expected_errors(candidates, probabilities) == pytest.approx(by_hand)


@given(st.lists(WORDS, min_size=1, max_size=6, unique=True), st.integers(0, 10_000))
def test_mbr_picks_what_brute_force_picks(candidates: list[str], seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=len(candidates))
    hypotheses = tuple(
        Hypothesis(text, {"asr": score}) for text, score in zip(candidates, scores, strict=True)
    )
    chosen = decide(NBest("u", hypotheses), ASR, "mbr").hypotheses[0].text
    p = posteriors(scores)
    risk = {
        text: sum(p[n] * word_errors(y, text).errors for n, y in enumerate(candidates))
        for text in candidates
    }
    assert risk[chosen] == pytest.approx(min(risk.values()))


def test_the_vote_makes_a_text_that_nobody_proposed() -> None:
    """0.4 "a b x", 0.3 "a y c", 0.3 "z b c": each word is right in two of three."""
    listed = decoded(("A b x", 0.4), ("a y c", 0.3), ("z b c", 0.3), timed=True)
    decided = decide(listed, ASR, "rover")
    assert texts(decided) == ["A b c", "A b x", "a y c", "z b c"]
    voted = decided.hypotheses[0]
    assert voted.word_confidence == pytest.approx((0.7, 0.7, 0.6))
    assert voted.word_ends_s == pytest.approx((1.0, 2.0, 3.1))  # c is the second hypothesis's
    assert voted.extra == {MADE_BY: "rover"}
    assert (voted.scores, voted.first_pass_rank, voted.posterior) == ({}, None, None)
    assert [h.first_pass_rank for h in decided.hypotheses[1:]] == [0, 1, 2]
    assert sum(h.posterior or 0.0 for h in decided.hypotheses) == pytest.approx(1.0)


def test_a_vote_for_a_hypothesis_puts_it_first() -> None:
    decided = decide(decoded(*THREE), ASR, "rover")
    assert texts(decided) == ["the hat sat", "the cat", "a hat sat"]
    assert decided.hypotheses[0].extra == {}
    assert decided.hypotheses[0].first_pass_rank == 1
    assert decided.hypotheses[0].word_confidence == pytest.approx((0.75, 0.6, 0.6))


def test_word_ends_of_a_vote_never_decrease_or_are_unknown() -> None:
    listed = decoded(("a b x", 0.4), ("a y c", 0.3), ("z b c", 0.3), timed=True)
    first, early, last = (
        replace(h, word_ends_s=ends, word_starts_s=tuple(end - 0.1 for end in ends))
        for h, ends in zip(
            listed.hypotheses, ((1.0, 2.0, 3.0), (0.5, 0.75, 1.0), (1.2, 2.2, 3.2)), strict=True
        )
    )
    some = replace(listed, hypotheses=(first, early, last))
    voted = decide(some, ASR, "rover").hypotheses[0]
    assert voted.word_ends_s == (1.0, 2.0, 2.0)
    assert voted.word_starts_s == (0.9, 1.9, 1.9)
    none = replace(early, word_ends_s=None)
    some = replace(listed, hypotheses=(listed.hypotheses[0], none, listed.hypotheses[2]))
    assert decide(some, ASR, "rover").hypotheses[0].word_ends_s is None


def test_what_a_vote_made_is_no_hypothesis_of_the_first_pass(tmp_path) -> None:
    """It is written and read; then ranked, tuned and evaluated as the list it was made from."""
    listed = decoded(("a b x", 0.4), ("a y c", 0.3), ("z b c", 0.3), reference="a b c")
    voted = rank(listed, ASR, "rover")
    save_nbest([voted], tmp_path / "voted")
    [again] = load_nbest(tmp_path / "voted")
    assert texts(again) == texts(voted)
    assert again.hypotheses[0].word_confidence == pytest.approx((0.7, 0.7, 0.6))
    assert texts(rank(again, ASR)) == texts(listed)
    assert texts(in_first_pass_order(again)) == texts(listed)
    report = evaluate([again], "basic", n_resamples=10)
    assert (report.rescored.words.errors, report.first_pass.words.errors) == (0, 1)
    assert (report.oracle.errors, len(report.oracle_wer_at)) == (1, 3)
    assert report.merged is not None
    assert fit_weights([again] * 2, "basic").first_pass_wer == pytest.approx(1 / 3)


def test_temperature_flattens_and_the_ceiling_caps() -> None:
    """Odds of 9 at temperature 2 are odds of 3; and 0.8 of what is left of certainty."""
    weights = Weights({"asr": 1.0}, "basic", temperature=2.0, ceiling=0.8)
    decided = decide(decoded(("a b", 0.9), ("a c", 0.1)), weights)
    assert [h.posterior for h in decided.hypotheses] == pytest.approx([0.75, 0.25])
    assert decided.hypotheses[0].word_confidence == pytest.approx((0.8, 0.6))


def test_words_are_compared_as_the_normaliser_writes_them() -> None:
    """Case and punctuation are no dissent; a dash, of which nothing is left, is still a word."""
    decided = decide(decoded(("Hello, there - you", 0.6), ("hello THERE two", 0.4)), ASR)
    assert decided.hypotheses[0].word_confidence == pytest.approx((1.0, 1.0, 0.6, 0.6))


@pytest.mark.parametrize("decision", DECISIONS)
def test_empty_lists_and_empty_texts_stay(decision) -> None:
    assert decide(NBest("u"), ASR, decision) == NBest("u")
    [only] = decide(decoded(("", 1.0)), ASR, decision).hypotheses
    assert (only.text, only.posterior, only.word_confidence) == ("", 1.0, ())


@given(
    st.lists(st.tuples(WORDS, st.floats(-9, 0)), min_size=1, max_size=6, unique_by=lambda h: h[0]),
    st.sampled_from(DECISIONS),
)
def test_nothing_is_lost_whatever_is_decided(pairs: list[tuple[str, float]], decision) -> None:
    listed = NBest("u", tuple(Hypothesis(text, {"asr": score}) for text, score in pairs))
    decided = decide(listed, ASR, decision)
    own = [h for h in decided.hypotheses if MADE_BY not in h.extra]
    assert sorted(h.first_pass_rank for h in own) == list(range(len(pairs)))
    assert sum(h.posterior for h in own) == pytest.approx(1.0)
    first = decided.hypotheses[0]
    assert len(first.word_confidence) == len(first.text.split())
    assert all(0 < c <= 1 for c in first.word_confidence)
    again = rank_hypotheses(decided, ASR)
    assert texts(again) == texts(rank_hypotheses(listed, ASR))
    if decision == "map":
        assert texts(decided) == texts(again)


def test_the_order_of_the_list_does_not_matter() -> None:
    ranked = decide(decoded(*THREE), ASR).hypotheses
    for decision, order in itertools.product(DECISIONS, itertools.permutations(range(3))):
        shuffled = NBest("u", tuple(ranked[n] for n in order))
        expected = decide(NBest("u", ranked), ASR, decision)
        assert decide(shuffled, ASR, decision) == expected


@given(
    st.lists(st.tuples(WORDS, st.floats(-9, 0)), min_size=1, max_size=6, unique_by=lambda h: h[0]),
    st.sampled_from(DECISIONS),
)
def test_without_confidence_all_else_is_the_same(pairs: list[tuple[str, float]], decision) -> None:
    listed = NBest("u", tuple(Hypothesis(text, {"asr": score}) for text, score in pairs))
    first, *others = decide(listed, ASR, decision).hypotheses
    without = decide(listed, ASR, decision, confidence=False).hypotheses
    assert without == (replace(first, word_confidence=None), *others)


@pytest.mark.parametrize("decision", DECISIONS)
def test_hypotheses_that_count_for_nothing_are_not_aligned(decision: Decision) -> None:
    """A list of 300, each a nat below the one before: from the 21st on less than 1e-9 is left, and
    the list of the first 21 gives the same text and the same confidence in it."""
    words = [f"{letter}{vowel}" for letter in "bdfgklmnpt" for vowel in "aeiou"]
    pairs = [(" ".join(words[n % 7 : 20 + n * n % 11]), -float(n)) for n in range(300)]
    whole = NBest("u", tuple(Hypothesis(text, {"asr": score}) for text, score in pairs))
    short = replace(whole, hypotheses=whole.hypotheses[:21])
    chosen, of_short = (decide(one, ASR, decision).hypotheses[0] for one in (whole, short))
    assert chosen.text == of_short.text
    assert chosen.word_confidence == pytest.approx(of_short.word_confidence, abs=1e-8)
    with patch("relisten.core.decide.align", wraps=align) as aligned:
        decide(whole, ASR, decision)
    assert len(aligned.call_args[0][0]) == 21


@pytest.mark.parametrize("decision", ["mbr", "rover"])
def test_a_hypothesis_that_counts_for_nothing_may_be_the_one_chosen(decision: Decision) -> None:
    """Three texts with a word wrong each, equally likely; the vote is the text of the last one, 40
    nats below. Two of
    three have each of its words."""
    pairs = [("x b c", -1.0), ("a x c", -1.0), ("a b x", -1.0), ("a b c", -41.0)]
    nbest = NBest("u", tuple(Hypothesis(text, {"asr": score}) for text, score in pairs))
    chosen = decide(nbest, ASR, decision).hypotheses[0]
    assert chosen.text == "a b c"
    assert chosen.word_confidence == pytest.approx([2 / 3] * 3)
