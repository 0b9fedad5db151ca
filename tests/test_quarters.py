"""Quarter means by hand."""

from __future__ import annotations

import numpy as np

from relisten.core.quarters import quarter_means


def test_quarters_of_eight_frames_and_of_two() -> None:
    """Frames 0 … 9: quarters of two frames each, then four of half a frame."""
    frames = np.arange(10, dtype=np.float16)[:, None]
    means = quarter_means(frames, np.array([0, 8]), np.array([8, 10]))
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, [[0.5, 2.5, 4.5, 6.5], [8, 8, 9, 9]])


def test_a_quarter_counts_every_frame_that_it_touches() -> None:
    """The span 1 … 7: quarters of 1.5 frames, [1, 2.5] touches frames 1 and 2, [2.5, 4] 2 and 3."""
    frames = np.arange(10, dtype=np.float32)[:, None]
    means = quarter_means(frames, np.array([1]), np.array([7]))
    np.testing.assert_allclose(means, [[1.5, 2.5, 4.5, 5.5]])


def test_each_column_is_averaged_by_itself_and_no_span_gives_no_rows() -> None:
    frames = np.stack([np.arange(4.0), -np.arange(4.0)], 1)
    means = quarter_means(frames, np.array([0.0]), np.array([4.0]))
    np.testing.assert_allclose(means, [[0, 0, 1, -1, 2, -2, 3, -3]])
    assert quarter_means(frames, np.empty(0), np.empty(0)).shape == (0, 8)
