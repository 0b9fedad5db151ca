"""A report as one HTML file: no network, no library, light or dark as the reader's system is."""

from __future__ import annotations

import importlib.resources
from string import Template

from relisten.apps.report import sections
from relisten.apps.report.figures import confidence_figure, oracle_figure, reliability_figure
from relisten.apps.report.markup import data, percent, plain, safe, signed, text
from relisten.tasks.evaluation.breakdown import UNKNOWN
from relisten.tasks.evaluation.evaluate import EvaluationReport
from relisten.tasks.evaluation.report import Report


def render(report: Report, source: str) -> str:
    """The page. `source` names what was evaluated."""
    evaluation = report.evaluation
    by = enumerate(evaluation.by)
    return Template(_file("page.html")).substitute(
        style=_file("style.css"),
        script=_file("script.js"),
        title=plain(f"{source}: {percent(evaluation.rescored.words.rate, 1)} % WER"),
        source=text(source),
        about=_about(evaluation),
        verdict=_verdict(evaluation),
        tiles=_tiles(report),
        rates=sections.rates(evaluation),
        kinds=sections.kinds(evaluation),
        intervals=sections.intervals(evaluation),
        changes=sections.changes(report),
        oracle=oracle_figure(evaluation),
        confidence=(
            confidence_figure(report.confidence)
            if report.confidence
            else sections.left_out("Where the gain is", report.left_out["confidence"])
        ),
        reliability=reliability_figure(evaluation.confidence),
        sweep=sections.sweep(report),
        confusions=sections.confusions(report.confusions),
        breakdowns="".join(sections.breakdown(one, place) for place, one in by),
        normaliser=evaluation.normaliser,
        data=data(_utterances(report)),
        lists="\n".join(safe(row.hypotheses) for row in report.utterances),
    )


def _file(name: str) -> str:
    return (importlib.resources.files("relisten.apps.report") / name).read_text("utf-8")


def _utterances(report: Report) -> dict[str, object]:
    """What the script lists: of each utterance its id, labels, words in columns, errors of the
    best on its list and confidence. A column whose words are all the same is that word alone."""
    named = [one.key for one in report.evaluation.by]
    places = [report.keys.index(key) for key in named]
    rows = [
        (
            row.id,
            [row.labels[place] for place in places],
            [words[0] if len(set(words)) == 1 else words for words in row.columns],
            row.oracle_errors,
            None if row.confidence is None else round(row.confidence, 3),
        )
        for row in report.utterances
    ]
    pairs = [(one.said, one.heard) for one in report.confusions]
    return {
        "keys": named,
        "values": [[part.value for part in one.parts] for one in report.evaluation.by],
        "components": report.components,
        "pairs": pairs,
        "rows": rows,
    }


def _about(evaluation: EvaluationReport) -> str:
    facts = [f"{evaluation.n_utterances:,} utterances", f"{evaluation.n_words:,} words"]
    for one in evaluation.by:
        if one.key == "speaker":
            n_known = sum(part.value != UNKNOWN for part in one.parts)
            facts.append(f"{n_known:,} speakers")
    if evaluation.refused:
        facts.append(f"{len(evaluation.refused):,} without a reference, left out")
    return " · ".join([*facts, f"normaliser {evaluation.normaliser}"])


def _verdict(evaluation: EvaluationReport) -> str:
    """One sentence that says no more than the interval does."""
    low, high = evaluation.relative_reduction_ci95
    first, rescored = evaluation.first_pass.words.rate, evaluation.rescored.words.rate
    way = "fewer"
    if rescored > first:
        way, low, high = "more", -high, -low
    interval = f"95 % interval {signed(low, 1)} to {signed(high, 1)} %"
    rates = f"{percent(rescored)} % instead of {percent(first)} %"
    change = f"{percent(abs(evaluation.relative_reduction), 1)} % {way} word errors"
    if low > 0:
        said = f"The second pass makes <b>{change}</b> ({interval}): {rates}."
    elif first == rescored:
        said = f"The second pass leaves the word error rate at {percent(first)} % ({interval})."
    else:
        said = f"<b>No difference is certain</b>: {change}, {rates}, but the {interval} holds zero."
    return said.replace(" %", "\u00a0%")


def _tiles(report: Report) -> str:
    """The four numbers to remember."""
    evaluation, changes = report.evaluation, report.changes
    tiles = [
        ("first pass", percent(evaluation.first_pass.words.rate), "% WER"),
        ("rescored", percent(evaluation.rescored.words.rate), "% WER"),
        ("oracle", percent(evaluation.oracle.rate), "% WER"),
        ("mended : broken", f"{changes['mended']:,} : {changes['broken']:,}", "utterances"),
    ]
    boxes = "".join(
        f"<div><dt>{name}</dt><dd>{number} <small>{unit}</small></dd></div>"
        for name, number, unit in tiles
    )
    return f'<dl class="tiles">{boxes}</dl>'
