"""Two readings of a transcript: normalised, to count errors by; and spoken, as it was said.

A normaliser decides what counts as the same text ("twenty one" = "21", "colour" = "color"). The
spoken form is what a language model reads and what the recording holds: words alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache

from relisten.core.types import UsageError

Normaliser = Callable[[str], str]

NORMALISERS = ("english", "basic", "none")

_CACHED_TEXTS = 65_536  # some 20 MB: the texts of one N-best file come again and again


@cache
def normaliser(name: str) -> Normaliser:
    """The function that writes texts the way errors are counted; its output has single spaces.

    english: Whisper's English normaliser (numbers, spelling, contractions, fillers).
    basic: Whisper's basic normaliser (case, punctuation), keeping the combining marks that are
        vowels in Indic and Thai script, which Whisper's own would turn into spaces. In scripts
        written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each character with
        its marks is a word, so that errors over words are errors over characters there.
    none: the text as it is, but for white space.
    The first two drop what cannot be seen: zero-width spaces, soft hyphens, marks of direction.

    Raises UsageError for another name. Source: Whisper, arXiv:2212.04356, appendix C.
    """
    if name not in NORMALISERS:
        raise UsageError(f"no normaliser is called {name!r}; there are {', '.join(NORMALISERS)}")
    rewrite: Normaliser = str
    if name == "english":
        from whisper_normalizer.english import EnglishTextNormalizer

        rewrite = EnglishTextNormalizer()
    elif name == "basic":
        from whisper_normalizer.basic import BasicTextNormalizer

        rewrite = BasicTextNormalizer(preserve_marks=True)

    @lru_cache(maxsize=_CACHED_TEXTS)
    def normalise(text: str) -> str:
        text = rewrite(text if name == "none" else _INVISIBLE.sub("", text))
        if name == "basic":
            text = _UNSPACED_CHARACTER.sub(r" \g<0> ", text)
        return " ".join(text.split())

    return normalise


def lower_if_capitals(text: str) -> str:
    """The text, in lower case if it is all in capitals: nobody speaks in capitals, and models know
    lower case better."""
    return text.lower() if text.isupper() else text


def join_unspaced(text: str) -> str:
    """The text without spaces between characters of scripts that are written without them."""
    return _IDLE_SPACE.sub("", text)


# Not the joiners U+200C and U+200D: they tell words apart in Persian and Indic script.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
_MARKS = "".join(
    chr(code)
    for code in (*range(0x0E00, 0x0F00), *range(0x1000, 0x10A0), *range(0x1780, 0x1800))
    if unicodedata.category(chr(code))[0] == "M"
)
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}][{_MARKS}]*")
_IDLE_SPACE = re.compile(rf"(?<=[{_UNSPACED}])\s+(?=[{_UNSPACED}])")


def spoken(text: str) -> str:
    """The text as it was said: `spoken_words` joined by single spaces, silent ones left out."""
    return " ".join(word for word in spoken_words(text) if word)


def spoken_words(text: str) -> list[str]:
    """What was said for each whitespace-separated word of `text`, in order, one entry a word.

    Lower case; letters of any script; no punctuation but the apostrophes inside words; ASCII
    digits and `% & + @ $ £ €` in English words; an entry has several words where one was written
    ("21" → "twenty one") and is "" where nothing is said ("-", and all within [] or ()).
    """
    heard = _BRACKETED.sub(lambda aside: re.sub(r"\S", ".", aside[0]), text)
    return [_say(word) for word in heard.split()]


_BRACKETED = re.compile(r"\[[^\[\]]*\]|\([^()]*\)")
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+"
_WRITTEN = re.compile(
    rf"""(?P<time>\b(?P<hour>\d{{1,2}}):(?P<minute>[0-5]\d)\b(?!:))
    | (?P<sign>[$£€])(?P<money>{_NUMBER})
    | (?P<ordinal>\d+)(?:st|nd|rd|th)\b
    | (?P<decade>\d*0)['’]?s\b
    | (?P<minus>(?<!\S)[-−])?(?P<number>{_NUMBER})""",
    re.VERBOSE | re.ASCII,
)
_SYMBOLS = {"%": "percent", "&": "and", "+": "plus", "@": "at"}
_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_TITLES = {"mr.": "mister", "mrs.": "missus", "dr.": "doctor", "mr": "mister", "mrs": "missus"}
_JOINERS = "'\u200c\u200d"  # the last two shape letters in Indic and Persian script


@lru_cache(maxsize=_CACHED_TEXTS)
def _say(word: str) -> str:
    """What is said for one written word."""
    lower = unicodedata.normalize("NFC", word.lower())
    if lower.isalpha():
        return _TITLES.get(lower, lower)
    lower = _TITLES.get(lower.strip(",;:"), lower).replace("’", "'")
    lower = _WRITTEN.sub(lambda match: f" {_say_number(match)} ", lower)
    for symbol, name in _SYMBOLS.items():
        lower = lower.replace(symbol, f" {name} ")
    lower = "".join(
        c if c in _JOINERS or unicodedata.category(c)[0] in "LMN" else " " for c in lower
    )
    return " ".join(part for piece in lower.split() if (part := piece.strip(_JOINERS)))


def _say_number(match: re.Match[str]) -> str:
    """The words for one stretch of digits that `_WRITTEN` found."""
    if match["time"]:
        return _say_time(int(match["hour"]), match["minute"])
    if match["sign"]:
        return _say_money(match["money"], *_CURRENCIES[match["sign"]])
    if match["ordinal"]:
        return _in_words(int(match["ordinal"]), "ordinal")
    if match["decade"]:
        singular = _say_digits(match["decade"])
        return f"{singular[:-1]}ies" if singular.endswith("y") else f"{singular}s"
    return f"{'minus ' if match['minus'] else ''}{_say_digits(match['number'])}"


def _say_time(hour: int, minute: str) -> str:
    if minute == "00":
        return f"{_in_words(hour)} o'clock"
    minutes = f"oh {_in_words(int(minute))}" if minute[0] == "0" else _in_words(int(minute))
    return f"{_in_words(hour)} {minutes}"


def _say_money(amount: str, whole_name: str, part_name: str) -> str:
    whole, point, part = amount.replace(",", "").partition(".")
    if point and len(part) != 2:
        return f"{_say_digits(amount)} {whole_name}s"
    said = f"{_in_words(int(whole or 0))} {whole_name}{'' if whole == '1' else 's'}"
    if not point or part == "00":
        return said
    parts = {"penny": "pence"}.get(part_name, f"{part_name}s")
    return f"{said} and {_in_words(int(part))} {part_name if part == '01' else parts}"


def _say_digits(digits: str) -> str:
    """The words for a cardinal, a year, a decimal, or a string of digits read one by one."""
    plain, point, decimals = digits.replace(",", "").partition(".")
    if point:
        return f"{_say_digits(plain or '0')} point {_one_by_one(decimals)}"
    if "," not in digits and len(plain) > 1:
        is_code = len(plain) > 4 and not plain.endswith("000")
        if plain[0] == "0" or is_code:
            return _one_by_one(plain)
        if len(plain) == 4 and 1100 <= int(plain) < 2100:
            return _in_words(int(plain), "year")
    return _in_words(int(plain)) if len(plain) <= 15 else _one_by_one(plain)


def _one_by_one(digits: str) -> str:
    return " ".join(_in_words(int(digit)) for digit in digits)


def _in_words(number: int, kind: str = "cardinal") -> str:
    from num2words import num2words

    said: str = num2words(number, to=kind)
    return " ".join(w for w in re.split(r"[\s,-]+", said) if w != "and")
