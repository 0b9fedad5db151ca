"""Whether a recording is of the speech that a recogniser was taught.

A taught recogniser is worse than before on other speech (microphones, voices, styles, languages),
and its own scores do not show it: what it says wrongly it is sure of. The mean of an encoder's
frames over a recording shows it, where other speech is known to compare with. Recordings of one
kind are taken for a Gaussian around the mean of that kind, with one covariance for all kinds
(linear discriminant analysis); a recording is strange if another kind is much likelier than the
user's own, and than it is for almost all of the user's recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relisten.core.arrays import FloatArray

SHRINKAGE = 0.1
"""Towards a multiple of the identity, of the covariance within kinds of speech."""
WEIGHT_OF_KINDS = 100.0
"""Recordings of the user's at which their covariance and the other kinds' count alike."""
FAMILIAR_SHARE, SLACK = 0.98, 3.0
"""How much likelier, nats, another kind must be: by so much more than for this share of recordings
of the same speech."""


@dataclass(frozen=True)
class OtherSpeech:
    """Kinds of speech to compare with. means: float64 [K, D], of frame means of each kind.
    covariance: float64 [D, D] within the kinds. encoder: reference of the frames' encoder."""

    means: FloatArray
    covariance: FloatArray
    encoder: str

    @classmethod
    def of(cls, kinds: Sequence[FloatArray], encoder: str) -> OtherSpeech:
        """From frame means [n, D] of recordings of each kind, two or more of each."""
        covariance = np.mean([np.cov(kind.T) for kind in kinds], axis=0)
        return cls(np.array([kind.mean(axis=0) for kind in kinds]), covariance, encoder)


@dataclass(frozen=True)
class Familiarity:
    """directions: float64 [K, D], offsets: float64 [K]: how much likelier another kind of speech
    is than the user's, nats, for each of K kinds. limit: above which speech is strange. encoder:
    reference of the frames' encoder."""

    directions: FloatArray
    offsets: FloatArray
    limit: float
    encoder: str

    @classmethod
    def of(cls, known: FloatArray, others: FloatArray, kinds: OtherSpeech) -> Familiarity:
        """From frame means of the user's speech [n, D], n at least 2, and of other recordings of
        it [m, D]."""
        mean, share = known.mean(axis=0), len(known) / (len(known) + WEIGHT_OF_KINDS)
        covariance = share * np.cov(known.T) + (1 - share) * kinds.covariance
        level = np.trace(covariance) / len(mean)
        covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(len(mean))
        directions = np.linalg.solve(covariance, (kinds.means - mean).T).T
        offsets = -0.5 * ((kinds.means + mean) * directions).sum(axis=1)
        found = cls(directions, offsets, np.inf, kinds.encoder)
        own = float(np.quantile([found.strangeness(one) for one in others], FAMILIAR_SHARE))
        return cls(directions, offsets, max(0.0, own) + SLACK, kinds.encoder)

    def strangeness(self, frame_mean: FloatArray) -> float:
        """How much likelier the likeliest other kind is than the user's speech, nats, for a
        recording with this mean of frames [D]."""
        return float((self.directions @ frame_mean + self.offsets).max())

    def knows(self, frame_mean: FloatArray) -> bool:
        """Whether the recording is of the user's speech."""
        return self.strangeness(frame_mean) <= self.limit
