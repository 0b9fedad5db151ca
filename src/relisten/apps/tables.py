"""The tables that commands print: error rates, weights, codebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from relisten.apps.terminal import cell, printable, rate_text
from relisten.core.types import FIRST_PASS_CHOICE

if TYPE_CHECKING:
    from relisten.core.bootstrap import BootstrapInterval
    from relisten.core.calibration import Calibration
    from relisten.core.error_rates import ErrorCounts
    from relisten.core.tune import TuningResult
    from relisten.tasks.codebook import CodebookReport
    from relisten.tasks.evaluation.breakdown import Breakdown
    from relisten.tasks.evaluation.evaluate import EvaluationReport
    from relisten.tasks.learning.outcome import LearningReport

ORACLES_SHOWN = (2, 5, 10, 20, 50)
SUBSETS_SHOWN = 20


def print_evaluation(report: EvaluationReport) -> None:
    """The report as a table on standard output."""
    table = Table(
        title=f"{report.n_utterances:,} utterances, {report.n_words:,} words, "
        f"normaliser {report.normaliser}"
    )
    table.add_column("choice")
    for heading in ("WER", "sub", "del", "ins", "CER"):
        table.add_column(heading, justify="right")
    for name, system in report.systems.items():
        partial = system.n_utterances < report.n_utterances
        of = f", {system.n_utterances:,} utterances" if partial else ""
        table.add_row(cell(f"{name} alone{of}"), *_counts(system.words))
    for name, errors in (
        ("first pass", report.first_pass),
        ("merged, length weight", report.merged),
        ("rescored", report.rescored),
    ):
        if errors is not None:
            table.add_row(name, *_counts(errors.words), rate_text(errors.chars.rate))
    n_best = len(report.oracle_wer_at)
    for n in (n for n in ORACLES_SHOWN if n < n_best):
        table.add_row(f"oracle of {n}", rate_text(report.oracle_wer_at[n - 1]))
    table.add_row(f"oracle of {n_best}", *_counts(report.oracle))
    console = Console()
    console.print(table)
    low, high = report.relative_reduction_ci95
    lines = [
        f"rescored below first pass: {report.relative_reduction:+.1%} relative, "
        f"95 % interval [{low:+.1%}, {high:+.1%}]",
        f"utterances with fewer errors than the first pass {report.share_better:.1%}, with more "
        f"{report.share_worse:.1%}",
    ]
    if report.systems:
        name, best = next(iter(report.systems.items()))
        low, high = best.relative_reduction_ci95
        lines.insert(
            0,
            f"rescored below the best single system, {name}: {best.relative_reduction:+.1%} "
            f"relative, 95 % interval [{low:+.1%}, {high:+.1%}]",
        )
    if report.confidence is not None:
        one = report.confidence
        lines.append(f"word confidence, {one.n_words:,} words: {_calibration(one)}")
    lines += report.training.sentences()
    if (new := report.new_references) is not None:
        rates = f"first pass {new.first_pass.rate:.2%}, rescored {new.rescored.rate:.2%}"
        lines.append(f"without these references: {rates}{_relative_interval(new.gain)}")
    _print_lines(console, lines)
    for breakdown in report.by:
        console.print(_subsets(breakdown))


def _relative_interval(gain: BootstrapInterval | None) -> str:
    """The end of a sentence; "" where there is too little for an interval."""
    if gain is None:
        return ""
    interval = f"[{gain.relative_low:+.1%}, {gain.relative_high:+.1%}]"
    return f", {gain.relative:+.1%} relative, 95 % interval {interval}"


def _print_lines(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def _subsets(breakdown: Breakdown) -> Table:
    """The subsets with the most words, in their order."""
    largest = sorted(breakdown.subsets, key=lambda subset: -subset.first_pass.n_reference)
    shown = [subset for subset in breakdown.subsets if subset in largest[:SUBSETS_SHOWN]]
    n_more = len(breakdown.subsets) - len(shown)
    table = Table(caption=f"and {n_more:,} smaller ones: --json or --html" if n_more else None)
    table.add_column(cell(breakdown.key))
    for heading in ("utterances", "words", "first pass", "rescored"):
        table.add_column(heading, justify="right")
    for subset in shown:
        counts = (f"{subset.n_utterances:,}", f"{subset.first_pass.n_reference:,}")
        rates = (rate_text(subset.first_pass.rate), rate_text(subset.rescored.rate))
        table.add_row(cell(subset.value), *counts, *rates)
    return table


def print_tuning(result: TuningResult, to_stderr: bool = False, always: bool = False) -> None:
    """Weights and gains, on standard output unless the weights themselves go there.

    always: the weights were kept though no gain is certain.
    """
    console = Console(stderr=to_stderr)
    weights = Table(title=f"weights tuned on {result.n_utterances:,} utterances")
    weights.add_column("score")
    weights.add_column("weight", justify="right")
    weights.add_column("95 % interval", justify="right")
    domains = result.weights.domains
    for domain in domains:
        weights.add_column(cell(domain), justify="right")
    for component, weight in result.weights.values.items():
        low, high = result.intervals.get(component, (weight, weight))
        own = (f"{domains[domain][component]:.4f}" for domain in domains)
        interval = f"[{low:.4f}, {high:.4f}]" if low < high else "fixed"
        weights.add_row(cell(component), f"{weight:.4f}", interval, *own)
    console.print(weights)
    rates = Table(title=f"word error rate, normaliser {result.weights.normaliser}")
    rates.add_column("choice")
    rates.add_column("WER", justify="right")
    rates.add_row("first pass", f"{result.first_pass_wer:.2%}")
    for system, rate in sorted(result.system_wers.items(), key=lambda one: one[1]):
        rates.add_row(cell(f"{system} alone"), f"{rate:.2%}")
    if not result.system_wers:
        rates.add_row("best without a language model", f"{result.baseline_wer:.2%}")
    rates.add_row(
        f"tuned, cross-validated ({result.n_folds} folds)", f"{result.cross_validated_wer:.2%}"
    )
    rates.add_row("tuned, on the same utterances (optimistic)", f"{result.fitted_wer:.2%}")
    console.print(rates)
    gain = result.gain
    fitted = (result.baseline_wer - result.fitted_wer) * 100
    lines = [
        f"fitted gain {fitted:+.2f} points (optimistic)",
        f"cross-validated gain {gain.absolute * 100:+.2f} points, 95 % interval "
        f"[{gain.absolute_low * 100:+.2f}, {gain.absolute_high * 100:+.2f}], "
        f"{gain.relative:+.1%} relative",
    ]
    if not result.is_gain_certain:
        lines.append("the interval contains zero: more development data is needed to be certain")
    lines += _domain_lines(result) + result.training.sentences()
    if (new := result.new_references) is not None:
        lines.append(
            f"without these references, {new.n_utterances:,} utterances: first pass "
            f"{new.first_pass_wer:.2%}, tuned {new.cross_validated_wer:.2%}, gain "
            f"{new.gain.absolute * 100:+.2f} points, 95 % interval "
            f"[{new.gain.absolute_low * 100:+.2f}, {new.gain.absolute_high * 100:+.2f}]"
        )
    confidence = result.confidence
    if confidence.before is not None and confidence.after is not None:
        lines.append(
            f"word confidence, cross-validated: {_calibration(confidence.after)}; "
            f"without temperature {confidence.temperature:.3g} and ceiling "
            f"{confidence.ceiling:.3f}: {_calibration(confidence.before)}"
        )
    if FIRST_PASS_CHOICE in result.weights.values:
        lines.append(
            f"{FIRST_PASS_CHOICE}: another hypothesis overrules the first pass where it wins by "
            "more than this"
        )
    lines.append(_kept_line(result, always))
    if result.left_out:
        lines.append(f"left out, since some hypotheses lack them: {', '.join(result.left_out)}")
    _print_lines(console, lines)


def _kept_line(result: TuningResult, always: bool) -> str:
    """Whether the weights, or the first pass, were written, and why."""
    [name] = result.fallback.values
    kept = "the first pass"
    if name != FIRST_PASS_CHOICE:
        kept = f"the best single system, {name.partition('.')[2]}"
    gain = result.fallback_gain
    interval = (
        f"{gain.absolute * 100:+.2f} points, 95 % interval [{gain.absolute_low * 100:+.2f}, "
        f"{gain.absolute_high * 100:+.2f}]"
    )
    if not result.is_kept:
        return f"cross-validated below {kept}: {interval}"
    if always:
        return f"no gain over {kept} is certain: {interval}; the weights were written all the same"
    return (
        f"no gain over {kept} is certain: {interval}; so it stays the choice, and the weights "
        "written say so; write the tuned ones with --always"
    )


def _domain_lines(result: TuningResult) -> list[str]:
    """The gain of weights by domain, where they were asked for."""
    domains = result.domains
    if domains is None:
        return []
    sizes = ", ".join(f"{name} ({n:,})" for name, n in domains.n_utterances.items())
    gain = domains.gain
    lines = [
        f"weights by {domains.key!r}, cross-validated WER {domains.cross_validated_wer:.2%}: gain "
        f"over the shared ones {gain.absolute * 100:+.2f} points, 95 % interval "
        f"[{gain.absolute_low * 100:+.2f}, {gain.absolute_high * 100:+.2f}]; {sizes}"
    ]
    if not domains.values:
        lines.append("the shared weights are as good for every domain: no others are kept")
    else:
        lines.append(
            f"own weights count n / (n + {domains.strength:g}), n being the domain's utterances"
        )
    return lines


def _calibration(one: Calibration) -> str:
    return f"ECE {one.ece:.3f} (10 bins), Brier {one.brier:.3f}"


def print_codebook(report: CodebookReport) -> None:
    """The codebook's size, and the result of the probe where there is one."""
    codebook = report.codebook
    click.echo(
        f"{codebook.levels} x {codebook.n_units} units of {codebook.unit_s * 1000:.0f} ms from "
        f"{report.n_done:,} recordings, frames of {codebook.encoder_id}"
    )
    if report.frames is None or report.codes is None:
        click.echo("not probed: too few words with a reference and word times")
        return
    table = Table(title=f"nats per word, {report.frames.n_words:,} words of unseen speakers")
    table.add_column("features")
    for heading in ("right recording", "wrong recording", "words right"):
        table.add_column(heading, justify="right")
    for name, result in (("continuous frames", report.frames), ("codes", report.codes)):
        rates = (f"{result.right:.2f}", f"{result.wrong:.2f}", f"{result.accuracy:.1%}")
        table.add_row(name, *rates)
    table.add_row("none (unigram)", f"{report.frames.unigram:.2f}")
    Console().print(table)


def _counts(counts: ErrorCounts) -> tuple[str, str, str, str]:
    kinds = (counts.substitutions, counts.deletions, counts.insertions)
    return rate_text(counts.rate), *(f"{n:,}" for n in kinds)


def print_learning(report: LearningReport, bundle: str) -> None:
    """What `learn` found, as a table on standard output, and what to do next."""
    table = Table(
        title=f"{report.n_utterances:,} utterances of held-out speech, {report.n_words:,} words, "
        f"{report.n_groups:,} speakers or recordings"
    )
    table.add_column("choice")
    for heading in ("WER", "below the first pass", "95 % interval"):
        table.add_column(heading, justify="right")
    if report.n_seen:
        table.add_column("new texts", justify="right")
    for choice in report.choices:
        gain = choice.gain
        cells = [rate_text(choice.wer), "", ""]
        if gain is not None:
            interval = f"[{gain.relative_low:+.1%}, {gain.relative_high:+.1%}]"
            cells = [rate_text(choice.wer), f"{gain.relative:+.1%}", interval]
        if report.n_seen:
            cells.append(rate_text(choice.unseen_wer))
        table.add_row(choice.name, *cells)
    table.add_row("best of each list (oracle)", rate_text(report.oracle_wer))
    console = Console()
    console.print(table)
    one = report.over_adapted
    lines = [
        f"the bundle below the fine-tuned recogniser alone: {one.relative:+.1%} "
        f"[{one.relative_low:+.1%}, {one.relative_high:+.1%}]",
        f"utterances with fewer errors than the first pass: {report.better:.1%}, with more: "
        f"{report.worse:.1%}",
        "seconds of work per second of speech: "
        + ", ".join(f"{name} {factor:.2f}" for name, factor in report.real_time_factors.items()),
    ]
    lines += [
        f"with {point.duration_s / 3600:.2f} h of the speech: {rate_text(point.wer)} (recogniser "
        f"alone {rate_text(point.adapted_wer)})"
        for point in report.curve
    ]
    if report.n_seen:
        lines.append(
            f"{report.n_seen:,} of these texts were also learnt from; 'new texts' leaves them out"
        )
    if report.n_strange:
        lines.append(
            f"{report.n_strange:,} of these utterances seemed to be of other speech, and were "
            "ranked with the weights of the bundle started from"
        )
    if report.is_certain:
        lines.append(f"use it: relisten transcribe RECORDING --model {bundle}")
    else:
        lines.append("keep what you have: no gain over the first pass is certain")
    _print_lines(console, lines)
