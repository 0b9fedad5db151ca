"""A user's own rules, from the file to the weights and back into every choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from relisten.apps.cli import main
from relisten.core.combine import Weights
from relisten.core.rules import Rules
from relisten.core.types import FormatError, Hypothesis, NBest
from relisten.io.nbest import load_nbest, save_nbest
from relisten.tasks.ranking import rank

RULES = "euh\ngonna = going to\n"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [*map(str, arguments), "--quiet"])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_tuning_ranking_and_counting_follow_the_same_rules(tmp_path: Path) -> None:
    """Two spellings of the right text share its probability: as one hypothesis they win over the
    wrong one. Without the rules each counts as wrong, and the wrong text is chosen."""
    lists = [
        NBest(
            f"u{n}",
            (
                Hypothesis("we are going two leave", {"asr": -1.0}),
                Hypothesis("euh we are gonna leave", {"asr": -1.4}),
                Hypothesis("we are going to leave", {"asr": -1.5}),
            ),
            reference="we are going to leave",
        )
        for n in range(12)
    ]
    dev, rules = tmp_path / "dev.jsonl", tmp_path / "rules.txt"
    save_nbest(lists, dev)
    rules.write_text(RULES)
    run("tune", dev, "-o", tmp_path / "w.json", "--rules", rules, "--always")
    weights = json.loads((tmp_path / "w.json").read_text())
    assert weights["rules"] == {"euh": "", "gonna": "going to"}
    run("rescore", dev, "-o", tmp_path / "ranked.jsonl", "--weights", tmp_path / "w.json")
    best = {one.hypotheses[0].text for one in load_nbest(tmp_path / "ranked.jsonl")}
    assert best == {"euh we are gonna leave"}, "the text itself stays as it was"
    again = [
        NBest(one.id, one.hypotheses, reference=one.reference)  # not marked as tuned on
        for one in load_nbest(tmp_path / "ranked.jsonl")
    ]
    save_nbest(again, tmp_path / "again.jsonl")
    for options, errors in ((("--rules", rules), 0), ((), 12)):
        run("evaluate", tmp_path / "again.jsonl", "--json", tmp_path / "r.json", *options)
        words = json.loads((tmp_path / "r.json").read_text())["rescored"]["words"]
        assert words["substitutions"] + words["insertions"] + words["deletions"] == errors
    arguments = ["doctor", str(dev), "--rules", str(rules), "--json", "-", "--quiet"]
    report = json.loads(CliRunner().invoke(main, arguments).stdout)
    (choice,) = (check for check in report["checks"] if check["name"] == "choice")
    assert choice["statistics"]["distinct_per_list"] == 2


def test_length_follows_the_rules() -> None:
    """A bonus of 1 nat a word is not earned by fillers."""
    both = (Hypothesis("yes", {"asr": -1.0}), Hypothesis("euh yes euh", {"asr": -1.5}))
    nbest = NBest("u", (*both, Hypothesis("no euh euh", {"asr": -1.6})))
    values = {"asr": 1.0, "length": 1.0}
    assert rank(nbest, Weights(values)).hypotheses[0].text == "euh yes euh"
    ranked = rank(nbest, Weights(values, rules=Rules((("euh", ""),))))
    assert [h.text for h in ranked.hypotheses] == ["yes", "no euh euh"]


def test_weights_with_damaged_rules_are_refused() -> None:
    for damaged in ({"euh": None}, ["euh"], {"": "x"}):
        with pytest.raises(FormatError, match="rule"):
            Weights.from_json({"values": {"asr": 1.0}, "rules": damaged})


def test_a_rules_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    save_nbest([NBest("u", (Hypothesis("a"),), reference="a")], tmp_path / "a.jsonl")
    (tmp_path / "latin.txt").write_bytes(b"\xe9h\n")
    for name, words in (("none.txt", "no such file"), ("latin.txt", "is not UTF-8")):
        arguments = ["evaluate", str(tmp_path / "a.jsonl"), "--rules", str(tmp_path / name)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert words in result.stderr
