"""Word errors as a function of each weight alone, from stored scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relisten.core.arrays import FloatArray, IntArray
from relisten.core.combine import Weights, component_scores
from relisten.core.length_bounds import has_speech_score, within_length_bounds
from relisten.core.scored_lists import refuse_placeholders
from relisten.core.types import NBest

N_POINTS = 81  # odd, so that the weight itself is the middle one
_SHARE_OF_LARGEST = 0.25  # a small weight varies until it matters a quarter as much as the largest


@dataclass(frozen=True, slots=True)
class Sweep:
    """Word errors of a corpus as one weight varies and the others stay.

    weight: its value. weights: P values around it, increasing; 0 is among or between them.
    errors: at each of them, [P].
    """

    component: str
    weight: float
    weights: tuple[float, ...]
    errors: tuple[int, ...]


class SweepTally:
    """The scores of the utterances seen so far, 8 · N · C bytes of each."""

    def __init__(self, weights: Weights) -> None:
        self._values = {name: weight for name, weight in weights.values.items() if weight}
        self._rules = weights.rules
        self._scores: list[FloatArray] = []
        self._errors: list[IntArray] = []

    def add(self, utterance: NBest, n_errors: Sequence[int]) -> None:
        """Add an utterance, its hypotheses in first-pass order (the first pass breaks ties), with
        the word errors of each.

        Raises FormatError where one of several hypotheses lacks a weighted score, or has a
        placeholder in its place.
        """
        scores = np.zeros((len(n_errors), len(self._values)))
        if len(n_errors) > 1:
            for column, name in enumerate(self._values):
                scores[:, column] = component_scores(utterance, name, self._rules)
                refuse_placeholders(utterance, name, scores[:, column])
        errors = np.array(n_errors)
        if not has_speech_score(self._values):
            is_outside = ~within_length_bounds(utterance)
            scores[is_outside], errors[is_outside] = scores[0], errors[0]  # never chosen
        self._scores.append(scores - scores[0])
        self._errors.append(errors)

    def result(self) -> tuple[Sweep, ...]:
        """One sweep for each weight that is not 0."""
        if not self._scores or not self._values:
            return ()
        scores, errors = self._padded()
        values = np.array(list(self._values.values()))
        spread = np.sqrt((scores**2).mean(axis=(0, 1)))
        largest = float(np.max(np.abs(values) * spread))
        sweeps = []
        for place, (name, weight) in enumerate(self._values.items()):
            reach = abs(weight)
            if spread[place]:
                reach = max(reach, _SHARE_OF_LARGEST * largest / float(spread[place]))
            grid = weight + reach * np.linspace(-1, 1, N_POINTS)
            others = scores @ np.where(np.arange(len(values)) == place, 0.0, values)
            left = [_n_errors(others + at * scores[:, :, place], errors) for at in grid]
            sweeps.append(Sweep(name, weight, tuple(grid.tolist()), tuple(left)))
        return tuple(sweeps)

    def _padded(self) -> tuple[FloatArray, IntArray]:
        """Scores [U, N, C] and errors [U, N]; short lists are padded with their first
        hypothesis, a copy of which is never chosen, since of equal scores the first one wins."""
        shape = (len(self._scores), max(map(len, self._errors)))
        scores = np.zeros((*shape, len(self._values)))
        errors = np.zeros(shape, np.int64)
        for row, (of_one, n_errors) in enumerate(zip(self._scores, self._errors, strict=True)):
            n = len(n_errors)
            scores[row, :n], errors[row, :n], errors[row, n:] = of_one, n_errors, n_errors[0]
        return scores, errors


def _n_errors(combined: FloatArray, errors: IntArray) -> int:
    """Errors of the best of each list; of equals the first is chosen."""
    return int(errors[np.arange(len(errors)), np.argmax(combined, axis=1)].sum())
