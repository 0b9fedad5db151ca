"""The report's tables: error rates, what changed, confused words, parts by key."""

from __future__ import annotations

from relisten.apps.report.figures import shares_bar, sweep_figures, whisker
from relisten.apps.report.markup import Cell, percent, signed, table, text
from relisten.tasks.evaluation.breakdown import Breakdown, Part
from relisten.tasks.evaluation.confusions import Confusion
from relisten.tasks.evaluation.evaluate import EvaluationReport
from relisten.tasks.evaluation.report import Report

NOTHING = '<span class="none" title="no word">∅</span>'
CHANGE_NAMES = {
    "mended": "mended",
    "broken": "broken",
    "even": "changed, as many errors",
    "right": "unchanged, right",
    "wrong": "unchanged, wrong",
}
FEW = 20
"""Speakers or utterances below which an interval is said to be too narrow."""


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
    rows = []
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


def intervals(evaluation: EvaluationReport) -> str:
    """How the intervals were made, in a sentence or three."""
    n = evaluation.n_resampled
    few = f" With only {n:,} of them, intervals come out too narrow." if n < FEW else ""
    return (
        f"Intervals: bootstrap, {n:,} speakers (where not known: utterances) drawn whole. Those of "
        "two rows may overlap and their difference still be certain: both are of the same speech."
        f"{few}"
    )


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


def changes(report: Report) -> str:
    rows = "".join(
        f'<li><button type="button" class="go" data-filter="{change}">'
        f'<span class="key {change}"></span>{CHANGE_NAMES[change]}</button> <b>{n:,}</b></li>'
        for change, n in report.changes.items()
    )
    return f'{shares_bar(report.changes.items())}<ul class="changes">{rows}</ul>'


def left_out(title: str, why: str) -> str:
    return f'<figure><h3>{title}</h3><p class="note">Left out: {text(why)}.</p></figure>'


def sweep(report: Report) -> str:
    if not report.sweeps:
        why = report.left_out.get("sweep", "no weight differs from 0")
        return f'<p class="note">What each weight does is left out: {text(why)}.</p>'
    other = (
        f" They choose another hypothesis than the file in {report.n_other:,} of "
        f"{report.evaluation.n_utterances:,} utterances, so something else ranked it."
        if report.n_other
        else ""
    )
    return (
        '<p class="note">The WER as one weight varies and the others stay; the dot is its value, '
        f"the thin line a weight of 0. To look at, not to tune by: these are the utterances that "
        f"the result is reported on.{other}</p>"
        f'<div class="figures small">{sweep_figures(report)}</div>'
    )


def confusions(confusions: tuple[Confusion, ...]) -> str:
    if not confusions:
        return '<p class="note">Not one word was confused.</p>'
    rows = [
        (
            f'<button type="button" class="go" data-pair="{place}">'
            f"{_word(one.said)} → {_word(one.heard)}</button>",
            (f"{one.first_pass:,}", one.first_pass),
            (f"{one.rescored:,}", one.rescored),
            (f"{one.mended:,}", one.mended),
            (f"{one.broken:,}", one.broken),
        )
        for place, one in enumerate(confusions)
    ]
    headings = ("Said → heard", "first pass", "rescored", "mended", "broken")
    note = (
        '<p class="note">Mended: wrong in the first pass, right now. Broken: right in the first '
        "pass, wrong now. What is neither became, or was, another error.</p>"
    )
    return note + table("Confused words, the most frequent", headings, rows, "sortable long")


def _word(word: str | None) -> str:
    return NOTHING if word is None else text(word)


def breakdown(of: Breakdown, place: int) -> str:
    """The section of one key; `place` tells its elements from other sections'."""
    headings = (
        text(of.key),
        "utterances",
        "words",
        "first pass, %",
        "rescored, %",
        "saved, points",
        "95 % interval",
    )
    rows = [
        (
            f'<button type="button" class="go" data-key="{place}" data-value="{n}">'
            f"{text(part.value)}</button>",
            *_numbers(part),
        )
        for n, part in enumerate(of.parts)
    ]
    body = table(f"Word error rates by {of.key}", headings, rows, "sortable long")
    return (
        f'<section aria-labelledby="by-{place}"><h2 id="by-{place}">By {text(of.key)}</h2>'
        f"{body}</section>"
    )


def _numbers(part: Part) -> tuple[Cell, ...]:
    before, after = part.first_pass.rate, part.rescored.rate
    gain = part.gain
    interval: Cell = "too few"
    if gain:
        interval = (f"{signed(gain.absolute_low)} to {signed(gain.absolute_high)}", gain.absolute)
    return (
        (f"{part.n_utterances:,}", part.n_utterances),
        (f"{part.first_pass.n_reference:,}", part.first_pass.n_reference),
        (percent(before), before),
        (percent(after), after),
        (signed(before - after), before - after),
        interval,
    )
