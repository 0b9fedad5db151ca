"""Separate weights for each value of a key ("phone", "studio"), shrunk towards shared ones.

    w_domain = w_shared + n / (n + k) · (w_own - w_shared)        n: utterances of the domain

w_own is fitted to the domain alone, w_shared to all. The strength k is the one with the fewest
errors in cross-validation: the more utterances a domain needs for weights of its own, the larger.
k = ∞ keeps the shared weights. The result of a fold uses the strength that was best on the other
folds, so that choosing the strength does not bias it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from relisten.core.arrays import FloatArray, IntArray
from relisten.core.bootstrap import BootstrapInterval, paired_bootstrap
from relisten.core.scored_lists import ScoredLists

STRENGTHS = (math.inf, 1000.0, 300.0, 100.0, 30.0, 0.0)
"""In utterances; of equally good ones the first is taken."""
MIN_UTTERANCES = 2


@dataclass(frozen=True, slots=True)
class DomainResult:
    """Weights by domain and the result to expect of them; rates are fractions.

    key: of the utterances. strength: the k chosen; infinite where the shared weights are as good.
    values: domain → weights, float64 [C]; empty where the strength is infinite.
    n_utterances: of each domain. cross_validated_wer: by weights of folds that did not see the
    utterance; gain: over the shared weights, cross-validated too, with its 95 % interval.
    held_out_values: the weights each utterance was judged by, float64 [U, C].
    """

    key: str
    strength: float
    values: Mapping[str, FloatArray] = field(compare=False)
    n_utterances: Mapping[str, int]
    cross_validated_wer: float
    gain: BootstrapInterval
    held_out_values: FloatArray = field(repr=False, compare=False)


def tune_domains(
    lists: ScoredLists,
    key: str,
    domains: Sequence[str | None],
    shared: FloatArray,
    held_out_shared: FloatArray,
    assignment: IntArray,
    groups: Sequence[str],
    seed: int,
) -> DomainResult:
    """Weights for each domain of U utterances.

    domains: of each utterance, None: it has none. shared: fitted to all, float64 [C];
    held_out_shared: of each utterance, fitted to the folds it is not in, float64 [U, C].
    assignment: the folds, int64 [U]. groups: what the bootstrap draws whole, [U].
    """
    labels = np.array(["" if domain is None else f"={domain}" for domain in domains])
    n_utterances = len(labels)
    tried = np.repeat(held_out_shared[None], len(STRENGTHS), axis=0)  # [K, U, C]
    for fold in np.unique(assignment):
        is_held_out = assignment == fold
        fold_shared = held_out_shared[is_held_out][0]
        own = _fit_each(lists.rows(~is_held_out), labels[~is_held_out], fold_shared, seed)
        for label, (values, n) in own.items():
            rows = is_held_out & (labels == label)
            for k, strength in enumerate(STRENGTHS):
                tried[k, rows] = shrink(fold_shared, values, n, strength)

    errors = np.stack([lists.errors_with(values) for values in tried])  # [K, U]
    chosen = np.zeros(n_utterances, dtype=np.int64)
    for fold in np.unique(assignment):
        is_held_out = assignment == fold
        chosen[is_held_out] = np.argmin(errors[:, ~is_held_out].sum(axis=1))
    rows = np.arange(n_utterances)
    held_out = errors[chosen, rows]

    strength = STRENGTHS[int(np.argmin(errors.sum(axis=1)))]
    own = _fit_each(lists, labels, shared, seed) if strength < math.inf else {}
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    return DomainResult(
        key=key,
        strength=strength,
        values={
            label[1:]: shrink(shared, values, n, strength) for label, (values, n) in own.items()
        },
        n_utterances=dict(zip([name[1:] for name in names.tolist()], counts.tolist(), strict=True)),
        cross_validated_wer=int(held_out.sum()) / max(1, int(lists.n_words.sum())),
        gain=paired_bootstrap(
            lists.errors_with(held_out_shared), held_out, lists.n_words, groups, seed=seed
        ),
        held_out_values=tried[chosen, rows],
    )


def shrink(shared: FloatArray, own: FloatArray, n: int, strength: float) -> FloatArray:
    """The weights of a domain of n utterances, float64 [C]; formula above."""
    share = 0.0 if math.isinf(strength) else n / (n + strength)
    return shared + share * (own - shared)


def _fit_each(
    lists: ScoredLists, labels: npt.NDArray[np.str_], shared: FloatArray, seed: int
) -> dict[str, tuple[FloatArray, int]]:
    """Label → weights fitted to its utterances alone, near the shared ones, and how many."""
    fitted: dict[str, tuple[FloatArray, int]] = {}
    for label in np.unique(labels[labels != ""]).tolist():
        rows = labels == label
        if (n := int(rows.sum())) >= MIN_UTTERANCES:
            fitted[label] = (lists.rows(rows).fit(seed, centre=shared), n)
    return fitted
