"""Calibration of word confidence: a word of confidence 0.8 should be right with probability 0.8.

    confidence(word) = ceiling · Σ_y posterior(y), y with that word in its slot, as in `core.decide`

Two numbers are fitted: the temperature of the posterior scales the differences of scores; the
ceiling is how often a word is right on which the whole list agrees, since no temperature can lower
the confidence of such words.

A word of the chosen text is right where the fewest-errors alignment with the reference hits it.
With n words, confidences c and r = 1 for a right word, else 0:

    Brier = Σ (c - r)² / n
    ECE   = Σ_bins |Σ_in bin (c - r)| / n         ten bins of equal width, [0, 0.1), … [0.9, 1]

ECE is the distance of confidence from the share of right words, bin by bin; Brier also penalises
confidences that do not separate right words from wrong ones. Sources: Brier, "Verification of
forecasts", 1950; ECE and temperature scaling, Guo et al., arXiv:1706.04599.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from relisten.core.arrays import BoolArray, FloatArray, IntArray
from relisten.core.confusion import align
from relisten.core.decide import word_keys
from relisten.core.text import Normaliser
from relisten.core.types import NBest

N_BINS = 10
_TEMPERATURES = np.geomspace(0.1, 100.0, 31)
_MAX_CONFIDENCE = 0.999  # a word that all hypotheses have and that is wrong has a finite cost


def right_words(reference: str, text: str, normalise: Normaliser) -> BoolArray:
    """Which whitespace-separated words of `text` are right, bool [W].

    Both are normalised word by word, so that words keep their places; a word that normalises to
    several ("won't") is right where all of them are.
    """
    words = [key.split() for key in word_keys(text, normalise)]
    owner = np.repeat(np.arange(len(words)), [len(parts) for parts in words])
    parts = [part for word in words for part in word]
    wanted = [part for key in word_keys(reference, normalise) for part in key.split()]
    is_right = np.ones(len(words), dtype=np.bool_)
    for edit in Levenshtein.editops(wanted, parts):
        if edit.tag != "delete":  # a deletion makes no word of the text wrong
            is_right[owner[edit.dest_pos]] = False
    return is_right


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Words of similar confidence: how many, their mean confidence, and the share that is right."""

    n_words: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of confidences; formulas above. bins: those with words, by confidence."""

    n_words: int
    ece: float
    brier: float
    bins: tuple[ReliabilityBin, ...]


@dataclass
class CalibrationTally:
    """Sums over the words seen so far, in constant memory."""

    _n: IntArray = field(default_factory=lambda: np.zeros(N_BINS, np.int64))
    _confidence: FloatArray = field(default_factory=lambda: np.zeros(N_BINS))
    _right: IntArray = field(default_factory=lambda: np.zeros(N_BINS, np.int64))
    _squares: float = 0.0

    def add(self, confidence: npt.ArrayLike, is_right: npt.ArrayLike) -> None:
        """Add words: confidences from 0 to 1 and whether each is right, [W] both."""
        values, right = np.asarray(confidence, np.float64), np.asarray(is_right, np.int64)
        place = np.minimum((values * N_BINS).astype(np.int64), N_BINS - 1)
        np.add.at(self._n, place, 1)
        np.add.at(self._confidence, place, values)
        np.add.at(self._right, place, right)
        self._squares += float(((values - right) ** 2).sum())

    def result(self) -> Calibration | None:
        """The calibration; None where there was no word."""
        n_words = int(self._n.sum())
        if not n_words:
            return None
        bins = tuple(
            ReliabilityBin(int(n), float(confidence / n), float(right / n))
            for n, confidence, right in zip(self._n, self._confidence, self._right, strict=True)
            if n
        )
        ece = float(np.abs(self._confidence - self._right).sum()) / n_words
        return Calibration(n_words, ece, self._squares / n_words, bins)


@dataclass(frozen=True, slots=True)
class WordVotes:
    """The words of the chosen texts of U utterances, and which of N hypotheses vote for each.

    scores: combined, float64 [U, N], -inf where the list is shorter. utterance: int64 [W].
    agreement: bool [W, N]. is_right: bool [W].
    """

    scores: FloatArray
    utterance: IntArray
    agreement: BoolArray
    is_right: BoolArray

    @classmethod
    def of(
        cls, nbests: Sequence[NBest], combined: Sequence[FloatArray], normalise: Normaliser
    ) -> WordVotes:
        """The votes on the hypotheses of highest `combined` score, float64 [N] each, of lists with
        references and merged hypotheses in first-pass order."""
        longest = max((len(one) for one in combined), default=0)
        scores = np.full((len(nbests), longest), -np.inf)
        utterances, agreements, rights = [], [], []
        for row, (nbest, own) in enumerate(zip(nbests, combined, strict=True)):
            order = np.argsort(-own, kind="stable")
            texts = [nbest.hypotheses[place].text for place in order]
            if not texts:
                continue
            scores[row, : len(order)] = own[order]
            votes = align([word_keys(text, normalise) for text in texts]).agreement(0)
            agreement = np.zeros((votes.shape[1], longest), dtype=np.bool_)
            agreement[:, : len(order)] = votes.T
            agreements.append(agreement)
            utterances.append(np.full(len(agreement), row))
            rights.append(right_words(nbest.reference or "", texts[0], normalise))
        if not agreements:
            none = np.zeros(0, np.bool_)
            return cls(scores, np.zeros(0, np.int64), np.zeros((0, longest), np.bool_), none)
        return cls(
            scores, np.concatenate(utterances), np.concatenate(agreements), np.concatenate(rights)
        )

    def only(self, is_chosen: BoolArray) -> WordVotes:
        """The words of the chosen utterances, bool [U]."""
        kept = is_chosen[self.utterance]
        return WordVotes(
            self.scores, self.utterance[kept], self.agreement[kept], self.is_right[kept]
        )

    def confidence(self, temperature: float, ceiling: float = 1.0) -> FloatArray:
        """The confidence of each word, float64 [W], as in `core.decide`."""
        if not len(self.utterance):
            return np.zeros(0)
        top = self.scores.max(axis=1, initial=-np.inf, keepdims=True)
        top[top == -np.inf] = 0.0
        odds = np.exp((self.scores - top) / temperature)
        odds /= np.maximum(odds.sum(axis=1, keepdims=True), 1.0)
        sums = (odds[self.utterance] * self.agreement).sum(axis=1)
        return np.asarray(ceiling * np.minimum(sums, 1.0))

    @property
    def is_undisputed(self) -> BoolArray:
        """Whether all hypotheses of the list have the word in its slot, bool [W]."""
        has_vote = self.scores > -np.inf
        return np.asarray((self.agreement | ~has_vote[self.utterance]).all(axis=1))


def fit_confidence(votes: WordVotes) -> tuple[float, float]:
    """The temperature, from 0.1 to 100, and the ceiling, at most 1, of these words.

    ceiling: (right + 1) / (all + 1) of the words on which whole lists agree: their share of right
        words, with one right word added, which keeps it above 0 and makes it 1 without any word.
    temperature: maximises Σ r · ln c + (1 - r) · ln (1 - c) over all words, with confidences c kept
        within [0.001, 0.999]: on a grid, then by golden section between the neighbours of its best
        point. 1 where no confidence depends on it.
    """
    undisputed = votes.is_right[votes.is_undisputed]
    ceiling = (float(undisputed.sum()) + 1) / (len(undisputed) + 1)

    def cost(log_temperature: float) -> float:
        confidence = votes.confidence(float(np.exp(log_temperature)), ceiling)
        confidence = np.clip(confidence, 1 - _MAX_CONFIDENCE, _MAX_CONFIDENCE)
        return -float(np.log(np.where(votes.is_right, confidence, 1 - confidence)).sum())

    grid = np.log(_TEMPERATURES)
    costs = [cost(float(point)) for point in grid]
    if max(costs) - min(costs) < 1e-9:
        return 1.0, ceiling
    best = int(np.argmin(costs))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    shrink = (5**0.5 - 1) / 2
    while high - low > 1e-3:
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if cost(left) <= cost(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2)), ceiling


@dataclass(frozen=True, slots=True)
class ConfidenceFit:
    """Temperature and ceiling fitted to all words, and the calibration on held-out words.

    before: with temperature and ceiling 1. after: with those fitted to the other folds. Both None
    where no word was chosen.
    """

    temperature: float
    ceiling: float
    before: Calibration | None
    after: Calibration | None


def cross_fit_confidence(votes: WordVotes, assignment: IntArray) -> ConfidenceFit:
    """The fit to all words, and its cross-validation: each fold with the fit to the other folds.

    assignment: the fold of each utterance, int64 [U].
    """
    before, after = CalibrationTally(), CalibrationTally()
    before.add(votes.confidence(1.0), votes.is_right)
    for fold in np.unique(assignment):
        held_out = votes.only(assignment == fold)
        after.add(
            held_out.confidence(*fit_confidence(votes.only(assignment != fold))), held_out.is_right
        )
    return ConfidenceFit(*fit_confidence(votes), before.result(), after.result())
