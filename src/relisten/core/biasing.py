"""Contextual biasing: a bonus for hypotheses that contain expected phrases, and more of those.

A list of phrases (names, products, terms) is what is known of an utterance in advance. The score
`context` of a hypothesis is the bonus of the phrases in it, in nats: how much more probable they
are than the first pass assumed. Where a hypothesis contains something that sounds like a phrase
instead, a copy of it with the phrase in its place can be added to the list, so that the scores of
the second pass can judge it.

Sound is estimated from spelling, in any script with letters: `sound_key` spells alike what most
languages with these letters pronounce alike, and the rest is edit distance.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from rapidfuzz.distance import Levenshtein

from relisten.core.text import Normaliser
from relisten.core.types import ASR, CONTEXT, FormatError, Hypothesis, NBest

INJECTED = "injected"
"""Key of a hypothesis that biasing added: the phrase that was inserted."""

BONUS = 2.0
"""Nats per word of a phrase, without tuning: half of it recovers fewer phrases, twice as much few
more, and causes errors elsewhere (docs/context.md)."""
MIN_SIMILARITY = 0.7
"""Of a span and a phrase that replaces it. With 2,574 phrases 0.7 makes 5 hypotheses per list and
recovers 10 of the 14 words that 0.6 recovers with 31."""
PENALTY, PENALTY_PER_LETTER = 2.0, 2.0
"""Nats that an injected hypothesis scores below its parent, and further below for each differing
letter of the sound key. Without the first, wrong names won on lists that were not rescored: 2.4
points of WER more where no phrase was spoken, 0.4 with it (docs/context.md)."""
MAX_INJECTED = 10
"""Hypotheses added to a list, the most similar first."""
MIN_LETTERS = 4
"""Of a phrase that is inserted: a shorter one sounds like too many words."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """One phrase as it is written; weight: a factor of the usual bonus."""

    text: str
    weight: float = 1.0


def parse_phrases(text: str, where: str = "phrases") -> tuple[Phrase, ...]:
    """The phrases of a text, one per line, optionally a tab and a weight; empty lines are skipped.

    Raises FormatError, naming the line, for a weight that is no finite number above 0.
    """
    phrases = []
    for number, line in enumerate(text.splitlines(), 1):
        phrase, tab, weight = line.strip().partition("\t")
        if not phrase:
            continue
        try:
            value = float(weight) if tab else 1.0
        except ValueError:
            value = float("nan")
        if not 0 < value < float("inf"):
            raise FormatError(
                f"{where}:{number}: the weight of {phrase!r} is {weight!r}; give a number above 0"
            )
        phrases.append(Phrase(phrase.strip(), value))
    return tuple(phrases)


def is_injected(hypothesis: Hypothesis) -> bool:
    """Whether biasing added the hypothesis, not the first pass."""
    return INJECTED in hypothesis.extra


@dataclass(frozen=True)
class Biasing:
    """A list of phrases to search for.

    normalise: words are compared in its form; matches are of whole words.
    """

    phrases: tuple[Phrase, ...]
    normalise: Normaliser

    @cached_property
    def _bonuses(self) -> dict[str, list[tuple[tuple[str, ...], float]]]:
        """First word → phrases that begin with it, words and bonus in nats, longest first."""
        by_first: dict[str, dict[tuple[str, ...], float]] = {}
        for phrase in self.phrases:
            words = tuple(self.normalise(phrase.text).split())
            if words:
                by_first.setdefault(words[0], {})[words] = BONUS * phrase.weight * len(words)
        return {
            first: sorted(some.items(), key=lambda item: -len(item[0]))
            for first, some in by_first.items()
        }

    def bonus(self, text: str) -> float:
        """The `context` score of a text, nats, 0 or more: the bonuses of the phrases in it.

        From left to right the longest phrase that begins at a word counts; matches do not overlap.
        """
        words = self.normalise(text).split()
        total, at = 0.0, 0
        while at < len(words):
            for phrase, bonus in self._bonuses.get(words[at], ()):
                if tuple(words[at : at + len(phrase)]) == phrase:
                    total, at = total + bonus, at + len(phrase)
                    break
            else:
                at += 1
        return total

    def apply(self, nbest: NBest, inject: bool = False) -> NBest:
        """The utterance with `context` scores, replacing older ones; the order stays.

        inject: copies with a phrase in the place of what sounds like it are appended, with the
        first-pass score of their parent less a penalty that grows with the letters that differ, its
        word ends, and no other scores. Hypotheses injected earlier are left out.
        """
        kept = tuple(h for h in nbest.hypotheses if not is_injected(h))
        kept += tuple(self._injected(kept)) if inject else ()
        scored = (replace(h, scores={**h.scores, CONTEXT: self.bonus(h.text)}) for h in kept)
        return replace(nbest, hypotheses=tuple(scored))

    @cached_property
    def _keys(self) -> tuple[tuple[Phrase, str, int], ...]:
        """The phrases that can be inserted, their sound keys, and their numbers of words."""
        keyed = ((p, sound_key(p.text), len(p.text.split())) for p in self.phrases)
        return tuple(one for one in keyed if len(one[1]) >= MIN_LETTERS)

    def _injected(self, hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
        """New hypotheses, the most probable first, all different from each other and the list."""
        seen = {self.normalise(h.text) for h in hypotheses}
        found: list[Hypothesis] = []
        for parent in hypotheses:
            found += [
                _with_phrase(parent, phrase, start, end, n_letters)
                for phrase, start, end, n_letters in self._alike(parent.text)
            ]
        found.sort(key=lambda h: -h.scores.get(ASR, 0.0))
        new: list[Hypothesis] = []
        for hypothesis in found:
            text = self.normalise(hypothesis.text)
            if text not in seen and len(new) < MAX_INJECTED:
                seen.add(text)
                new.append(hypothesis)
        return new

    def _alike(self, text: str) -> Iterable[tuple[Phrase, int, int, int]]:
        """Phrases that a text does not contain but that some of its words sound like: the phrase,
        those words [start, end), and how many letters of the sound keys differ."""
        words = [sound_key(word) for word in text.split()]
        longest = 1 + max((n for _, _, n in self._keys), default=0)
        spans = [
            (start, end, "".join(words[start:end]))
            for start in range(len(words))
            for end in range(start + 1, min(start + longest, len(words)) + 1)
        ]
        if not spans or not self._keys:
            return
        from rapidfuzz.process import cdist

        keys = [key for _, key, _ in self._keys]
        similarity = cdist(
            [sound for _, _, sound in spans],
            keys,
            scorer=Levenshtein.normalized_similarity,
            score_cutoff=MIN_SIMILARITY,
            dtype=np.float32,
        )
        padded = f" {self.normalise(text)} "
        for column in np.flatnonzero(similarity.any(axis=0)):
            phrase, key, _ = self._keys[column]
            if f" {self.normalise(phrase.text)} " in padded:
                continue
            row = int(np.argmax(similarity[:, column]))
            start, end, sound = spans[row]
            yield phrase, start, end, int(Levenshtein.distance(sound, key))


def _with_phrase(
    parent: Hypothesis, phrase: Phrase, start: int, end: int, n_letters: int
) -> Hypothesis:
    """The parent with its words [start, end) replaced, their final punctuation kept."""
    words, new = parent.text.split(), phrase.text.split()
    last = words[end - 1]
    stop = last[len(last.rstrip(".,;:!?…")) :]
    text = " ".join([*words[:start], *new[:-1], new[-1] + stop, *words[end:]])
    ends = parent.word_ends_s
    if ends is not None:
        ends = (*ends[:start], *_ends_between(ends, start, end, new), *ends[end:])
    penalty = PENALTY + PENALTY_PER_LETTER * n_letters
    scores = {ASR: parent.scores[ASR] - penalty} if ASR in parent.scores else {}
    return Hypothesis(text, scores, ends, extra={INJECTED: phrase.text})


def _ends_between(
    ends: Sequence[float], start: int, end: int, words: Sequence[str]
) -> tuple[float, ...]:
    """The ends of new words in the place of the words [start, end): theirs where they are as many,
    else in proportion to the letters."""
    if len(words) == end - start:
        return tuple(ends[start:end])
    begin = ends[start - 1] if start else 0.0
    letters = np.cumsum([len(word) for word in words])
    shares = letters / letters[-1]
    return tuple(float(begin + share * (ends[end - 1] - begin)) for share in shares)


_LATIN = (("ph", "f"), ("qu", "kw"), ("z", "s"), ("x", "ks"), ("y", "i"))
_C = re.compile("c(?!h)(?=([eiy])?)")  # soft before these vowels in most languages, hard elsewhere
_DOUBLED = re.compile(r"(.)\1+")


@lru_cache(maxsize=65_536)
def sound_key(text: str) -> str:
    """How a text sounds, roughly: its letters and digits, without spaces, case and accents.

    Latin letters that most languages pronounce alike are spelled alike (ph = f, ck = k = hard c,
    soft c = s = z, y = i), and double letters once. Other scripts keep their letters.
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    # Marks of class 0 are vowels in Indic scripts; the others are accents.
    letters = "".join(
        c
        for c in plain
        if c.isalnum() or (unicodedata.category(c)[0] == "M" and not unicodedata.combining(c))
    )
    letters = _C.sub(lambda match: "s" if match[1] else "k", letters.replace("ck", "k"))
    for written, sound in _LATIN:
        letters = letters.replace(written, sound)
    return _DOUBLED.sub(r"\1", letters)
