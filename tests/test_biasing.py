"""Phrases: their bonus, what sounds like them, and the scores of injected hypotheses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from relisten.apps.cli import main
from relisten.core.biasing import (
    BONUS,
    MAX_INJECTED,
    PENALTY,
    PENALTY_PER_LETTER,
    Biasing,
    Phrase,
    is_injected,
    parse_phrases,
    sound_key,
)
from relisten.core.combine import DEFAULT_WEIGHTS, Weights, rank_hypotheses, with_context
from relisten.core.text import normaliser
from relisten.core.types import FormatError, Hypothesis, NBest
from relisten.io.nbest import load_nbest, save_nbest
from relisten.tasks.second_pass import biasing_of

ENGLISH = normaliser("english")


def biasing(*phrases: str | Phrase) -> Biasing:
    return Biasing(tuple(p if isinstance(p, Phrase) else Phrase(p) for p in phrases), ENGLISH)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Steel sky over New York", 5 * BONUS),  # "steel sky" of weight 1.5, "new york" of 1
        ("the new york times", 3 * BONUS),  # the longest that begins at a word
        ("New, York.", 2 * BONUS),  # punctuation and case aside
        ("newyork steelsky yorks", 0),  # words bound a match
        ("New York new york", 4 * BONUS),
        ("", 0),
    ],
)
def test_bonus_by_hand(text: str, words: float) -> None:
    some = biasing("New York", "new york times", Phrase("Steel Sky", 1.5), "...")
    assert some.bonus(text) == pytest.approx(words)


WORDS = st.lists(st.sampled_from(["ann", "new", "york", "sky", "the"]), max_size=8)


@given(WORDS, WORDS)
def test_bonus_grows_with_the_text(some: list[str], more: list[str]) -> None:
    """No match is lost, nor gained but across the seam, joined by a foreign word."""
    known = biasing("new york", "york", "ann", "sky the new")
    parts = known.bonus(" ".join(some)) + known.bonus(" ".join(more))
    assert known.bonus(" ".join([*some, "of", *more])) == pytest.approx(parts)


def test_phrases_are_lines_with_a_weight_behind_a_tab() -> None:
    assert parse_phrases("New York\n\n  Ann\t2.5 \n") == (Phrase("New York"), Phrase("Ann", 2.5))
    with pytest.raises(FormatError, match=r"names\.txt:2: the weight of 'Ann' is 'much'"):
        parse_phrases("x\nAnn\tmuch", "names.txt")
    with pytest.raises(FormatError, match="above 0"):
        parse_phrases("Ann\t-1")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Foster", "phoster"),
        ("Cecil", "Sesil"),
        ("Jack", "Jak"),
        ("Zürich", "Zurich"),
        ("Xaver", "Ksaver"),
        ("new york", "Newyork"),
        ("Anna", "ana"),
        ("МОСКВА", "москва"),
    ],
)
def test_sound_alike(one: str, other: str) -> None:
    assert sound_key(one) == sound_key(other)


def test_scripts_keep_their_vowels() -> None:
    """Indic vowel signs are marks to Unicode, like accents, but tell words apart."""
    assert sound_key("की") != sound_key("के")
    assert sound_key("church") == "church"


def test_injection_by_hand() -> None:
    """ "steal" for "steel": one letter differs. As many words, so the word ends stay; the full stop
    behind the span does, too. "a nita" is "anita" to the CTC head: two words become one."""
    recognised = Hypothesis(
        "I saw a nita in steal sky.", {"asr": -3, "text": -9.0}, (1, 2, 3, 4, 5, 6, 7)
    )
    utterance = NBest("u", (recognised,))
    kept, anita, steel = biasing("Anita", "Steel Sky").apply(utterance, inject=True).hypotheses
    assert kept.scores == {"asr": -3, "text": -9.0, "context": 0}
    assert anita.text == "I saw Anita in steal sky."
    assert anita.word_ends_s == (1, 2, 4, 5, 6, 7)
    assert anita.scores == {"asr": -3 - PENALTY, "context": BONUS}
    assert steel.text == "I saw a nita in Steel Sky."
    assert steel.word_ends_s == recognised.word_ends_s
    assert steel.scores == {"asr": -3 - PENALTY - PENALTY_PER_LETTER, "context": 2 * BONUS}
    assert steel.extra == {"injected": "Steel Sky"}
    assert [is_injected(h) for h in (kept, anita, steel)] == [False, True, True]


def test_one_word_becomes_several() -> None:
    """The time of "newyorke" (1 to 3 s) is shared out by letters: 3 of 7, then the rest."""
    recognised = Hypothesis("in newyorke now", {"asr": -1.0}, (1.0, 3.0, 4.0))
    made = biasing("New York").apply(NBest("u", (recognised,)), inject=True).hypotheses[1]
    assert made.text == "in New York now"
    assert made.word_ends_s == pytest.approx((1.0, 1 + 2 * 3 / 7, 3.0, 4.0))


def test_nothing_is_injected_without_need() -> None:
    """Not what is there already, on this hypothesis or another; not short or unlike phrases."""
    utterance = NBest("u", (Hypothesis("Foster is here"), Hypothesis("Forster is here")))
    known = biasing("Foster", "hero", "Al", "Elephant")
    texts = [h.text for h in known.apply(utterance, inject=True).hypotheses[2:]]
    assert texts == ["Foster is hero", "Forster is hero"]


def test_injecting_again_changes_nothing() -> None:
    known = biasing("Foster", "Anita")
    once = known.apply(NBest("u", (Hypothesis("Forster and a nita", {"asr": -1.0}),)), inject=True)
    assert known.apply(once, inject=True) == once
    assert not any(is_injected(h) for h in known.apply(once).hypotheses)


def test_likeliest_are_kept() -> None:
    """Of many phrases alike, those of the fewest other letters and the best parents."""
    names = [f"Fost{a}r{b}" for a in "aeiou" for b in ("", "s", "n")]
    made = biasing(*names).apply(
        NBest("u", (Hypothesis("Mister Foster", {"asr": 0}),)), inject=True
    )
    scores = [h.scores["asr"] for h in made.hypotheses[1:]]
    assert len(scores) == MAX_INJECTED
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == -PENALTY - PENALTY_PER_LETTER


def test_an_untuned_bonus_counts_as_it_is() -> None:
    """asr -1 + 0.4 · 2 words against asr -2.5 + 0.8 + the bonus of 2; a tuned weight has the last
    word, and lists without phrases are ranked as ever."""
    utterance = NBest(
        "u", (Hypothesis("hi ann", {"asr": -1}), Hypothesis("hi anne", {"asr": -2.5}))
    )
    biased = biasing("Anne").apply(utterance)

    def first(nbest: NBest, weights: Weights) -> str:
        return rank_hypotheses(nbest, weights).hypotheses[0].text

    assert first(biased, DEFAULT_WEIGHTS) == "hi ann"
    assert first(biased, with_context(DEFAULT_WEIGHTS)) == "hi anne"
    assert first(biased, with_context(Weights({"asr": 1, "context": 0.5}))) == "hi ann"
    assert first(utterance, with_context(DEFAULT_WEIGHTS)) == "hi ann"


def test_an_utterance_has_phrases_of_its_own() -> None:
    shared = biasing("Foster")
    own = NBest("u", (Hypothesis("Foster met Anne"),), context="Anne\t2\nBert")
    assert biasing_of(own, shared).bonus("Foster met Anne") == 3 * BONUS
    assert biasing_of(NBest("v"), shared) is shared


def test_bias_and_rescore_as_commands(tmp_path: Path) -> None:
    """The injected name wins where its bonus is above what it costs, and is a list's last; the
    first pass's choice is known as before."""
    nbest, names, biased, ranked = (
        tmp_path / n for n in ("n.jsonl", "names", "b.jsonl", "r.jsonl")
    )
    hypotheses = (
        Hypothesis("call forster", {"asr": -1.0}),
        Hypothesis("call faster", {"asr": -1.5}),
    )
    save_nbest([NBest("u", hypotheses, reference="call Foster")], nbest)
    names.write_text("Foster\t3\n", encoding="utf-8")

    def run(*arguments: object) -> None:
        done = CliRunner().invoke(main, [*map(str, arguments), "--quiet"])
        assert done.exit_code == 0, done.output

    run("bias", nbest, "-o", biased, "--phrases", names, "--inject")
    (made,) = load_nbest(biased)
    assert [h.text for h in made.hypotheses] == ["call forster", "call faster", "call Foster"]
    run("rescore", biased, "-o", ranked)
    run("evaluate", ranked, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rescored"]["wer"] == 0
    assert report["first_pass"]["wer"] == 0.5


def test_a_file_without_phrases_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("\n")
    (tmp_path / "n.jsonl").write_text('{"id": "u"}\n')
    done = CliRunner().invoke(
        main,
        ["bias", f"{tmp_path}/n.jsonl", "-o", f"{tmp_path}/o", "--phrases", f"{tmp_path}/names"],
    )
    assert done.exit_code == 2
    assert "holds no phrase" in done.stderr
