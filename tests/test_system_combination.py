"""Outputs of several recognisers in one list: what is joined, counted, said and refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relisten.apps.cli import main
from relisten.core.agreement import agreement_with, default_votes
from relisten.core.combine import component_scores
from relisten.core.recombination import mixtures
from relisten.core.text import cached_normaliser
from relisten.core.types import Hypothesis, NBest, UsageError
from relisten.io.nbest import load_nbest, save_nbest
from relisten.tasks.hypotheses.combine import combine, combine_utterance

NORMALISE = cached_normaliser("english")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def leaderboard(path: Path, texts: dict[str, str], reference: str = "the black cat") -> Path:
    """A file as the Open ASR Leaderboard has it."""
    lines = [
        {"audio_filepath": name, "duration": 2.5, "time": 0.1, "text": reference, "pred_text": text}
        for name, text in texts.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_agreement_by_hand() -> None:
    """One substitution and one insertion from the best text; the second text costs ln 2."""
    said = [["the", "black", "cat"], ["a", "black", "cat", "sat"]]
    assert agreement_with(["the", "black", "cat"], said) == 0.0
    assert agreement_with(["the", "blue", "cat", "sat"], said) == -2.0
    assert agreement_with(["a", "black", "cat", "sat"], said) == pytest.approx(-math.log(2))
    assert agreement_with(["anything"], []) == 0.0


def test_the_first_of_five_needs_three_against_it() -> None:
    votes = default_votes([f"agreement.{name}" for name in "abcde"])
    assert list(votes.values()) == [2.5, 1, 1, 1, 1]
    assert list(default_votes(["agreement.a", "agreement.b"]).values()) == [1, 1]


def test_mixtures_are_new_near_and_few() -> None:
    texts = [tuple(text.split()) for text in ("a b c d e", "a x c y e", "a x c d e")]
    made = mixtures(texts, 10)
    assert ("a", "b", "c", "y", "e") in made
    assert not set(made) & set(texts)
    assert mixtures(texts, 1) == made[:1]


def test_one_list_of_scored_lists_and_single_texts() -> None:
    """Equal texts are one hypothesis, written as the first system writes it."""
    whisper = NBest(
        "u",
        (Hypothesis("The black cat.", {"asr": -1.0}), Hypothesis("The black hat", {"asr": -2.0})),
        audio="u.wav",
    )
    canary = NBest("u", (Hypothesis("the black hat"),), reference="the black cat")
    joined = combine_utterance({"w": whisper, "c": canary}, ["w", "c"], NORMALISE)
    assert [h.text for h in joined.hypotheses] == ["The black cat.", "The black hat"]
    assert joined.hypotheses[0].scores == {"agreement.w": 0, "agreement.c": -1, "asr.w": -1.0}
    second = joined.hypotheses[1].scores
    assert second == {"agreement.w": pytest.approx(-math.log(2)), "agreement.c": 0, "asr.w": -2.0}
    assert (joined.audio, joined.reference) == ("u.wav", "the black cat")
    assert joined.extra["systems"] == {"w": "The black cat.", "c": "the black hat"}


def test_pace_by_hand() -> None:
    """Systems of 5, 4 and 2 spoken words: the median is 4, and "0351" is spoken as four."""
    texts = {"a": "code 0351", "b": "the code is 3", "c": "code is"}
    parts = {name: NBest("u", (Hypothesis(text),)) for name, text in texts.items()}
    joined = combine_utterance(parts, ["a", "b", "c"], NORMALISE)
    expected = [math.log(1 + 4) * n for n in (5, 4, 2)]
    assert component_scores(joined, "pace").tolist() == pytest.approx(expected)
    assert component_scores(NBest("u", (Hypothesis("a b"),)), "pace").tolist() == [0.0]


def test_mixed_texts_keep_capitals_and_repeat_nothing() -> None:
    parts = {
        "w": NBest("u", (Hypothesis("Ann sat, then Bob ran."),)),
        "c": NBest("u", (Hypothesis("anne sat then rob ran"),)),
    }
    joined = combine_utterance(parts, ["w", "c"], NORMALISE, mix=True)
    texts = [h.text for h in joined.hypotheses]
    assert set(texts[2:]) == {"anne sat, then Bob ran.", "Ann sat, then rob ran."}
    assert all("agreement.c" in h.scores for h in joined.hypotheses)


def test_from_the_leaderboard_to_the_table(tmp_path: Path) -> None:
    """Three systems, each alone wrong where the two others are right: the vote is always right."""
    wrong = {"a": "the black hat", "b": "a black cat", "c": "the back cat"}
    files = []
    for name, text in wrong.items():
        said = {f"u{n:02}": text if "abc"[n % 3] == name else "the black cat" for n in range(24)}
        files.append(f"{name}={leaderboard(tmp_path / f'{name}.jsonl', said)}")
    lists, weights = tmp_path / "lists.jsonl", tmp_path / "weights.json"
    done = run("combine", *files, "-o", lists)
    assert done.exit_code == 0, done.output
    ranked = tmp_path / "ranked.jsonl"
    done = run("rescore", lists, "-o", ranked)
    assert "agreement.a 1.5, agreement.b 1" in done.stderr
    done = run("evaluate", ranked, "--json", tmp_path / "report.json")
    assert "a alone" in done.stdout
    assert "best single system" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rescored"]["wer"] == 0
    assert [one["wer"] for one in report["systems"].values()] == [pytest.approx(8 / 72)] * 3
    assert (report["share_better"], report["share_worse"]) == (pytest.approx(1 / 3), 0)
    done = run("tune", lists, "-o", weights)
    assert "cross-validated below the best single system" in done.stdout
    assert run("doctor", lists).exit_code == 0


def test_the_best_system_stays_where_no_gain_is_certain(tmp_path: Path) -> None:
    """The better of two systems is the second: it is kept, not the first."""
    worse = {f"u{n:02}": "the black hat" if n % 2 else "the black cat" for n in range(20)}
    better = {f"u{n:02}": "the back cat" if n % 7 == 0 else "the black cat" for n in range(20)}
    for name, said in (("worse", worse), ("better", better)):
        leaderboard(tmp_path / f"{name}.jsonl", said)
    lists, weights = tmp_path / "lists.jsonl", tmp_path / "weights.json"
    pairs = [f"{name}={tmp_path / name}.jsonl" for name in ("worse", "better")]
    assert run("combine", *pairs, "-o", lists).exit_code == 0
    done = run("tune", lists, "-o", weights)
    assert "no gain over the best single system, better is certain" in done.stdout
    assert json.loads(weights.read_text())["values"] == {"agreement.better": 1.0}
    ranked = tmp_path / "ranked.jsonl"
    assert run("rescore", lists, "-o", ranked, "--weights", weights).exit_code == 0
    assert {u.id: u.hypotheses[0].text for u in load_nbest(ranked)} == better


def test_what_is_missing_clashing_or_strange_is_said(tmp_path: Path) -> None:
    a = leaderboard(tmp_path / "a.jsonl", {"u1": "one", "u2": "two", "u3": "three"}, "one")
    b = leaderboard(tmp_path / "b.jsonl", {"u3": "tree", "u1": "one"}, "another")
    lists = tmp_path / "lists.jsonl"
    done = run("combine", f"a={a}", f"b={b}", "-o", lists)
    assert done.exit_code == 0, done.output
    assert "b has no text of 1 of 3 utterances ('u2')" in done.stderr
    assert "2 utterances have different references" in done.stderr
    joined = {u.id: u for u in load_nbest(lists)}
    assert set(joined) == {"u1", "u2", "u3"}
    assert joined["u2"].hypotheses[0].scores == {"agreement.a": 0, "agreement.b": 0}
    assert joined["u1"].reference == "one"
    other = leaderboard(tmp_path / "other.jsonl", {"v1": "one"})
    for arguments, sentence in (
        ((f"a={a}",), "1 system: name two or more"),
        ((f"a={a}", f"a={b}"), "two systems are called 'a'"),
        ((a, b), "write NAME=FILE"),
        ((f"a={a}", f"b={other}"), "no utterance is in two of the files"),
        ((f"a={a}", f"b={b}", "--key", "talk"), "has no 'talk' to join it by"),
    ):
        done = run("combine", *arguments, "-o", tmp_path / "no.jsonl")
        assert done.exit_code == 2
        assert sentence in done.output.replace("\n", " ")
        assert not (tmp_path / "no.jsonl").exists()


def test_joined_by_recording_where_ids_differ(tmp_path: Path) -> None:
    for name, id in (("a", "first"), ("b", "other")):
        utterance = NBest(id, (Hypothesis(f"text {name}"),), audio="talk.wav", start_s=3.5)
        save_nbest([utterance], tmp_path / f"{name}.jsonl")
    files = {name: str(tmp_path / f"{name}.jsonl") for name in "ab"}
    lists = tmp_path / "lists.jsonl"
    with pytest.raises(UsageError):
        combine(files, str(lists))
    assert combine(files, str(lists), key="audio").n_done == 1
    [joined] = load_nbest(lists)
    assert (joined.id, joined.audio, len(joined.hypotheses)) == ("first", "talk.wav", 2)
