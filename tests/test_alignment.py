"""Word times from token times, attention and CTC."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.io.audio import RATE_HZ
from relisten.speech.alignment import (
    attention_token_ends,
    ctc_token_ends,
    dtw_path,
    find_pauses,
    word_ends,
    word_starts,
)


def test_word_ends_by_hand():
    """We| call| B|ill|.| -| -- : the full stop's silence is not Bill's; dashes are words too."""
    prefixes = ["We", "We call", "We call B", "We call Bill", "We call Bill."]
    prefixes += ["We call Bill. -", "We call Bill. --"]
    ends = word_ends(prefixes, [0.5, 0.8, 1.0, 1.4, 2.0, 2.2, 9.9], duration_s=2.5)
    assert ends == (0.5, 0.8, 1.4, 2.5)


def test_word_ends_of_marks_and_halves_of_characters():
    """A vowel sign is part of its word; half a character decodes to a replacement sign."""
    assert word_ends(["क", "कि", "कि ह", "कि है"], [0.1, 0.2, 0.3, 0.4], 1.0) == (0.2, 0.4)
    assert word_ends(["\ufffd", "é", "é a"], [0.1, 0.2, 0.3], 1.0) == (0.2, 0.3)


def test_word_ends_of_nothing_and_of_disordered_times():
    assert word_ends([], [], 1.0) == ()
    assert word_ends([" ", " a"], [0.1, 0.2], 1.0) == (0.2,)
    assert word_ends(["a", "a b", "a b c"], [0.5, 0.3, 0.7], 0.6) == (0.5, 0.5, 0.6)


@given(st.lists(st.text("ab .,'", max_size=4), max_size=8))
def test_one_end_for_every_word_of_any_tokens(tokens):
    prefixes = list(itertools.accumulate(tokens))
    ends = word_ends(prefixes, np.arange(1, len(tokens) + 1), 100.0)
    assert len(ends) == len("".join(tokens).split())
    assert list(ends) == sorted(ends)


def monotone_paths(n_rows, n_columns):
    """All paths from corner to corner, recursively."""
    if n_rows == n_columns == 0:
        return [[(0, 0)]]
    moves = [(n_rows - 1, n_columns - 1), (n_rows - 1, n_columns), (n_rows, n_columns - 1)]
    return [
        [*path, (n_rows, n_columns)]
        for row, column in moves
        if row >= 0 and column >= 0
        for path in monotone_paths(row, column)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_dtw_finds_the_path_of_lowest_cost(seed):
    cost = np.random.default_rng(seed).standard_normal((4, 5))
    cheapest = min(sum(cost[cell] for cell in path) for path in monotone_paths(3, 4))
    rows, columns = dtw_path(cost)
    assert cost[rows, columns].sum() == pytest.approx(cheapest)


def test_attention_that_looks_at_each_token_in_turn():
    """Tokens of 10, 20 and 5 frames, then 15 of silence that belong to the end."""
    lengths, n_prompt = [10, 20, 5, 15], 2
    attention = np.full((2, n_prompt + 4, 50), 1e-3)
    start = 0
    for row, length in enumerate(lengths, n_prompt):
        attention[:, row, start : start + length] = 1.0
        start += length
    attention /= attention.sum(-1, keepdims=True)
    np.testing.assert_allclose(attention_token_ends(attention, n_prompt), [10, 30, 35], atol=1)


def test_ctc_alignment_against_all_paths():
    """Best of all paths that collapse to (1, 1, 2), found by listing them."""
    log_probs = np.log(np.random.default_rng(5).dirichlet(np.ones(3), size=7))
    best, best_ends = -np.inf, []
    for path in itertools.product(range(3), repeat=7):
        labels = [(v, t) for t, v in enumerate(path) if v and (t == 0 or path[t - 1] != v)]
        score = log_probs[range(7), path].sum()
        if [v for v, _ in labels] == [1, 1, 2] and score > best:
            ends = [next(u for u in range(t, 8) if u == 7 or path[u] != v) for v, t in labels]
            best, best_ends = score, ends
    np.testing.assert_array_equal(ctc_token_ends(log_probs, [1, 1, 2], blank=0), best_ends)


def test_ctc_alignment_of_more_than_fits_is_spread_evenly():
    log_probs = np.log(np.full((2, 3), 1 / 3))
    np.testing.assert_array_equal(ctc_token_ends(log_probs, [1, 1, 2, 1], blank=0), [0, 1, 1, 2])


def sound(*parts: tuple[float, float], noise: float = 0.0) -> np.ndarray:
    """Noise of each part's seconds and amplitude, one after the other, and some under all."""
    rng = np.random.default_rng(0)
    pieces = [a * rng.standard_normal(round(s * RATE_HZ)) for s, a in parts]
    whole = np.concatenate(pieces)
    return (whole + noise * rng.standard_normal(len(whole))).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 0.01])
def test_a_pause_belongs_to_no_word(noise: float) -> None:
    """12 s of silence, "the cat", 3 s, "sat": ends alone gave "the" 12.2 s and "sat" 3.4. The
    closure of 0.1 s within "cat" is no pause."""
    parts = [(12.0, 0), (0.4, 0.1), (0.1, 0), (0.1, 0.1), (3.0, 0), (0.4, 0.1), (1.0, 0)]
    pauses = find_pauses(sound(*parts, noise=noise))
    assert [stop for _, stop in pauses] == pytest.approx([12.0, 15.6, 17.0], abs=0.011)
    starts = word_starts("the cat sat", [12.2, 12.6, 16.0], pauses)
    assert starts == pytest.approx((12.0, 12.2, 15.6), abs=0.011)


def test_without_an_audible_pause_a_word_is_as_long_as_slow_speech() -> None:
    """A word of 3 characters takes 0.5 s at most: it starts at 9.5 of the 10 s left to it."""
    pauses = find_pauses(sound((11.0, 0.1)))
    assert pauses == []
    assert word_starts("cat sat", [0.4, 10.0], pauses) == (0.0, 9.5)


def test_a_phrase_of_a_script_without_spaces_may_hold_pauses() -> None:
    """It is one word between spaces: it starts with its first sound, not behind its last pause."""
    pauses = find_pauses(sound((1.0, 0), (1.0, 0.1), (0.5, 0), (1.0, 0.1)))
    assert word_starts("我们明天去北京", [3.5], pauses) == pytest.approx((1.0,), abs=0.011)
    assert word_starts("Beijing", [3.5], pauses) == pytest.approx((2.5,), abs=0.011)


@pytest.mark.parametrize("n_samples", [0, 1, 159, 160, 4000])
def test_starts_of_very_short_and_silent_recordings(n_samples: int) -> None:
    pauses = find_pauses(np.zeros(n_samples, np.float32))
    assert word_starts("a b", [0.0, n_samples / RATE_HZ], pauses)[0] == 0.0
    assert word_starts("", [], pauses) == ()


@given(st.lists(st.floats(0, 5), min_size=1, max_size=8), st.integers(0, 100))
def test_starts_never_decrease_nor_exceed_ends(ends: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [(0.4, float(a)) for a in rng.choice([0.0, 0.1], 12)]
    ends = sorted(ends)
    starts = word_starts(" ".join(["word"] * len(ends)), ends, find_pauses(sound(*parts)))
    assert all(start <= end for start, end in zip(starts, ends, strict=True))
    assert list(starts) == sorted(starts)
