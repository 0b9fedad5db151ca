"""The error analysis as one HTML file: no network, no library, light or dark like the system."""

from __future__ import annotations

import importlib.resources
from string import Template

from relisten.apps.report import sections
from relisten.apps.report.figures import confidence_figure, oracle_figure, reliability_figure
from relisten.apps.report.markup import data, percent, plain, safe, signed, text
from relisten.tasks.evaluation.analysis import ErrorAnalysis
from relisten.tasks.evaluation.breakdown import UNKNOWN
from relisten.tasks.evaluation.evaluate import EvaluationReport


def render(analysis: ErrorAnalysis, source: str) -> str:
    """The page. `source` names what was evaluated."""
    evaluation = analysis.evaluation
    by = enumerate(evaluation.by)
    return Template(_file("page.html")).substitute(
        style=_file("style.css"),
        script=_file("script.js"),
        title=plain(f"{source}: {percent(evaluation.rescored.words.rate, 1)} % WER"),
        source=text(source),
        about=_about(evaluation),
        verdict=_verdict(evaluation),
        tiles=_tiles(analysis),
        rates=sections.rates(evaluation),
        kinds=sections.kinds(evaluation),
        intervals=sections.intervals(evaluation),
        training=sections.training(evaluation),
        effects=sections.effects(analysis),
        oracle=(
            oracle_figure(evaluation)
            if evaluation.n_words
            else sections.left_out("Oracle error rate of the lists", "the references have no words")
        ),
        confidence=(
            confidence_figure(analysis.confidence)
            if analysis.confidence
            else sections.left_out(
                "By the first pass's confidence", analysis.left_out["confidence"]
            )
        ),
        reliability=reliability_figure(evaluation.confidence),
        sweep=sections.sweep(analysis),
        confusions=sections.confusions(analysis.confusions),
        breakdowns="".join(sections.breakdown(one, place) for place, one in by),
        normaliser=evaluation.normaliser,
        data=data(_utterances(analysis)),
        lists="\n".join(safe(row.hypotheses) for row in analysis.utterances),
    )


def _file(name: str) -> str:
    return (importlib.resources.files("relisten.apps.report") / name).read_text("utf-8")


def _utterances(analysis: ErrorAnalysis) -> dict[str, object]:
    """The data of the page's script: of each utterance its id, labels, words in columns, errors of
    the best on its list and confidence. A column of equal words is that word alone."""
    named = [one.key for one in analysis.evaluation.by]
    places = [analysis.keys.index(key) for key in named]
    rows = [
        (
            row.id,
            [row.labels[place] for place in places],
            [words[0] if len(set(words)) == 1 else words for words in row.columns],
            row.oracle_errors,
            None if row.confidence is None else round(row.confidence, 3),
        )
        for row in analysis.utterances
    ]
    pairs = [(one.reference, one.hypothesis) for one in analysis.confusions]
    return {
        "keys": named,
        "values": [[subset.value for subset in one.subsets] for one in analysis.evaluation.by],
        "components": analysis.components,
        "pairs": pairs,
        "rows": rows,
    }


def _about(evaluation: EvaluationReport) -> str:
    facts = [f"{evaluation.n_utterances:,} utterances", f"{evaluation.n_words:,} words"]
    for one in evaluation.by:
        if one.key == "speaker":
            n_known = sum(subset.value != UNKNOWN for subset in one.subsets)
            facts.append(f"{n_known:,} speakers")
    if evaluation.refused:
        facts.append(f"{len(evaluation.refused):,} left out: no reference, or learnt from")
    return " · ".join([*facts, f"normaliser {evaluation.normaliser}"])


def _verdict(evaluation: EvaluationReport) -> str:
    """One sentence that claims no more than the interval allows."""
    low, high = evaluation.relative_reduction_ci95
    first, rescored = evaluation.first_pass.words.rate, evaluation.rescored.words.rate
    way = "fewer"
    if rescored > first:
        way, low, high = "more", -high, -low
    interval = f"95 % interval {signed(low, 1)} to {signed(high, 1)} %"
    rates = f"{percent(rescored)} % instead of {percent(first)} %"
    difference = f"{percent(abs(evaluation.relative_reduction), 1)} % {way} word errors"
    if low > 0:
        verdict = f"The second pass makes <b>{difference}</b> ({interval}): {rates}."
    elif first == rescored:
        verdict = f"The second pass leaves the word error rate at {percent(first)} % ({interval})."
    else:
        verdict = (
            f"<b>No difference is certain</b>: {difference}, {rates}, but the {interval} contains "
            "zero."
        )
    return verdict.replace(" %", "\u00a0%")


def _tiles(analysis: ErrorAnalysis) -> str:
    """The four numbers to remember."""
    evaluation, effects = analysis.evaluation, analysis.effects
    tiles = [
        ("first pass", percent(evaluation.first_pass.words.rate), "% WER"),
        ("rescored", percent(evaluation.rescored.words.rate), "% WER"),
        ("oracle", percent(evaluation.oracle.rate), "% WER"),
        ("improved : worse", f"{effects['improved']:,} : {effects['worsened']:,}", "utterances"),
    ]
    boxes = "".join(
        f"<div><dt>{name}</dt><dd>{number} <small>{unit}</small></dd></div>"
        for name, number, unit in tiles
    )
    return f'<dl class="tiles">{boxes}</dl>'
