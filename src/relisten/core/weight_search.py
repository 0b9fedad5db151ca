"""Weights with few errors that do not depend on a handful of utterances.

Exact line searches (see line_search.py) along each weight and along random directions, from several
starts. Two things make the weights generalise to other speech than they were fitted to: a penalty
on their distance from the default ones, in units in which every component matters equally, which
counts less the more errors there are; and bagging: the search is repeated on bootstrap resamples
and the directions found are averaged, which smooths the jagged error surface. The result is
therefore not the optimum on the data it was fitted to: it makes 2 to 18 % more errors there.

Measured on 2,500 real N-best lists with simulated LM scores: WER on speakers not tuned on, after
tuning on 40 / 100 / 300 / 1,200 utterances, mean of 12 draws of speakers (6 for 1,200); default
weights: 36.2 to 36.6 %. Scores that help: search alone 31.8 / 31.3 / 31.3 / 31.3 %, with penalty
31.7 / 31.3 / 31.3 / 31.3, with penalty and bagging 31.7 / 31.3 / 31.2 / 31.3. Scores of noise:
35.8 / 36.4 / 35.8 / 35.5, 35.7 / 36.2 / 35.8 / 35.5, 35.5 / 35.7 / 35.7 / 35.5. Both help where
the set is small and a score useless, and cost nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from relisten.core.arrays import FloatArray, IntArray
from relisten.core.line_search import best_step, errors_along

_N_BAGS = 16  # 40 are not better by more than 0.1 points of WER
_PENALTY = 0.05  # errors per unit of squared distance, divided by the root of the errors
_N_STARTS = 4
_N_RANDOM_DIRECTIONS = 2  # per sweep, besides one for each component
_MAX_SWEEPS = 10


def fit_weights(
    scores: FloatArray, errors: IntArray, centre: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Weights of C components, float64 [C]; that of the first is 1.

    scores: float64 [U, N, C]. errors: int64 [U, N]. centre: the default weights, float64 [C], the
    first being 1; the weight of a component that is equal for all hypotheses stays there.
    """
    search, unit = _search(scores, errors, centre)
    starts = [search.centre]
    for _ in range(_N_STARTS - 1):
        start = search.centre + rng.normal(scale=0.5, size=len(unit))
        start[0] = 1.0
        starts.append(start)
    whole = search.run(starts, rng)

    mean = np.zeros(len(unit))
    for _ in range(_N_BAGS):
        best = search.resampled(rng).run([search.centre, whole], rng)
        mean += best / np.linalg.norm(best)  # directions: one huge weight cannot dominate the mean
    return np.asarray(mean / mean[0] * unit)


def resampled_weights(
    scores: FloatArray,
    errors: IntArray,
    fitted: FloatArray,
    centre: FloatArray,
    groups: Sequence[str],
    rng: np.random.Generator,
    n_resamples: int = 100,
) -> FloatArray:
    """The weights that a search finds on utterances drawn with replacement, groups whole.

    float64 [R, C]: how far weights would move, had other speakers been recorded. Each is found like
    one of the bags, and the mean of bags moves less, so the spread is too wide rather than narrow.
    fitted: float64 [C], by `fit_weights` of the same scores, errors and centre. groups: of
    each utterance, [U].
    """
    names, membership = np.unique(groups, return_inverse=True)
    draws = np.empty((n_resamples, len(centre)))
    for row in range(n_resamples):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        times = drawn[membership]
        search, unit = _search(scores[times > 0], errors[times > 0], centre, times[times > 0])
        draws[row] = search.run([search.centre, fitted / unit], rng) * unit
    return draws


def _search(
    scores: FloatArray, errors: IntArray, centre: FloatArray, times: IntArray | None = None
) -> tuple[_Search, FloatArray]:
    """The search in units of equal influence, and the size of each unit, float64 [C].

    times: how often each utterance counts, int64 [U]; once by default.
    """
    spread = np.sqrt(((scores - scores.mean(axis=1, keepdims=True)) ** 2).mean(axis=(0, 1)))
    spread[spread == 0] = 1.0
    unit = spread[0] / spread
    errors = errors if times is None else errors * times[:, None]
    penalty = _PENALTY * float(np.sqrt(1 + chosen_errors(scores, errors, centre).sum()))
    can_change = errors.min(axis=1) < errors.max(axis=1)
    return _Search(scores[can_change] * unit, errors[can_change], centre / unit, penalty), unit


def chosen_errors(scores: FloatArray, errors: IntArray, weights: FloatArray) -> IntArray:
    """Errors of the best hypothesis of each utterance, int64 [U]; of equals the first is chosen."""
    best = np.argmax(scores @ weights, axis=1)
    return np.asarray(errors[np.arange(len(best)), best])


@dataclass(frozen=True, slots=True)
class _Search:
    """Errors plus the penalty on distance, as a function of weights in units of equal influence.

    scores: float64 [U, N, C]; errors: int64 [U, N]; centre: the default weights, float64 [C];
    penalty: errors per unit of squared distance from the centre.
    """

    scores: FloatArray
    errors: IntArray
    centre: FloatArray
    penalty: float

    def resampled(self, rng: np.random.Generator) -> _Search:
        """The same search on as many utterances, drawn with replacement."""
        n = len(self.errors)
        times = np.bincount(rng.integers(n, size=n), minlength=n) if n else np.zeros(0, np.int64)
        kept = times > 0
        return replace(self, scores=self.scores[kept], errors=self.errors[kept] * times[kept, None])

    def cost(self, weights: FloatArray) -> float:
        n_errors = int(chosen_errors(self.scores, self.errors, weights).sum())
        return n_errors + self.penalty * float(((weights - self.centre) ** 2).sum())

    def run(self, starts: Sequence[FloatArray], rng: np.random.Generator) -> FloatArray:
        """The weights of lowest cost that descent from any of the starts reaches."""
        return min([self._descend(start, rng) for start in starts], key=self.cost)

    def _descend(self, weights: FloatArray, rng: np.random.Generator) -> FloatArray:
        cost = self.cost(weights)
        for _ in range(_MAX_SWEEPS):
            before = cost
            for direction in _directions(len(weights), rng):
                moved = weights + self._step(weights, direction) * direction
                if (cost_moved := self.cost(moved)) < cost:
                    weights, cost = moved, cost_moved
            if cost > before - 1:  # less than one error fewer
                break
        return weights

    def _step(self, weights: FloatArray, direction: FloatArray) -> float:
        along = errors_along(self.scores @ weights, self.scores @ direction, self.errors)
        return best_step(along, self.penalty, float((self.centre - weights) @ direction))


def _directions(n_weights: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Unit vectors that leave the first weight fixed: along each other weight, then random."""
    yield from np.eye(n_weights)[1:]
    if n_weights > 2:
        for _ in range(_N_RANDOM_DIRECTIONS):
            direction = np.append(0.0, rng.normal(size=n_weights - 1))
            yield direction / np.linalg.norm(direction)
