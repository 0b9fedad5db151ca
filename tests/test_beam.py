"""CTC beam search against a list of all paths, free and restricted to known words."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from relisten.speech.ctc.beam import Spelling, ctc_beam


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    """Repeats merged, then blanks (0) dropped."""
    return tuple(label for label, _ in itertools.groupby(path) if label)


def every_text(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Label sequence → log of the summed probability of its paths, by listing all V^T paths."""
    totals: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        score = float(log_probs[range(len(path)), path].sum())
        labels = collapse(path)
        totals[labels] = np.logaddexp(totals.get(labels, -math.inf), score)
    return totals


def is_of(text: tuple[int, ...], words: set[tuple[int, ...]]) -> bool:
    """Whether a text consists of these words, a 1 between two and perhaps after the last."""
    if not text or text in words:
        return True
    cuts = [i for i, label in enumerate(text) if label == 1]
    return any(text[:i] in words and is_of(text[i + 1 :], words) for i in cuts[:1])


def random_log_probs(n_frames: int, n_labels: int, seed: int) -> np.ndarray:
    logits = 2 * np.random.default_rng(seed).standard_normal((n_frames, n_labels))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_exact(seed: int) -> None:
    """A beam that holds every prefix ranks every text as the list of all paths does."""
    log_probs = random_log_probs(6, 3, seed)
    totals = every_text(log_probs)
    found = ctc_beam(log_probs, 500)
    assert found == sorted(totals, key=lambda text: -totals[text])
    assert len(found) > 30


def test_repeats_need_a_blank() -> None:
    """Frames a, blank, a: "aa" has that one path, 0.9 · 0.9 · 0.9; "a" has all others that hold
    an a, of which (a, a, a) = 0.9 · 0.1 · 0.9 is the most probable."""
    log_probs = np.log([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9]])
    assert ctc_beam(log_probs, 3) == [(1, 1), (1,), ()]
    assert ctc_beam(log_probs[[0, 2]], 3) == [(1,), ()], "two frames cannot hold it twice"


def test_a_narrow_beam_keeps_the_paths_of_a_prefix_together() -> None:
    """The best path is blank (0.4 · 0.4); "a" has three: 0.6 · 0.4 + 0.4 · 0.6 + 0.6 · 0.6."""
    log_probs = np.log([[0.4, 0.6], [0.4, 0.6]])
    assert ctc_beam(log_probs, 1) == [(1,)]


@pytest.mark.parametrize("seed", range(5))
def test_known_words_alone(seed: int) -> None:
    """Labels 1 = space, 2, 3; words "2", "23", "33": the texts of these words, in their order."""
    log_probs = random_log_probs(6, 4, seed)
    words = {(2,), (2, 3), (3, 3)}
    totals = {text: total for text, total in every_text(log_probs).items() if is_of(text, words)}
    spelling = Spelling.of_words(words, space=1, n_labels=4)
    found = ctc_beam(log_probs, 2000, spelling=spelling)
    assert found == sorted(totals, key=lambda text: -totals[text])
    assert any((1, 2) in itertools.pairwise(text) for text in found), "of two words, too"


def test_where_nothing_may_end_there_is_nothing() -> None:
    """One frame cannot hold the only word, "11"; the empty text is always possible."""
    spelling = Spelling.of_words([(2, 2)], space=1, n_labels=3)
    assert ctc_beam(random_log_probs(1, 3, 0), 10, spelling=spelling) == [()]
    no_silence = np.log([[1e-300, 0.5, 0.5]])
    no_silence[:, 0] = -np.inf
    assert ctc_beam(no_silence, 10, spelling=spelling) == []


def test_no_frames_give_the_empty_text() -> None:
    assert ctc_beam(np.zeros((0, 4)), 5) == [()]


def test_impossible_labels_stay_out() -> None:
    log_probs = random_log_probs(4, 3, 0)
    log_probs[:, 2] = -np.inf
    assert all(2 not in text for text in ctc_beam(log_probs, 100))
