"""Texts that take over the words in which another differs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relisten.core.recombination import Change, recombinations
from relisten.tasks.hypotheses.propose import search

WORDS = st.lists(st.sampled_from("abcd"), max_size=6).map(tuple)


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def test_by_hand():
    """From the first: cat → hat, and "today" taken in; from the second: "the" left out."""
    others = [words("the hat sat here today"), words("cat sat here"), words("the cat sat here")]
    assert recombinations(words("the cat sat here"), others) == {
        words("the hat sat here"): Change(1, 2, ("hat",)),
        words("the cat sat here today"): Change(4, 4, ("today",)),
        words("cat sat here"): Change(0, 1, ()),
    }
    assert recombinations(words("no"), [()]) == {}, "never no words at all"


@given(WORDS, st.lists(WORDS, max_size=4))
def test_each_differs_in_one_run_of_words_that_another_has(base, others):
    made = recombinations(base, others)
    assert base not in made
    for text, change in made.items():
        assert change.of(base) == text
        start = 0
        while start < min(len(base), len(text)) and base[start] == text[start]:
            start += 1
        end = 0
        while end < min(len(base), len(text)) - start and base[-1 - end] == text[-1 - end]:
            end += 1
        taken = text[start : len(text) - end]
        assert any(
            taken == other[i : i + len(taken)] for other in others for i in range(len(other) + 1)
        )


def test_the_search_finds_what_no_text_holds_whole():
    """Each text has one word wrong, and the right one needs two exchanges; both scorers count
    wrong words. The first pass is asked about nothing twice."""
    right = words("she sells sea shells")
    own = [words("she tells sea shells"), words("he sells tea shells")]
    asked: list[tuple[str, ...]] = []

    def wrong(texts):
        return np.array([-3.0 * sum(w not in right for w in t) - abs(len(t) - 4) for t in texts])

    def by_first_pass(texts):
        asked.extend(texts)
        return wrong(texts)

    def changed(base, changes):
        return wrong([change.of(base) for change in changes]) - wrong([base])

    found = search(own, [words("she sells sea bells")], by_first_pass, wrong, changed)
    assert found[0] == right
    assert set(found) >= {*own}
    assert len(asked) == len(set(asked)) == len(found)


def test_nothing_to_search():
    def none(*_):
        return np.zeros(0)

    nothing = search([], [], none, none, none)
    assert nothing == []
