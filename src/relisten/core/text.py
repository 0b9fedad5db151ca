"""Two forms of a transcript: normalised, to count errors by; and spoken, the words read aloud.

A normaliser decides what counts as the same text ("twenty one" = "21", "colour" = "color"). The
spoken form is what a language model reads and what the recording contains: words alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache

from relisten.core.english import english_rules
from relisten.core.rules import MOST_RULES, NO_RULES, Rules
from relisten.core.types import FormatError, UsageError
from relisten.core.written import NOTHING, plain

Normaliser = Callable[[str], str]

NORMALISERS = ("english", "basic", "none")

_N_CACHED_WORDS = 65_536  # some 20 MB; the words of a corpus come again and again, its texts do not


@cache
def normaliser(name: str, own: Rules = NO_RULES) -> Normaliser:
    """The function that writes texts the way errors are counted; its output has single spaces.

    english: Whisper's English normaliser (numbers, spelling, contractions, fillers); besides, a
        clock time is a number, as its words are: "7:30" and "seven thirty" are both "730",
        "10:00 a.m." is "10 am", "ten o'clock" is "10"; a sign may stand apart from its number
        ("5 %", "$ 5"); "&" is "and", and "-5" is "minus five".
    basic: Whisper's basic normaliser (case, punctuation), keeping the combining marks that are
        vowels in Indic and Thai script, which Whisper's own would turn into spaces. In scripts
        written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each character with
        its marks is a word, so that errors over words are errors over characters there.
    none: the text as it is, except for white space.
    own: the user's rules, which come before those of the normaliser.
    The first two start from `core.written.plain`: marks such as <unk> are no words, look-alikes
    (’ for ', full-width letters) are the same. They drop words without a letter or digit:
    Whisper's English rules leave a lone "." of "well...".

    Raises UsageError for another name. Source: Whisper, arXiv:2212.04356, appendix C.
    """
    if name not in NORMALISERS:
        raise UsageError(f"no normaliser is called {name!r}; there are {', '.join(NORMALISERS)}")
    if name == "none":
        return lambda text: " ".join(" ".join(_ruled(text.split(), own)).split())
    if name == "english":
        rules: Normaliser = english_rules()
    else:
        from whisper_normalizer.basic import BasicTextNormalizer

        rules = BasicTextNormalizer(preserve_marks=True)

    def normalise(text: str) -> str:
        text = " ".join(_ruled(plain(text).split(), own)).replace(NOTHING, "")
        if name == "english":
            text = text.replace("&", " and ")
            if "'" in text:
                text = _OCLOCK.sub("", text)
            if "." in text:
                text = _AM_PM.sub(r"\1m", text)
            if _DIGIT.search(text):
                text = _MINUS.sub("minus ", _CLOCK_TIME.sub(r"\g<1>\g<2>", text))
                text = _APART.sub(lambda match: re.sub(r"\s+", "", match[0]), text)
        text = rules(_LONG_NUMBER.sub(r"\g<0> ", " ".join(text.split())))
        if name == "basic":
            text = " ".join(words_of_any_script(text))
        words = text.split()
        return " ".join([word for word in words if word.isalnum() or not _is_punctuation(word)])

    return normalise


@cache
def cached_normaliser(name: str, own: Rules = NO_RULES) -> Normaliser:
    """`normaliser(name, own)` that remembers its last 65,536 results: for single words, or texts
    that are compared many times."""
    return lru_cache(maxsize=_N_CACHED_WORDS)(normaliser(name, own))


def has_words(text: str) -> bool:
    """Whether a text holds a letter or a digit: ". . ." and "♪" are none."""
    return any(map(str.isalnum, text))


def _is_punctuation(word: str) -> bool:
    return all(unicodedata.category(c)[0] in "PS" for c in word)


_DIGIT = re.compile(r"\d")
_CLOCK_TIME = re.compile(r"(?<![\d:])(\d{1,2}):(?:00|([0-5]\d))(?![\d:])")
_AM_PM = re.compile(r"(?<![^\W\d_])([ap])\.m\b\.?", re.IGNORECASE)
_MINUS = re.compile(r"(?<!\S)[-−](?=\d)")
_OCLOCK = re.compile(r"\bo'\s?clock\b", re.IGNORECASE)
_APART = re.compile(r"\d\s+%|[$£€]\s+(?=\d)")
_LONG_NUMBER = re.compile(r"(?:\d,?){1000}(?=\d)")  # Python converts none of over 4,300 digits


def lower_if_capitals(text: str) -> str:
    """The text, in lower case if it is all in capitals: nobody speaks in capitals, and models know
    lower case better."""
    return text.lower() if text.isupper() else text


def words_of_any_script(text: str) -> list[str]:
    """What white space separates; in scripts written without spaces each character, with its
    marks, is a word."""
    return _UNSPACED_CHARACTER.sub(r" \g<0> ", text).split()


def join_unspaced(text: str) -> str:
    """The text without spaces between characters of scripts that are written without them."""
    return _UNSPACED_GAP.sub("", text)


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
_UNSPACED_GAP = re.compile(rf"(?<=[{_UNSPACED}])\s+(?=[{_UNSPACED}])")


def spoken(text: str, own: Rules = NO_RULES) -> str:
    """The text as it is spoken: `spoken_words` joined by single spaces, silent ones left out."""
    return " ".join(word for word in spoken_words(text, own) if word)


def spoken_words(text: str, own: Rules = NO_RULES) -> list[str]:
    """How each whitespace-separated word of `text` is spoken, in order, one entry per word.

    own: the user's rules: of the words that a rule replaces the first is spoken as all of them.

    Lower case; letters of any script; no punctuation except apostrophes inside words; ASCII digits
    and `% & + @ $ £ €` as English words; an entry has several words where one was written
    ("21" → "twenty one") and is "" where nothing is spoken ("-", and all within [], <> or ()).
    """
    words = _ruled(plain(text).split(), own)
    return [
        _say(word) if " " not in word else " ".join(filter(None, map(_say, word.split())))
        for word in words
    ]


def parse_rules(text: str, name: str) -> Rules:
    """The rules of a text, one a line: words that count as nothing, or WORDS = REPLACEMENT.

    Case and punctuation of the words do not matter. Empty lines and those that start with # are
    skipped. Raises FormatError with `name` and line.
    """
    pairs: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        left, _, right = line.partition("=")
        words = spoken(left)
        if not words or words in pairs or len(pairs) >= MOST_RULES:
            reason = "stands for no word" if not words else f"{words!r} has a rule already"
            if len(pairs) >= MOST_RULES:
                reason = f"at most {MOST_RULES:,} rules are read"
            raise FormatError(f"{name}:{number}: {reason}; write WORDS or WORDS = REPLACEMENT")
        pairs[words] = " ".join(right.split())
    if not pairs:
        raise FormatError(f"{name}: holds no rule; write one a line: WORDS, or WORDS = REPLACEMENT")
    return Rules(tuple(pairs.items()))


_CLITICS = frozenset(["'m", "'s", "'re", "'ve", "'ll", "'d", "n't"])


def _ruled(words: list[str], own: Rules) -> list[str]:
    """The words, one entry each: detached clitics ("I 'm", as treebanks write) joined to the word
    before, then the user's rules applied; "" where nothing is left."""
    for place in range(1, len(words)):
        if "'" not in words[place]:
            continue
        if words[place].lower().rstrip(",.!?;:") in _CLITICS and words[place - 1].isalpha():
            words[place - 1], words[place] = words[place - 1] + words[place], ""
    return own.apply(words, [_say(word) for word in words]) if own.pairs else words


_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+"
_WRITTEN = re.compile(
    rf"""(?P<time>\b(?P<hour>\d{{1,2}}):(?P<minute>[0-5]\d)\b(?!:))
    | (?P<sign>[$£€])(?P<money>{_NUMBER})
    | (?P<ordinal>\d+)(?:st|nd|rd|th)\b
    | (?P<decade>\d*0)'?s\b
    | (?P<minus>(?<!\S)[-−])?(?P<number>{_NUMBER})""",
    re.VERBOSE | re.ASCII,
)
_SYMBOLS = {"%": "percent", "&": "and", "+": "plus", "@": "at"}
_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_SHORT = {"mr.": "mister", "mrs.": "missus", "dr.": "doctor", "mr": "mister", "mrs": "missus"}
_SHORT |= {"a.m.": "am", "p.m.": "pm", "a.m": "am", "p.m": "pm"}
_JOINERS = "'\u200c\u200d"  # the last two shape letters in Indic and Persian script


@lru_cache(maxsize=_N_CACHED_WORDS)
def _say(word: str) -> str:
    """How one written word is spoken."""
    lower = unicodedata.normalize("NFC", word.replace(NOTHING, "").lower())
    if lower.isalpha():
        return _SHORT.get(lower, lower)
    lower = _SHORT.get(lower.strip(",;:?!"), lower)
    lower = _WRITTEN.sub(lambda match: f" {_say_number(match)} ", lower)
    for symbol, name in _SYMBOLS.items():
        lower = lower.replace(symbol, f" {name} ")
    lower = "".join(
        c if c in _JOINERS or unicodedata.category(c)[0] in "LMN" else " " for c in lower
    )
    return " ".join(part for piece in lower.split() if (part := piece.strip(_JOINERS)))


def _say_number(match: re.Match[str]) -> str:
    """The words for one match of `_WRITTEN`."""
    if match["time"]:
        return _say_time(match["hour"], match["minute"])
    if match["sign"]:
        return _say_money(match["money"], *_CURRENCIES[match["sign"]])
    if match["ordinal"]:
        return _in_words(match["ordinal"], "ordinal")
    if match["decade"]:
        singular = _say_digits(match["decade"])
        return f"{singular[:-1]}ies" if singular.endswith("y") else f"{singular}s"
    return f"{'minus ' if match['minus'] else ''}{_say_digits(match['number'])}"


def _say_time(hour: str, minute: str) -> str:
    if minute == "00":
        return f"{_in_words(hour)} o'clock"
    return f"{_in_words(hour)} {'oh ' if minute[0] == '0' else ''}{_in_words(minute)}"


def _say_money(amount: str, whole_name: str, part_name: str) -> str:
    whole, point, part = amount.replace(",", "").partition(".")
    if point and len(part) != 2:
        return f"{_say_digits(amount)} {whole_name}s"
    words = f"{_in_words(whole or '0')} {whole_name}{'' if whole == '1' else 's'}"
    if not point or part == "00":
        return words
    parts = {"penny": "pence"}.get(part_name, f"{part_name}s")
    return f"{words} and {_in_words(part)} {part_name if part == '01' else parts}"


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
            return _in_words(plain, "year")
    return _in_words(plain)


def _one_by_one(digits: str) -> str:
    return " ".join(_in_words(digit) for digit in digits)


_LONGEST_NUMBER = 15  # digits; longer ones are read one by one, and num2words fails from 307 on


def _in_words(digits: str, kind: str = "cardinal") -> str:
    if len(digits) > _LONGEST_NUMBER:
        return _one_by_one(digits)
    from num2words import num2words

    words: str = num2words(int(digits), to=kind)
    return " ".join(word for word in re.split(r"[\s,-]+", words) if word != "and")
