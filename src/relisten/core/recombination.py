"""New texts from known ones: where two texts differ, one takes over the words of the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

Words = tuple[str, ...]


class Change(NamedTuple):
    """One edit of a text: `words` replace those in [start, stop)."""

    start: int
    stop: int
    words: Words

    def of(self, base: Words) -> Words:
        """The text `base` after the change."""
        return base[: self.start] + self.words + base[self.stop :]


def recombinations(base: Words, others: Iterable[Words]) -> dict[Words, Change]:
    """The texts that differ from `base` by one change towards one of the others, with that change.

    A change is one run of words that another text substitutes, inserts or deletes. The base itself
    and the text without words are not among the results.
    """
    made: dict[Words, Change] = {}
    for other in others:
        matcher = SequenceMatcher(None, base, other, autojunk=False)
        for kind, start, stop, other_start, other_stop in matcher.get_opcodes():
            if kind != "equal":
                change = Change(start, stop, other[other_start:other_stop])
                made.setdefault(change.of(base), change)
    return {words: change for words, change in made.items() if words and words != base}


def mixtures(texts: Sequence[Words], limit: int) -> list[Words]:
    """At most `limit` new texts, each one of `texts` with one change towards another.

    Those with the fewest word edits to all of them together come first, ties in the order of the
    texts. The text without words is not among them.
    """
    distinct = list(dict.fromkeys(texts))
    made: dict[Words, None] = {}
    for base in distinct:
        made |= dict.fromkeys(recombinations(base, distinct))
    new = [words for words in made if words not in distinct]
    new.sort(key=lambda words: sum(Levenshtein.distance(words, other) for other in texts))
    return new[:limit]
