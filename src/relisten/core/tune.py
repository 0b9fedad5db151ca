"""Weights from development data: searches on stored scores that do not overfit.

Fitted weights look best on the data that they were fitted to, so the expected result is estimated
by cross-validation of the whole procedure, by speaker, and compared with the best result that needs
no tuned scores. Where others than the first pass win by little and are wrong more often than right,
a margin is tuned too (`core.overruling`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from relisten.core.agreement import agreement_name, errors_of_systems, is_agreement
from relisten.core.arrays import BoolArray, FloatArray, IntArray
from relisten.core.bootstrap import BootstrapInterval, paired_bootstrap
from relisten.core.calibration import ConfidenceFit, WordVotes, cross_fit_confidence
from relisten.core.combine import Weights, domain_of, fingerprint, without_voted_text
from relisten.core.domains import DomainResult, tune_domains
from relisten.core.leakage import TrainingOverlap
from relisten.core.overruling import choose_margin
from relisten.core.rules import NO_RULES, Rules
from relisten.core.scored_lists import (
    ScoredLists,
    assign_folds,
    cross_validate,
    merged_lists,
    speaker_groups,
)
from relisten.core.text import Normaliser, cached_normaliser
from relisten.core.types import ADAPTED, ASR, FIRST_PASS_CHOICE, LENGTH, PACE, NBest, UsageError


@dataclass(frozen=True, slots=True)
class TunedRates:
    """What to expect of tuned weights on some of the utterances; rates are fractions.

    gain: of cross-validated over the first pass, with its 95 % interval.
    """

    n_utterances: int
    first_pass_wer: float
    cross_validated_wer: float
    gain: BootstrapInterval


@dataclass(frozen=True, slots=True)
class TuningResult:
    """Tuned weights and the result to expect of them; error rates are fractions (0.3 = 30 %).

    weights: fitted to all utterances. fitted_wer: their WER on the same utterances: optimistic.
    cross_validated_wer: of the same procedure on the fold that it did not see: the WER to expect.
    baseline_wer: the lowest of the first pass's, that of each system of combined lists and,
        cross-validated on the same folds, `asr` with a tuned length weight (where more than these
        two were tuned).
    system_wers: system → its own WER, of lists that were combined; of systems with every utterance.
    fallback: the weights that keep the best of these systems, or the first pass. fallback_gain: of
        cross-validated (by domain, where asked for) over that.
    gain: of cross-validated over baseline, with its 95 % interval.
    n_folds, n_groups: folds, and speakers (or utterances, where unknown) they were made of.
    left_out: scores that only some hypotheses have, hence not tuned.
    intervals: component → 95 % interval of its weight, from searches on resampled speakers; empty
        where none was asked for.
    confidence: temperature and ceiling fitted to the held-out choice, and the calibration of word
        confidence without and with them.
    domains: weights by the values of a key, where asked for, and their gain over the shared ones.
    held_out_errors, n_words: of each utterance, int64 [U]: its errors by weights of folds that did
        not see it, and its reference words; for comparing two results on the same utterances.
    first_pass_errors, groups: of each utterance, int64 [U]: those of the first pass; its speaker.
    training: what the models that scored the utterances have seen of them, where it was asked.
    new_references: what to expect without the references seen in training, where some were seen.
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
    system_wers: Mapping[str, float]
    fallback: Weights
    fallback_gain: BootstrapInterval
    left_out: tuple[str, ...]
    intervals: Mapping[str, tuple[float, float]]
    confidence: ConfidenceFit
    domains: DomainResult | None
    held_out_errors: IntArray = field(repr=False, compare=False)
    n_words: IntArray = field(repr=False, compare=False)
    first_pass_errors: IntArray = field(repr=False, compare=False)
    groups: Sequence[str] = field(repr=False, compare=False)
    training: TrainingOverlap = field(default_factory=TrainingOverlap)
    new_references: TunedRates | None = None

    def rates_on(self, rows: BoolArray, seed: int = 0) -> TunedRates:
        """What to expect on the utterances where `rows`, bool [U], is true."""
        before, after = self.first_pass_errors[rows], self.held_out_errors[rows]
        words, groups = self.n_words[rows], np.array(self.groups)[rows]
        n_words = max(1, int(words.sum()))
        return TunedRates(
            len(words),
            int(before.sum()) / n_words,
            int(after.sum()) / n_words,
            paired_bootstrap(before, after, words, groups, seed=seed),
        )

    @property
    def is_gain_certain(self) -> bool:
        """Whether the whole interval of the gain is above zero."""
        return self.gain.absolute_low > 0

    @property
    def is_kept(self) -> bool:
        """Whether it is not certain that the weights beat the first pass, or the best system."""
        return self.fallback_gain.absolute_low <= 0

    @property
    def cautious_weights(self) -> Weights:
        """The weights where they certainly make fewer errors, else those of the fallback."""
        return self.fallback if self.is_kept else self.weights


def fit_weights(
    nbests: Sequence[NBest],
    normaliser: str = "english",
    components: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    by: str | None = None,
    n_resamples: int = 100,
    rules: Rules = NO_RULES,
) -> TuningResult:
    """Weights with few word errors on `nbests`, whose references are known.

    They are the average of searches on bootstrap resamples (`core.weight_search`). On `nbests` they
    make 2 to 18 % more errors than the best weights for exactly these utterances would; on other
    utterances as few or fewer. Those of combined lists have the fewest expected errors
    (`core.expected_errors`).
    Equal texts are merged first. components: the scores to weight; by default every score that all
    hypotheses have, `length`, and `pace` of combined lists. The weight of `asr.adapted`, else of
    `asr`, else of the first, is 1, unless lists were combined. Folds keep each speaker (key
    `speaker` of the utterance) whole where there are two or more. The same seed gives the same
    weights. by: a key of the utterances whose values get weights of their own, shrunk towards the
    shared ones (`core.domains`). n_resamples: of the speakers, for the intervals of the weights; 0:
    none are computed. rules: the user's own, of what is the same text; the weights hold them.
    Raises UsageError where a reference is missing, where there are fewer than two utterances, folds
    or no score to weight, where no utterance has the key `by`; FormatError where a hypothesis lacks
    a component asked for, or its score is a placeholder.
    """
    data = _Data.of(nbests, normaliser, components, folds, seed, rules)
    if by is not None and all(domain_of(nbest, by) is None for nbest in nbests):
        raise UsageError(f"no utterance has the key {by!r}, by which weights were to be tuned")
    lists, groups = data.lists, data.groups
    held_out_values = cross_validate(lists, data.assignment, seed)
    values = _rounded(lists.fit(seed))
    domains = None
    if by is not None:
        labels = [domain_of(nbest, by) for nbest in data.merged]
        domains = tune_domains(
            lists, by, labels, values, held_out_values, data.assignment, groups, seed
        )
    judged_by = held_out_values if domains is None else domains.held_out_values
    confidence = cross_fit_confidence(data.votes(judged_by), data.assignment)
    margin = choose_margin(lists.combined(held_out_values), lists.errors, data.assignment)
    held_out, systems = margin.errors, data.system_errors()
    judged = held_out if domains is None else lists.errors_with(judged_by)
    best_system = min(systems, key=lambda name: int(systems[name].sum()), default=None)
    kept = lists.errors[:, 0] if best_system is None else systems[best_system]
    baseline = min(data.baseline_errors(seed), kept, key=lambda errors: int(errors.sum()))
    n_words = max(1, int(lists.n_words.sum()))
    weights = _weights(
        data, values, domains, confidence, Weights({}, normaliser, rules=rules), margin.nats
    )
    fallback = {FIRST_PASS_CHOICE if best_system is None else agreement_name(best_system): 1.0}
    return TuningResult(
        weights=weights,
        n_utterances=len(nbests),
        n_folds=data.n_folds,
        n_groups=len(set(groups)),
        first_pass_wer=int(lists.errors[:, 0].sum()) / n_words,
        fitted_wer=int(lists.errors_with(values, margin.nats).sum()) / n_words,
        baseline_wer=int(baseline.sum()) / n_words,
        cross_validated_wer=int(held_out.sum()) / n_words,
        gain=paired_bootstrap(baseline, held_out, lists.n_words, groups, seed=seed),
        system_wers={name: int(errors.sum()) / n_words for name, errors in systems.items()},
        fallback=replace(weights, values=fallback, by=None, domains={}),
        fallback_gain=paired_bootstrap(kept, judged, lists.n_words, groups, seed=seed),
        left_out=data.left_out,
        intervals=_intervals(lists, values, groups, seed, n_resamples) if n_resamples else {},
        confidence=confidence,
        domains=domains,
        held_out_errors=held_out,
        n_words=lists.n_words,
        first_pass_errors=lists.errors[:, 0],
        groups=groups,
    )


def held_out_errors(
    nbests: Sequence[NBest],
    normaliser: str,
    components: Sequence[str],
    folds: int = 5,
    seed: int = 0,
    rules: Rules = NO_RULES,
) -> IntArray:
    """`TuningResult.held_out_errors` of `fit_weights`, int64 [U], without the rest of its work.

    Raises as `fit_weights` does.
    """
    data = _Data.of(nbests, normaliser, components, folds, seed, rules)
    return data.lists.errors_with(cross_validate(data.lists, data.assignment, seed))


@dataclass(frozen=True, slots=True)
class _Data:
    """Lists as tuning reads them: merged, as arrays, and divided into folds by speaker."""

    merged: Sequence[NBest]
    lists: ScoredLists
    left_out: tuple[str, ...]
    groups: Sequence[str]
    assignment: IntArray
    n_folds: int
    normalise: Normaliser

    @classmethod
    def of(
        cls,
        nbests: Sequence[NBest],
        normaliser: str,
        components: Sequence[str] | None,
        folds: int,
        seed: int,
        rules: Rules,
    ) -> _Data:
        nbests = [without_voted_text(nbest) for nbest in nbests]
        _check(nbests, folds)
        named, left_out = _components(nbests, components)
        merged = merged_lists(nbests, normaliser, rules)
        groups = speaker_groups(nbests)
        assignment, n_folds = assign_folds(groups, folds, seed)
        lists = ScoredLists.of(merged, named, normaliser, rules)
        normalise = cached_normaliser(normaliser, rules)
        return cls(merged, lists, left_out, groups, assignment, n_folds, normalise)

    def baseline_errors(self, seed: int) -> IntArray:
        """The best without tuned scores, int64 [U]: see `TuningResult.baseline_wer`."""
        first_pass = self.lists.errors[:, 0]
        components = self.lists.components
        if len(components) <= 2 or not {ASR, LENGTH} <= set(components):
            return first_pass
        plain = self.lists.only((ASR, LENGTH))
        held_out = plain.errors_with(cross_validate(plain, self.assignment, seed))
        return min(first_pass, held_out, key=lambda errors: int(errors.sum()))

    def system_errors(self) -> dict[str, IntArray]:
        """Errors of each system of combined lists that has every utterance, int64 [U]."""
        errors = errors_of_systems(self.merged, self.normalise)
        return {name: np.array(own, dtype=np.int64) for name, own in errors.items()}

    def votes(self, values: FloatArray) -> WordVotes:
        """The votes on the words of each utterance's choice by its own weights, float64 [U, C]."""
        combined = [
            self.lists.scores[row, : len(nbest.hypotheses)] @ values[row]
            for row, nbest in enumerate(self.merged)
        ]
        return WordVotes.of(self.merged, combined, self.normalise)


def _rounded(values: FloatArray) -> FloatArray:
    """The weights with six significant digits, for people to read."""
    return np.array([float(f"{value:.6g}") for value in values])


def _weights(
    data: _Data,
    values: FloatArray,
    domains: DomainResult | None,
    confidence: ConfidenceFit,
    texts: Weights,
    margin: float,
) -> Weights:
    """texts: weights without values, which say what is the same text."""

    def by_name(some: FloatArray) -> dict[str, float]:
        values = dict(zip(data.lists.components, _rounded(some).tolist(), strict=True))
        return {**values, FIRST_PASS_CHOICE: margin} if margin else values

    own = {} if domains is None else domains.values
    return replace(
        texts,
        values=by_name(values),
        tuned_on=frozenset(fingerprint(nbest) for nbest in data.merged),
        temperature=float(f"{confidence.temperature:.6g}"),
        ceiling=float(f"{confidence.ceiling:.6g}"),
        by=domains.key if domains is not None and own else None,
        domains={domain: by_name(some) for domain, some in own.items()},
    )


def _intervals(
    lists: ScoredLists, values: FloatArray, groups: Sequence[str], seed: int, n_resamples: int
) -> dict[str, tuple[float, float]]:
    draws = lists.resampled(values, groups, seed, n_resamples)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return {
        name: (float(a), float(b)) for name, a, b in zip(lists.components, low, high, strict=True)
    }


def _components(
    nbests: Sequence[NBest], components: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The components to weight, the one with the fixed weight first; and those left out."""
    left_out: set[str] = set()
    if components is None:
        scored = [set(h.scores) for nbest in nbests for h in nbest.hypotheses]
        in_all, in_some = (
            (set.intersection(*scored), set.union(*scored)) if scored else (set(), set())
        )
        first = next((n.hypotheses[0].scores for n in nbests if n.hypotheses), {})
        votes = [name for name in first if is_agreement(name) and name in in_all]  # best first
        components = [*votes, *sorted(in_all.difference(votes)), *([PACE] if votes else []), LENGTH]
        left_out = in_some - in_all
    scale = ADAPTED if ADAPTED in components else ASR
    scores = sorted(
        set(components) - {LENGTH}, key=lambda c: (c != scale, list(components).index(c))
    )
    if not scores:
        raise UsageError("no score to weight: tuning needs one, beside length, in all hypotheses")
    return (*scores, *([LENGTH] if LENGTH in components else [])), tuple(sorted(left_out))


def _check(nbests: Sequence[NBest], folds: int) -> None:
    if folds < 2:
        raise UsageError(f"cross-validation needs at least 2 folds, got {folds}")
    if len(nbests) < 2:
        raise UsageError(f"tuning needs at least 2 utterances with references, got {len(nbests)}")
    for nbest in nbests:
        if nbest.reference is None:
            raise UsageError(f"{nbest.id!r} has no reference to tune by; give one or leave it out")
