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

    tokenizer: a fast transformers tokenizer; no special tokens are added.
    """

    def __init__(self, tokenizer: Any, form: TextForm = "surface") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError("a fast tokenizer (tokenizer.json) is needed to place tokens in words")
        self.tokenizer = tokenizer
        self.form = form
        # In the spoken form the first word is tokenised like any other: " mark", not "mark".
        # Some tokenizers see to that themselves: their first token begins with their space mark.
        first = tokenizer.tokenize("a", add_special_tokens=False)[0]
        self._lead = " " if form == "spoken" and first[0] not in "▁Ġ" else ""

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits that tell it from encoders that tokenise otherwise."""
        described = f"{self.form}|{self.tokenizer.backend_tokenizer.to_str()}"
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
        encoded = self.tokenizer(
            joined, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        words: list[list[int]] = [[] for _ in pieces]
        w = 0
        for token, (_, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            while w < len(ends) - 1 and (stop > ends[w] or not pieces[w]):
                w += 1
            words[w].append(token)
        return words
