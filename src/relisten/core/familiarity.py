"""Whether a recording is of the speech that a recogniser was taught.

A taught recogniser is worse than before on other speech (microphones, voices, styles), and its own
scores do not show it: what it says wrongly it is sure of. The mean of its encoder's frames shows
it. Speech is described by a Gaussian on the directions in which recordings of it differ most, and
by how far they lie beside these directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relisten.core.arrays import FloatArray

MOST_DIRECTIONS = 32
RECORDINGS_PER_DIRECTION = 6
FAMILIAR_SHARE = 0.98
"""Of other recordings of the same speech that count as such. With 250 recordings of read sentences
by learners (speechocean) 92 to 98 % of LJ Speech, LibriSpeech and acted dialogue lie beyond it,
48 % of sentences read at home (60 recordings each)."""


@dataclass(frozen=True)
class Familiarity:
    """mean: float64 [D]. directions: float64 [K, D], each divided by the spread along it. residual:
    mean squared distance beside them. limit: of `distance`, above which speech is another."""

    mean: FloatArray
    directions: FloatArray
    residual: float
    limit: float

    @classmethod
    def of(cls, known: FloatArray, others: FloatArray) -> Familiarity:
        """From means of frames of the speech [n, D] and of other recordings of it [m, D]."""
        mean = known.mean(axis=0)
        centred = known - mean
        n_directions = max(1, min(MOST_DIRECTIONS, len(known) // RECORDINGS_PER_DIRECTION))
        _, spread, axes = np.linalg.svd(centred, full_matrices=False)
        axes, spread = axes[:n_directions], np.maximum(spread[:n_directions], 1e-9)
        beside = centred - (centred @ axes.T) @ axes
        residual = max(float((beside**2).sum(axis=1).mean()), 1e-12)
        directions = axes / (spread[:, None] / np.sqrt(len(known)))
        found = cls(mean, directions, residual, np.inf)
        limit = float(np.quantile([found.distance(one) for one in others], FAMILIAR_SHARE))
        return cls(mean, directions, residual, limit)

    def distance(self, frame_mean: FloatArray) -> float:
        """How far a recording lies from the speech, by the mean of its frames [D]; about 2 within
        it."""
        centred = frame_mean - self.mean
        along = self.directions @ centred
        axes = self.directions / np.linalg.norm(self.directions, axis=1, keepdims=True)
        beside = centred - axes.T @ (axes @ centred)
        return float((along**2).mean() + (beside**2).sum() / self.residual)

    def knows(self, frame_mean: FloatArray) -> bool:
        """Whether the recording is of the same speech."""
        return self.distance(frame_mean) <= self.limit
