"""What cannot be learnt from: an utterance whose text cannot be what is said in it."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from relisten.core.text import has_words
from relisten.core.types import NBest

SHORTEST_S = 0.1
"""Of a recording that holds a word."""
LONGEST_S = 30.0
"""Of what Whisper decodes at once."""
MAX_WORDS_PER_S, MAX_CHARACTERS_PER_S = 12.0, 40.0
"""Nobody says more words, or letters and digits. The most in 14,657 transcribed utterances of eight
sets, read and acted, English and German: 7.4 words and 28.0 letters and digits a second."""
MIN_SHARE_OF_SCRIPT = 1 / 1000
"""Of the texts that use a script; rarer ones were written by mistake."""
MIN_TEXTS = 100
"""To know by what is usual. In fewer texts, one of a second language is no mistake."""


@dataclass(frozen=True, slots=True)
class Scripts:
    """How many texts use the letters of each script (LATIN, CYRILLIC, CJK, …)."""

    n_texts: int
    n_using: Mapping[str, int]

    def rare_in(self, text: str) -> list[str]:
        """The scripts of a text, which is one of those counted, that hardly any other uses."""
        n_others = self.n_texts - 1
        if n_others < MIN_TEXTS:
            return []
        limit = MIN_SHARE_OF_SCRIPT * n_others
        return sorted(s for s in _scripts(text) if self.n_using.get(s, 0) - 1 < limit)


def count_scripts(utterances: Iterable[NBest]) -> Scripts:
    """The scripts that the references use."""
    texts = [utterance.reference for utterance in utterances if utterance.reference]
    return Scripts(len(texts), Counter(script for text in texts for script in _scripts(text)))


def check_utterance(utterance: NBest, duration_s: float, scripts: Scripts) -> str | None:
    """Why it cannot be learnt from, in one sentence; None if it can.

    duration_s: of its recording, or of its segment of one. scripts: of all utterances, this one
    among them (`count_scripts`).
    """
    if duration_s < SHORTEST_S:
        return f"lasts {duration_s:.2f} s, which is no word; it takes at least {SHORTEST_S:g} s"
    if duration_s > LONGEST_S:
        return (
            f"lasts {duration_s:.1f} s, and at most {LONGEST_S:g} s are learnt from at once; "
            "cut it into segments with start_s and duration_s, each with its own text; without a "
            "text, it is cut at pauses"
        )
    text = utterance.reference
    return None if text is None else _check_text(text, duration_s, scripts)


def _check_text(text: str, duration_s: float, scripts: Scripts) -> str | None:
    if not has_words(text):
        return f"its text {_short(text)} holds no letter or digit; correct it, or drop the text"
    n_words, n_characters = sum(map(has_words, text.split())), sum(map(str.isalnum, text))
    if n_words > MAX_WORDS_PER_S * duration_s or n_characters > MAX_CHARACTERS_PER_S * duration_s:
        return (
            f"{n_words} words with {n_characters} letters and digits do not fit into "
            f"{duration_s:.2f} s; is {_short(text)} the text of another recording?"
        )
    if rare := scripts.rare_in(text):
        return (
            f"its text {_short(text)} has letters ({', '.join(rare).lower()}) that fewer than one "
            "in a thousand of the others have; correct it"
        )
    return None


def _scripts(text: str) -> set[str]:
    letters = unicodedata.normalize("NFKC", text)
    return {script for letter in set(letters) if (script := _script(letter)) is not None}


@lru_cache(maxsize=65_536)
def _script(letter: str) -> str | None:
    """The script of a letter, by its Unicode name: LATIN SMALL LETTER A; None for others."""
    if unicodedata.category(letter) not in ("Lu", "Ll", "Lt", "Lo"):
        return None
    return unicodedata.name(letter, "").split(" ")[0] or None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
