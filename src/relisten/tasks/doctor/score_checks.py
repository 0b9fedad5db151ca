"""Are the scores what they should be: natural logarithms of the probabilities of whole texts?

The thresholds are at the top; docs/doctor.md names the data that they were set on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import numpy as np

from relisten.core.agreement import is_agreement
from relisten.core.arrays import FloatArray
from relisten.core.list_statistics import IntervalEstimate, agreement, elasticity, exponent
from relisten.core.scored_lists import PLACEHOLDER, speaker_groups
from relisten.core.types import ASR, COMPONENTS, CONTEXT, LM_COMPONENTS, NBest
from relisten.tasks.doctor.checks import Check, Lists, Status

MANY_EQUAL = 0.5  # of the lists with two different texts
SORTED = 0.1  # agreement of scores with the order of the list, above or below 0.5
TELLING = 0.05  # the same of scores with fewer errors: 0.22 to 0.24 in Whisper's beams
IMPOSSIBLE = 1.05  # exponent: 1 is the limit, the rest is for rounding and half precision
MANY_IMPOSSIBLE = 0.05  # of the lists
AVERAGED = 0.25  # elasticity of the exponent: -0.13 and -0.06 in sums, 0.6 to 0.8 in averages
USUAL = 0.3  # least median exponent of natural logs; 0.42 and 0.59 in Whisper's beams
STEEP = 0.05  # 95th percentile of the exponent: one hypothesis has all of the probability
GROWS = 0.5  # elasticity of a language model's score: 1 in sums, 0 in averages
MIN_GROUPS = 10  # speakers, or lists where unknown: with fewer no growth is called broken
LN10 = float(np.log(10))

Trend = Literal["up", "none", "down", "unknown"]


def check_presence(lists: Lists) -> Check:
    """Does every hypothesis have its scores, and are they real ones?"""
    hypotheses = [h for one in lists.utterances for h in one.hypotheses]
    counts = Counter(name for h in hypotheses for name in h.scores)
    n_all = len(hypotheses)
    partial = sorted(name for name, n in counts.items() if n < n_all)
    statistics = {f"share_with_{component}": n / n_all for component, n in counts.items()}
    placeholders = Counter(
        name for h in hypotheses for name, score in h.scores.items() if abs(score) >= PLACEHOLDER
    )
    if placeholders:
        names = ", ".join(f"`{name}` {n:,} times" for name, n in sorted(placeholders.items()))
        finding = f"{names} is no log-probability: {PLACEHOLDER:g} or more in size"
        meaning = "placeholders in the place of missing scores"
        remedy = "export the real scores, or drop the hypotheses without"
        return Check("scores present", "broken", finding, meaning, remedy, statistics)
    if ASR in partial:
        finding = f"{n_all - counts[ASR]:,} of {n_all:,} hypotheses have no `asr`"
        remedy = "export the lists again, or drop the hypotheses without"
        return Check("scores present", "broken", finding, "scores are missing", remedy, statistics)
    whole = sorted((n for n in counts if n not in partial), key=lambda n: n != ASR)
    finding = f"all {n_all:,} hypotheses have {', '.join(whole) or 'none'}"
    if partial:
        meaning = f"some lack {', '.join(partial)}, which therefore cannot be tuned"
        remedy = f"relisten score FILE -o SCORED --components {','.join(partial)}"
        return Check("scores present", "look here", finding, meaning, remedy, statistics)
    if ASR not in counts and not any(is_agreement(name) for name in whole):
        meaning = "the first pass's own score is not known"
        remedy = "export the recogniser's scores as `asr`, or tune weights that leave it out"
        return Check("scores present", "look here", finding, meaning, remedy, statistics)
    return Check("scores present", "ok", finding, statistics=statistics)


def check_equal(lists: Lists) -> Check | None:
    """Do first-pass scores differ between hypotheses? None where there are none."""
    share = _share_of_equal(lists, ASR)
    if share is None:
        return None
    finding = f"all `asr` scores are equal in {share:.1%} of the lists with different texts"
    statistics = {"share_of_equal": share}
    if share < MANY_EQUAL:
        return Check("scores differ", "ok", finding, statistics=statistics)
    meaning, remedy = "they cannot rank hypotheses", "export each hypothesis's own score"
    return Check("scores differ", "broken", finding, meaning, remedy, statistics)


def _share_of_equal(lists: Lists, component: str) -> float | None:
    """The share of lists with equal scores, of those with two different texts; None without."""
    scored = lists.scored(component)
    equal = [
        values.min() == values.max() for one, values in scored if len(set(lists.texts(one))) > 1
    ]
    return float(np.mean(equal)) if equal else None


def check_direction(lists: Lists) -> Check | None:
    """Are higher scores better, and do they follow the list? None without first-pass scores."""
    scored = lists.scored(ASR)
    if not scored:
        return None
    values = [one for _, one in scored]
    by_place = agreement(values, [np.arange(len(one)) for one in values])
    known = [(one, row) for one, row in scored if one.reference is not None]
    errors = [lists.errors(one) for one, _ in known]
    by_errors = agreement([row for _, row in known], errors)
    places = agreement([-np.arange(len(row), dtype=np.float64) for _, row in known], errors)
    positive = float(np.mean(np.concatenate(values) > 0))
    statistics = {
        "agreement_with_order": by_place.value,
        "agreement_with_fewer_errors": by_errors.value,
        "order_with_fewer_errors": places.value,
        "share_of_positive": positive,
    }
    finding = "no two hypotheses of a list have different scores"
    if by_place.n_lists:
        share = _per_cent(by_place)
        finding = f"of two hypotheses the upper one scores higher in {share} of the cases"
    if by_errors.n_lists:
        finding += f", the one with fewer errors in {_per_cent(by_errors)}"
    if positive:
        finding += f"; {positive:.0%} of the scores are positive"
    status, meaning, remedy = _direction(
        _trend(by_place, SORTED), _trend(by_errors, TELLING), _trend(places, TELLING), positive
    )
    return Check("sign and order", status, finding, meaning, remedy, statistics)


def _direction(
    order: Trend, errors: Trend, places: Trend, positive: float
) -> tuple[Status, str, str]:
    """The conclusion from order and errors: status, meaning, remedy."""
    costs = "the sign is wrong: these are costs, lower is better"
    negate = "jq -c '.hypotheses[].scores.asr *= -1' FILE > CORRECTED"
    sort = "write each list best first, or give its ranks as `first_pass_rank`"
    if errors == "down" or (order == "down" and errors != "up" and positive > 0.5):
        return "broken", costs, negate
    if order == "down" and errors == "up":
        return "broken", "the scores are right, but the lists are worst first", sort
    if order == "down":
        return "broken", "the sign is wrong, or the lists are worst first", f"{negate}, or {sort}"
    if order == "none" and errors == "up":
        meaning = "the lists are not sorted by score; their first is not the first pass's choice"
        return "look here", meaning, sort
    if order == "none":
        blame = "scores" if places == "up" else "scores, or the order,"
        meaning = f"the {blame} are not these hypotheses' own: shuffled, or joined by a wrong key"
        return "broken", meaning, "export texts and scores together"
    if order == "unknown" and errors != "up":
        return "cannot tell", "too few hypotheses with different scores", ""
    return "ok", "", ""


def _trend(estimate: IntervalEstimate, margin: float) -> Trend:
    """Above 0.5 with certainty and by the margin, below it, or neither; unknown where the interval
    is too wide for all of these."""
    if not estimate.n_lists:
        return "unknown"
    if estimate.low > 0.5 and estimate.value > 0.5 + margin:
        return "up"
    if estimate.high < 0.5 and estimate.value < 0.5 - margin:
        return "down"
    is_half = estimate.low > 0.5 - margin and estimate.high < 0.5 + margin
    return "none" if is_half else "unknown"


def check_scale(lists: Lists) -> Check | None:
    """Are first-pass scores sums of natural logarithms? None without first-pass scores."""
    scored = lists.scored(ASR)
    if not scored:
        return None
    exponents = np.array([exponent(_of_distinct(one, values)) for one, values in scored])
    lengths = np.array([len(one.hypotheses[0].text) + 1.0 for one, _ in scored])
    finite = exponents[np.isfinite(exponents)]
    if 2 * len(finite) < len(exponents):
        finding = f"{1 - len(finite) / len(exponents):.0%} of the lists have scores of 0 or more"
        meaning = "log-probabilities are negative; the scale of other scores cannot be checked"
        return Check("scale of scores", "cannot tell", finding, meaning)
    growth = elasticity(exponents, lengths, _groups(one for one, _ in scored))
    impossible = float(np.mean(finite > IMPOSSIBLE))
    median, high = (float(quantile) for quantile in np.quantile(finite, [0.5, 0.95]))
    finding = (
        f"as natural logs, the probabilities of a list sum to more than 1 in {impossible:.1%} of "
        f"the lists, and to 1 at the power {median:.2f} (95 % of the lists: up to {high:.2f}), "
        f"{_growth(growth)}"
    )
    status, meaning, remedy = _scale(impossible, median, high, growth)
    statistics = {
        "share_of_impossible_sums": impossible,
        "median_exponent": median,
        "exponent_95": high,
        "exponent_by_length": growth.value,
    }
    return Check("scale of scores", status, finding, meaning, remedy, statistics)


def _of_distinct(utterance: NBest, values: FloatArray) -> FloatArray:
    """The best score of each distinct text: the probability of copies would be counted twice."""
    best: dict[str, float] = {}
    for hypothesis, value in zip(utterance.hypotheses, values, strict=True):
        best[hypothesis.text] = max(float(value), best.get(hypothesis.text, -np.inf))
    return np.array(list(best.values()))


def _scale(
    impossible: float, median: float, high: float, growth: IntervalEstimate
) -> tuple[Status, str, str]:
    """The conclusion from exponents: status, meaning, remedy."""
    if impossible <= MANY_IMPOSSIBLE:
        if high >= STEEP:
            return "ok", "", ""
        meaning = "much steeper than probabilities: posteriors and merged copies will mislead"
        return (
            "look here",
            meaning,
            "scale them down, for example by the acoustic scale of decoding",
        )
    if growth.low > 0 and growth.value > AVERAGED:
        meaning = "these are averages over tokens, or sums divided by a power of the length"
        return "broken", meaning, "export sums: multiply each score by what it was divided by"
    if not growth.high < 2 * AVERAGED:
        meaning = "no sums of natural logs; averages or another base: too few lists to decide"
    elif median >= USUAL * LN10 and high <= IMPOSSIBLE * LN10:
        meaning = (
            "no natural logs; possible as log10, and independent of the length: probably log10"
        )
        return "broken", meaning, "jq -c '.hypotheses[].scores.asr *= 2.302585' FILE > CORRECTED"
    else:
        meaning = "no natural logs, nor log10: some other scale"
    return "broken", meaning, "export log P(text given speech), natural, summed over tokens"


def check_others(lists: Lists) -> list[Check]:
    """Are the other scores plausible? One check for each that is not."""
    names = {n for one in lists.utterances for h in one.hypotheses for n in h.scores}
    checks = (_check_other(name, lists) for name in sorted(names - {ASR, CONTEXT}))
    return [check for check in checks if check is not None]


def _check_other(name: str, lists: Lists) -> Check | None:
    scored = lists.scored(name)
    if not scored:
        return None
    remedy = f"score again: relisten score FILE -o SCORED --components {name}"
    positive = float(np.mean(np.concatenate([values for _, values in scored]) > 0))
    if positive and name in COMPONENTS:
        finding, meaning = f"{positive:.1%} are positive", "log-probabilities never are"
        return Check(name, "broken", finding, meaning, remedy, {"share_of_positive": positive})
    equal = _share_of_equal(lists, name) or 0.0
    if equal >= MANY_EQUAL:
        finding = f"all are equal in {equal:.0%} of the lists with different texts"
        meaning = "they cannot rank hypotheses"
        return Check(name, "broken", finding, meaning, remedy, {"share_of_equal": equal})
    if name not in LM_COMPONENTS:
        return None
    costs = np.array([-values[0] for _, values in scored])
    lengths = np.array([len(one.hypotheses[0].text) + 1.0 for one, _ in scored])
    groups = _groups(one for one, _ in scored)
    growth = elasticity(costs, lengths, groups)
    if growth.high < GROWS and len(set(groups)) >= MIN_GROUPS:
        finding = f"it has a size {_growth(growth)}; sums grow as length"
        statistics = {"growth_by_length": growth.value}
        return Check(name, "broken", finding, "these are averages", remedy, statistics)
    return None


def _groups(utterances: Iterable[NBest]) -> list[str]:
    return speaker_groups(list(utterances))


def _per_cent(estimate: IntervalEstimate) -> str:
    interval = f" [{estimate.low:.0%}, {estimate.high:.0%}]" if estimate.has_interval else ""
    return f"{estimate.value:.0%}{interval}"


def _growth(estimate: IntervalEstimate) -> str:
    if not estimate.has_interval:
        return "whose growth with length so few lists do not tell"
    half = estimate.high - estimate.value
    return f"which grows as length to the {estimate.value:.2f} ± {half:.2f}"
