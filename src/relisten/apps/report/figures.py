"""The report's charts: oracle error rates, errors by confidence, and the effect of each weight."""

from __future__ import annotations

import math
from collections.abc import Iterable

from relisten.apps.report.charts import Plot, padded
from relisten.apps.report.markup import figure, legend, signed, table, text
from relisten.core.calibration import Calibration
from relisten.tasks.evaluation.analysis import ErrorAnalysis
from relisten.tasks.evaluation.confusions import ConfidenceBin
from relisten.tasks.evaluation.evaluate import EvaluationReport
from relisten.tasks.evaluation.sweep import Sweep


def oracle_figure(evaluation: EvaluationReport) -> str:
    """WER of the best of the first n, against n, with those of the first pass and the rescored."""
    rates = [100 * rate for rate in evaluation.oracle_wer_at]
    first, rescored = (
        100 * errors.words.rate for errors in (evaluation.first_pass, evaluation.rescored)
    )
    n = len(rates)
    plot = Plot((1, max(2, n)), padded([*rates, first, rescored]))
    plot.axes("first n hypotheses", "WER, %", [k for k in range(1, n + 1) if _is_shown(k, n)])
    for rate, kind in ((first, "first"), (rescored, "rescored")):
        plot.line([(1, rate), (max(2, n), rate)], kind)
    plot.line(list(enumerate(rates, 1)), "oracle")
    for k, rate in enumerate(rates, 1):
        plot.dot(k, rate, "oracle", f"best of {k}: {rate:.2f} %")
    possible = evaluation.first_pass.words.errors - evaluation.oracle.errors
    won = evaluation.first_pass.words.errors - evaluation.rescored.words.errors
    reading = (
        f"Of the {possible:,} word errors that a perfect choice from these lists would avoid, "
        f"this one avoids {won:,} ({won / possible:.0%})."
        if possible
        else "The lists contain nothing better than the first pass's own choice."
    )
    lines = legend(("first", "first pass"), ("rescored", "rescored"), ("oracle", "oracle of n"))
    numbers = table(
        "WER of the best of the first n hypotheses",
        ("n", "WER, %"),
        [(str(k), f"{rate:.2f}") for k, rate in enumerate(rates, 1)],
    )
    label = f"Oracle WER falls from {rates[0]:.1f} % at one hypothesis to {rates[-1]:.1f} % at {n}"
    return figure("Oracle error rate of the lists", reading, plot.svg(label) + lines, numbers)


def _is_shown(k: int, n: int) -> bool:
    """Whether the n-th tick fits: all up to ten, then every fifth or tenth."""
    return k in (1, n) or (n <= 10) or (k % (5 if n <= 30 else 10) == 0 and n - k > n / 20)


def confidence_figure(bins: tuple[ConfidenceBin, ...]) -> str:
    """Errors before and after in bins of first-pass confidence, the lowest on the left."""
    rates = [[100 * errors / max(1, one.n_words) for errors in _errors(one)] for one in bins]
    plot = Plot((0, len(bins)), (0.0, max(max(pair) for pair in rates) * 1.08 or 1.0))
    plot.axes("first pass's posterior of its own choice", "WER, %", ())
    base = plot.at(0, 0)[1]
    for place, (one, pair) in enumerate(zip(bins, rates, strict=True)):
        for kind, rate, left in (("first", pair[0], 0.12), ("rescored", pair[1], 0.5)):
            title = f"{_range(one)}: {rate:.1f} %, {one.n_utterances:,} utterances"
            plot.bar(place + left, place + left + 0.38, rate, kind, title)
        plot.text(plot.at(place, 0)[0], base + 19, _posterior(one.low), "middle")
    plot.text(plot.at(len(bins), 0)[0], base + 19, _posterior(bins[-1].high), "end")
    saved = [before - after for before, after in map(_errors, bins)]
    unsure = sum(saved[: (len(bins) + 1) // 2])
    reading = (
        f"Errors avoided where the first pass was less confident: {unsure:,}; where it was more "
        f"confident: {sum(saved) - unsure:,}. Each pair of bars is about as many utterances."
    ).replace("-", "−")
    numbers = table(
        "Errors by first-pass posterior",
        ("posterior", "utterances", "words", "first pass, %", "rescored, %", "avoided"),
        [
            (
                _range(one),
                f"{one.n_utterances:,}",
                f"{one.n_words:,}",
                f"{pair[0]:.2f}",
                f"{pair[1]:.2f}",
                f"{before_less_after:+,}".replace("-", "−"),
            )
            for one, pair, before_less_after in zip(bins, rates, saved, strict=True)
        ],
    )
    label = "Word error rate before and after, by first-pass confidence"
    lines = legend(("first block", "first pass"), ("rescored block", "rescored"))
    return figure("By the first pass's confidence", reading, plot.svg(label) + lines, numbers)


def _errors(one: ConfidenceBin) -> tuple[int, int]:
    return one.first_pass_errors, one.rescored_errors


def _range(one: ConfidenceBin) -> str:
    return f"{_posterior(one.low)} to {_posterior(one.high)}"


def _posterior(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1"


def reliability_figure(confidence: Calibration | None) -> str:
    """The share of right words against their confidence; "" where the lists have none."""
    if confidence is None or not confidence.bins:
        return ""
    points = [(one.confidence, one.accuracy) for one in confidence.bins]
    plot = Plot((0.0, 1.0), (0.0, 1.0))
    plot.axes("confidence of a chosen word", "share right")
    plot.line([(0.0, 0.0), (1.0, 1.0)], "ideal")
    plot.line(points, "rescored")
    for x, y in points:
        plot.dot(x, y, "rescored", f"confidence {x:.2f}: {y:.0%} right")
    reading = (
        f"On the dotted line, words of confidence 0.8 are right in 80 %. Expected calibration "
        f"error {confidence.ece:.3f}, over {confidence.n_words:,} words."
    )
    numbers = table(
        "Words by confidence",
        ("mean confidence", "share right", "words"),
        [
            (f"{one.confidence:.3f}", f"{one.accuracy:.3f}", f"{one.n_words:,}")
            for one in confidence.bins
        ],
    )
    label = f"Share of right words by confidence, calibration error {confidence.ece:.3f}"
    return figure("Reliability of word confidence", reading, plot.svg(label), numbers)


def sweep_figures(analysis: ErrorAnalysis) -> str:
    """One small chart per weight, all on one scale of WER that ends above the first pass's."""
    n_words = max(1, analysis.evaluation.n_words)
    rates = [100 * errors / n_words for sweep in analysis.sweeps for errors in sweep.errors]
    here = 100 * analysis.evaluation.first_pass.words.errors / n_words
    y = padded([rate for rate in rates if rate <= 1.25 * max(here, min(rates))])
    return "".join(_sweep_figure(sweep, n_words, y) for sweep in analysis.sweeps)


def _sweep_figure(sweep: Sweep, n_words: int, y: tuple[float, float]) -> str:
    rates = [100 * errors / n_words for errors in sweep.errors]
    here = rates[len(rates) // 2]
    plot = Plot((sweep.weights[0], sweep.weights[-1]), y, height=220)
    plot.axes(f"weight of {sweep.component}", "WER, %")
    without, base = plot.at(0, y[0])
    plot.parts.append(f'<path class="zero" d="M{without} {base}V{plot.at(0, y[1])[1]}"/>')
    plot.line(list(zip(sweep.weights, rates, strict=True)), "rescored")
    plot.dot(sweep.weight, here, "rescored", f"{sweep.weight:.4g}: {here:.2f} %")
    at_zero = min(range(len(rates)), key=lambda place: abs(sweep.weights[place]))
    reading = f"{sweep.weight:.4g} → {here:.2f} %; near 0 → {rates[at_zero]:.2f} %".replace(
        "-", "−"
    )
    numbers = table(
        f"WER by the weight of {sweep.component}",
        ("weight", "WER, %", "change"),
        [
            (f"{weight:.4g}".replace("-", "−"), f"{rate:.2f}", signed((rate - here) / 100))
            for weight, rate in zip(sweep.weights[::4], rates[::4], strict=True)
        ],
    )
    label = f"WER as the weight of {sweep.component} varies, {reading}"
    return figure(f"<code>{text(sweep.component)}</code>", reading, plot.svg(label), numbers)


def whisker(interval: tuple[float, float], rate: float, shown: tuple[float, float]) -> str:
    """A dot with its interval on a scale that the rows of a table share; `shown` is its range.

    "" where one of the numbers is not finite.
    """
    if not all(map(math.isfinite, (*interval, rate, *shown))):
        return ""
    low, at, high = (
        round(4 + 92 * (value - shown[0]) / ((shown[1] - shown[0]) or 1), 1)
        for value in (interval[0], rate, interval[1])
    )
    return (
        '<svg class="whisker" viewBox="0 0 100 18" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="M{low} 9H{high}M{low} 5v8M{high} 5v8"/><path class="at" d="M{at} 9h0"/></svg>'
    )


def shares_bar(parts: Iterable[tuple[str, int]]) -> str:
    """One bar divided by counts, (class, count) each; the numbers are beside it."""
    blocks = "".join(
        f'<span class="{kind}" style="flex-grow:{n}"></span>' for kind, n in parts if n
    )
    return f'<div class="shares" aria-hidden="true">{blocks}</div>'
