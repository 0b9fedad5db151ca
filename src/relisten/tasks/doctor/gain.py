"""How much of what the lists hold is captured, by which score, and whether that can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relisten.core.bootstrap import BootstrapInterval, paired_bootstrap
from relisten.core.tune import tune_weights
from relisten.core.types import ASR, LENGTH, UsageError
from relisten.tasks.doctor.checks import Lists

FOLDS = 3
"""Parts of the cross-validation: 8 s for 1,240 lists with five scores, where 5 parts take 17."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one score brings beside the others: weight, WER where all but it are tuned, and how far
    the WER of all lies below that."""

    component: str
    weight: float
    wer_without: float
    gain: BootstrapInterval


@dataclass(frozen=True, slots=True)
class Gain:
    """Error rates, as fractions, on utterances that the weights did not see (cross-validated).

    without_lm_wer: the best choice by first-pass score and length alone. gain: of tuned over the
    first pass, speakers resampled whole. parts: what each score brings, `asr` aside.
    """

    n_utterances: int
    n_groups: int
    first_pass_wer: float
    without_lm_wer: float
    tuned_wer: float
    oracle_wer: float
    gain: BootstrapInterval
    parts: tuple[Part, ...]

    @property
    def captured(self) -> float:
        """Share of the way from the first pass to the oracle; 0 where there is no way to go."""
        headroom = self.first_pass_wer - self.oracle_wer
        return (self.first_pass_wer - self.tuned_wer) / headroom if headroom else 0.0

    @property
    def is_certain(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.gain.absolute_low > 0

    @property
    def n_needed(self) -> int | None:
        """How many such utterances would make a gain of this size certain; None where none is."""
        if self.gain.absolute <= 0 or self.is_certain:
            return None
        half = self.gain.absolute - self.gain.absolute_low
        return int(np.ceil(self.n_utterances * (half / self.gain.absolute) ** 2))


def measure_gain(lists: Lists, normaliser: str, seed: int = 0) -> Gain | None:
    """What tuned weights gain on the lists; None where there is nothing to tune or to judge by."""
    known = [one for one in lists.utterances if one.reference is not None]
    try:
        whole = tune_weights(known, normaliser, folds=FOLDS, seed=seed)
    except UsageError:
        return None
    groups = [one.speaker or one.id for one in known]

    def gain_over(errors: np.ndarray) -> BootstrapInterval:
        return paired_bootstrap(errors, whole.held_out_errors, whole.n_words, groups, seed=seed)

    names = list(whole.weights.values)
    parts = []
    for name in names:
        others = [other for other in names if other != name]
        if name == ASR or not _has_score(others):
            continue
        less = tune_weights(known, normaliser, others, folds=FOLDS, seed=seed)
        parts.append(
            Part(
                name,
                whole.weights.values[name],
                less.cross_validated_wer,
                gain_over(less.held_out_errors),
            )
        )
    return Gain(
        n_utterances=len(known),
        n_groups=whole.n_groups,
        first_pass_wer=whole.first_pass_wer,
        without_lm_wer=whole.baseline_wer,
        tuned_wer=whole.cross_validated_wer,
        oracle_wer=float(lists.wer_at[-1]),
        gain=gain_over(lists.best_errors[:, 0]),
        parts=tuple(parts),
    )


def _has_score(components: Sequence[str]) -> bool:
    return any(component != LENGTH for component in components)
