"""Whisper's English rules, applied once to each word that means the same in any text.

The rules try some 50 patterns on a whole text. All but a few of its words are treated alike
whatever stands beside them, so their results are remembered. Numbers, contractions and fillers
depend on their neighbours: a run of such words is a text of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

_N_CACHED = 65_536  # words, and runs of words; some 20 MB
_LONGEST_CACHED = 200  # characters of a run: loops of digits are not remembered
_PLAIN_WORD = re.compile(r"([a-z]+)[,.!?;:]?")
_NEIGHBOURS = frozenset(["a", "half", "been", "gone", "done", "got", "st", "nd", "rd", "th", "s"])
"""Words beside the numbers that some rule reads together with the word before or after them."""


def english_rules() -> Callable[[str], str]:
    """Whisper's English normaliser, some 4 times faster on ordinary text, with equal results.

    Its texts have no closed brackets (`core.written.plain` removes them).
    """
    from whisper_normalizer.english import EnglishTextNormalizer

    rules = EnglishTextNormalizer()
    dependent = _NEIGHBOURS | rules.standardize_numbers.words

    @lru_cache(_N_CACHED)
    def of_word(word: str) -> str | None:
        """The normalised word, or None where it depends on its neighbours."""
        plain = _PLAIN_WORD.fullmatch(word)
        if plain is None or plain[1] in dependent:
            return None
        written = rules(plain[1])
        return None if not written or dependent & set(written.split()) else written

    def of_run(run: str, has_left: bool, has_right: bool) -> str:
        """The normalised run. A "%" or "$" is dropped or not by whether a word stands beside it."""
        words = rules(f"{'x ' * has_left}{run}{' x' * has_right}").split()
        return " ".join(words[has_left : len(words) - has_right])

    cached_run = lru_cache(_N_CACHED)(of_run)

    def normalise(text: str) -> str:
        words = text.lower().split()
        if any(word[0] == "'" for word in words[1:]):  # belongs to the word before it
            return str(rules(text))
        done, run = [], []
        for place, word in enumerate([*words, None]):
            written = None if word is None else of_word(word)
            if word is not None and written is None:
                run.append(word)
                continue
            if run:
                joined = " ".join(run)
                of = cached_run if len(joined) <= _LONGEST_CACHED else of_run
                done.append(of(joined, place > len(run), word is not None))
                run = []
            if written is not None:
                done.append(written)
        return " ".join(done)

    return normalise
