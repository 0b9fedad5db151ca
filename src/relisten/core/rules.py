"""A user's own rules of what is the same text: fillers that count as nothing, and replacements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from relisten.core.types import FormatError, UsageError

MOST_RULES = 10_000


@dataclass(frozen=True)
class Rules:
    """Spoken words → what stands for them, "" for nothing; a longer rule goes before a shorter one.

    pairs: both sides are words between spaces; the left ones in their spoken form, lower case
    without punctuation (`core.text.spoken`).
    Raises UsageError where a left side is empty or occurs twice.
    """

    pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        written = [left for left, _ in self.pairs]
        if "" in written:
            raise UsageError("a rule stands for no word; write WORD or WORDS = REPLACEMENT")
        if len(set(written)) < len(written):
            twice = next(left for left in written if written.count(left) > 1)
            raise UsageError(f"two rules stand for {twice!r}; keep one of them")

    @cached_property
    def _by_first(self) -> dict[str, list[tuple[list[str], str]]]:
        by_first: dict[str, list[tuple[list[str], str]]] = {}
        for left, right in sorted(self.pairs, key=lambda pair: -len(pair[0].split())):
            by_first.setdefault(left.split()[0], []).append((left.split(), right))
        return by_first

    def apply(self, words: Sequence[str], spoken_words: Sequence[str]) -> list[str]:
        """The words, one entry each: the first word of a rule becomes its replacement, which may
        hold several words, and the others "". spoken_words: how each word is spoken.

        From left to right; what a rule has written is not read again.
        """
        result, place = list(words), 0
        while place < len(words):
            length = 1
            for left, right in self._by_first.get(spoken_words[place], ()):
                if list(spoken_words[place : place + len(left)]) == left:
                    length = len(left)
                    result[place : place + length] = [right] + [""] * (length - 1)
                    break
            place += length
        return result


NO_RULES = Rules()


def rules_to_json(rules: Rules) -> dict[str, str]:
    """The rules as weights hold them."""
    return dict(rules.pairs)


def rules_from_json(data: object) -> Rules:
    """Rules from what `rules_to_json` gave. Raises FormatError for another layout."""
    if not isinstance(data, dict) or not all(
        isinstance(one, str) for pair in data.items() for one in pair
    ):
        raise FormatError("'rules' of weights is no object of words and their replacements")
    return Rules(tuple(data.items()))
