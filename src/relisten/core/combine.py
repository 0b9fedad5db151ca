"""Log-linear combination: every hypothesis gets one score, the weighted sum of its components.

    combined(y) = Σ_c weight_c · score_c(y) + weight_length · n_spoken_words(y)

Scores are natural logarithms, so a weight of 1 on `asr` alone is the first pass's own ranking.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from relisten.core.agreement import texts_of_systems
from relisten.core.arrays import FloatArray
from relisten.core.rules import NO_RULES, Rules, rules_from_json, rules_to_json
from relisten.core.text import NORMALISERS, Normaliser, spoken
from relisten.core.types import (
    ASR,
    COMPONENTS,
    CONTEXT,
    FIRST_PASS_CHOICE,
    FORMER_NAMES,
    LENGTH,
    PACE,
    FormatError,
    NBest,
    UsageError,
)

MADE_BY = "made_by"
"""Key of a hypothesis that no first pass proposed: the decision that made its text."""

DEFAULT_LENGTH_WEIGHT = 0.4
# Nats per spoken word. WER of the first pass's own choice, then of merged lists by `asr` plus 0,
# 0.25, 0.4, 0.5, 1, 1.5 times the length (Whisper tiny.en, beam 10, English normaliser):
#   speechocean train, 2,500 utterances   37.89 | 35.58  36.31  36.44  36.56  37.39  38.59 %
#   speechocean dev, 1,240                33.45 | 32.35  32.55  32.80  32.84  33.38  34.28 %
#   steelsky dev, acted, 455              10.11 | 10.20  10.08  10.11  10.11  10.11  10.23 %
#   ljspeech dev, read aloud, 100          3.16 |  2.98   2.92   2.85   2.85   3.23   3.41 %
# From 0.25 to 0.5 no set is worse than its first pass; 0 and 1 each are on one of them.


@dataclass(frozen=True)
class Weights:
    """The weight of each component; components that are not named have the weight 0.

    values: component → weight; that of `length` in nats per spoken word. normaliser: the one that
    errors were counted with when tuning. tuned_on: fingerprints of the utterances tuned on; empty
    for weights that were not tuned. temperature: the divisor of combined scores before they
    become posteriors; ceiling: the confidence of a word that all hypotheses have
    (`core.calibration`).
    by, domains: a key of utterances, and for its values weights of their own. rules: the user's
    own rules of what is the same text; ranking follows them as tuning did.
    Raises UsageError where a weight is not a finite number, the temperature not above 0, the
    ceiling not above 0 or above 1, or domains come without their key.
    """

    values: Mapping[str, float]
    normaliser: str = "english"
    tuned_on: frozenset[str] = field(default=frozenset(), repr=False)
    temperature: float = 1.0
    ceiling: float = 1.0
    by: str | None = None
    domains: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rules: Rules = NO_RULES

    def __post_init__(self) -> None:
        if self.normaliser not in NORMALISERS:
            raise UsageError(f"weights name an unknown normaliser: {self.normaliser!r}")
        if not _is_finite(self.temperature) or self.temperature <= 0:
            raise UsageError(f"the temperature of weights must be above 0: {self.temperature!r}")
        if not _is_finite(self.ceiling) or not 0 < self.ceiling <= 1:
            raise UsageError(f"the ceiling of weights must be above 0, at most 1: {self.ceiling!r}")
        if self.domains and self.by is None:
            raise UsageError("weights have domains, but no key 'by' to choose them by")
        # Copies: the caller may change theirs.
        object.__setattr__(self, "values", _own(self.values))
        domains = {domain: _own(values) for domain, values in self.domains.items()}
        object.__setattr__(self, "domains", domains)

    @property
    def to_score(self) -> tuple[str, ...]:
        """The components that count and are relisten's to score, not the first pass's."""
        weighted = (self.values, *self.domains.values())
        return tuple(name for name in COMPONENTS if any(values.get(name) for values in weighted))

    def values_for(self, nbest: NBest) -> Mapping[str, float]:
        """The weights of the utterance's own domain; `values` where that has none."""
        domain = None if self.by is None else domain_of(nbest, self.by)
        return self.values if domain is None else self.domains.get(domain, self.values)

    def to_json(self) -> dict[str, object]:
        """The weights as WEIGHTS.json contains them."""
        by_domain = {"by": self.by, "domains": dict(self.domains)} if self.by is not None else {}
        return {
            "values": dict(self.values),
            **by_domain,
            **({"rules": rules_to_json(self.rules)} if self.rules.pairs else {}),
            "temperature": self.temperature,
            "ceiling": self.ceiling,
            "normaliser": self.normaliser,
            "tuned_on": sorted(self.tuned_on),
        }

    @classmethod
    def from_json(cls, data: object) -> Weights:
        """Weights from what `to_json` gave; temperature and ceiling are 1 where absent.

        Raises FormatError for another layout.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or not isinstance(data.get("values"), dict):
            raise FormatError("weights need an object {'values': {component: weight}, …}")
        if unknown := sorted(set(data) - known):
            raise FormatError(f"weights have unknown keys {unknown}; known: {sorted(known)}")
        tuned_on = data.get("tuned_on", [])
        if not isinstance(tuned_on, list) or not all(isinstance(mark, str) for mark in tuned_on):
            raise FormatError("'tuned_on' of weights is no list of fingerprints")
        by, domains = data.get("by"), data.get("domains", {})
        if not (by is None or isinstance(by, str)) or not (
            isinstance(domains, dict) and all(isinstance(own, dict) for own in domains.values())
        ):
            raise FormatError("'by' of weights is no key, or 'domains' no object of weights")
        try:
            return cls(
                _todays_names(data["values"]),
                data.get("normaliser", "english"),
                frozenset(tuned_on),
                data.get("temperature", 1.0),
                data.get("ceiling", 1.0),
                by,
                {domain: _todays_names(own) for domain, own in domains.items()},
                rules_from_json(data.get("rules", {})),
            )
        except (UsageError, TypeError) as error:  # a list as a normaliser has no hash
            raise FormatError(str(error)) from error


def domain_of(nbest: NBest, key: str) -> str | None:
    """The value of an utterance's `key`, as a text; None without one."""
    value = nbest.extra.get(key)
    return None if value is None else str(value)


def _own(values: Mapping[str, float]) -> dict[str, float]:
    for component, weight in values.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise UsageError(f"the weight of {component!r} is no number: {weight!r}")
        if not _is_finite(weight):
            raise UsageError(f"the weight of {component!r} is not finite: {weight}")
    return {component: float(weight) for component, weight in values.items()}


def _todays_names(values: Mapping[str, float]) -> dict[str, float]:
    return {FORMER_NAMES.get(name, name): weight for name, weight in values.items()}


def _is_finite(number: object) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    return abs(number) <= sys.float_info.max  # whole numbers may be larger


DEFAULT_WEIGHTS = Weights({ASR: 1.0, LENGTH: DEFAULT_LENGTH_WEIGHT})
"""Weights without tuning: the first pass with a length weight."""


def with_context(weights: Weights) -> Weights:
    """The weights, with a weight of 1 for `context` where they do not name it.

    Its nats are a bonus that the user chose for these very lists; lists without it are ranked as
    before.
    """
    if CONTEXT in weights.values:
        return weights
    return replace(weights, values={**weights.values, CONTEXT: 1.0})


def n_spoken_words(text: str, rules: Rules = NO_RULES) -> int:
    """The `length` of a hypothesis: words of its spoken form, so that "0351" counts as four."""
    return len(spoken(text, rules).split())


def is_first_pass(component: str) -> bool:
    """Whether it is a recogniser's log-probability: `asr`, or `asr.NAME` of a further one."""
    return component == ASR or component.startswith(f"{ASR}.")


def merge_hypotheses(nbest: NBest, normalise: Normaliser) -> NBest:
    """The utterance with hypotheses of equal normalised text merged, in order of the first.

    `asr`, and `asr.NAME` of each further first pass, is the log-sum-exp of theirs (of those that
    have one); text, word ends, rank, other scores and extra are the first one's. Empty text is a
    text like others.
    """
    places_of: dict[str, list[int]] = {}
    for place, hypothesis in enumerate(nbest.hypotheses):
        places_of.setdefault(normalise(hypothesis.text), []).append(place)
    merged = []
    for places in places_of.values():
        same = [nbest.hypotheses[place] for place in places]
        names = {name: None for h in same for name in h.scores if is_first_pass(name)}
        summed = {
            name: float(np.logaddexp.reduce([h.scores[name] for h in same if name in h.scores]))
            for name in names
        }
        first = same[0]
        merged.append(replace(first, scores={**first.scores, **summed}) if same[1:] else first)
    return replace(nbest, hypotheses=tuple(merged))


def component_scores(nbest: NBest, component: str, rules: Rules = NO_RULES) -> FloatArray:
    """One component of each hypothesis, float64 [N]; `length` and `pace` are counted, by the user's
    rules where there are any, `first_pass` is 1 for the first pass's choice, the others are stored.

    Without texts of systems `pace` is 0. A missing `context` is a bonus of 0: no phrase was
    expected. Raises FormatError where a hypothesis lacks another one.
    """
    if component in (LENGTH, PACE):
        n_words = [n_spoken_words(h.text, rules) for h in nbest.hypotheses]
        growth = _log_usual_length(nbest, rules) if component == PACE else 1.0
        return growth * np.array(n_words, dtype=np.float64)
    if component == FIRST_PASS_CHOICE:
        ranks = [
            place if h.first_pass_rank is None else h.first_pass_rank
            for place, h in enumerate(nbest.hypotheses)
        ]
        return np.array([rank == min(ranks) for rank in ranks], dtype=np.float64)
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


def _log_usual_length(nbest: NBest, rules: Rules) -> float:
    """ln(1 + m), m the median number of words of what the systems said; 0 without systems."""
    said = [n_spoken_words(text, rules) for text in texts_of_systems(nbest).values()]
    return math.log1p(float(np.median(said))) if said else 0.0


def combined_scores(nbest: NBest, weights: Weights) -> FloatArray:
    """The weighted sum of each hypothesis, float64 [N], nats; weights of 0 need no score.

    The weights are those of the utterance's domain where `weights` has them.

    Raises FormatError where a hypothesis lacks a score that is weighted.
    """
    total = np.zeros(len(nbest.hypotheses))
    for component, weight in weights.values_for(nbest).items():
        if weight:
            total += weight * component_scores(nbest, component, weights.rules)
    return total


def rank_hypotheses(nbest: NBest, weights: Weights) -> NBest:
    """The utterance, best hypothesis first; ties keep first-pass order (`in_first_pass_order`).

    Raises FormatError where a hypothesis lacks a score that is weighted.
    """
    nbest = in_first_pass_order(nbest)
    order = np.argsort(-combined_scores(nbest, weights), kind="stable")
    return replace(nbest, hypotheses=tuple(nbest.hypotheses[place] for place in order))


def in_first_pass_order(nbest: NBest) -> NBest:
    """The utterance as its first pass ordered it; each hypothesis carries its `first_pass_rank`.

    The rank of a hypothesis without one is its place in `nbest`. A text that an earlier vote made
    is left out (`without_voted_text`).
    """
    ranked = [
        h if h.first_pass_rank is not None else replace(h, first_pass_rank=place)
        for place, h in enumerate(without_voted_text(nbest).hypotheses)
    ]
    ranked.sort(key=lambda h: h.first_pass_rank or 0)
    return replace(nbest, hypotheses=tuple(ranked))


def without_voted_text(nbest: NBest) -> NBest:
    """The utterance without the text that a vote made of several hypotheses, marked `made_by`: no
    first pass proposed it, so it has no scores."""
    kept = tuple(h for h in nbest.hypotheses if MADE_BY not in h.extra)
    return nbest if len(kept) == len(nbest.hypotheses) else replace(nbest, hypotheses=kept)


def posteriors(scores: npt.ArrayLike, temperature: float = 1.0) -> FloatArray:
    """The probability of each of N scores in nats, float64 [N] that sums to 1.

    softmax(scores / temperature): above 1 the probabilities are closer together.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        return values
    with np.errstate(over="ignore"):  # far below the best is 0
        odds = np.exp((values - values.max()) / temperature)
    return np.asarray(odds / odds.sum())


def fingerprint(nbest: NBest) -> str:
    """16 hexadecimal digits that identify this utterance by its id and reference."""
    identity = json.dumps([nbest.id, nbest.reference], ensure_ascii=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]
