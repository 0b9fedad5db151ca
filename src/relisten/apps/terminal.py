"""Text of other people's files on a terminal: shown, never obeyed."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters, marks of direction and half surrogate pairs as escapes:
    an id or a file name cannot move the cursor, change colours or reorder the line."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def cell(text: str, style: str = "") -> Text:
    """A table cell or heading; rich reads no markup in it."""
    from rich.text import Text

    return Text(printable(text), style)


def rate_text(rate: float) -> str:
    """A fraction as per cent; a dash where it is not finite (there was no reference word)."""
    return f"{rate:.2%}" if math.isfinite(rate) else "–"
