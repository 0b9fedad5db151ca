"""The probe: chunks by hand, and a toy language whose words are in the frames, or are not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from relisten.core.types import UsageError
from relisten.speech.codebook import Codebook, fit_codebook
from relisten.speech.probe import ProbeUtterance, chunk_quarters, probe

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


def test_quarters_by_hand():
    """Two words of 8 and 2 frames: quarters of two frames each, then four of half a frame."""
    frames = np.arange(10, dtype=np.float32)[:, None]
    chunks = chunk_quarters(frames, [0.16, 0.2], rate_hz=50)
    np.testing.assert_allclose(chunks, [[0.5, 2.5, 4.5, 6.5], [8, 8, 9, 9]], atol=1e-5)


def test_quarters_of_empty_words_and_past_the_end():
    frames = np.arange(4, dtype=np.float32)[:, None]
    chunks = chunk_quarters(frames, [0.02, 0.02, 9.0], rate_hz=50)
    np.testing.assert_allclose(chunks[:2], [[0, 0, 0, 0], [1, 1, 1, 1]])
    assert chunks[2, -1] == 3
    assert chunk_quarters(frames, [], 50).shape == (0, 4)


def toy_speech(audible, n_speakers=30, seed=0):
    """6 utterances of 5 words a speaker; a word is 4 frames of its own vector, or of noise."""
    generator = np.random.default_rng(seed)
    voices = 3 * np.eye(len(WORDS), 12)
    speech = []
    for speaker in range(n_speakers):
        for _ in range(6):
            drawn = generator.integers(0, len(WORDS), 5)
            frames = generator.standard_normal((20, 12))
            if audible:
                frames += np.repeat(voices[drawn], 4, axis=0)
            ends = tuple(0.08 * np.arange(1, 6))
            words = tuple(WORDS[i] for i in drawn)
            speech.append(ProbeUtterance(frames.astype(np.float16), words, ends, str(speaker)))
    return speech


def test_audible_words_are_recognised_with_the_right_recording_only():
    result = probe(toy_speech(audible=True))
    assert result.right < 0.3
    assert result.accuracy > 0.9
    assert result.wrong > 3.0
    assert result.unigram == pytest.approx(math.log(8), abs=0.1)
    assert result.n_words == 150  # 5 speakers: the fewest that hold 16 % of 30
    assert result.n_unseen == 0


def test_noise_tells_nothing():
    """No better than the unigram, and the wrong recording is as good as the right one."""
    result = probe(toy_speech(audible=False))
    assert result.right > 0.95 * math.log(8)
    assert result.right == pytest.approx(result.wrong, abs=0.3)


def test_finer_codes_keep_more():
    """8 vectors in one code: the words are lost. In 8 codes: almost all is kept."""
    speech = toy_speech(audible=True)
    one = Codebook(np.zeros((1, 1, 12), np.float32), 1, "toy")
    eight = fit_codebook((u.frames for u in speech), "toy", n_units=8)
    coarse, fine = probe(speech, one), probe(speech, eight)
    assert coarse.right > 0.95 * math.log(8)
    assert fine.right < 1.0


def test_unseen_words_are_told_apart_not_guessed():
    speech = toy_speech(audible=True)
    last = speech[-1]
    speech[-1] = dataclasses.replace(last, words=("omega", *last.words[1:]))
    result = probe(speech)
    assert (result.n_unseen, result.n_words) == (1, 149)


def test_it_asks_for_more_speech():
    with pytest.raises(UsageError, match="needs 200"):
        probe(toy_speech(audible=True, n_speakers=5))
