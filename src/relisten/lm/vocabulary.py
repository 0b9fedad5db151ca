"""The joint vocabulary: the LM's own text tokens, two markers, and the speech units.

    0 … n_text-1      text tokens
    n_text            <speech>, opens a segment of speech
    n_text+1          <text>, opens a segment of text
    n_text+2 …        units, n_units of them

The markers stand between text and units, so that what can follow is one contiguous range: text
tokens and markers at a text position, markers and units at a unit position.
"""

from __future__ import annotations

from dataclasses import dataclass

from relisten.core.types import ModelError


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Where each kind of token lies.

    n_text: size of the LM's own vocabulary. n_units: codes of the first codebook level, 0 for a
    text-only LM (which then has no markers either). bos_id: the token every sequence starts with.
    eos_id: the token that closes a hypothesis; its log-probability is always counted.
    """

    n_text: int
    bos_id: int
    eos_id: int
    n_units: int = 0

    def __post_init__(self) -> None:
        for name in ("bos_id", "eos_id"):
            if not 0 <= getattr(self, name) < self.n_text:
                raise ModelError(
                    f"{name} is {getattr(self, name)}, outside the LM's {self.n_text} text tokens; "
                    "tokenizer and model do not belong together"
                )

    @property
    def speech_id(self) -> int:
        """The marker that opens a segment of speech and closes the text before it."""
        return self.n_text

    @property
    def text_id(self) -> int:
        """The marker that opens a segment of text and closes the speech before it."""
        return self.n_text + 1

    @property
    def first_unit_id(self) -> int:
        """The joint id of the first-level code 0; code k has the id first_unit_id + k."""
        return self.n_text + 2
