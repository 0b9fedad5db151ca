"""Statistics of N-best lists from their scores alone: which order they follow, and their scale.

Each statistic has one known value where scores are what they should be, natural logarithms of the
probabilities of whole texts, and another where they are not. What follows from a value is decided
in `tasks.doctor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from relisten.core.arrays import FloatArray, IntArray
from relisten.core.error_rates import errors_matrix

_N_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A number, its 95 % interval, and how many lists it rests on.

    Where it cannot be estimated all three are NaN, and every comparison with them is false.
    """

    value: float
    low: float
    high: float
    n_lists: int

    @property
    def has_interval(self) -> bool:
        """Whether the lists tell how certain the number is."""
        return bool(np.isfinite([self.value, self.low, self.high]).all())


def mean_estimate(values: npt.ArrayLike) -> IntervalEstimate:
    """The mean of one number per list, [U], with the normal interval of independent lists.

    The interval of a single list is infinite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        return IntervalEstimate(np.nan, np.nan, np.nan, 0)
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return IntervalEstimate(mean, -np.inf, np.inf, 1)
    half = 1.96 * float(numbers.std(ddof=1)) / np.sqrt(len(numbers))
    return IntervalEstimate(mean, float(mean - half), float(mean + half), len(numbers))


def agreement(scores: Sequence[FloatArray], ranks: Sequence[npt.ArrayLike]) -> IntervalEstimate:
    """How often the higher score has the lower rank: 1 always, 0.5 by chance, 0 never.

    scores: of each list [N], higher is better. ranks: as many, lower is better: places on the list,
    or word errors. Counted over the pairs of a list that differ in both, then averaged over the
    lists that have such pairs (Kendall's tau, pairs with ties left out, is twice this minus 1).
    """
    shares = []
    for values, places in zip(scores, ranks, strict=True):
        first, second = np.triu_indices(len(values), 1)
        rise = values[first] - values[second]
        lead = np.asarray(places)[second] - np.asarray(places)[first]
        differ = (rise != 0) & (lead != 0)
        if differ.any():
            shares.append(float(((rise > 0) == (lead > 0))[differ].mean()))
    return mean_estimate(shares)


def exponent(scores: FloatArray) -> float:
    """The s with Σ exp(s · score) = 1 over the N scores of distinct texts; NaN where there is none.

    The probabilities of different texts sum to at most 1, so for natural logarithms s is at most 1,
    and a greater s proves that they are something else. For logarithms to base b, s is multiplied
    by ln b; for averages over n tokens, by n. NaN: fewer than two scores, or one
    that is not negative.
    """
    if len(scores) < 2 or scores.max() >= 0:
        return float("nan")
    low, high = 0.0, float(np.log(len(scores)) / -scores.max())  # there each term is 1/N at most
    for _ in range(_N_BISECTIONS):
        middle = (low + high) / 2
        if np.exp(middle * scores).sum() > 1:
            low = middle
        else:
            high = middle
    return high


def elasticity(
    values: FloatArray, lengths: FloatArray, groups: Sequence[str] | None = None
) -> IntervalEstimate:
    """The per cent by which a value grows where the length grows by one per cent: a slope of logs.

    Sums over tokens grow as the length does, 1; averages do not, 0. values, lengths: [U]; pairs
    that are not both positive are left out. groups: labels [U], such as speakers, whose lists are
    not independent; by default each list is a group. The interval is a delete-one-group jackknife's
    with Student's t. NaN where lengths do not differ, or fewer than three groups remain.
    """
    with np.errstate(invalid="ignore"):
        is_kept = (values > 0) & (lengths > 0) & np.isfinite(values)
    x, y = np.log(lengths[is_kept]), np.log(values[is_kept])
    labels = np.arange(len(x)) if groups is None else np.asarray(groups)[is_kept]
    names = np.unique(labels)
    if len(names) < 3 or np.ptp(x) == 0:
        return IntervalEstimate(np.nan, np.nan, np.nan, len(x))
    slope = _slope(x, y)
    without = np.array([_slope(x[labels != name], y[labels != name]) for name in names])
    n = len(names)
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    half = _student_t(n - 1) * error
    return IntervalEstimate(slope, slope - half, slope + half, len(x))


def _slope(x: FloatArray, y: FloatArray) -> float:
    x = x - x.mean()
    return float(x @ y / (x @ x)) if np.ptp(x) else np.nan


def _student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, within 1 % from 5 degrees of freedom on.

    Source: Abramowitz & Stegun, Handbook of mathematical functions, 26.7.5.
    """
    z = 1.96
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2


def errors_of_best(texts: Sequence[Sequence[str]], references: Sequence[str]) -> IntArray:
    """The fewest word errors among the first n of each list, int64 [U, N]: first pass … oracle.

    texts: of each list, in first-pass order; references: all normalised. A list that is shorter
    than others keeps its last value; one without texts counts as the empty text.
    """
    lists = [list(some) or [""] for some in texts]
    errors = np.zeros((len(lists), max(map(len, lists), default=1)), dtype=np.int64)
    for row, (some, reference) in enumerate(zip(lists, references, strict=True)):
        best = np.minimum.accumulate(errors_matrix(reference, some))
        errors[row, : len(best)], errors[row, len(best) :] = best, best[-1]
    return errors
