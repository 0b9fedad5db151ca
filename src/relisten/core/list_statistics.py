"""What can be told of N-best lists from their scores alone: whose order they follow, their scale.

Each number here has one known value where scores are what they should be, natural logarithms of the
probabilities of whole texts, and another where they are not. What follows from a value is for those
who ask (`tasks.checkup`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from relisten.core.error_rates import errors_matrix

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, its 95 % interval (normal), and how many lists it rests on.

    Without lists all three are NaN: nothing can be told, and every comparison with it is false.
    """

    value: float
    low: float
    high: float
    n_lists: int


def mean_estimate(values: npt.ArrayLike) -> Estimate:
    """The mean of one number a list, [U], with the interval of independent lists.

    Of a single list the interval is infinite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        return Estimate(np.nan, np.nan, np.nan, 0)
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return Estimate(mean, -np.inf, np.inf, 1)
    half = 1.96 * float(numbers.std(ddof=1)) / np.sqrt(len(numbers))
    return Estimate(mean, float(mean - half), float(mean + half), len(numbers))


def agreement(scores: Sequence[FloatArray], ranks: Sequence[npt.ArrayLike]) -> Estimate:
    """How often the higher score is the lower rank's: 1 always, 0.5 as by lot, 0 never.

    scores: a list's [N], higher is better. ranks: as many, lower is better: places on the list, or
    word errors. Counted over the pairs of a list that both tell apart, then averaged over the lists
    that have such pairs (Kendall's tau b, without its ties, is twice this less 1).
    """
    shares = []
    for values, places in zip(scores, ranks, strict=True):
        first, second = np.triu_indices(len(values), 1)
        rise = values[first] - values[second]
        lead = np.asarray(places)[second] - np.asarray(places)[first]
        told = (rise != 0) & (lead != 0)
        if told.any():
            shares.append(float(((rise > 0) == (lead > 0))[told].mean()))
    return mean_estimate(shares)


def exponent(scores: FloatArray) -> float:
    """The s with Σ exp(s · score) = 1 over the N scores of distinct texts; NaN where there is none.

    The probabilities of different texts sum to 1 at most, so of natural logarithms s is 1 at most,
    and a greater s proves that they are something else. Logarithms to base b have their natural
    ones' s times ln b; averages over n tokens theirs times n. NaN: fewer than two scores, or one
    that is not negative.
    """
    if len(scores) < 2 or scores.max() >= 0:
        return float("nan")
    low, high = 0.0, float(np.log(len(scores)) / -scores.max())  # there each term is 1/N at most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if np.exp(middle * scores).sum() > 1:
            low = middle
        else:
            high = middle
    return high


def elasticity(values: FloatArray, lengths: FloatArray) -> Estimate:
    """By how many per cent a value grows where the length grows by one per cent: a slope of logs.

    values, lengths: [U]; pairs that are not both positive are left out. Sums over tokens grow as
    the length does, 1; averages do not, 0. NaN where lengths do not differ, or three pairs do not
    remain.
    """
    with np.errstate(invalid="ignore"):
        kept = (values > 0) & (lengths > 0) & np.isfinite(values)
    x, y = np.log(lengths[kept]), np.log(values[kept])
    if len(x) < 3 or np.ptp(x) == 0:
        return Estimate(np.nan, np.nan, np.nan, len(x))
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    half = 1.96 * float(np.sqrt(rest @ rest / (len(x) - 2) / (x @ x)))
    return Estimate(slope, slope - half, slope + half, len(x))


def errors_of_best(texts: Sequence[Sequence[str]], references: Sequence[str]) -> IntArray:
    """The fewest word errors among the first n of each list, int64 [U, N]: first pass … oracle.

    texts: of each list, in first-pass order; references: all normalised. A list that is shorter
    than others goes on with its last value; one without texts counts as the empty text.
    """
    lists = [list(some) or [""] for some in texts]
    errors = np.zeros((len(lists), max(map(len, lists), default=1)), dtype=np.int64)
    for row, (some, reference) in enumerate(zip(lists, references, strict=True)):
        best = np.minimum.accumulate(errors_matrix(reference, some))
        errors[row, : len(best)], errors[row, len(best) :] = best, best[-1]
    return errors
