"""The uncertainty of a difference of two error rates measured on the same speech.

Paired bootstrap over utterances, or over whole speakers, whose utterances are not independent.
Source: Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
ICASSP 2004.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relisten.core.arrays import FloatArray, IntArray
from relisten.core.types import UsageError

_CELLS_AT_ONCE = 250_000


@dataclass(frozen=True, slots=True)
class BootstrapInterval:
    """How far error rate B lies below error rate A: as measured, and its 95 % interval.

    relative: (A - B) / A. absolute: A - B, a fraction of the reference words (0.01 = one point).
    Both are positive where B is better. n_resampled: how many utterances, or speakers, were
    resampled: with fewer than about twenty the interval is too narrow.
    """

    relative: float
    relative_low: float
    relative_high: float
    absolute: float
    absolute_low: float
    absolute_high: float
    n_resampled: int


def paired_bootstrap(
    errors_a: npt.ArrayLike,
    errors_b: npt.ArrayLike,
    n_words: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> BootstrapInterval:
    """The interval of B's gain over A.

    errors_a, errors_b, n_words: integers [U], errors of both and reference words, by utterance.
    groups: labels [U], such as speakers, drawn whole; a single label for all is ignored, since one
        speaker says nothing about others.
    The same seed gives the same interval. Time and memory grow with the number of *distinct*
    (errors_a, errors_b, n_words), not with U.
    Raises UsageError where there is no utterance or the lengths differ.
    """
    counts = _whole_groups(_checked(errors_a, errors_b, n_words), groups)
    n_resampled = len(counts)
    distinct, multiplicity = np.unique(counts, axis=0, return_counts=True)
    point_relative, point_absolute = _gains(counts.sum(axis=0, keepdims=True))

    rng = np.random.default_rng(seed)
    relative, absolute = np.empty(n_resamples), np.empty(n_resamples)
    step = max(1, _CELLS_AT_ONCE // len(distinct))
    for start in range(0, n_resamples, step):
        n_draws = min(step, n_resamples - start)
        # Drawing utterances one by one is the same as drawing how often each distinct row occurs.
        draws = rng.multinomial(n_resampled, multiplicity / n_resampled, size=n_draws)
        chosen = slice(start, start + n_draws)
        relative[chosen], absolute[chosen] = _gains(draws @ distinct)

    bounds = [2.5, 97.5]
    # inverted_cdf does not interpolate, so an infinite gain in one resample is harmless.
    relative_low, relative_high = np.percentile(relative, bounds, method="inverted_cdf")
    absolute_low, absolute_high = np.percentile(absolute, bounds, method="inverted_cdf")
    return BootstrapInterval(
        float(point_relative[0]),
        float(relative_low),
        float(relative_high),
        float(point_absolute[0]),
        float(absolute_low),
        float(absolute_high),
        n_resampled,
    )


def bootstrap_rate(
    errors: npt.ArrayLike, n_words: npt.ArrayLike, n_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of an error rate: of U utterances or speakers, integers [U] each.

    Raises UsageError where there is none or the lengths differ.
    """
    # The gain of making no errors at all, as a share of the words, is the rate itself.
    none = np.zeros_like(np.asarray(errors))
    gain = paired_bootstrap(errors, none, n_words, n_resamples=n_resamples, seed=seed)
    return gain.absolute_low, gain.absolute_high


def _checked(*columns: npt.ArrayLike) -> IntArray:
    """The columns side by side, int64 [U, 3]."""
    arrays = [np.asarray(column) for column in columns]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise UsageError(f"errors and words need one number per utterance each; shapes: {shapes}")
    if not len(arrays[0]):
        raise UsageError("a bootstrap needs at least one utterance")
    return np.stack(arrays, axis=1).astype(np.int64)


def _whole_groups(counts: IntArray, groups: npt.ArrayLike | None) -> IntArray:
    """The sums over each group, [G, 3]; the utterances themselves where there are not two."""
    if groups is None:
        return counts
    labels: npt.NDArray[Any] = np.asarray(groups)
    if labels.shape != (len(counts),):
        raise UsageError(f"{len(counts)} utterances need as many groups; shape: {labels.shape}")
    names, membership = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        return counts
    sums = np.zeros((len(names), 3), dtype=np.int64)
    np.add.at(sums, membership, counts)
    return sums


def _gains(totals: IntArray) -> tuple[FloatArray, FloatArray]:
    """Relative and absolute gains of totals [R, 3]; no difference is no gain, even of 0 errors."""
    saved = (totals[:, 0] - totals[:, 1]).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(saved == 0, 0.0, saved / totals[:, 0])
        absolute = np.where(saved == 0, 0.0, saved / totals[:, 2])
    return relative, absolute
