"""Error counts: by hand, as sums, and in parity with jiwer."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.core.error_rates import (
    ErrorCounts,
    align_words,
    char_errors,
    errors_matrix,
    word_errors,
)
from relisten.core.text import normaliser
from relisten.core.types import UsageError

TEXTS = st.lists(st.sampled_from(["a", "b", "ab", "the", "हाँ"]), max_size=8).map(" ".join)


def test_counts_by_hand() -> None:
    """a b c d / a x c e e: b→x and d→e substituted, one e inserted, a and c hit: 3 / 4."""
    counts = word_errors("a b c d", "a x c e e")
    assert counts == ErrorCounts(2, 2, 0, 1, n_reference=4)
    assert counts.errors == 3
    assert counts.rate == 0.75


def test_empty_texts_are_data() -> None:
    assert word_errors("", "two words") == ErrorCounts(insertions=2)
    assert word_errors("two words", " ") == ErrorCounts(deletions=2, n_reference=2)
    assert word_errors("", "") == ErrorCounts()
    assert ErrorCounts().rate == 0.0
    assert word_errors("", "x").rate == float("inf")
    assert errors_matrix("", ["", "a b"]).tolist() == [0, 2]
    assert errors_matrix("a b", []).shape == (0,)


def test_characters_count_the_spaces_between_words() -> None:
    """ab c / abc: one space deleted out of four characters."""
    assert char_errors(" ab   c\n", "abc") == ErrorCounts(hits=3, deletions=1, n_reference=4)


def test_scripts_without_spaces_have_one_rate_of_characters() -> None:
    """今天天气好 recognised as 今天，天七: one substituted, one deleted, of five. The comma
    is none; words and characters agree. In English-Chinese "我 ok" the space is one of four."""
    basic = normaliser("basic")
    reference, hypothesis = basic("今天天气好"), basic("今天，天七")
    expected = ErrorCounts(hits=3, substitutions=1, deletions=1, n_reference=5)
    assert word_errors(reference, hypothesis) == expected
    assert char_errors(reference, hypothesis) == expected
    assert char_errors("今天天气好", "今天 天七") == expected
    assert char_errors("我 ok", "我ok").n_reference == 4


def test_vowel_signs_are_characters() -> None:
    """कि for की: the sign alone is wrong, one of two code points, and the word with it."""
    assert char_errors("की", "कि") == ErrorCounts(hits=1, substitutions=1, n_reference=2)
    basic = normaliser("basic")
    assert word_errors(basic("की।"), basic("कि")).errors == 1


@given(TEXTS.filter(bool), TEXTS)
def test_words_and_characters_agree_with_jiwer(reference: str, hypothesis: str) -> None:
    words = word_errors(reference, hypothesis)
    theirs = jiwer.process_words(reference, hypothesis)
    assert (words.hits, words.substitutions) == (theirs.hits, theirs.substitutions)
    assert (words.deletions, words.insertions) == (theirs.deletions, theirs.insertions)
    assert words.rate == pytest.approx(theirs.wer)
    characters = char_errors(reference, hypothesis)
    assert characters.rate == pytest.approx(jiwer.cer(reference, hypothesis))


@given(TEXTS, st.lists(TEXTS, max_size=4))
def test_many_at_once_equal_one_by_one_and_sums_add_up(
    reference: str, hypotheses: list[str]
) -> None:
    single = [word_errors(reference, h) for h in hypotheses]
    assert errors_matrix(reference, hypotheses).tolist() == [c.errors for c in single]
    total = sum(single, ErrorCounts())
    assert total.errors == sum(c.errors for c in single)
    assert total.n_reference == len(reference.split()) * len(hypotheses)


def test_contradicting_counts_are_refused() -> None:
    with pytest.raises(UsageError, match="n_reference"):
        ErrorCounts(hits=1, n_reference=2)
    with pytest.raises(UsageError, match="negative"):
        ErrorCounts(hits=-1, substitutions=1)


def test_columns_by_hand() -> None:
    """One hypothesis hears "uh" before b and loses c, the other takes b for x and adds y."""
    assert align_words("a b c", ["a uh b", "a x c y"]) == [
        ("a", "a", "a"),
        (None, "uh", None),
        ("b", "b", "x"),
        ("c", None, "c"),
        (None, None, "y"),
    ]
    assert align_words("", ["two words", ""]) == [(None, "two", None), (None, "words", None)]
    assert align_words("a", []) == [("a",)]


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_columns_hold_all_words_and_all_errors(reference: str, hypotheses: list[str]) -> None:
    columns = align_words(reference, hypotheses)
    for row, text in enumerate([reference, *hypotheses]):
        entries = [column[row] for column in columns]
        assert [word for word in entries if word is not None] == text.split()
        n_errors = sum(entry != column[0] for entry, column in zip(entries, columns, strict=True))
        assert n_errors == word_errors(reference, text).errors
