"""All that the report's page shows, gathered while `evaluate` reads the utterances."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from relisten.core.combine import Weights, combined_scores, posteriors, rank_hypotheses
from relisten.core.error_rates import align_words, errors_matrix
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import ASR, FormatError, Hypothesis, NBest
from relisten.tasks.evaluation.breakdown import value_of
from relisten.tasks.evaluation.confusions import (
    CHANGES,
    Change,
    Column,
    ConfidenceBin,
    Confusion,
    ConfusionTally,
    change_of,
    confidence_bins,
)
from relisten.tasks.evaluation.evaluate import EvaluationReport, first_pass_order
from relisten.tasks.evaluation.sweep import Sweep, SweepTally

N_CONFUSIONS = 200
"""Confusions on the page, the most frequent ones."""
NO_WEIGHTS = "not known: give the weights that ranked the file, --weights FILE"
NO_SCORES = "not known: the hypotheses have no first-pass score, asr"


@dataclass(frozen=True, slots=True)
class UtteranceRow:
    """One utterance: its words in columns (reference, first pass, chosen) and what became of it.

    labels: its values of the report's keys, in their order. oracle_errors: of the best on its list.
    confidence: the first pass's posterior of its own choice; None where scores are missing.
    hypotheses: its list, best first, as JSON: of each [text, word errors, place in the first pass
        or null, [score or null, …] in the order of the report's components, weighted sum or null,
        posterior or null, [confidence of each word] or null].
        Kept as text, which takes a fifth of the memory of the objects.
    """

    id: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    change: Change
    oracle_errors: int
    confidence: float | None
    hypotheses: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the page shows beside the error rates.

    keys: of the utterances' labels. components: names of the scores on the lists.
    n_other: utterances of which the weights choose another hypothesis than the file has first.
    left_out: parts that cannot be shown (`sweep`, `confidence`) → why.
    """

    evaluation: EvaluationReport
    keys: tuple[str, ...]
    changes: Mapping[Change, int]
    confusions: tuple[Confusion, ...]
    confidence: tuple[ConfidenceBin, ...]
    sweeps: tuple[Sweep, ...]
    n_other: int
    components: tuple[str, ...]
    utterances: tuple[UtteranceRow, ...]
    left_out: Mapping[str, str]


class ReportTally:
    """Watches utterances go by on their way to `evaluate`, and keeps what the page shows of them.

    keys: what to label utterances with. weights: those that ranked them, if known.
    """

    def __init__(
        self, normaliser: str = "english", keys: Sequence[str] = (), weights: Weights | None = None
    ) -> None:
        self._normalise = inspect.unwrap(normaliser_named(normaliser))
        self._keys = tuple(keys)
        self._weights = weights
        self._sweep = SweepTally(weights or Weights({}))
        self._left_out = {} if weights else {"sweep": NO_WEIGHTS}
        self._n_other = 0
        self._confusions = ConfusionTally()
        self._components: dict[str, None] = {}  # a set that keeps the order
        self._rows: list[UtteranceRow] = []

    def watch(self, utterances: Iterable[NBest]) -> Iterator[NBest]:
        """The utterances as they come; those with a reference are noted."""
        for utterance in utterances:
            if utterance.reference is not None:
                self._add(utterance)
            yield utterance

    def result(self, evaluation: EvaluationReport) -> Report:
        """The report, with what `evaluate` made of the same utterances."""
        sure = [row for row in self._rows if row.confidence is not None]
        left_out = dict(self._left_out)
        if not sure:
            left_out["confidence"] = NO_SCORES
        changes = [row.change for row in self._rows]
        return Report(
            evaluation=evaluation,
            keys=self._keys,
            changes={change: changes.count(change) for change in CHANGES},
            confusions=self._confusions.most_common(N_CONFUSIONS),
            confidence=confidence_bins(
                [row.confidence or 0.0 for row in sure], [_counts(row.columns) for row in sure]
            ),
            sweeps=() if "sweep" in left_out else self._sweep.result(),
            n_other=self._n_other,
            components=tuple(self._components),
            utterances=tuple(self._rows),
            left_out=left_out,
        )

    def _add(self, utterance: NBest) -> None:
        """Note an utterance; one without hypotheses is one where nothing was heard."""
        ranked = utterance.hypotheses or (Hypothesis(""),)
        first_pass = first_pass_order(ranked)
        reference = self._normalise(utterance.reference or "")
        texts = [self._normalise(text) for text in (first_pass[0].text, ranked[0].text)]
        columns = tuple(align_words(reference, texts))
        found = errors_matrix(reference, [self._normalise(h.text) for h in ranked]).tolist()
        n_errors = dict(zip((h.text for h in ranked), found, strict=True))
        sums = self._weigh(replace(utterance, hypotheses=first_pass), ranked[0].text, n_errors)
        self._confusions.add(columns)
        self._rows.append(
            UtteranceRow(
                id=utterance.id,
                labels=tuple(value_of(utterance, key) for key in self._keys),
                columns=columns,
                change=change_of(columns),
                oracle_errors=min(n_errors[h.text] for h in first_pass),
                confidence=_confidence(first_pass),
                hypotheses=self._listed(ranked, n_errors, sums),
            )
        )

    def _weigh(
        self, first_pass: NBest, chosen: str, n_errors: Mapping[str, int]
    ) -> dict[str, float]:
        """Text → weighted sum, of the hypotheses in first-pass order; nothing where no weights are
        known or there is but one."""
        texts = [hypothesis.text for hypothesis in first_pass.hypotheses]
        if not self._weights or "sweep" in self._left_out:
            return {}
        try:
            self._sweep.add(first_pass, [n_errors[text] for text in texts])
            if len(texts) == 1:
                return {}
            self._n_other += rank_hypotheses(first_pass, self._weights).hypotheses[0].text != chosen
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
    """The probability of the first one by first-pass scores; None where one is missing."""
    if any(ASR not in hypothesis.scores for hypothesis in first_pass):
        return None
    return float(posteriors([hypothesis.scores[ASR] for hypothesis in first_pass])[0])


def _counts(columns: Sequence[Column]) -> tuple[int, int, int]:
    """Words, errors of the first pass's choice, errors of the chosen text."""
    return (
        sum(said is not None for said, _, _ in columns),
        sum(said != first for said, first, _ in columns),
        sum(said != chosen for said, _, chosen in columns),
    )


def _short(number: float | None) -> float | None:
    """To a thousandth of a nat: what a reader can use."""
    return None if number is None else round(number, 3)
