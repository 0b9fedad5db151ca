"""Files of a user's own rules of what is the same text."""

from __future__ import annotations

from pathlib import Path

from relisten.core.rules import NO_RULES, Rules
from relisten.core.text import parse_rules
from relisten.core.types import FormatError, UsageError


def read_rules(path: str | None) -> Rules:
    """The rules of a file; none where there is none. See `core.text.parse_rules`.

    Raises FormatError for another layout, UsageError where the file cannot be read.
    """
    if path is None:
        return NO_RULES
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not UTF-8 ({error.reason}); convert the file") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: no rules can be read there ({reason})") from error
    return parse_rules(text, path)
