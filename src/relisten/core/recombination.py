"""New texts out of known ones: where two differ, one takes over the other's words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

Words = tuple[str, ...]


def recombinations(base: Words, others: Iterable[Words]) -> list[Words]:
    """What base becomes where it takes one differing stretch from one of the others, no text twice.

    A stretch is a run of words that stand in for other words, or were added or left out. The base
    itself, and a text without words, are not among them.
    """
    made: dict[Words, None] = {}
    for other in others:
        matcher = SequenceMatcher(None, base, other, autojunk=False)
        for kind, start, end, other_start, other_end in matcher.get_opcodes():
            if kind != "equal":
                made[base[:start] + other[other_start:other_end] + base[end:]] = None
    return [words for words in made if words and words != base]
