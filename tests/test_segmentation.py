"""Recordings of any length are cut at pauses, and no speech is lost."""

from __future__ import annotations

import numpy as np

from real_speech import joined
from relisten.speech.segmentation import PAUSE_S, speech_segments


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
