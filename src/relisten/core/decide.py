"""Which text to print, and how sure of it to be, given the combined scores of a list.

    P(y) = softmax(combined(y))                      over the hypotheses of the list
    posterior(y) = softmax(combined(y) / temperature)
    confidence(word) = ceiling · Σ posterior(y) of the hypotheses y with the word in its slot

P decides, and the posterior says how sure to be. A temperature that makes confidence true flattens
votes: of lists with many samples it made mbr 3.6 points of WER worse.
map: the hypothesis of the highest P: fewest wrong *utterances*.
mbr: the hypothesis with the fewest expected word errors, Σ_y' P(y') · errors(y', y): fewest wrong
    *words*, as far as the list can tell (minimum Bayes risk).
rover: for each slot of the confusion network the word, or no word, with the highest total P; the
    text need not be on the list.

Sources: Goel & Byrne, "Minimum Bayes-risk automatic speech recognition", Computer Speech & Language
14 (2000); ROVER, see `core.confusion`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from relisten.core.combine import (
    MADE_BY,
    Weights,
    combined_scores,
    posteriors,
    rank_hypotheses,
)
from relisten.core.confusion import NOTHING, ConfusionNetwork, align
from relisten.core.text import Normaliser, normaliser
from relisten.core.types import Hypothesis, NBest

FloatArray = npt.NDArray[np.float64]

Decision = Literal["map", "mbr", "rover"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)


def decide(nbest: NBest, weights: Weights, decision: Decision = "map") -> NBest:
    """The utterance with the chosen text first, posteriors and word confidence.

    Behind the chosen one the hypotheses stand by combined score (map, rover) or expected errors
    (mbr), ties in first-pass order. Each carries its `posterior`, the first also
    `word_confidence`, one number a whitespace-separated word.
    rover: a text that no hypothesis has is a new one, marked `made_by`, with word ends of the
    hypotheses its words are from, without scores, rank and posterior.
    Hypotheses of equal text should be merged first (`merge_hypotheses`).
    Raises FormatError where a hypothesis lacks a score that is weighted.
    """
    ranked = rank_hypotheses(nbest, weights)
    if not ranked.hypotheses:
        return ranked
    combined = combined_scores(ranked, weights)
    beliefs, probabilities = posteriors(combined), posteriors(combined, weights.temperature)
    hypotheses = [
        replace(h, posterior=float(p), word_confidence=None)
        for h, p in zip(ranked.hypotheses, probabilities, strict=True)
    ]
    normalise = normaliser(weights.normaliser)
    network = align([word_keys(h.text, normalise) for h in hypotheses])
    normalise = inspect.unwrap(normalise)  # words come again, but texts would fill its cache
    texts = [] if decision == "map" else [normalise(h.text) for h in hypotheses]
    order = list(range(len(hypotheses)))
    chosen = 0
    if decision == "mbr":
        # Rounded: equal sums in another order are no preference, and the sort is stable.
        order.sort(key=np.round(expected_errors(texts, beliefs), 9).tolist().__getitem__)
        chosen = order[0]
    elif decision == "rover":
        voted, support = _vote(hypotheses, network, beliefs, probabilities)
        if (text := normalise(voted.text)) not in texts:
            voted = replace(voted, word_confidence=_confidence(support, weights))
            return replace(ranked, hypotheses=(voted, *hypotheses))
        chosen = texts.index(text)
        order.sort(key=lambda place: place != chosen)
    confidence = _confidence(probabilities @ network.agreement(chosen), weights)
    hypotheses[chosen] = replace(hypotheses[chosen], word_confidence=confidence)
    return replace(ranked, hypotheses=tuple(hypotheses[place] for place in order))


def word_keys(text: str, normalise: Normaliser) -> list[str]:
    """What each whitespace-separated word of `text` is compared by: its own normalised form, or
    itself where the normaliser leaves nothing of it."""
    return [normalise(word) or word for word in text.split()]


def expected_errors(texts: Sequence[str], probabilities: npt.ArrayLike) -> FloatArray:
    """The word errors to expect of each of N texts if one of them is right, float64 [N].

    probabilities: float64 [N], of each being the right one. texts: normalised.
    """
    words = [text.split() for text in texts]
    errors = cdist(words, words, scorer=Levenshtein.distance, dtype=np.int32)
    return np.asarray(errors @ np.asarray(probabilities, dtype=np.float64))


def _vote(
    hypotheses: Sequence[Hypothesis],
    network: ConfusionNetwork,
    beliefs: FloatArray,
    probabilities: FloatArray,
) -> tuple[Hypothesis, FloatArray]:
    """What the network votes for by beliefs, and the total probability of each of its words."""
    winners = network.vote(beliefs)[0]
    winning = network.words[winners, np.arange(len(winners))]
    support = probabilities @ (network.words == winning)
    slots = [slot for slot, n in enumerate(winners) if network.places[n, slot] != NOTHING]
    sources = [
        (hypotheses[winners[slot]], int(network.places[winners[slot], slot])) for slot in slots
    ]
    ends_s = [h.word_ends_s[place] for h, place in sources if h.word_ends_s is not None]
    voted = Hypothesis(
        " ".join(h.text.split()[place] for h, place in sources),
        # Ends of several hypotheses need not be in order.
        word_ends_s=tuple(accumulate(ends_s, max)) if len(ends_s) == len(slots) else None,
        extra={MADE_BY: "rover"},
    )
    return voted, support[slots]


def _confidence(sums: FloatArray, weights: Weights) -> tuple[float, ...]:
    """Sums of probabilities, those that rounding carried past 1 put right, under the ceiling."""
    return tuple((weights.ceiling * np.minimum(sums, 1.0)).tolist())
