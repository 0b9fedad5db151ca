"""The text to output and the confidence in it, given the combined scores of a list.

    P(y) = softmax(combined(y))                      over the hypotheses of the list
    posterior(y) = softmax(combined(y) / temperature)
    confidence(word) = ceiling · Σ posterior(y) of the hypotheses y with the word in its slot

P decides, and the posterior gives the confidence. A temperature that calibrates confidence flattens
votes: on lists with many samples it made mbr 3.6 points of WER worse.
map: the hypothesis of the highest P: fewest wrong *utterances*.
mbr: the hypothesis with the fewest expected word errors, Σ_y' P(y') · errors(y', y): fewest wrong
    *words*, as far as the list shows (minimum Bayes risk).
rover: for each slot of the confusion network the word, or no word, with the highest total P; the
    text need not be on the list.

Sources: Goel & Byrne, "Minimum Bayes-risk automatic speech recognition", Computer Speech & Language
14 (2000); ROVER, see `core.confusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from relisten.core.arrays import FloatArray
from relisten.core.combine import (
    MADE_BY,
    Weights,
    combined_scores,
    posteriors,
    rank_hypotheses,
)
from relisten.core.confusion import EPSILON, ConfusionNetwork, align
from relisten.core.text import Normaliser, cached_normaliser
from relisten.core.types import Hypothesis, NBest

Decision = Literal["map", "mbr", "rover"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
NEGLIGIBLE = 1e-9
"""Hypotheses at the end of a list that have less probability together are not aligned: they come
last, so no other one's words change their slots, and no confidence changes in 8 decimals."""


def decide(
    nbest: NBest, weights: Weights, decision: Decision = "map", confidence: bool = True
) -> NBest:
    """The utterance with the chosen text first, posteriors and word confidence.

    After the chosen one the hypotheses are sorted by combined score (map, rover) or expected errors
    (mbr), ties in first-pass order. Each carries its `posterior`, the first also
    `word_confidence`, one number per whitespace-separated word.
    rover: a text that no hypothesis has is a new one, marked `made_by`, with word ends of the
    hypotheses its words are from, without scores, rank and posterior.
    confidence: whether the first gets `word_confidence`; without it, map and mbr align no words.
    Hypotheses of equal text should be merged first (`merge_hypotheses`).
    Raises FormatError where a hypothesis lacks a score that is weighted.
    """
    ranked = rank_hypotheses(nbest, weights)
    if not ranked.hypotheses:
        return ranked
    combined = combined_scores(ranked, weights)
    probabilities, tempered = posteriors(combined), posteriors(combined, weights.temperature)
    hypotheses = [
        replace(h, posterior=float(p), word_confidence=None)
        for h, p in zip(ranked.hypotheses, tempered, strict=True)
    ]
    normalise = cached_normaliser(weights.normaliser, weights.rules)
    texts = [] if decision == "map" else [normalise(h.text) for h in hypotheses]
    order = list(range(len(hypotheses)))
    chosen = 0
    if decision == "mbr":
        # Rounded: equal sums in another order are no preference, and the sort is stable.
        order.sort(key=np.round(expected_errors(texts, probabilities), 9).tolist().__getitem__)
        chosen = order[0]
    voters = list(range(max(_n_voters(probabilities), _n_voters(tempered))))
    if decision == "rover":
        network = _aligned(hypotheses, voters, normalise)
        voted, support = _vote(hypotheses, network, probabilities[voters], tempered[voters])
        if (text := normalise(voted.text)) not in texts:
            if confidence:
                voted = replace(voted, word_confidence=_confidence(support, weights))
            return replace(ranked, hypotheses=(voted, *hypotheses))
        chosen = texts.index(text)
        order.sort(key=lambda place: place != chosen)
    if confidence:
        if decision != "rover" or chosen not in voters:
            voters = list(dict.fromkeys([*voters, chosen]))
            network = _aligned(hypotheses, voters, normalise)
        agreement = network.agreement(voters.index(chosen))
        of_words = _confidence(tempered[voters] @ agreement, weights)
        hypotheses[chosen] = replace(hypotheses[chosen], word_confidence=of_words)
    return replace(ranked, hypotheses=tuple(hypotheses[place] for place in order))


def _aligned(
    hypotheses: Sequence[Hypothesis], places: Sequence[int], normalise: Normaliser
) -> ConfusionNetwork:
    return align([word_keys(hypotheses[place].text, normalise) for place in places])


def word_keys(text: str, normalise: Normaliser) -> list[str]:
    """What each whitespace-separated word of `text` is compared by: its normalised form, or the
    word itself where the normaliser leaves nothing of it."""
    return [normalise(word) or word for word in text.split()]


def expected_errors(texts: Sequence[str], probabilities: npt.ArrayLike) -> FloatArray:
    """The word errors to expect of each of N texts if one of them is right, float64 [N].

    probabilities: float64 [N], of each being the right one. texts: normalised.
    """
    words = [text.split() for text in texts]
    errors = cdist(words, words, scorer=Levenshtein.distance, dtype=np.int32)
    return np.asarray(errors @ np.asarray(probabilities, dtype=np.float64))


def _n_voters(probabilities: FloatArray) -> int:
    """How many hypotheses, best first, leave less than `NEGLIGIBLE` to all those behind them."""
    return int((np.cumsum(probabilities[::-1]) > NEGLIGIBLE).sum())


def _vote(
    hypotheses: Sequence[Hypothesis],
    network: ConfusionNetwork,
    probabilities: FloatArray,
    tempered: FloatArray,
) -> tuple[Hypothesis, FloatArray]:
    """The text that wins the vote by P, and the total posterior of each of its words.

    probabilities: P, float64 [N]. tempered: the posterior, float64 [N].
    """
    winners = network.vote(probabilities)[0]
    winning = network.words[winners, np.arange(len(winners))]
    support = tempered @ (network.words == winning)
    slots = [slot for slot, n in enumerate(winners) if network.places[n, slot] != EPSILON]
    sources = [hypotheses[winners[slot]] for slot in slots]
    places = [int(network.places[winners[slot], slot]) for slot in slots]
    words = [h.text.split()[place] for h, place in zip(sources, places, strict=True)]
    voted = Hypothesis(
        " ".join(words),
        word_ends_s=_times([h.word_ends_s for h in sources], places),
        word_starts_s=_times([h.word_starts_s for h in sources], places),
        extra={MADE_BY: "rover"},
    )
    return voted, support[slots]


def _times(
    of_hypotheses: Sequence[tuple[float, ...] | None], places: Sequence[int]
) -> tuple[float, ...] | None:
    """The times of one word of each hypothesis, put in order; None where one has none."""
    pairs = zip(of_hypotheses, places, strict=True)
    known = [times[place] for times, place in pairs if times is not None]
    return tuple(accumulate(known, max)) if len(known) == len(places) else None


def _confidence(sums: FloatArray, weights: Weights) -> tuple[float, ...]:
    """Sums of posteriors, at most 1 (rounding may exceed it), times the ceiling."""
    return tuple((weights.ceiling * np.minimum(sums, 1.0)).tolist())
