"""Codebooks: nearest centroids level by level, pooling, fitting, files."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from relisten.core.types import ModelError, UsageError
from relisten.speech.codebook import Codebook, deduplicate, fit_codebook, pool_frames


def test_units_by_hand():
    """Level 0: {0, 10}; level 1: {-1, +1}. Frames 9.2 → 10 − 1; 0.4 → 0 + 1; 11 → 10 + 1."""
    centroids = np.array([[[0.0], [10.0]], [[-1.0], [1.0]]], np.float32)
    codebook = Codebook(centroids, pool=1, encoder_id="toy")
    units = codebook.units(np.array([[9.2], [0.4], [11.0]], np.float32))
    np.testing.assert_array_equal(units, [[1, 0], [0, 1], [1, 1]])
    assert units.dtype == np.int32
    np.testing.assert_array_equal(codebook.vectors(units), [[9.0], [1.0], [11.0]])


def test_pooling_by_hand():
    frames = np.array([[1.0], [3.0], [5.0], [7.0], [4.0]], np.float32)
    np.testing.assert_array_equal(pool_frames(frames, 2), [[2.0], [6.0], [4.0]])
    np.testing.assert_array_equal(pool_frames(frames, 1), frames)
    assert pool_frames(frames[:0], 4).shape == (0, 1)


@given(st.integers(0, 40), st.integers(1, 7))
def test_units_count_and_time(n_frames, pool):
    codebook = Codebook(np.zeros((2, 3, 4), np.float32), pool, "toy", frame_rate_hz=50.0)
    assert codebook.units(np.ones((n_frames, 4), np.float32)).shape == (-(-n_frames // pool), 2)
    assert codebook.unit_s == pytest.approx(pool / 50)


def test_units_are_the_nearest_centroids_of_a_naive_search():
    generator = np.random.default_rng(0)
    codebook = Codebook(generator.standard_normal((3, 20, 8)).astype(np.float32), 1, "toy")
    for frame in generator.standard_normal((30, 8)).astype(np.float32):
        rest, expected = frame, []
        for centroids in codebook.centroids:
            expected.append(int(np.linalg.norm(rest - centroids, axis=1).argmin()))
            rest = rest - centroids[expected[-1]]
        assert codebook.units(frame[None])[0].tolist() == expected


def clouds(n_rows, seed=0):
    """Rows around 6 far-apart centres in 5 dimensions, and the centres."""
    generator = np.random.default_rng(seed)
    centres = 20 * np.eye(6, 5)
    rows = centres[generator.integers(0, 6, n_rows)] + generator.standard_normal((n_rows, 5))
    return rows.astype(np.float32), centres


def test_fit_finds_the_clouds_and_is_as_good_as_full_kmeans():
    rows, _ = clouds(3000)
    codebook = fit_codebook(np.array_split(rows, 37), "toy", n_units=6, seed=1)
    error = ((rows - codebook.vectors(codebook.units(rows))) ** 2).sum()
    assert error < 1.05 * KMeans(6, n_init=5, random_state=0).fit(rows).inertia_


def test_each_level_leaves_a_smaller_residual():
    rows = np.random.default_rng(2).standard_normal((4000, 6)).astype(np.float32)
    codebook = fit_codebook([rows], "toy", n_units=16, levels=4)
    errors = [
        float(((rows - part.vectors(part.units(rows))) ** 2).mean())
        for part in (Codebook(codebook.centroids[:n], 1, "toy") for n in range(1, 5))
    ]
    assert all(later < 0.85 * earlier for earlier, later in itertools.pairwise(errors))


def test_fit_is_reproducible_and_reads_its_frames_once():
    rows, _ = clouds(500)
    first = fit_codebook(iter(np.array_split(rows, 9)), "toy", n_units=4, levels=2, pool=2, seed=3)
    second = fit_codebook(iter(np.array_split(rows, 9)), "toy", n_units=4, levels=2, pool=2, seed=3)
    np.testing.assert_array_equal(first.centroids, second.centroids)
    assert (first.levels, first.n_units, first.pool) == (2, 4, 2)


def test_a_long_stream_is_sampled_evenly(monkeypatch):
    """300 of 3,000 rows kept: each third of the stream holds about a third of the centroids."""
    monkeypatch.setattr("relisten.speech.codebook.MAX_VECTORS", 300)
    rows = np.arange(3000, dtype=np.float32)[:, None]
    codebook = fit_codebook(np.array_split(rows, 50), "toy", n_units=30)
    thirds = np.histogram(codebook.centroids[0, :, 0], [0, 1000, 2000, 3000])[0]
    assert thirds.min() >= 6


def test_deduplicate_by_hand():
    codes = np.array([[1, 2], [1, 2], [1, 3], [1, 2], [1, 2], [1, 2]])
    kept, durations = deduplicate(codes)
    np.testing.assert_array_equal(kept, [[1, 2], [1, 3], [1, 2]])
    np.testing.assert_array_equal(durations, [2, 1, 3])
    assert [len(x) for x in deduplicate(codes[:0])] == [0, 0]


@given(st.lists(st.integers(0, 2)))
def test_merged_runs_unfold_to_what_they_were(codes):
    codes = np.array(codes, np.int32).reshape(-1, 1)
    kept, durations = deduplicate(codes)
    np.testing.assert_array_equal(np.repeat(kept, durations, axis=0), codes)


def test_save_and_load(tmp_path):
    codebook = fit_codebook([clouds(200)[0]], "whisper-abc", n_units=4, levels=2, pool=4)
    codebook.save(tmp_path / "codebook.safetensors")
    loaded = Codebook.load(tmp_path / "codebook.safetensors")
    np.testing.assert_array_equal(loaded.centroids, codebook.centroids)
    assert (loaded.pool, loaded.encoder_id, loaded.frame_rate_hz) == (4, "whisper-abc", 50.0)


def test_refusals(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(UsageError, match="500 units from 20 frames"):
        fit_codebook([np.zeros((20, 3), np.float32)], "toy")
    with pytest.raises(UsageError, match="500 units from 0 frames"):
        fit_codebook([], "toy")
    with pytest.raises(ModelError, match="use the encoder it was made with"):
        Codebook(np.zeros((1, 2, 3), np.float32), 1, "toy").units(np.zeros((5, 4), np.float32))
    with pytest.raises(ModelError, match="finite"):
        Codebook(np.full((1, 2, 3), np.nan, np.float32), 1, "toy")
    (tmp_path / "a").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="no readable codebook"):
        Codebook.load(tmp_path / "a")
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "b")
    with pytest.raises(ModelError, match="no codebook of format"):
        Codebook.load(tmp_path / "b")
