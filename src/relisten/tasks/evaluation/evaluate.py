"""Ranked N-best lists in, error rates with their uncertainty out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache

import numpy as np

from relisten.core.agreement import texts_of_systems
from relisten.core.bootstrap import bootstrap_rate, paired_bootstrap
from relisten.core.calibration import N_BINS, Calibration, CalibrationTally, right_words
from relisten.core.combine import (
    DEFAULT_WEIGHTS,
    Weights,
    in_first_pass_order,
    merge_hypotheses,
    rank_hypotheses,
)
from relisten.core.error_rates import ErrorCounts, char_errors, word_errors
from relisten.core.finite import finite_or_none
from relisten.core.leakage import TrainingOverlap
from relisten.core.text import Normaliser, cached_normaliser
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import ASR, Hypothesis, NBest, UsageError
from relisten.io.rules import read_rules
from relisten.tasks.evaluation.breakdown import Breakdown, BreakdownTally, SubsetErrors
from relisten.tasks.evaluation.resampled import ResampledRows
from relisten.tasks.leakage import REFERENCE_SEEN, SeenByModels
from relisten.tasks.ranking import TUNED_ON
from relisten.tasks.streams import Refusal, Tick, no_tick


@dataclass(frozen=True, slots=True)
class Errors:
    """Corpus errors of one way to choose a hypothesis, in words and in characters."""

    words: ErrorCounts
    chars: ErrorCounts


@dataclass(frozen=True, slots=True)
class SystemErrors:
    """Word errors of one recogniser of combined lists, on the utterances that it has.

    relative_reduction: of its WER, to rescored on the same utterances; with its 95 % interval.
    """

    words: ErrorCounts
    n_utterances: int
    relative_reduction: float
    relative_reduction_ci95: tuple[float, float]


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Error rates over all utterances with a reference (rates are fractions, 0.3 = 30 %).

    first_pass: the first pass's own choice. merged: equal texts merged, then ranked by first-pass
        score and default length weight; None where a hypothesis has no `asr` score. rescored: the
        first of each list. oracle: the best of each list.
    oracle_wer_at: WER of the best among the first n of the first pass, n = 1, 2, …
    wer_ci95: choice (`first_pass`, `merged` where known, `rescored`, `oracle`) → 95 % bootstrap
        interval of its WER, whole speakers resampled where `speaker` is known.
    n_resampled: speakers, or utterances, that the intervals were drawn from.
    relative_reduction: of the WER, from first pass to rescored; with its interval, paired.
    share_better, share_worse: utterances with fewer, and more, word errors than the first pass.
    systems: recogniser → its own errors, best first, where lists were combined.
    confidence: calibration of the `word_confidence` of the chosen texts, over the utterances that
        have it; None where none has.
    by: errors by the values of the keys asked for, where any utterance has the key; and by whether
        a model has seen the reference in training, where one has.
    training: what the models that scored the utterances have seen of them.
    refused: utterances without a reference, and those that a model was trained on, or weights
        tuned on: an error rate on them would be too low.
    """

    n_utterances: int
    normaliser: str
    first_pass: Errors
    merged: Errors | None
    rescored: Errors
    oracle: ErrorCounts
    oracle_wer_at: tuple[float, ...]
    wer_ci95: Mapping[str, tuple[float, float]]
    relative_reduction: float
    relative_reduction_ci95: tuple[float, float]
    n_resampled: int
    share_better: float
    share_worse: float
    systems: Mapping[str, SystemErrors] = field(default_factory=dict)
    confidence: Calibration | None = None
    by: tuple[Breakdown, ...] = ()
    training: TrainingOverlap = field(default_factory=TrainingOverlap)
    refused: tuple[Refusal, ...] = ()

    @property
    def n_words(self) -> int:
        """Words of all references."""
        return self.first_pass.words.n_reference

    @property
    def new_references(self) -> SubsetErrors | None:
        """Errors without the references seen in training; None where none, or all, were seen."""
        parts = [one.subsets for one in self.by if one.key == REFERENCE_SEEN]
        return next((part for some in parts for part in some if part.value == "no"), None)

    def to_json(self) -> dict[str, object]:
        """The report as `evaluate --json` writes it: a rate that is not finite is None."""
        intervals = {choice: list(interval) for choice, interval in self.wer_ci95.items()}
        record = {
            "n_utterances": self.n_utterances,
            "n_words": self.n_words,
            "n_refused": len(self.refused),
            "normaliser": self.normaliser,
            "first_pass": _rates(self.first_pass, intervals["first_pass"]),
            "merged": _rates(self.merged, intervals["merged"]) if self.merged else None,
            "rescored": _rates(self.rescored, intervals["rescored"]),
            "oracle": {
                "wer": self.oracle.rate,
                "wer_ci95": intervals["oracle"],
                "words": asdict(self.oracle),
                "wer_at": list(self.oracle_wer_at),
            },
            "relative_reduction": self.relative_reduction,
            "relative_reduction_ci95": list(self.relative_reduction_ci95),
            "n_resampled": self.n_resampled,
            "share_better": self.share_better,
            "share_worse": self.share_worse,
            "systems": {
                name: {
                    "wer": one.words.rate,
                    "words": asdict(one.words),
                    "n_utterances": one.n_utterances,
                    "relative_reduction": one.relative_reduction,
                    "relative_reduction_ci95": list(one.relative_reduction_ci95),
                }
                for name, one in self.systems.items()
            },
            "confidence": _confidence(self.confidence) if self.confidence else None,
            "training": {
                "models": list(self.training.models),
                "silent": dict(self.training.silent),
                "n_utterances": self.training.n_utterances,
                "n_references": self.training.n_references,
                "new_references": self.new_references.to_json() if self.new_references else None,
            },
            "by": {one.key: [subset.to_json() for subset in one.subsets] for one in self.by},
        }
        return finite_or_none(record)


def evaluate(
    ranked: Iterable[NBest],
    normaliser: str = "english",
    n_resamples: int = 10_000,
    seed: int = 0,
    tick: Tick = no_tick,
    by: Sequence[str] = (),
    watch: Callable[[NBest], None] | None = None,
    rules: str | None = None,
) -> EvaluationReport:
    """Error rates of ranked N-best lists with references.

    by: keys of the utterances, such as `speaker`, by whose values errors are counted too. watch:
    told of each utterance that counts. Refused are utterances that `rescore` marked as those that
    its weights were tuned on, and those that a model which scored them was trained on. rules: a
    file of the user's own rules of what is the same text.
    Reads the utterances once, in memory that does not grow with their number, except for the few
    numbers of each that `by` needs.
    Raises UsageError where none is left that has a reference, or none has hypotheses.
    """
    own = read_rules(rules)
    tally = _Tally(
        normaliser_named(normaliser, own),
        cached_normaliser(normaliser, own),
        by=[BreakdownTally(key) for key in (*by, REFERENCE_SEEN)],
        default_weights=replace(DEFAULT_WEIGHTS, rules=own),
    )
    seen_by, refused = SeenByModels(), list[Refusal]()
    n_learnt_from = 0
    for utterance in ranked:
        tick(1)
        if utterance.extra.get(TUNED_ON) is True:
            refused.append(Refusal(utterance.id, "the weights that ranked it were tuned on it"))
            n_learnt_from += 1
            continue
        if utterance.reference is None:
            refused.append(Refusal(utterance.id, "it has no reference"))
            continue
        if (seen := seen_by.of(utterance)) == "utterance":
            refused.append(seen_by.refusal(utterance))
            n_learnt_from += 1
            continue
        utterance = seen_by.marked(utterance, seen)
        tally.add(utterance)
        if watch is not None:
            watch(utterance)
    if n_learnt_from and not tally.n_utterances:
        raise UsageError(
            f"all {n_learnt_from} utterances with a reference served to train a model or to tune "
            "the weights that ranked them; evaluate on utterances that did not"
        )
    if not tally.n_utterances:
        raise UsageError("no utterance has a reference; add the key 'reference' to each line")
    if not tally.n_hypotheses:
        raise UsageError("no utterance has hypotheses; make them with `relisten nbest`")
    overlap = seen_by.overlap()
    if not 0 < overlap.n_references < overlap.n_judged:
        tally.by.pop()
    return replace(tally.report(normaliser, tuple(refused), n_resamples, seed), training=overlap)


_NO_ERRORS = Errors(ErrorCounts(), ErrorCounts())


@dataclass
class _Tally:
    """Sums over the utterances seen so far, and the counts of each that the bootstrap needs.

    normalise: of texts, which seldom come again; normalise_word: cached, since words do.
    """

    normalise: Normaliser
    normalise_word: Normaliser
    first_pass: Errors = _NO_ERRORS
    merged: Errors | None = _NO_ERRORS
    rescored: Errors = _NO_ERRORS
    oracle: ErrorCounts = _NO_ERRORS.words
    oracle_errors_at: list[int] = field(default_factory=list)
    n_utterances: int = 0
    n_hypotheses: int = 0
    rows: ResampledRows = field(default_factory=lambda: ResampledRows(5))
    n_better: int = 0
    n_worse: int = 0
    systems: dict[str, _SystemTally] = field(default_factory=dict)
    confidence: CalibrationTally = field(default_factory=CalibrationTally)
    by: list[BreakdownTally] = field(default_factory=list)
    default_weights: Weights = DEFAULT_WEIGHTS

    def add(self, utterance: NBest) -> None:
        count = _Counter(self.normalise, utterance.reference or "")
        ranked = hypotheses_or_empty(utterance)
        first_pass = hypotheses_or_empty(in_first_pass_order(utterance))
        words = [count.words(hypothesis.text) for hypothesis in first_pass]
        chosen = count.words(ranked[0].text)
        self.first_pass = _plus(self.first_pass, count(first_pass[0].text))
        self.rescored = _plus(self.rescored, count(ranked[0].text))
        oracle = min(words, key=lambda errors: errors.errors)
        self.oracle += oracle
        self._add_oracle_at([errors.errors for errors in words])
        text = self._merged_choice(utterance.id, first_pass, count)
        merged = None if text is None or self.merged is None else count(text)
        self.merged = None if merged is None else _plus(self.merged or _NO_ERRORS, merged)
        self.n_utterances += 1
        self.n_better += chosen.errors < words[0].errors
        self.n_worse += chosen.errors > words[0].errors
        for name, text in texts_of_systems(utterance).items():
            tally = self.systems.setdefault(name, _SystemTally())
            tally.add(utterance.speaker, count.words(text), chosen)
        self.n_hypotheses += len(utterance.hypotheses)
        errors = (words[0], chosen, merged.words if merged else words[0], oracle)
        self.rows.add(utterance.speaker, *(one.errors for one in errors), chosen.n_reference)
        if (confidence := ranked[0].word_confidence) is not None:
            is_right = right_words(utterance.reference or "", ranked[0].text, self.normalise_word)
            self.confidence.add(confidence, is_right)
        for one in self.by:
            one.add(utterance, words[0], chosen)

    def _merged_choice(
        self, utterance_id: str, first_pass: tuple[Hypothesis, ...], count: _Counter
    ) -> str | None:
        """The text that first-pass score and default length weight choose; None without scores."""
        if len(first_pass) == 1:
            return first_pass[0].text
        if any(ASR not in hypothesis.scores for hypothesis in first_pass):
            return None
        merged = merge_hypotheses(NBest(utterance_id, first_pass), count.normalise)
        return rank_hypotheses(merged, self.default_weights).hypotheses[0].text

    def _add_oracle_at(self, n_errors: list[int]) -> None:
        """Add the running minimum; a list shorter than others goes on with its last value."""
        total = self.oracle_errors_at
        best = list(np.minimum.accumulate(n_errors).tolist())
        total += [total[-1] if total else 0] * (len(best) - len(total))
        best += [best[-1]] * (len(total) - len(best))
        self.oracle_errors_at = [before + more for before, more in zip(total, best, strict=True)]

    def report(
        self, normaliser: str, refused: tuple[Refusal, ...], n_resamples: int, seed: int
    ) -> EvaluationReport:
        first_pass, rescored, merged, oracle, n_words = self.rows.columns()
        interval = paired_bootstrap(first_pass, rescored, n_words, None, n_resamples, seed)
        columns = {"first_pass": first_pass, "rescored": rescored, "oracle": oracle}
        if self.merged:
            columns["merged"] = merged
        n_reference = max(1, self.oracle.n_reference)
        return EvaluationReport(
            n_utterances=self.n_utterances,
            normaliser=normaliser,
            first_pass=self.first_pass,
            merged=self.merged,
            rescored=self.rescored,
            oracle=self.oracle,
            oracle_wer_at=tuple(n_errors / n_reference for n_errors in self.oracle_errors_at),
            wer_ci95={
                choice: bootstrap_rate(errors, n_words, n_resamples, seed)
                for choice, errors in columns.items()
            },
            relative_reduction=interval.relative,
            relative_reduction_ci95=(interval.relative_low, interval.relative_high),
            n_resampled=interval.n_resampled,
            share_better=self.n_better / self.n_utterances,
            share_worse=self.n_worse / self.n_utterances,
            systems={
                name: tally.result(n_resamples, seed)
                for name, tally in sorted(self.systems.items(), key=lambda one: one[1].words.rate)
            },
            confidence=self.confidence.result(),
            by=tuple(found for one in self.by if (found := one.result(seed))),
            refused=refused,
        )


@dataclass
class _SystemTally:
    """Errors of one system so far, beside those of what was chosen on the same utterances."""

    words: ErrorCounts = _NO_ERRORS.words
    n_utterances: int = 0
    rows: ResampledRows = field(default_factory=lambda: ResampledRows(3))

    def add(self, speaker: str | None, own: ErrorCounts, chosen: ErrorCounts) -> None:
        self.words += own
        self.n_utterances += 1
        self.rows.add(speaker, own.errors, chosen.errors, own.n_reference)

    def result(self, n_resamples: int, seed: int) -> SystemErrors:
        own, chosen, n_words = self.rows.columns()
        gain = paired_bootstrap(own, chosen, n_words, None, n_resamples, seed)
        interval = (gain.relative_low, gain.relative_high)
        return SystemErrors(self.words, self.n_utterances, gain.relative, interval)


def hypotheses_or_empty(utterance: NBest) -> tuple[Hypothesis, ...]:
    """The hypotheses of the utterance; the empty text where there is none."""
    return utterance.hypotheses or (Hypothesis(""),)


class _Counter:
    """Errors against one reference, each distinct hypothesis text normalised and aligned once."""

    def __init__(self, normalise: Normaliser, reference: str) -> None:
        normalised = cache(normalise)
        target = normalise(reference)
        self.normalise = normalised
        self.words = cache(lambda text: word_errors(target, normalised(text)))
        self.chars = cache(lambda text: char_errors(target, normalised(text)))

    def __call__(self, text: str) -> Errors:
        return Errors(self.words(text), self.chars(text))


def _plus(total: Errors, more: Errors) -> Errors:
    return Errors(total.words + more.words, total.chars + more.chars)


def _rates(errors: Errors, wer_ci95: list[float]) -> dict[str, object]:
    return {
        "wer": errors.words.rate,
        "wer_ci95": wer_ci95,
        "cer": errors.chars.rate,
        "words": asdict(errors.words),
        "characters": asdict(errors.chars),
    }


def _confidence(confidence: Calibration) -> dict[str, object]:
    return {
        "n_words": confidence.n_words,
        "ece": confidence.ece,
        "n_bins": N_BINS,
        "brier": confidence.brier,
        "reliability": [asdict(one) for one in confidence.bins],
    }
