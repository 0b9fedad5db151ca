"""The fewest errors along a line of weights, exactly.

On the line `weights + t · direction` the score of every hypothesis is itself a line in t, so the
winner of an utterance changes only where the upper envelope of its hypotheses has a corner. All
corners of all utterances cut the line into intervals within which the errors of the corpus are
constant, so that sorting the corners finds their minimum exactly, without a step size.

Source: Och, "Minimum error rate training in statistical machine translation", ACL 2003.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relisten.core.arrays import FloatArray, IntArray

_NARROW = 1e-9  # narrower intervals are rounding: no weight can be relied on to hit them


@dataclass(frozen=True, slots=True)
class Intervals:
    """Errors along a line: errors[k] for corners[k - 1] < t < corners[k].

    corners: float64 [K], increasing. errors: int64 [K + 1].
    """

    corners: FloatArray
    errors: IntArray

    @property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Where each interval begins and ends, float64 [K + 1] each, infinite at both ends."""
        return np.append(-np.inf, self.corners), np.append(self.corners, np.inf)


def errors_along(intercepts: FloatArray, slopes: FloatArray, errors: IntArray) -> Intervals:
    """Corpus errors of the best hypotheses as t goes from -∞ to ∞.

    intercepts, slopes: float64 [U, N], hypothesis n of utterance u scores intercept + t · slope.
    errors: int64 [U, N]. Of equal lines the first hypothesis wins.
    """
    rows = np.arange(len(errors))
    # At t = -∞ the flattest line wins, among equally flat ones the highest, then the first.
    is_flattest = slopes == slopes.min(axis=1, keepdims=True)
    winner = np.argmax(np.where(is_flattest, intercepts, -np.inf), axis=1)
    n_errors = int(errors[rows, winner].sum())

    corners: list[FloatArray] = [np.empty(0)]
    changes: list[IntArray] = [np.empty(0, dtype=np.int64)]
    reached = np.full(len(errors), -np.inf)
    while len(rows):
        rise = slopes[rows] - slopes[rows, winner][:, None]
        lead = intercepts[rows, winner][:, None] - intercepts[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            overtakes_at = np.where(rise > 0, lead / rise, np.inf)
        corner = overtakes_at.min(axis=1)
        # Among those that overtake in one point the steepest wins behind it.
        is_next = overtakes_at == corner[:, None]
        successor = np.argmax(np.where(is_next, rise, -np.inf), axis=1)
        goes_on = corner < np.inf
        rows, before, winner = rows[goes_on], winner[goes_on], successor[goes_on]
        reached = np.maximum(corner[goes_on], reached[goes_on])
        corners.append(reached)
        changes.append(errors[rows, winner] - errors[rows, before])

    where, change = np.concatenate(corners), np.concatenate(changes)
    where, change = where[change != 0], change[change != 0]
    order = np.argsort(where, kind="stable")
    return Intervals(where[order], n_errors + np.append(0, np.cumsum(change[order])))


def best_step(intervals: Intervals, penalty: float, centre: float) -> float:
    """The t that minimises errors + penalty · (t - centre)², at a distance from the corners.

    Within an interval the parabola alone decides, so the minimum is exact up to the distance kept
    from a corner: 0.05, or a quarter of a narrow interval.
    """
    starts, ends = intervals.bounds
    distance = np.minimum(0.05, (ends - starts) / 4)
    nearest = np.clip(centre, starts + distance, ends - distance)
    cost = intervals.errors + penalty * (nearest - centre) ** 2
    cost[ends - starts < _NARROW] = np.inf
    return float(nearest[np.argmin(cost)])
