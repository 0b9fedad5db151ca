"""Hypotheses as text tokens, word by word.

`surface` gives the LM the text as it is written; `spoken` gives it the words as they are spoken
(lower case, no punctuation, numbers spelled out), so that "0351" and "zero three five one" become
the same text.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, Literal, get_args

from relisten.core.rules import NO_RULES, Rules
from relisten.core.text import spoken_words
from relisten.core.types import ModelError

TextForm = Literal["surface", "spoken"]


class TextEncoder:
    """Tokenises a text and assigns each token to its whitespace-separated word.

    tokenizer: a `PlainTokenizer` or a fast transformers tokenizer; no special tokens are added.
    rules: the user's own, for the spoken form.
    Raises ModelError where it is not a fast one, or the form is unknown.
    """

    def __init__(self, tokenizer: Any, form: TextForm = "surface", rules: Rules = NO_RULES) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError("a fast tokenizer (tokenizer.json) is needed to place tokens in words")
        if form not in get_args(TextForm):
            raise ModelError(f"text_form {form!r} is none of {', '.join(get_args(TextForm))}")
        self.tokenizer = tokenizer
        self.form = form
        self.rules = rules
        self._backend = tokenizer.backend_tokenizer
        # In the spoken form the first word is tokenised like any other: " mark", not "mark". Some
        # tokenizers do so themselves: their first token begins with their sign for a space.
        first = self._backend.encode("a", add_special_tokens=False).tokens[0]
        self._lead = " " if form == "spoken" and first[0] not in "▁Ġ" else ""

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits that differ between encoders that tokenise differently."""
        described = f"{self.form}|{self._backend.to_str()}"
        described += f"|{self.rules.pairs}" if self.rules.pairs else ""
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def words(self, text: str) -> list[list[int]]:
        """Token ids of each `text.split()` word, in order; a word that is not spoken has none.

        The text is tokenised as a whole; a token that spans words belongs to the word in which it
        ends.
        """
        pieces = spoken_words(text, self.rules) if self.form == "spoken" else text.split()
        spoken = [piece for piece in pieces if piece]
        if not spoken:
            return [[] for _ in pieces]
        joined = self._lead + " ".join(spoken)
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
