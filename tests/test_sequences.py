"""Every order of speech and text, written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from relisten.lm.sequences import AS_SPEECH, AS_TEXT, UNSCORED, Speech, build_sequence
from relisten.lm.vocabulary import Vocabulary

VOCABULARY = Vocabulary(n_text=60, bos_id=0, eos_id=1, n_units=10)
BOS, EOS, S, T, U = 0, 1, 60, 61, 62  # S, T: the markers <speech> and <text>; U + k: unit k
WORDS = ((5, 6), (7,))
ENDS_S = (0.08, 0.2)
"""The first word ends after two units of 40 ms, the second after five; two more follow."""
SPEECH = Speech(np.array([[3, 9], [1, 9], [4, 9], [1, 9], [5, 9], [9, 9], [2, 9]], np.int32), 0.04)
UNITS = [U + 3, U + 1, U + 4, U + 1, U + 5, U + 9, U + 2]

BY_HAND = {  # tokens, and where scored: t as text, s as speech, a dot not at all
    "text": ([BOS, T, 5, 6, 7, EOS], "..tttt"),
    "speech_first": ([BOS, S, *UNITS, T, 5, 6, 7, EOS], "..........tttt"),
    "interleaved": (
        [BOS, S, *UNITS[:2], T, 5, 6, S, *UNITS[2:5], T, 7, S, *UNITS[5:], T, EOS],
        ".....ttt....tt...t",
    ),
    "chunked": ([BOS, S, 5, 6, S, 7, S, EOS], "..tttttt"),
    "text_first": ([BOS, T, 5, 6, 7, S, *UNITS, T], "......ssssssss"),
    "speech": ([BOS, S, *UNITS, T], "..ssssssss"),
}
CHUNKS = [(0, 2), (2, 5), (5, 7)]


@pytest.mark.parametrize("order", BY_HAND)
def test_each_order_by_hand(order) -> None:
    """At a unit its index enters, at the marker of a chunk its range, elsewhere nothing."""
    built = build_sequence(order, VOCABULARY, WORDS, SPEECH, ENDS_S)
    ids, scored = BY_HAND[order]
    assert built.ids.tolist() == ids
    kinds = {".": UNSCORED, "t": AS_TEXT, "s": AS_SPEECH}
    assert built.scored.tolist() == [kinds[letter] for letter in scored]
    ranges = iter(CHUNKS if order == "chunked" else [(i, i + 1) for i in range(len(UNITS))])
    holds_speech = [i >= U or (i == S and order == "chunked") for i in ids]
    assert [tuple(span) for span in built.spans.tolist()] == [
        next(ranges) if holds else (-1, -1) for holds in holds_speech
    ]
    assert order == "text" or next(ranges, None) is None, "all speech is there"


def test_a_text_only_lm_has_no_markers() -> None:
    assert build_sequence("text", Vocabulary(60, 0, 1), WORDS).ids.tolist() == [BOS, 5, 6, 7, EOS]


def test_chunks_by_hand() -> None:
    """Units of 40 ms, chunks of at most 32. A pause of 50 units before the first word: the end is
    kept. Two words that end together: each has a unit. After the last word 48: the beginning."""
    speech = Speech(np.zeros((100, 1), np.int32), 0.04)
    assert speech.chunks((2.0, 2.08, 2.08)).tolist() == [[18, 50], [50, 52], [52, 53], [52, 84]]
    assert speech.chunks(()).tolist() == [[0, 32]]


def test_chunks_of_word_ends_beyond_the_speech() -> None:
    """Words that end after the last of three units share it."""
    speech = Speech(np.zeros((3, 1), np.int32), 0.04)
    assert speech.chunks((0.04, 0.5, 0.6)).tolist() == [[0, 1], [1, 3], [2, 3], [2, 3]]
