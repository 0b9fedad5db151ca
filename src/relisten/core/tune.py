"""Weights from development data: an exact search on stored scores that stays honest when small.

Fitted weights are always best on what they were fitted to, so what is promised of them comes from
cross-validation of the whole procedure, by speakers, and is held against the best that needs no
tuned scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from relisten.core.bootstrap import BootstrapInterval, paired_bootstrap
from relisten.core.calibration import ConfidenceFit, WordVotes, cross_fit_confidence
from relisten.core.combine import Weights, domain_of, fingerprint, proposed
from relisten.core.domains import DomainResult, tune_domains
from relisten.core.scored_lists import (
    ScoredLists,
    assign_folds,
    cross_validate,
    merged_lists,
    speaker_groups,
)
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import ASR, LENGTH, NBest, UsageError
from relisten.core.weight_search import resampled_weights

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TuningResult:
    """Tuned weights and what to expect of them; error rates are fractions (0.3 = 30 %).

    weights: fitted to all utterances. fitted_wer: theirs on those same utterances: flattering.
    cross_validated_wer: of the same procedure on the fold it did not see: what to expect.
    baseline_wer: the lower of the first pass's and, cross-validated on the same folds, `asr` with
        a tuned length weight (where more than these two were tuned).
    gain: of cross-validated over baseline, with its 95 % interval.
    n_folds, n_groups: folds, and speakers (or utterances, where unknown) they were made of.
    left_out: scores that only some hypotheses have, hence not tuned.
    intervals: component → 95 % interval of its weight, from searches on resampled speakers.
    confidence: temperature and ceiling fitted to the held-out choice, and how true confidences are
        without and with them.
    domains: weights by the values of a key, where asked for, and their gain over the shared ones.
    held_out_errors, n_words: of each utterance, int64 [U]: its errors by weights of folds that did
        not see it, and its reference words; for comparing two results on the same utterances.
    """

    weights: Weights
    n_utterances: int
    n_folds: int
    n_groups: int
    first_pass_wer: float
    fitted_wer: float
    baseline_wer: float
    cross_validated_wer: float
    gain: BootstrapInterval
    left_out: tuple[str, ...]
    intervals: Mapping[str, tuple[float, float]]
    confidence: ConfidenceFit
    domains: DomainResult | None
    held_out_errors: IntArray = field(repr=False, compare=False)
    n_words: IntArray = field(repr=False, compare=False)

    @property
    def is_gain_certain(self) -> bool:
        """Whether the whole interval of the gain lies above zero."""
        return self.gain.absolute_low > 0


def tune_weights(
    nbests: Sequence[NBest],
    normaliser: str = "english",
    components: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    by: str | None = None,
) -> TuningResult:
    """Weights with few word errors on `nbests`, whose references are known.

    Equal texts are merged first. components: what to weigh; by default every score that all
    hypotheses have, and `length`. The weight of `asr` (without it, of the first) is 1. Folds keep
    each speaker (key `speaker` of the utterance) whole where there are two or more. The same seed
    gives the same weights. by: a key of the utterances whose values get weights of their own,
    shrunk towards the shared ones (`core.domains`).
    Raises UsageError where a reference is missing, where there are fewer than two utterances, folds
    or no score to weigh, where no utterance has the key `by`; FormatError where a hypothesis lacks
    a component asked for.
    """
    nbests = [proposed(nbest) for nbest in nbests]
    _check(nbests, folds, by)
    named, left_out = _components(nbests, components)
    merged = merged_lists(nbests, normaliser)
    lists = ScoredLists.of(merged, named, normaliser)
    groups = speaker_groups(nbests)
    assignment, n_folds = assign_folds(groups, folds, seed)

    first_pass = lists.errors[:, 0]
    held_out_values = cross_validate(lists, assignment, seed)
    held_out = lists.errors_with(held_out_values)
    baseline = first_pass
    if len(named) > 2 and {ASR, LENGTH} <= set(named):
        plain = lists.only((ASR, LENGTH))
        plain_held_out = plain.errors_with(cross_validate(plain, assignment, seed))
        baseline = min(first_pass, plain_held_out, key=lambda errors: int(errors.sum()))

    values = _readable(lists.fit(seed))
    domains = None
    if by is not None:
        labels = [domain_of(nbest, by) for nbest in nbests]
        domains = tune_domains(lists, by, labels, values, held_out_values, assignment, groups, seed)
    judged_by = held_out_values if domains is None else domains.held_out_values
    votes = _held_out_votes(merged, lists, judged_by, normaliser)
    confidence = cross_fit_confidence(votes, assignment)
    n_words = max(1, int(lists.n_words.sum()))
    return TuningResult(
        weights=_weights(nbests, named, values, domains, confidence, normaliser),
        n_utterances=len(nbests),
        n_folds=n_folds,
        n_groups=len(set(groups)),
        first_pass_wer=int(first_pass.sum()) / n_words,
        fitted_wer=int(lists.errors_with(values).sum()) / n_words,
        baseline_wer=int(baseline.sum()) / n_words,
        cross_validated_wer=int(held_out.sum()) / n_words,
        gain=paired_bootstrap(baseline, held_out, lists.n_words, groups, seed=seed),
        left_out=left_out,
        intervals=_intervals(lists, values, groups, seed),
        confidence=confidence,
        domains=domains,
        held_out_errors=held_out,
        n_words=lists.n_words,
    )


def _readable(values: FloatArray) -> FloatArray:
    """The weights with six digits, fit to be read."""
    return np.array([float(f"{value:.6g}") for value in values])


def _weights(
    nbests: Sequence[NBest],
    named: Sequence[str],
    values: FloatArray,
    domains: DomainResult | None,
    confidence: ConfidenceFit,
    normaliser: str,
) -> Weights:
    def by_name(some: FloatArray) -> dict[str, float]:
        return dict(zip(named, _readable(some).tolist(), strict=True))

    own = {} if domains is None else domains.values
    return Weights(
        by_name(values),
        normaliser,
        frozenset(fingerprint(nbest) for nbest in nbests),
        temperature=float(f"{confidence.temperature:.6g}"),
        ceiling=float(f"{confidence.ceiling:.6g}"),
        by=domains.key if domains is not None and own else None,
        domains={domain: by_name(some) for domain, some in own.items()},
    )


def _held_out_votes(
    merged: Sequence[NBest], lists: ScoredLists, values: FloatArray, normaliser: str
) -> WordVotes:
    """The votes on the words of each utterance's choice by weights of its own, float64 [U, C]."""
    combined = [
        lists.scores[row, : len(nbest.hypotheses)] @ values[row] for row, nbest in enumerate(merged)
    ]
    return WordVotes.of(merged, combined, normaliser_named(normaliser))


def _intervals(
    lists: ScoredLists, values: FloatArray, groups: Sequence[str], seed: int
) -> dict[str, tuple[float, float]]:
    draws = resampled_weights(
        lists.scores,
        lists.errors,
        values,
        lists.default_values,
        groups,
        np.random.default_rng(seed),
    )
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return {
        name: (float(a), float(b)) for name, a, b in zip(lists.components, low, high, strict=True)
    }


def _components(
    nbests: Sequence[NBest], components: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The components to weigh, the one whose weight is fixed first; and those left out."""
    left_out: set[str] = set()
    if components is None:
        held = [set(h.scores) for nbest in nbests for h in nbest.hypotheses]
        in_all, in_some = (set.intersection(*held), set.union(*held)) if held else (set(), set())
        components, left_out = [*sorted(in_all), LENGTH], in_some - in_all
    scores = sorted(set(components) - {LENGTH}, key=lambda c: (c != ASR, list(components).index(c)))
    if not scores:
        raise UsageError("no score to weigh: tuning needs one, beside length, in all hypotheses")
    return (*scores, *([LENGTH] if LENGTH in components else [])), tuple(sorted(left_out))


def _check(nbests: Sequence[NBest], folds: int, by: str | None) -> None:
    if folds < 2:
        raise UsageError(f"cross-validation needs at least 2 folds, got {folds}")
    if len(nbests) < 2:
        raise UsageError(f"tuning needs at least 2 utterances with references, got {len(nbests)}")
    for nbest in nbests:
        if nbest.reference is None:
            raise UsageError(f"{nbest.id!r} has no reference to tune by; give one or leave it out")
    if by is not None and all(domain_of(nbest, by) is None for nbest in nbests):
        raise UsageError(f"no utterance has the key {by!r}, by which weights were to be tuned")
