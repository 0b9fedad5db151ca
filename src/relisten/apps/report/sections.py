"""The report's tables: error rates, effects of rescoring, confused words, errors by key."""

from __future__ import annotations

from relisten.apps.report.figures import shares_bar, sweep_figures, whisker
from relisten.apps.report.markup import Cell, percent, signed, table, text
from relisten.tasks.evaluation.analysis import ErrorAnalysis
from relisten.tasks.evaluation.breakdown import Breakdown, SubsetErrors
from relisten.tasks.evaluation.confusions import Confusion
from relisten.tasks.evaluation.evaluate import EvaluationReport

NO_WORD = '<span class="none" title="no word">∅</span>'
EFFECT_NAMES = {
    "improved": "improved",
    "worsened": "worse",
    "changed": "changed, as many errors",
    "correct": "unchanged, correct",
    "wrong": "unchanged, wrong",
}
FEW = 20
"""Speakers or utterances: with fewer, the page says that intervals are too narrow."""


def rates(evaluation: EvaluationReport) -> str:
    merged = evaluation.merged
    choices = [
        ("first pass", "first_pass", evaluation.first_pass.words, evaluation.first_pass.chars.rate),
        *([("merged", "merged", merged.words, merged.chars.rate)] if merged else []),
        ("rescored", "rescored", evaluation.rescored.words, evaluation.rescored.chars.rate),
        ("oracle", "oracle", evaluation.oracle, None),
    ]
    bounds = [bound for _, name, _, _ in choices for bound in evaluation.wer_ci95[name]]
    shown = (min(bounds), max(bounds))
    rows = [
        (f"{text(name)} alone", f"<b>{percent(one.words.rate)}</b>", "", "", "")
        for name, one in evaluation.systems.items()
    ]
    for label, name, words, cer in choices:
        low, high = evaluation.wer_ci95[name]
        rows.append(
            (
                label,
                f"<b>{percent(words.rate)}</b>",
                f"{percent(low)} to {percent(high)}",
                whisker((low, high), words.rate, shown),
                percent(cer) if cer is not None else "",
            )
        )
    headings = (
        "Choice",
        "WER, %",
        "95 % interval",
        '<span class="hidden">Interval, drawn</span>',
        "CER, %",
    )
    return table("Word and character error rates of each choice", headings, rows, "rates")


def against_systems(evaluation: EvaluationReport) -> str:
    """What combining gained over the best single system; nothing where no lists were combined."""
    if not evaluation.systems:
        return ""
    name, best = next(iter(evaluation.systems.items()))
    low, high = best.relative_reduction_ci95
    return (
        f" Rescored is {signed(best.relative_reduction, 1)} % below the best single system, "
        f"{text(name)} (95 % interval {signed(low, 1)} to {signed(high, 1)} %)."
    )


def intervals(evaluation: EvaluationReport) -> str:
    """How the intervals were computed, in two or three sentences."""
    n = evaluation.n_resampled
    few = f" With only {n:,} of them, intervals are too narrow." if n < FEW else ""
    return (
        f"Intervals: bootstrap over {n:,} speakers (where unknown: utterances). Those of two rows "
        "may overlap although their difference is certain, since both are of the same speech."
        f"{few}{against_systems(evaluation)}"
    )


def training(evaluation: EvaluationReport) -> str:
    """What the models have seen in training, and the rates without that; "" where none says."""
    sentences = evaluation.training.sentences()
    if (new := evaluation.new_references) is not None:
        sentences.append(
            f"without these references: first pass {percent(new.first_pass.rate)} %, rescored "
            f"{percent(new.rescored.rate)} %"
        )
    return "".join(f'<p class="note">{text(sentence)}.</p>' for sentence in sentences)


def kinds(evaluation: EvaluationReport) -> str:
    first, rescored = evaluation.first_pass.words, evaluation.rescored.words
    rows = [
        _before_after(kind, getattr(first, kind), getattr(rescored, kind))
        for kind in ("substitutions", "deletions", "insertions")
    ]
    rows.append(_before_after("all", first.errors, rescored.errors))
    headings = ("Kind", "first pass", "rescored", "change")
    return table("Substitutions, deletions and insertions", headings, rows, "kinds")


def _before_after(kind: str, before: int, after: int) -> tuple[str, str, str, str]:
    change = f"{after - before:+,}".replace("-", "−") if after != before else "0"
    return kind, f"{before:,}", f"{after:,}", change


def effects(analysis: ErrorAnalysis) -> str:
    rows = "".join(
        f'<li><button type="button" class="go" data-filter="{effect}">'
        f'<span class="key {effect}"></span>{EFFECT_NAMES[effect]}</button> <b>{n:,}</b></li>'
        for effect, n in analysis.effects.items()
    )
    return f'{shares_bar(analysis.effects.items())}<ul class="effects">{rows}</ul>'


def left_out(title: str, why: str) -> str:
    return f'<figure><h3>{title}</h3><p class="note">Left out: {text(why)}.</p></figure>'


def sweep(analysis: ErrorAnalysis) -> str:
    if not analysis.sweeps:
        why = analysis.left_out.get("sweep", "no weight differs from 0")
        return f'<p class="note">The effect of each weight is left out: {text(why)}.</p>'
    other = (
        f" They choose another hypothesis than the file in {analysis.n_other:,} of "
        f"{analysis.evaluation.n_utterances:,} utterances, so something else ranked it."
        if analysis.n_other
        else ""
    )
    return (
        '<p class="note">The WER as one weight varies and the others stay; the dot is its value, '
        f"the thin line a weight of 0. Not for tuning: these are the utterances that the result is "
        f"reported on.{other}</p>"
        f'<div class="figures small">{sweep_figures(analysis)}</div>'
    )


def confusions(confusions: tuple[Confusion, ...]) -> str:
    if not confusions:
        return '<p class="note">No word was confused.</p>'
    rows = [
        (
            f'<button type="button" class="go" data-pair="{place}">'
            f"{_word(one.reference)} → {_word(one.hypothesis)}</button>",
            (f"{one.first_pass:,}", one.first_pass),
            (f"{one.rescored:,}", one.rescored),
            (f"{one.corrected:,}", one.corrected),
            (f"{one.introduced:,}", one.introduced),
        )
        for place, one in enumerate(confusions)
    ]
    headings = ("Reference → hypothesis", "first pass", "rescored", "corrected", "introduced")
    note = (
        '<p class="note">Corrected: wrong in the first pass, right after rescoring. Introduced: '
        "right in the first pass, wrong after rescoring. The rest are other errors, before or "
        "after.</p>"
    )
    return note + table("Confused words, the most frequent", headings, rows, "sortable long")


def _word(word: str | None) -> str:
    return NO_WORD if word is None else text(word)


def breakdown(of: Breakdown, place: int) -> str:
    """The section of one key; `place` is its number, unique in the ids of the page."""
    headings = (
        text(of.key),
        "utterances",
        "words",
        "first pass, %",
        "rescored, %",
        "reduction, points",
        "95 % interval",
    )
    rows = [
        (
            f'<button type="button" class="go" data-key="{place}" data-value="{n}">'
            f"{text(subset.value)}</button>",
            *_numbers(subset),
        )
        for n, subset in enumerate(of.subsets)
    ]
    body = table(f"Word error rates by {of.key}", headings, rows, "sortable long")
    return (
        f'<section aria-labelledby="by-{place}"><h2 id="by-{place}">By {text(of.key)}</h2>'
        f"{body}</section>"
    )


def _numbers(subset: SubsetErrors) -> tuple[Cell, ...]:
    before, after = subset.first_pass.rate, subset.rescored.rate
    gain = subset.gain
    interval: Cell = "too few"
    if gain:
        interval = (f"{signed(gain.absolute_low)} to {signed(gain.absolute_high)}", gain.absolute)
    return (
        (f"{subset.n_utterances:,}", subset.n_utterances),
        (f"{subset.first_pass.n_reference:,}", subset.first_pass.n_reference),
        (percent(before), before),
        (percent(after), after),
        (signed(before - after), before - after),
        interval,
    )
