"""The first step towards any form of a text: what recognisers and transcribers write beside words.

Marks (`<unk>`, `[laughter]`, `%HESITATION`) are no words, and look-alikes (’ for ', full-width
letters, ligatures) are other ways of writing the same word. Every normaliser and the spoken form
start here, so that they agree on what is a word. The table of rules is in docs/formats.md.
"""

from __future__ import annotations

import re
import unicodedata

NOTHING = "\u2060"
"""Stands where nothing is said (U+2060, which cannot be seen): a word in brackets keeps its place
among the words of the text. Who works on the words removes it."""


def plain(text: str) -> str:
    """The text with marks made `NOTHING` and look-alikes made plain; as many words as before.

    Words are what white space separates. Case and other punctuation stay. An opening bracket that
    nothing closes becomes "|", which is a symbol like any other. Linear in the length of the text.
    """
    if text.isascii() and not _ODD_IN_ASCII.search(text):
        return text
    text = _INVISIBLE.sub(NOTHING, text.translate(_LOOK_ALIKES))
    text = _JOINER.sub(_keep_joiner, text)
    text = _COMPATIBLE.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)
    text = _UNSURE.sub(rf"{NOTHING}\1{NOTHING}", _LAUGHED.sub(r"\1", text))
    return _PERCENT.sub(NOTHING, _NOISE.sub(NOTHING, _without_asides(text)))


def _without_asides(text: str) -> str:
    """<marks>, [marks] and (marks) as Whisper's rules find them, each word of them `NOTHING`.

    Their patterns search for the end of each bracket: 20,000 brackets that are never closed take
    6 s. Here those that nothing closes are set aside first.
    """
    for opening, closing, aside in _ASIDES:
        end = max(text.rfind(mark) for mark in closing) + 1
        text = aside.sub(_silence, text[:end]) + opening.sub("|", text[end:])
    return text


def _silence(aside: re.Match[str]) -> str:
    return re.sub(r"\S+", NOTHING, aside[0])


def _keep_joiner(joiner: re.Match[str]) -> str:
    """U+200C and U+200D tell words apart in Persian and Indic script; elsewhere, nothing."""
    start, text = joiner.start(), joiner.string
    before, after = text[start - 1 : start], text[start + 1 : start + 2]
    is_inside = bool(before and after) and all(
        not c.isascii() and unicodedata.category(c)[0] in "LM" for c in (before, after)
    )
    return joiner[0] if is_inside else NOTHING


_ASIDES = (
    (re.compile(r"[<\[]"), ">]", re.compile(r"[<\[][^>\]]*[>\]]")),
    (re.compile(r"\("), ")", re.compile(r"\([^)]+?\)")),
)  # an opening bracket, what closes it, and Whisper's own pattern of the whole
_WORD_START = rf"(?<![^\s{NOTHING}])"
_NOISE = re.compile(
    rf"{_WORD_START}(?:%hesitation\b|!sil\b|\+\+[^\s+]+\+\+|&=\S+|\{{[^\s{{}}]+\}})", re.IGNORECASE
)  # of IBM Watson and Kaldi, HTK, CMU Sphinx, TalkBank, TED-LIUM
_PERCENT = re.compile(rf"{_WORD_START}%(?=[^\W\d_])")  # "%uh" is "uh", not "percent uh"

_UNSURE = re.compile(r"\(\(([^()]*)\)\)")  # Fisher: heard, but not clearly
_LAUGHED = re.compile(r"\[laughter-([^\s\[\]]+)\]", re.IGNORECASE)  # Switchboard: said laughing

_CONTROL = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
_ODD_IN_ASCII = re.compile(f"[<>\\[\\]()%`{{!+&{_CONTROL}]")
_INVISIBLE = re.compile(
    f"[{_CONTROL}\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)  # soft hyphens, zero-width spaces, marks of direction, variation selectors
_JOINER = re.compile("[\u200c\u200d]")
_LOOK_ALIKES = {
    **dict.fromkeys(map(ord, "’‘‛ʼ´`＇′"), "'"),
    **dict.fromkeys(map(ord, "【〔"), "["),
    **dict.fromkeys(map(ord, "】〕"), "]"),
    **dict.fromkeys(map(ord, "\u2010\u2011\ufe63\uff0d"), "-"),
}
# Full-width letters, digits and marks, half-width kana; digits and letters in circles; Latin
# ligatures; Arabic letters in one of their shapes; mathematical letters. None becomes a space.
_COMPATIBLE = re.compile(
    "[\uff01-\uff9f\u2460-\u2473\u24b6-\u24ea\ufb00-\ufb06\ufe80-\ufefc\U0001d400-\U0001d7ff]+"
)
