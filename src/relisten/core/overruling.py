"""How large the advantage of another hypothesis must be before the first pass is overruled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relisten.core.arrays import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Margin:
    """A margin and what it does on utterances that it was not chosen on.

    nats: 0 where none makes fewer errors there. errors: int64 [U], by the margin of the other
    folds where there is one.
    """

    nats: float
    errors: IntArray


def choose_margin(combined: FloatArray, errors: IntArray, assignment: IntArray) -> Margin:
    """The margin with the fewest errors, if one chosen on other folds makes fewer than none.

    combined: weighted sums by weights that did not see the utterance, float64 [U, N], the first
    pass's choice first. errors: int64 [U, N]. assignment: the fold of each utterance, int64 [U].
    """
    rows = np.arange(len(combined))
    best = np.argmax(combined, axis=1)
    advantage = combined[rows, best] - combined[:, 0]
    overruled, kept = errors[rows, best], errors[:, 0]
    without = np.where(best > 0, overruled, kept)
    held_out = without.copy()
    for fold in np.unique(assignment):
        inside = assignment == fold
        nats = _best(advantage[~inside], (without - kept)[~inside])
        held_out[inside] = np.where(advantage[inside] > nats, without[inside], kept[inside])
    nats = _best(advantage, without - kept)
    if not nats or held_out.sum() >= without.sum():
        return Margin(0.0, without)
    return Margin(nats, held_out)


def _best(advantage: FloatArray, added: IntArray) -> float:
    """The margin that avoids most of the errors that overruling added, float64 and int64 [U]; half
    way to the next advantage, so that rounding decides nothing."""
    differs = (advantage > 0) & (added != 0)
    order = np.argsort(advantage[differs], kind="stable")
    steps, avoided = advantage[differs][order], np.cumsum(added[differs][order])
    last_of_equals = np.append(steps[1:] != steps[:-1], True)[: len(steps)]
    steps, avoided = steps[last_of_equals], avoided[last_of_equals]
    if not len(steps) or avoided.max() <= 0:
        return 0.0
    at = int(np.argmax(avoided))
    above = steps[at + 1] if at + 1 < len(steps) else steps[at] + 1.0
    return float(f"{(steps[at] + above) / 2:.6g}")
