"""Merged N-best lists with references as arrays, and the folds that cross-validation makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from relisten.core.agreement import default_votes, is_agreement
from relisten.core.arrays import BoolArray, FloatArray, IntArray
from relisten.core.combine import (
    DEFAULT_WEIGHTS,
    component_scores,
    in_first_pass_order,
    merge_hypotheses,
)
from relisten.core.error_rates import errors_matrix
from relisten.core.expected_errors import fewest_expected_errors, resampled_expected_errors
from relisten.core.length_bounds import has_speech_score, within_length_bounds
from relisten.core.rules import NO_RULES, Rules
from relisten.core.text import cached_normaliser
from relisten.core.types import ADAPTED, ASR, FormatError, NBest
from relisten.core.weight_search import fit_weights, resampled_weights


def merged_lists(nbests: Sequence[NBest], normaliser: str, rules: Rules = NO_RULES) -> list[NBest]:
    """The lists in first-pass order, equal texts merged: what weights rank."""
    normalise = cached_normaliser(normaliser, rules)
    return [merge_hypotheses(in_first_pass_order(nbest), normalise) for nbest in nbests]


@dataclass(frozen=True, slots=True)
class ScoredLists:
    """Merged N-best lists as arrays; short lists are padded with their first hypothesis, a copy of
    which is never chosen, since of equal scores the first one wins.

    scores: float64 [U, N, C], differences from the first hypothesis. errors: int64 [U, N].
    n_words: int64 [U]. components: C names. is_within: bool [U, N],
    hypotheses of a usual length; where no component is a score of the speech, the others are
    replaced by the first one too, since ranking never chooses them (`core.length_bounds`).
    """

    components: tuple[str, ...]
    scores: FloatArray
    errors: IntArray
    n_words: IntArray
    is_within: BoolArray

    @classmethod
    def of(
        cls,
        merged: Sequence[NBest],
        components: tuple[str, ...],
        normaliser: str,
        rules: Rules = NO_RULES,
    ) -> ScoredLists:
        """The arrays of `merged_lists`. Raises FormatError where a hypothesis lacks a component, or
        has a placeholder in its place."""
        normalise = cached_normaliser(normaliser, rules)
        longest = max([1, *(len(nbest.hypotheses) for nbest in merged)])
        scores = np.zeros((len(merged), longest, len(components)))
        errors = np.zeros((len(merged), longest), dtype=np.int64)
        n_words = np.zeros(len(merged), dtype=np.int64)
        is_within = np.ones((len(merged), longest), dtype=np.bool_)
        for row, nbest in enumerate(merged):
            reference = normalise(nbest.reference or "")
            n = len(nbest.hypotheses)
            n_words[row] = errors[row] = len(reference.split())  # of an empty list: all deleted
            if not n:
                continue
            of_list = errors_matrix(reference, [normalise(h.text) for h in nbest.hypotheses])
            errors[row, :n], errors[row, n:] = of_list, of_list[0]
            is_within[row, :n] = within_length_bounds(nbest)
            for column, component in enumerate(components):
                values = component_scores(nbest, component, rules)
                refuse_placeholders(nbest, component, values)
                scores[row, :n, column] = values - values[0]
        return cls(components, scores, errors, n_words, is_within)._bounded()

    def _bounded(self) -> ScoredLists:
        """The same, unusual lengths replaced where no score of the speech counts."""
        if has_speech_score(dict.fromkeys(self.components, 1.0)):
            return self
        return replace(
            self,
            scores=np.where(self.is_within[..., None], self.scores, 0.0),
            errors=np.where(self.is_within, self.errors, self.errors[:, :1]),
        )

    def rows(self, chosen: BoolArray) -> ScoredLists:
        """The utterances chosen, bool [U]."""
        return replace(
            self,
            scores=self.scores[chosen],
            errors=self.errors[chosen],
            n_words=self.n_words[chosen],
            is_within=self.is_within[chosen],
        )

    def only(self, components: tuple[str, ...]) -> ScoredLists:
        """The same without the other components."""
        columns = [self.components.index(component) for component in components]
        left = replace(self, components=components, scores=self.scores[:, :, columns])
        return left._bounded()

    def combined(self, values: FloatArray) -> FloatArray:
        """The weighted sums, float64 [U, N]; values: weights of each utterance, float64 [U, C]."""
        return np.asarray(np.einsum("unc,uc->un", self.scores, values))

    def errors_with(self, values: FloatArray, margin: float = 0.0) -> IntArray:
        """Errors of the best hypothesis of each utterance, int64 [U].

        values: weights of all utterances, float64 [C], or of each its own, float64 [U, C]. margin:
        a bonus for the first hypothesis, nats.
        """
        combined = self.scores @ values if values.ndim == 1 else self.combined(values)
        combined[:, 0] += margin
        best = np.argmax(combined, axis=1)
        return np.asarray(self.errors[np.arange(len(best)), best])

    @property
    def default_values(self) -> FloatArray:
        """The weights of the components without tuning, float64 [C]; the first is 1. Agreements
        count half of a vote, the first system's more (`default_votes`), and words nothing beside
        them: the weight of `length` is for `asr`. With whole votes, or the same for all, 60 lists
        of five systems end up to 0.4 points of WER higher, and 2,000 lists up to 0.15.

        Beside a recogniser that was taught the speech, `asr` is one more score: of 413 lists of
        read sentences it then earned 0.08, and 15.1 % errors instead of 15.7 % with 1 for `asr`.
        """
        defaults = dict(DEFAULT_WEIGHTS.values)
        if votes := [c for c in self.components if is_agreement(c)]:
            halves = {name: vote / 2 for name, vote in default_votes(votes).items()}
            defaults = {**halves, ASR: 1.0}
        centre = np.array([defaults.get(c, 0.0) for c in self.components])
        if ADAPTED in self.components:
            centre[[c == ASR for c in self.components]] = 0.0
        if not votes:
            centre[0] = 1.0
        return centre

    def fit(self, seed: int, centre: FloatArray | None = None) -> FloatArray:
        """Weights with few errors, float64 [C], near the default ones or `centre`; the first is 1
        unless systems were combined."""
        centre = self.default_values if centre is None else centre
        if self._is_combined:
            return fewest_expected_errors(self.scores, self.errors, centre)
        return fit_weights(self.scores, self.errors, centre, np.random.default_rng(seed))

    def resampled(
        self, fitted: FloatArray, groups: Sequence[str], seed: int, n_resamples: int
    ) -> FloatArray:
        """The weights that would be found had other speakers been recorded, float64 [R, C].

        fitted: float64 [C], found by `fit`. groups: of each utterance, [U], drawn whole.
        """
        arrays, rng = (self.scores, self.errors), np.random.default_rng(seed)
        if self._is_combined:
            return resampled_expected_errors(*arrays, self.default_values, groups, rng, n_resamples)
        return resampled_weights(*arrays, fitted, self.default_values, groups, rng, n_resamples)

    @property
    def _is_combined(self) -> bool:
        return any(is_agreement(component) for component in self.components)


PLACEHOLDER = 1e9
"""Nats; a score so large is no log-probability but stands for a missing one (-1e10, float32's
minimum, -1e308), and one of them alone would set the scale of a weight."""


def refuse_placeholders(nbest: NBest, component: str, values: FloatArray) -> None:
    """Raises FormatError where one of a component's scores, float64 [N], is a placeholder."""
    for place in np.flatnonzero(np.abs(values) >= PLACEHOLDER):
        raise FormatError(
            f"{nbest.id!r}: hypothesis {place}: score {component!r} is {values[place]:g}, which is "
            "no log-probability; export the real score, or drop the hypothesis"
        )


def cross_validate(lists: ScoredLists, assignment: IntArray, seed: int) -> FloatArray:
    """For each utterance the weights fitted to the folds it is not in, float64 [U, C]."""
    values = np.zeros((len(lists.n_words), len(lists.components)))
    for fold in np.unique(assignment):
        is_held_out = assignment == fold
        values[is_held_out] = lists.rows(~is_held_out).fit(seed)
    return values


def assign_folds(groups: Sequence[str], folds: int, seed: int) -> tuple[IntArray, int]:
    """The fold of each utterance, int64 [U], groups whole, folds of like size; and how many."""
    names, membership, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n_folds = min(folds, len(names))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of, filled = np.zeros(len(names), dtype=np.int64), np.zeros(n_folds)
    for name in sorted(order, key=lambda name: -sizes[name]):
        fold_of[name] = np.argmin(filled)
        filled[fold_of[name]] += sizes[name]
    return fold_of[membership], n_folds


def speaker_groups(nbests: Sequence[NBest]) -> list[str]:
    """The group of each utterance that folds keep whole: its speaker where two or more are known,
    else the utterance itself."""
    speakers = [nbest.speaker for nbest in nbests]
    if len(set(speakers)) < 2:
        return [f"utterance {row}" for row in range(len(nbests))]
    return [
        f"utterance {row}" if speaker is None else f"speaker {speaker}"
        for row, speaker in enumerate(speakers)
    ]
