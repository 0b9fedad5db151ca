"""Log-linear combination: every hypothesis gets one score, the weighted sum of its components.

    combined(y) = Σ_c weight_c · score_c(y) + weight_length · n_spoken_words(y)

Scores are natural logarithms, so a weight of 1 on `asr` alone is the first pass's own opinion.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from relisten.core.text import NORMALISERS, Normaliser, spoken
from relisten.core.types import (
    ASR,
    COMPONENTS,
    CONTEXT,
    LENGTH,
    FormatError,
    NBest,
    UsageError,
)

FloatArray = npt.NDArray[np.float64]

DEFAULT_LENGTH_WEIGHT = 0.4
# Nats a spoken word. WER of the first pass's own choice, then of merged lists by `asr` plus 0,
# 0.25, 0.4, 0.5, 1, 1.5 times the length (Whisper tiny.en, beam 10, English normaliser):
#   speechocean train, 2,500 utterances   37.89 | 35.58  36.31  36.44  36.56  37.39  38.59 %
#   speechocean dev, 1,240                33.45 | 32.35  32.55  32.80  32.84  33.38  34.28 %
#   steelsky dev, acted, 455              10.11 | 10.20  10.08  10.11  10.11  10.11  10.23 %
#   ljspeech dev, read aloud, 100          3.16 |  2.98   2.92   2.85   2.85   3.23   3.41 %
# From 0.25 to 0.5 no set is worse than its first pass; 0 and 1 each are on one of them.


@dataclass(frozen=True)
class Weights:
    """What each component counts for; components not named count nothing.

    values: component → weight; that of `length` in nats a spoken word. normaliser: the one that
    errors were counted by when tuning. tuned_on: fingerprints of the utterances tuned on; empty
    where no one tuned. Raises UsageError where a weight is not a finite number.
    """

    values: Mapping[str, float]
    normaliser: str = "english"
    tuned_on: frozenset[str] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        for component, weight in self.values.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise UsageError(f"the weight of {component!r} is no number: {weight!r}")
            if not math.isfinite(weight):
                raise UsageError(f"the weight of {component!r} is not finite: {weight}")
        if self.normaliser not in NORMALISERS:
            raise UsageError(f"weights name an unknown normaliser: {self.normaliser!r}")
        values = {component: float(weight) for component, weight in self.values.items()}
        object.__setattr__(self, "values", values)  # ours: the caller may change theirs

    @property
    def to_score(self) -> tuple[str, ...]:
        """The components that count and are relisten's to score, not the first pass's."""
        return tuple(name for name in COMPONENTS if self.values.get(name))

    def to_json(self) -> dict[str, object]:
        """The weights as WEIGHTS.json holds them."""
        return {
            "values": dict(self.values),
            "normaliser": self.normaliser,
            "tuned_on": sorted(self.tuned_on),
        }

    @classmethod
    def from_json(cls, data: object) -> Weights:
        """Weights from what `to_json` gave. Raises FormatError for another layout."""
        known = {"values", "normaliser", "tuned_on"}
        if not isinstance(data, dict) or not isinstance(data.get("values"), dict):
            raise FormatError("weights need an object {'values': {component: weight}, …}")
        if unknown := sorted(set(data) - known):
            raise FormatError(f"weights have unknown keys {unknown}; known: {sorted(known)}")
        tuned_on = data.get("tuned_on", [])
        if not isinstance(tuned_on, list) or not all(isinstance(mark, str) for mark in tuned_on):
            raise FormatError("'tuned_on' of weights is no list of fingerprints")
        try:
            return cls(data["values"], data.get("normaliser", "english"), frozenset(tuned_on))
        except UsageError as error:
            raise FormatError(str(error)) from error


DEFAULT_WEIGHTS = Weights({ASR: 1.0, LENGTH: DEFAULT_LENGTH_WEIGHT})
"""Where nobody tuned: the first pass with a length weight."""


def with_context(weights: Weights) -> Weights:
    """The weights, `context` counting what it says, 1, where they do not name it.

    Its nats are a bonus that someone chose for these very lists; lists without it are ranked as
    before.
    """
    if CONTEXT in weights.values:
        return weights
    return replace(weights, values={**weights.values, CONTEXT: 1.0})


def n_spoken_words(text: str) -> int:
    """The `length` of a hypothesis: words of its spoken form, so "0351" is as long as said."""
    return len(spoken(text).split())


def merge_hypotheses(nbest: NBest, normalise: Normaliser) -> NBest:
    """The utterance with hypotheses of equal normalised text merged, in order of the first.

    `asr` is the log-sum-exp of theirs (of those that have one); text, word ends, rank, other
    scores and extra are the first one's. Empty text is a text like others.
    """
    alike: dict[str, list[int]] = {}
    for place, hypothesis in enumerate(nbest.hypotheses):
        alike.setdefault(normalise(hypothesis.text), []).append(place)
    merged = []
    for places in alike.values():
        first = nbest.hypotheses[places[0]]
        asr = [h.scores[ASR] for h in map(nbest.hypotheses.__getitem__, places) if ASR in h.scores]
        if len(asr) > 1:
            first = replace(first, scores={**first.scores, ASR: float(np.logaddexp.reduce(asr))})
        merged.append(first)
    return replace(nbest, hypotheses=tuple(merged))


def component_scores(nbest: NBest, component: str) -> FloatArray:
    """One component of each hypothesis, float64 [N]; `length` is counted, the others are stored.

    Without a `context` no phrase is expected, which is a bonus of 0. Raises FormatError where a
    hypothesis lacks another one.
    """
    if component == LENGTH:
        return np.array([n_spoken_words(h.text) for h in nbest.hypotheses], dtype=np.float64)
    if component == CONTEXT:
        return np.array([h.scores.get(CONTEXT, 0.0) for h in nbest.hypotheses], dtype=np.float64)
    for place, hypothesis in enumerate(nbest.hypotheses):
        if component not in hypothesis.scores:
            remedy = (
                f"add it with `relisten score --components {component}`"
                if component in COMPONENTS
                else "only the first pass can give it; leave it out of the weights"
            )
            raise FormatError(
                f"{nbest.id!r}: hypothesis {place} has no score {component!r}; {remedy}"
            )
    return np.array([h.scores[component] for h in nbest.hypotheses], dtype=np.float64)


def combined_scores(nbest: NBest, weights: Weights) -> FloatArray:
    """The weighted sum of each hypothesis, float64 [N], nats; weights of 0 need no score.

    Raises FormatError where a hypothesis lacks a score that is weighted.
    """
    total = np.zeros(len(nbest.hypotheses))
    for component, weight in weights.values.items():
        if weight:
            total += weight * component_scores(nbest, component)
    return total


def rank_hypotheses(nbest: NBest, weights: Weights) -> NBest:
    """The utterance, best hypothesis first; ties keep first-pass order.

    Each hypothesis carries its `first_pass_rank`: the one it had, else its place in `nbest`.
    Raises FormatError where a hypothesis lacks a score that is weighted.
    """
    ranks = [
        place if h.first_pass_rank is None else h.first_pass_rank
        for place, h in enumerate(nbest.hypotheses)
    ]
    order = np.lexsort((np.array(ranks), -combined_scores(nbest, weights)))
    ranked = (replace(nbest.hypotheses[i], first_pass_rank=ranks[i]) for i in order)
    return replace(nbest, hypotheses=tuple(ranked))


def posteriors(scores: npt.ArrayLike) -> FloatArray:
    """The probability of each of N scores in nats, float64 [N] that sums to 1 (softmax)."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        return values
    odds = np.exp(values - values.max())
    return np.asarray(odds / odds.sum())


def fingerprint(nbest: NBest) -> str:
    """16 hexadecimal digits that tell this utterance, by id and reference, from all others."""
    identity = json.dumps([nbest.id, nbest.reference], ensure_ascii=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]
