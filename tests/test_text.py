"""Normalised and spoken forms, by hand."""

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from whisper_normalizer.english import EnglishTextNormalizer

from relisten.core.combine import n_spoken_words
from relisten.core.english import english_rules
from relisten.core.rules import Rules
from relisten.core.text import (
    NORMALISERS,
    cached_normaliser,
    lower_if_capitals,
    normaliser,
    parse_rules,
    spoken,
    spoken_words,
)
from relisten.core.types import FormatError, UsageError
from relisten.core.written import NOTHING, plain

SPOKEN = {
    "0351": "zero three five one",
    "1998": "nineteen ninety eight",
    "1905": "nineteen oh five",
    "2005": "two thousand five",
    "2,005": "two thousand five",
    "21": "twenty one",
    "0": "zero",
    "4523": "four thousand five hundred twenty three",
    "10000": "ten thousand",
    "94305": "nine four three zero five",
    "1,234,567": "one million two hundred thirty four thousand five hundred sixty seven",
    "3rd": "third",
    "22nd,": "twenty second",
    "1990s": "nineteen nineties",
    "80's": "eighties",
    "$5": "five dollars",
    "$1.": "one dollar",
    "£2.50": "two pounds and fifty pence",
    "$0.01": "zero dollars and one cent",
    "$1.5": "one point five dollars",
    "50%": "fifty percent",
    "3.5": "three point five",
    ".25": "zero point two five",
    "-7": "minus seven",
    "10:30": "ten thirty",
    "7:05": "seven oh five",
    "6:00.": "six o'clock",
    "10-20": "ten twenty",
    "24/7": "twenty four seven",
    "A4": "a four",
    "mp3s": "mp three s",
    "Mr.": "mister",
    "Dr.,": "doctor",
    "U.S.": "u s",
    "AT&T": "at and t",
    "well-known": "well known",
    "Don’t!": "don't",
    "dogs'": "dogs",
    "\"'Tis": "tis",
    "—": "",
    "...": "",
    "ÉTÉ": "été",
    "हिन्दी।": "हिन्दी",
    "9" * 20: " ".join(["nine"] * 20),
}


@pytest.mark.parametrize(("written", "words"), SPOKEN.items())
def test_one_written_word_is_spoken_as_by_hand(written: str, words: str) -> None:
    assert spoken_words(written) == [words]


@pytest.mark.parametrize("n", [16, 307, 4301])
def test_a_digit_loop_of_a_recogniser_is_read_digit_by_digit(n: int) -> None:
    """num2words fails from 307 digits on, Python's own conversion from 4,301."""
    nines = " ".join(["nine"] * n)
    assert spoken("9" * n) == nines
    assert spoken(f"${'9' * n}") == f"{nines} dollars"
    assert spoken(f"${'9' * n}.50") == f"{nines} dollars and fifty cents"
    assert spoken(f"{'9' * n}th") == nines
    assert spoken(f"0.{'9' * n}") == f"zero point {nines}"
    for name in NORMALISERS:
        assert normaliser(name)("9" * n).replace(" ", "") == "9" * n


def test_what_stands_in_brackets_is_not_spoken_but_keeps_its_place() -> None:
    assert spoken_words("[door slams] Who's (sighs) there?") == ["", "", "who's", "", "there"]
    assert spoken("[door slams] Who's (sighs) there?") == "who's there"


@given(
    st.text(alphabet=st.sampled_from("09 1a'Z.,:-$%é\u00a0ह\u094d()[]"), max_size=20) | st.text()
)
def test_one_entry_a_word_and_speaking_it_again_changes_nothing(text: str) -> None:
    words = spoken_words(text)
    assert len(words) == len(text.split())
    again = spoken(text)
    assert spoken(again) == again
    assert not set(again) & set("0123456789.,:-$%()[]")


def test_the_normalisers_agree_with_what_whisper_documents() -> None:
    english, basic, none = (normaliser(name) for name in ("english", "basic", "none"))
    assert english("Mr. Brown's colour, it's twenty-one!") == "mister brown is color it is 21"
    assert english("Um, hello [music]") == "hello"
    assert basic("  Mr. Brown's, L'été!  ") == "mr brown s l été"
    assert none("  Mr.   Brown's \n") == "Mr. Brown's"
    assert [normaliser(name)(" ") for name in NORMALISERS] == ["", "", ""]


WITHOUT_PUNCTUATION = {
    "must be IMPORTANT...": "must be important",
    "wait... what": "wait what",
    "five . . .": "5",
    "...": "",
    "…": "",
    "$": "",
    "it is 5 a.m.": "it is 5 am",
    "3.5": "3.5",
    "U.S.A.": "u s a",
    "$5.10.": "$5.10",
}


@pytest.mark.parametrize(("written", "normalised"), WITHOUT_PUNCTUATION.items())
def test_punctuation_alone_is_no_word(written: str, normalised: str) -> None:
    """Whisper's own rules leave a "." of an ellipsis, 181 of 3,265 words of one dialogue set."""
    assert normaliser("english")(written) == normalised
    assert not set(normaliser("basic")(written)) & set(".…$")


CLOCK_TIMES_AND_APOSTROPHES = {
    "the train leaves at 7:30": "the train leaves at seven thirty",
    "come at 10:00 AM": "come at ten am",
    "at 7:05, please": "at seven oh five please",
    "I don’t think it’s late": "I don't think it's late",
}


@pytest.mark.parametrize(("written", "same"), CLOCK_TIMES_AND_APOSTROPHES.items())
def test_two_ways_of_writing_are_the_same_text(written: str, same: str) -> None:
    """Whisper's own rules make "7 30" of the first, "730" of its words, and "don t" of "don’t"."""
    english = normaliser("english")
    assert english(written) == english(same)
    assert english("12:30:15 and 3:5") == "12 30 15 and 3 5"


def test_brackets_that_nobody_closes_take_no_time() -> None:
    """20,000 of them took 6 s: each searched for its end. Closed ones are still asides."""
    english, basic = normaliser("english"), normaliser("basic")
    start = time.process_time()
    for opening in ("(", "[", "<", "(["):
        for text in (opening * 20_000, f"{opening * 20_000}[)]", " " * 20_000):
            assert english(f"so {text}") == basic(f"so {text}") == "so"
    assert time.process_time() - start < 2
    assert english("[a (b] c) d (e) (f <g> h") == "c d f h"


def test_the_cached_normaliser_is_the_same_function() -> None:
    for name in NORMALISERS:
        for text in ("It's 5...", "  A  b ", "It's 5..."):
            assert cached_normaliser(name)(text) == normaliser(name)(text)
    assert cached_normaliser("english") is cached_normaliser("english")


def test_basic_keeps_the_vowels_of_indic_and_thai_script() -> None:
    """Whisper's own basic normaliser makes "ह न द" of the first word."""
    assert normaliser("basic")("हिन्दी, ที่นี่!") == "हिन्दी ที่ นี่"


def test_an_unknown_normaliser_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"'german'.*english, basic, none"):
        normaliser("german")


NORMALISED = {
    "हिन्दी में लिखो।": "हिन्दी में लिखो",
    "ভাষা কী?": "ভাষা কী",
    "தமிழ் மொழி": "தமிழ் மொழி",
    "اَلْعَرَبِيَّةُ!": "اَلْعَرَبِيَّةُ",
    "한국어 맞춤법": "한국어 맞춤법",
    "Tiếng Việt": "tiếng việt",
    "Ｆｕｌｌ　width": "full width",
    "今天，天气": "今 天 天 气",
    "我们have三个": "我 们 have 三 个",
    "日本語ガギー": "日 本 語 ガ ギ ー",
    "ที่นี่ ไทย": "ที่ นี่ ไ ท ย",
    "မြန်မာ": "မြ န် မာ",
    "ខ្មែរ": "ខ្ មែ រ",
    "می\u200cخواهم": "می\u200cخواهم",  # a joiner tells words apart
    "so\u00adft\u200b\ufeff": "soft",  # these cannot be seen
}


@pytest.mark.parametrize(("written", "normalised"), NORMALISED.items())
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_basic_in_many_scripts_by_hand(written: str, normalised: str, form: str) -> None:
    """However accents are encoded; vowel signs stay; where no spaces are written, each character
    with its marks is a word."""
    basic = normaliser("basic")
    wanted = unicodedata.normalize("NFC", normalised)
    assert unicodedata.normalize("NFC", basic(unicodedata.normalize(form, written))) == wanted
    assert basic(basic(written)) == basic(written)


def test_what_cannot_be_seen_is_no_error_in_english() -> None:
    assert normaliser("english")("\ufeffso\u00adft co\u200blours") == "soft colors"


def test_only_a_text_all_in_capitals_is_lowered() -> None:
    texts = ("IT'S 9 O'CLOCK.", "It's NASA.", "9.", "")
    assert [lower_if_capitals(text) for text in texts] == ["it's 9 o'clock.", *texts[1:]]


MARKS_AND_LOOK_ALIKES = {
    "so <unk> it goes": "so it goes",
    "<s> so it goes </s>": "so it goes",
    "<|en|><|0.00|> So it goes.<|2.40|>": "so it goes",
    "%HESITATION so %hesitation, it goes": "so it goes",
    "so [laughter] it goes (door slams)": "so it goes",
    "[laughter-so] it [Laughter-goes]": "so it goes",
    "so it %yeah goes": "so it yeah goes",
    "!SIL so it {BREATH} goes ++COUGH++ &=laughs": "so it goes",
    "((so it)) goes (( )) 【笑】": "so it goes",
    "ｓｏ　ｉｔ　ｇｏｅｓ": "so it goes",
    "it goes at 7:30 p.m., and ③ at 6 A.M.": "it goes at seven thirty pm and three at six am",
    "rock & roll at −5": "rock and roll at minus five",
    "so it go\u00ades\u200b \ufeff": "so it goes",
    "so\u00a0it\u202fgoes": "so it goes",
    "I don‘t, donʼt, don´t, don＇t, don`t, don’t": "i don't don't don't don't don't don't",
    "a well\u2011known fact": "a well known fact",
    "the ﬁrst ﬂoor oﬃce": "the first floor office",
    "𝐛𝐨𝐥𝐝 words ❤\ufe0f 👨\u200d👩 here": "bold words here",
    "２１ ｃａｔｓ at ７：３０": "twenty one cats at seven thirty",
}


@pytest.mark.parametrize(("written", "words"), MARKS_AND_LOOK_ALIKES.items())
def test_marks_are_no_words_and_look_alikes_are_the_same(written: str, words: str) -> None:
    """Seen in real lists: "<unk>" was read aloud as "unk", "%HESITATION" as "percent hesitation",
    "don‘t" was two words, "ﬁrst" another word than "first"."""
    assert spoken(written) == words
    assert normaliser("english")(written) == normaliser("english")(words)
    if not {"twenty", "three", "five"} & set(words.split()):  # the basic form reads no numbers
        assert normaliser("basic")(written) == normaliser("basic")(words)


def test_a_percentage_and_a_joiner_between_letters_stay() -> None:
    assert spoken("50 % of 5% fat") == "fifty percent of five percent fat"
    assert normaliser("english")("5% fat") == "5% fat"
    assert spoken("می\u200cخواهم क्\u200dष") == "می\u200cخواهم क्\u200dष"


def test_a_backtick_is_an_apostrophe_whatever_else_the_text_holds():
    assert plain("don`t") == plain("don’t") == "don't"
    assert spoken("don`t") == "don't"
    assert normaliser("english")("we don`t") == normaliser("english")("we don't")


@example("\x08`")
@given(
    st.text() | st.text(st.sampled_from("a1 ’[]()<>%\u00ad\u200b\u200d\u2060\ufeff\u3000ｶﾞﬁ\x07"))
)
def test_the_first_step_keeps_the_count_of_words(text: str) -> None:
    assert len(plain(text).split()) == len(text.split())
    assert plain(plain(text)).replace(NOTHING, "") == plain(text).replace(NOTHING, "")


WRITTEN_WORDS = """
    I we don’t it's o'clock the Colour café rock-and-roll “yes” well... Mr. U.S. Dr., 50% 21st 7:30
    10:05 1998 $5 um [noise] <unk> %HESITATION ﬁrst ＯＫ co\u00adlour ‘no’ (sighs) naïve
    twenty hundred
"""
REALISTIC = st.lists(
    st.sampled_from(WRITTEN_WORDS.split()).flatmap(
        lambda word: st.sampled_from([word, f"{word},", f"{word}?"])
    ),
    max_size=8,
).map(lambda words: " and then ".join(words))


@given(REALISTIC)
def test_the_spoken_form_is_the_same_text_in_english(text: str) -> None:
    """Scores are of the spoken form, errors are counted in the other: they must be one text.

    The numbers stand apart here: neighbours become one ("5 6" stays two, "five six" is 56). Nor
    does it hold for + and @ (spoken as words, which Whisper's rules drop), ".5" and 6:00.
    """
    english = normaliser("english")
    assert english(spoken(text)) == english(text)


WORDS_WITH_NEIGHBOURS = """
    a half and been gone got gotta it's he'd don't 's 'm uh um 5 2.5 $5 5$ % 50 per cent dollars ¢7
    £ one two ones twenty hundred point oh double minus plus 3rd th st s mr. cat dogs, word. . 'twas
    colour café 1,000 10:30 -7 kinda gonna cause won't A.M. 90s o'clock #5 &
"""
CONTEXT = st.lists(st.sampled_from(WORDS_WITH_NEIGHBOURS.split()), max_size=10).map(" ".join)


@given(CONTEXT)
def test_remembered_words_give_what_whispers_rules_give(text: str) -> None:
    assert english_rules()(text).split() == EnglishTextNormalizer()(text).split()


@pytest.mark.parametrize(
    ("detached", "attached"),
    [
        ("I 'm here", "I'm here"),
        ("they 've gone, do n't you think", "they've gone, don't you think"),
        ("it 's late. We 'll see, he 'd say", "it's late. We'll see, he'd say"),
        ("you \u2019re right", "you're right"),
        ("CA N'T YOU", "CAN'T YOU"),
    ],
)
def test_a_detached_clitic_belongs_to_the_word_before(detached: str, attached: str) -> None:
    """As treebanks and some recognisers write them; a word stays an entry of its own, silent."""
    assert spoken(detached) == spoken(attached)
    for name in ("english", "basic"):
        assert normaliser(name)(detached) == normaliser(name)(attached)
    assert len(spoken_words(detached)) == len(detached.split())


def test_a_quotation_is_no_clitic() -> None:
    assert spoken("he said 'stop it' and 's") == "he said stop it and's"
    assert spoken("'m not") == "m not", "nothing stands before it"


OWN = """
# fillers
Uh,
you know
e mail = email
gonna = going to
know = no
OK = okay
"""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Uh, I'm gonna go", "I'm going to go"),
        ("You know, you  know it", "it"),
        ("I know you", "I no you"),
        ("an e-mail", "an e-mail"),  # one word between spaces: "e mail" are two
        ("an E mail, OK?", "an email okay?"),
        ("uh uh UH", ""),
        ("you knowing", "you knowing"),
    ],
)
def test_own_rules_hold_in_every_form(written: str, meant: str) -> None:
    """The spoken form, both normalisers and the length agree, and every word keeps its entry."""
    rules = parse_rules(OWN, "rules.txt")
    assert spoken(written, rules) == spoken(meant)
    assert len(spoken_words(written, rules)) == len(written.split())
    for name in ("english", "basic"):
        assert normaliser(name, rules)(written) == normaliser(name)(meant)
    assert n_spoken_words(written, rules) == n_spoken_words(meant)


def test_rules_that_cannot_be_read_are_named() -> None:
    with pytest.raises(FormatError, match=r"rules.txt:2: stands for no word"):
        parse_rules("uh\n = nothing", "rules.txt")
    with pytest.raises(FormatError, match=r"rules.txt:3: 'uh' has a rule already"):
        parse_rules("uh\n\nUh! = oh", "rules.txt")
    with pytest.raises(FormatError, match="holds no rule"):
        parse_rules("# nothing\n", "rules.txt")


@given(st.text(), st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=4))
def test_any_rules_leave_as_many_entries_as_words(text: str, pairs: list[tuple[str, str]]) -> None:
    lefts = {spoken(left): right for left, right in pairs if spoken(left)}
    rules = Rules(tuple((left, " ".join(right.split())) for left, right in lefts.items()))
    assert len(spoken_words(text, rules)) == len(text.split())
    normaliser("basic", rules)(text)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("at 12:00 noon", "at twelve o'clock noon"),
        ("ten o'clock", "10:00"),
        ("Ten o\u2019clock sharp", "ten sharp"),
        ("5 %", "five percent"),
        ("12 % of it", "12% of it"),
        ("$ 5", "five dollars"),
    ],
)
def test_clock_times_and_signs_are_read_as_they_are_said(written: str, said: str) -> None:
    assert normaliser("english")(written) == normaliser("english")(said)
