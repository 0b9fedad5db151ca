"""How much of the possible gain rescoring achieves, which score achieves it, and how certainly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relisten.core.arrays import IntArray
from relisten.core.bootstrap import BootstrapInterval, paired_bootstrap
from relisten.core.rules import NO_RULES, Rules
from relisten.core.tune import TunedRates, fit_weights, held_out_errors
from relisten.core.types import ASR, LENGTH, UsageError
from relisten.tasks.doctor.checks import Lists

FOLDS = 3
"""Folds of the cross-validation: 8 s for 1,240 lists with five scores, where 5 folds take 17."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """What one score contributes besides the others: its weight, the WER with all but it tuned, and
    how far the WER of all scores lies below that."""

    component: str
    weight: float
    wer_without: float
    gain: BootstrapInterval


@dataclass(frozen=True, slots=True)
class Gain:
    """Cross-validated error rates, as fractions: of utterances that the weights were not tuned on.

    without_lm_wer: the best choice by first-pass score and length alone. gain: of tuned over the
    first pass, speakers resampled whole. parts: what each score contributes, except `asr`.
    new_references: without references that a model was trained on; None where none, or all, are.
    """

    n_utterances: int
    n_groups: int
    first_pass_wer: float
    without_lm_wer: float
    tuned_wer: float
    oracle_wer: float
    gain: BootstrapInterval
    parts: tuple[Ablation, ...]
    new_references: TunedRates | None = None

    @property
    def captured(self) -> float:
        """Share of the way from the first pass to the oracle; 0 where the two are equal."""
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


def measure_gain(
    lists: Lists, normaliser: str, seed: int = 0, rules: Rules = NO_RULES
) -> Gain | None:
    """What tuned weights gain on the lists; None without a score to tune, or without references."""
    known = [one for one in lists.utterances if one.reference is not None]
    try:
        whole = fit_weights(known, normaliser, folds=FOLDS, seed=seed, n_resamples=0, rules=rules)
    except UsageError:
        return None
    groups = [one.speaker or one.id for one in known]

    def gain_over(errors: IntArray) -> BootstrapInterval:
        return paired_bootstrap(errors, whole.held_out_errors, whole.n_words, groups, seed=seed)

    is_new = np.array([one.id not in lists.seen for one in known])
    parts = []
    for name, weight in whole.weights.values.items():
        others = [other for other in whole.weights.values if other != name]
        if name == ASR or not _has_score(others):
            continue
        errors = held_out_errors(known, normaliser, others, FOLDS, seed, rules)
        wer = int(errors.sum()) / max(1, int(whole.n_words.sum()))
        parts.append(Ablation(name, weight, wer, gain_over(errors)))
    return Gain(
        n_utterances=len(known),
        n_groups=whole.n_groups,
        first_pass_wer=whole.first_pass_wer,
        without_lm_wer=whole.baseline_wer,
        tuned_wer=whole.cross_validated_wer,
        oracle_wer=float(lists.wer_at[-1]),
        gain=gain_over(lists.best_errors[:, 0]),
        parts=tuple(parts),
        new_references=whole.rates_on(is_new, seed) if 0 < is_new.sum() < len(is_new) else None,
    )


def _has_score(components: Sequence[str]) -> bool:
    return any(component != LENGTH for component in components)
