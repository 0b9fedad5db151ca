"""Hypotheses whose length no recording explains: fragments, repetition loops, impossible speed.

A language model likes short texts, and a length bonus long ones. Where no score of the speech holds
against them, "It" wins over a sentence of 23 words, or one word fifty times over the right text.
With bounds, ljspeech dev (100 lists, tiny.en, `asr` + 0.44 `text` + 0.4 `length`) goes from 7.44 to
2.92 % WER (2.98 without the language model), speechocean dev (615 lists) from 35.21 to 35.12 %.

Three rules, none of which needs the recording itself:

loop: a word more than 8 times in a row, or a phrase of 2 to 30 words more than 3 times. Of 21,000
    real transcripts (read and acted speech, talks, meetings) none has a word more than 5 times or a
    phrase more than 3; but people do say "no, no, no, no, no, no, no".
speed: more than 8 spoken words a second, and 2 more, where the duration is known. The fastest of
    the same transcripts has 7.4 ("and it's not even cold or anything by the way can't you play").
usual length: at most twice as many spoken words as the list's usual text, at least half as many,
    give or take 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from relisten.core.agreement import is_agreement
from relisten.core.combine import n_spoken_words
from relisten.core.text import spoken, words_of_any_script
from relisten.core.types import (
    ASR,
    CTC,
    OF_TAUGHT,
    SPEECH_GIVEN_TEXT,
    TEXT_GIVEN_SPEECH,
    Hypothesis,
    NBest,
)

MOST_TIMES, SPARE_WORDS = 2.0, 2
"""A text may have so many times as many words as another, or as few, and so many words more or
less. With 1.5 times speechocean dev gains 0.3 points less; with 3 nothing changes."""
FEWEST_TO_JUDGE = 3
"""Hypotheses below which a list does not tell what length is usual."""
MOST_WORDS_A_SECOND = 8.0

_LOOP = re.compile(r"(.)\1{8}|((.)(?!\3).{1,29}?)\2{3}", re.DOTALL)
_FEWEST_REPEATS = 6  # words of a loop that occurred before: of two words, three times more
_LOOP_OF_CHARACTERS = re.compile(r"(.)\1{17}|((.)(?!\3).{1,59}?)\2{7}", re.DOTALL)


def has_speech_score(values: Mapping[str, float]) -> bool:
    """Whether weights count a score of the second pass that looks at the speech, or agreement with
    other recognisers, which did."""
    of_speech = (CTC, *OF_TAUGHT, TEXT_GIVEN_SPEECH, SPEECH_GIVEN_TEXT)
    return any(
        weight and (name in of_speech or is_agreement(name)) for name, weight in values.items()
    )


def is_loop(text: str) -> bool:
    """Whether a text repeats a word or phrase more often than people do (the rule above).

    Case, punctuation and hyphens do not count. In scripts without spaces two characters are
    counted as a word.
    """
    return _repeats_itself(spoken(text))


def _repeats_itself(said: str) -> bool:
    """`is_loop` of a text in its spoken form."""
    words = words_of_any_script(said)
    places: dict[str, int] = {}
    # One character a word, from the private planes on, so that an expression finds what repeats.
    coded = "".join(chr(0xF0000 + places.setdefault(word, len(places) % 0x1FFFE)) for word in words)
    if len(words) - len(places) < _FEWEST_REPEATS:
        return False
    is_unspaced = len(words) > len(said.split())
    return (_LOOP_OF_CHARACTERS if is_unspaced else _LOOP).search(coded) is not None


def is_too_fast(text: str, duration_s: float | None) -> bool:
    """Whether nobody can say a text in so short a time (the rule above); no where it is unknown."""
    return n_spoken_words(text) > _most_words(duration_s)


def _most_words(duration_s: float | None) -> float:
    """The most words that can be said in so many seconds."""
    return math.inf if duration_s is None else MOST_WORDS_A_SECOND * duration_s + SPARE_WORDS


def within_length_bounds(nbest: NBest) -> npt.NDArray[np.bool_]:
    """Which hypotheses, in first-pass order, are as long as the recording may explain, bool [N].

    Loops and what is too fast are out, unless all are. The measure of the usual length is the
    hypothesis that the first pass likes best (highest `asr`, or the first where some have none) of
    those that are left; where that itself is far from their median, the median. That hypothesis is
    always within.
    """
    hypotheses = nbest.hypotheses
    said = [spoken(h.text) for h in hypotheses]
    lengths = np.array([len(words.split()) for words in said], dtype=np.float64)
    if not len(lengths):
        return np.ones(0, dtype=np.bool_)
    possible = lengths <= _most_words(nbest.duration_s)
    possible &= [not _repeats_itself(words) for words in said]
    if not possible.any():
        possible[:] = True
    best = _best(hypotheses, possible)
    usual, median = lengths[best], float(np.median(lengths[possible]))
    if possible.sum() >= FEWEST_TO_JUDGE and not _is_near(lengths[[best]], median)[0]:
        usual = median
    is_within = possible & _is_near(lengths, usual)
    is_within[best] = True
    return is_within


def _best(hypotheses: tuple[Hypothesis, ...], possible: npt.NDArray[np.bool_]) -> int:
    """The place of the one that the first pass likes best of those that are possible."""
    scores = np.array([h.scores.get(ASR, np.nan) for h in hypotheses])
    if np.isnan(scores[possible]).any():
        return int(possible.argmax())
    return int(np.where(possible, scores, -np.inf).argmax())


def _is_near(lengths: npt.NDArray[np.float64], usual: float) -> npt.NDArray[np.bool_]:
    least, most = usual / MOST_TIMES - SPARE_WORDS, usual * MOST_TIMES + SPARE_WORDS
    return np.asarray((lengths >= least) & (lengths <= most))
