"""Hypotheses as text tokens, word by word.

`surface` gives the LM the text as it is written; `spoken` the words as they are said (lower case,
no punctuation, numbers spelled), so that "0351" and "zero three five one" read alike.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, Literal

from relisten.core.text import spoken_words
from relisten.core.types import ModelError

TextForm = Literal["surface", "spoken"]


class TextEncoder:
    """Tokenises a text and knows to which whitespace-separated word each token belongs.

    tokenizer: a `PlainTokenizer` or a fast transformers tokenizer; no special tokens are added.
    """

    def __init__(self, tokenizer: Any, form: TextForm = "surface") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError("a fast tokenizer (tokenizer.json) is needed to place tokens in words")
        self.tokenizer = tokenizer
        self.form = form
        self._backend = tokenizer.backend_tokenizer
        # In the spoken form the first word is tokenised like any other: " mark", not "mark".
        # Some tokenizers see to that themselves: their first token begins with their space mark.
        first = self._backend.encode("a", add_special_tokens=False).tokens[0]
        self._lead = " " if form == "spoken" and first[0] not in "▁Ġ" else ""

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits that tell it from encoders that tokenise otherwise."""
        described = f"{self.form}|{self._backend.to_str()}"
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def words(self, text: str) -> list[list[int]]:
        """Token ids of each `text.split()` word, in order; a word that is not said has none.

        The tokens are those of the whole text in one go; a token that spans words belongs to the
        word in which it ends.
        """
        pieces = spoken_words(text) if self.form == "spoken" else text.split()
        said = [piece for piece in pieces if piece]
        if not said:
            return [[] for _ in pieces]
        joined = self._lead + " ".join(said)
        ends: list[int] = []
        length = len(self._lead) - 1
        for piece in pieces:
            length += len(piece) + 1 if piece else 0
            ends.append(length)
        encoded = self._backend.encode(joined, add_special_tokens=False)
        words: list[list[int]] = [[] for _ in pieces]
        w = 0
        for token, (_, stop) in zip(encoded.ids, encoded.offsets, strict=True):
            while w < len(ends) - 1 and (stop > ends[w] or not pieces[w]):
                w += 1
            words[w].append(token)
        return words
