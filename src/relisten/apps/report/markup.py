"""Pieces of HTML: readable numbers, tables, figures, and data that cannot become markup."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from html import escape

Cell = str | tuple[str, float]
"""The content of a cell, as HTML; of a number, also its value to sort by."""

_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_HALF_PAIRS = re.compile("[\ud800-\udfff]")


def plain(words: str) -> str:
    """Any text, for an attribute or a title; half a surrogate pair becomes U+FFFD."""
    return escape(_HALF_PAIRS.sub(_REPLACEMENT, words))


def text(words: str) -> str:
    """Any text as HTML, whatever direction it is written in."""
    return f"<bdi>{plain(words)}</bdi>"


def data(value: object) -> str:
    """JSON for a `<script>` element: nothing in it can close the element or begin a comment."""
    return safe(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def safe(as_json: str) -> str:
    """JSON with escapes for `<`, `>`, `&`, line separators and half surrogate pairs."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", as_json)


def percent(rate: float, digits: int = 2) -> str:
    """A fraction in per cent, without the sign; a dash where it is not finite."""
    return f"{rate * 100:.{digits}f}" if math.isfinite(rate) else "–"


def signed(rate: float, digits: int = 2) -> str:
    """A fraction as per cent with its sign, a true minus; no sign at zero."""
    if not math.isfinite(rate):
        return "–"
    shown = f"{rate * 100:+.{digits}f}"
    return shown[1:] if float(shown) == 0 else shown.replace("-", "−")


def table(
    caption: str, headings: Sequence[str], rows: Iterable[Sequence[Cell]], kind: str = ""
) -> str:
    """A table whose rows begin with their own heading; `kind` is its class.

    The page's script makes a `sortable` one sortable, and folds a `long` one.
    """
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(_cells(row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{plain(caption)}">'
        f'<table class="{kind}"><caption>{plain(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(row: Sequence[Cell]) -> Iterable[str]:
    for place, cell in enumerate(row):
        shown, key = cell if isinstance(cell, tuple) else (cell, None)
        sort = "" if key is None or not math.isfinite(key) else f' data-v="{key:.6g}"'
        yield f"<td{sort}>{shown}</td>" if place else f'<th scope="row"{sort}>{shown}</th>'


def figure(title: str, reading: str, picture: str, numbers: str) -> str:
    """A chart under its title, with a caption, and its numbers folded away. All are HTML."""
    return (
        f"<figure><h3>{title}</h3>{picture}<figcaption>{reading}</figcaption>"
        f'<details class="numbers"><summary>Numbers</summary>{numbers}</details></figure>'
    )


def legend(*entries: tuple[str, str]) -> str:
    """The legend of a chart: (class of the mark, its name)."""
    marks = "".join(f'<li><span class="key {kind}"></span>{name}</li>' for kind, name in entries)
    return f'<ul class="legend">{marks}</ul>'
