"""New texts out of known ones: where two differ, one takes over the other's words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import NamedTuple

Words = tuple[str, ...]


class Change(NamedTuple):
    """words in place of those from start up to stop."""

    start: int
    stop: int
    words: Words

    def of(self, base: Words) -> Words:
        """What the change makes of base."""
        return base[: self.start] + self.words + base[self.stop :]


def recombinations(base: Words, others: Iterable[Words]) -> dict[Words, Change]:
    """What base becomes where it takes one differing stretch from one of the others, and how.

    A stretch is a run of words that stand in for other words, or were added or left out. The base
    itself, and a text without words, are not among them.
    """
    made: dict[Words, Change] = {}
    for other in others:
        matcher = SequenceMatcher(None, base, other, autojunk=False)
        for kind, start, stop, other_start, other_stop in matcher.get_opcodes():
            if kind != "equal":
                change = Change(start, stop, other[other_start:other_stop])
                made.setdefault(change.of(base), change)
    return {words: change for words, change in made.items() if words and words != base}
