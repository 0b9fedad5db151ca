"""The error analysis that `evaluate --html` shows, made while `evaluate` reads the utterances."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from relisten.core.combine import (
    Weights,
    combined_scores,
    in_first_pass_order,
    posteriors,
)
from relisten.core.error_rates import align_words, errors_matrix
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import ASR, FormatError, Hypothesis, NBest
from relisten.io.rules import read_rules
from relisten.tasks.evaluation.breakdown import value_of
from relisten.tasks.evaluation.confusions import (
    EFFECTS,
    Column,
    ConfidenceBin,
    Confusion,
    ConfusionTally,
    Effect,
    confidence_bins,
    effect_of,
)
from relisten.tasks.evaluation.evaluate import EvaluationReport, hypotheses_or_empty
from relisten.tasks.evaluation.sweep import Sweep, SweepTally
from relisten.tasks.ranking import rank

N_CONFUSIONS = 200
"""Confusions that are kept, the most frequent ones."""
NO_WEIGHTS = "unknown: give the weights that ranked the file, --weights FILE"
NO_SCORES = "unknown: the hypotheses have no first-pass score, asr"


@dataclass(frozen=True, slots=True)
class UtteranceRow:
    """One utterance: its words in columns (reference, first pass, chosen), and what rescoring did.

    labels: its values of the report's keys, in their order. oracle_errors: of the best on its list.
    confidence: the first pass's posterior of its own choice; None where scores are missing.
    hypotheses: its list, best first, as JSON: of each [text, word errors, place in the first pass
        or null, [score or null, …] in the order of the report's components, weighted sum or null,
        posterior or null, [confidence of each word] or null].
        Kept as text, which needs a fifth of the memory of objects.
    """

    id: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    effect: Effect
    oracle_errors: int
    confidence: float | None
    hypotheses: str


@dataclass(frozen=True, slots=True)
class ErrorAnalysis:
    """Error rates and where the errors are.

    keys: of the utterances' labels. components: names of the scores on the lists.
    n_other: utterances for which the weights choose another hypothesis than the first of the file.
    left_out: parts that cannot be computed (`sweep`, `confidence`) → why.
    """

    evaluation: EvaluationReport
    keys: tuple[str, ...]
    effects: Mapping[Effect, int]
    confusions: tuple[Confusion, ...]
    confidence: tuple[ConfidenceBin, ...]
    sweeps: tuple[Sweep, ...]
    n_other: int
    components: tuple[str, ...]
    utterances: tuple[UtteranceRow, ...]
    left_out: Mapping[str, str]


class ErrorAnalyser:
    """Analyses the utterances that `evaluate` counts.

    keys: of the utterances, whose values label them. weights: those that ranked them, if known.
    """

    def __init__(
        self,
        normaliser: str = "english",
        keys: Sequence[str] = (),
        weights: Weights | None = None,
        rules: str | None = None,
    ) -> None:
        self._normalise = normaliser_named(normaliser, read_rules(rules))
        self._keys = tuple(keys)
        self._weights = weights
        self._sweep = SweepTally(weights or Weights({}))
        self._left_out = {} if weights else {"sweep": NO_WEIGHTS}
        self._n_other = 0
        self._confusions = ConfusionTally()
        self._components: dict[str, None] = {}  # a set that keeps the order
        self._rows: list[UtteranceRow] = []

    def result(self, evaluation: EvaluationReport) -> ErrorAnalysis:
        """The analysis, with the error rates that `evaluate` gave for the same utterances."""
        scored = [row for row in self._rows if row.confidence is not None]
        left_out = dict(self._left_out)
        if not scored:
            left_out["confidence"] = NO_SCORES
        effects = [row.effect for row in self._rows]
        return ErrorAnalysis(
            evaluation=evaluation,
            keys=self._keys,
            effects={effect: effects.count(effect) for effect in EFFECTS},
            confusions=self._confusions.most_common(N_CONFUSIONS),
            confidence=confidence_bins(
                [row.confidence or 0.0 for row in scored], [_counts(row.columns) for row in scored]
            ),
            sweeps=() if "sweep" in left_out else self._sweep.result(),
            n_other=self._n_other,
            components=tuple(self._components),
            utterances=tuple(self._rows),
            left_out=left_out,
        )

    def add(self, utterance: NBest) -> None:
        """Analyse one utterance with a reference."""
        ranked = hypotheses_or_empty(utterance)
        first_pass = hypotheses_or_empty(in_first_pass_order(utterance))
        reference = self._normalise(utterance.reference or "")
        texts = [self._normalise(text) for text in (first_pass[0].text, ranked[0].text)]
        columns = tuple(align_words(reference, texts))
        listed = list({h.text: None for h in (*ranked, *first_pass)})
        errors = errors_matrix(reference, [self._normalise(text) for text in listed])
        n_errors = dict(zip(listed, errors.tolist(), strict=True))
        sums = self._weigh(replace(utterance, hypotheses=first_pass), ranked[0].text, n_errors)
        self._confusions.add(columns)
        self._rows.append(
            UtteranceRow(
                id=utterance.id,
                labels=tuple(value_of(utterance, key) for key in self._keys),
                columns=columns,
                effect=effect_of(columns),
                oracle_errors=min(n_errors[h.text] for h in first_pass),
                confidence=_confidence(first_pass),
                hypotheses=self._listed(ranked, n_errors, sums),
            )
        )

    def _weigh(
        self, first_pass: NBest, chosen: str, n_errors: Mapping[str, int]
    ) -> dict[str, float]:
        """Text → weighted sum, of the hypotheses in first-pass order; empty without weights or with
        a single hypothesis."""
        texts = [hypothesis.text for hypothesis in first_pass.hypotheses]
        if not self._weights or "sweep" in self._left_out:
            return {}
        try:
            self._sweep.add(first_pass, [n_errors[text] for text in texts])
            if len(texts) == 1:
                return {}
            self._n_other += rank(first_pass, self._weights).hypotheses[0].text != chosen
            sums = combined_scores(first_pass, self._weights).tolist()
            return dict(zip(texts, sums, strict=True))
        except FormatError as error:
            self._left_out["sweep"] = str(error)
            return {}

    def _listed(
        self,
        ranked: Sequence[Hypothesis],
        n_errors: Mapping[str, int],
        sums: Mapping[str, float],
    ) -> str:
        """A list as `UtteranceRow.hypotheses`."""
        self._components.update(dict.fromkeys(name for h in ranked for name in h.scores))
        listed = [
            (
                h.text,
                n_errors[h.text],
                h.first_pass_rank,
                [_short(h.scores.get(name)) for name in self._components],
                _short(sums.get(h.text)),
                h.posterior,
                h.word_confidence,
            )
            for h in ranked
        ]
        return json.dumps(listed, ensure_ascii=False, separators=(",", ":"))


def _confidence(first_pass: Sequence[Hypothesis]) -> float | None:
    """The posterior of the first one by first-pass scores; None where a score is missing."""
    if any(ASR not in hypothesis.scores for hypothesis in first_pass):
        return None
    return float(posteriors([hypothesis.scores[ASR] for hypothesis in first_pass])[0])


def _counts(columns: Sequence[Column]) -> tuple[int, int, int]:
    """Words, errors of the first pass's choice, errors of the chosen text."""
    return (
        sum(reference is not None for reference, _, _ in columns),
        sum(reference != first for reference, first, _ in columns),
        sum(reference != chosen for reference, _, chosen in columns),
    )


def _short(number: float | None) -> float | None:
    """Rounded to a thousandth of a nat."""
    return None if number is None else round(number, 3)
