"""Long recordings are cut in their pauses, and nothing is lost."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from real_speech import joined
from relisten.speech.segmentation import PAUSE_S, speech_segments, split_audio
from tiny_speech import noise

RATE_HZ = 1_000  # the cuts depend on time alone; a low rate keeps the tests small


def test_cuts_in_the_pauses():
    """Pauses at 9 to 9.5 and 17 to 17.5 s of 25 s, pieces of at most 10 s."""
    audio = noise(25 / 16)[:25_000].copy()
    audio[9_000:9_500] = audio[17_000:17_500] = 0.0
    pieces = split_audio(audio, RATE_HZ, max_s=10.0)
    assert len(pieces) == 3
    assert 9.0 < pieces[0][1] < 9.5
    assert 17.0 < pieces[1][1] < 17.5


def test_what_fits_is_one_piece_and_nothing_is_none():
    assert split_audio(noise(1.0)) == [(0.0, 1.0)]
    assert split_audio(np.zeros(0, np.float32)) == []


def test_silence_is_cut_as_late_as_it_may_be():
    assert split_audio(np.zeros(25_000), RATE_HZ, max_s=10.0) == [(0, 10), (10, 20), (20, 25)]


@given(st.integers(1, 60_000), st.floats(1.0, 30.0), st.integers(0, 5))
def test_pieces_follow_each_other_and_are_short_enough(n_samples, max_s, seed):
    audio = np.random.default_rng(seed).standard_normal(n_samples)
    pieces = split_audio(audio, RATE_HZ, max_s)
    assert pieces[0][0] == 0.0
    assert pieces[-1][1] == n_samples / RATE_HZ
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
    assert all(0 < end - start <= max_s + 1e-9 for start, end in pieces)


def spans(samples, **options):
    return [(one.start_s, one.end_s) for one in speech_segments(samples, **options)]


def test_speech_is_cut_at_long_pauses_alone():
    """Eight sentences, and a pause of 2 s, or of 0.5 s, behind each."""
    assert len(spans([joined("ljspeech", 8, 2.0, noise=0.001)])) >= 8
    fewer = spans([joined("ljspeech", 8, 0.5, noise=0.001)])
    assert len(fewer) <= 5
    assert all(end - start <= 30.0 for start, end in fewer)


def test_the_size_of_blocks_changes_nothing():
    samples = joined("ljspeech", 6, 1.5)
    blocks = np.split(samples, np.arange(999, len(samples), 999))
    one, other = [*speech_segments([samples])], [*speech_segments(blocks)]
    assert [s.start_s for s in one] == [s.start_s for s in other]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(one, other, strict=True))


def test_speech_without_pauses_is_cut_and_kept_whole():
    samples = joined("ljspeech", 8, 0.0)
    found = spans([samples], max_s=10.0)
    assert all(end - start <= 10.0 for start, end in found)
    covered_s = sum(end - start for start, end in found)
    assert covered_s > 0.95 * len(samples) / 16_000


def test_segments_come_while_the_recording_is_read():
    """After 30 s of the speech nothing but the first minute has been read."""
    samples = joined("ljspeech", 8, 2.0)
    n_read = 0

    def blocks():
        nonlocal n_read
        for block in np.array_split(samples, 200):
            n_read += len(block)
            yield block

    first = next(speech_segments(blocks()))
    assert n_read / 16_000 <= first.end_s + PAUSE_S + 11.0
    assert n_read < len(samples) / 2
