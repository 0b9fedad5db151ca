"""The command line: exit codes, one sentence instead of a traceback, resuming, help."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner, Result

from relisten.apps.cli import main
from relisten.apps.console import count_lines
from relisten.core.types import Hypothesis, NBest
from relisten.io.nbest import load_nbest, save_nbest

DOCS = Path(__file__).parent.parent / "docs" / "cli.md"


def run(*arguments: object, given: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=given)


def utterance(id: str, *texts: str, reference: str | None = "black cat") -> NBest:
    hypotheses = tuple(
        Hypothesis(text, {"asr": -float(n), "text": -2.0 * len(texts) + 3 * n})
        for n, text in enumerate(texts)
    )
    return NBest(id, hypotheses, reference=reference)


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    path = tmp_path / "scored.jsonl"
    save_nbest([utterance(f"u{i}", "black hat", "black cat") for i in range(30)], path)
    return path


def test_tune_rescore_evaluate(tmp_path: Path, scored: Path) -> None:
    """Tuned on thirty utterances, ranked and judged on another; asr + 1/3 text would tie."""
    weights, ranked, report = (tmp_path / name for name in ("w.json", "ranked", "report.json"))
    done = run("tune", scored, "-o", weights, "--quiet")
    assert done.exit_code == 0, done.output
    assert "cross-validated gain +50.00 points" in done.stdout
    assert json.loads(weights.read_text())["values"]["text"] > 1 / 3

    save_nbest([utterance("new", "back cat", "black cat")], tmp_path / "test.jsonl")
    assert (
        run("rescore", tmp_path / "test.jsonl", "-o", ranked, "--weights", weights).exit_code == 0
    )
    done = run("evaluate", ranked, "--json", report, "--quiet")
    assert done.exit_code == 0
    assert "50.00%" in done.stdout
    numbers = json.loads(report.read_text())
    assert numbers["first_pass"]["wer"] == numbers["merged"]["wer"] == 0.5
    assert numbers["rescored"]["wer"] == numbers["oracle"]["wer"] == 0
    assert numbers["relative_reduction"] == 1
    assert numbers["relative_reduction_ci95"] == [1, 1]
    assert (numbers["n_utterances"], numbers["n_words"]) == (1, 2)
    assert numbers["normaliser"] == "english"


def test_confidence_is_fitted_written_and_judged(tmp_path: Path, scored: Path) -> None:
    """A decision of each kind; "black", on which all thirty lists agree, is always right."""
    weights, ranked, report = (tmp_path / name for name in ("w.json", "ranked", "report.json"))
    done = run("tune", scored, "-o", weights, "--quiet")
    assert "word confidence, cross-validated: ECE" in done.stdout
    assert "95 % interval" in done.stdout
    assert json.loads(weights.read_text())["ceiling"] == 1.0
    save_nbest([utterance("new", "back cat", "black cat")], tmp_path / "test.jsonl")
    for decision in ("map", "mbr", "rover"):
        options = ("-o", ranked, "--weights", weights, "--decision", decision)
        assert run("rescore", tmp_path / "test.jsonl", *options).exit_code == 0
        first, second = json.loads(ranked.read_text())["hypotheses"]
        assert first["posterior"] + second["posterior"] == pytest.approx(1.0)
        assert first["word_confidence"] == pytest.approx([first["posterior"], 1.0])
        assert "word_confidence" not in second
        assert "word confidence, 2 words" in run("evaluate", ranked, "--json", report).stdout
        assert json.loads(report.read_text())["confidence"]["n_words"] == 2


def test_weights_by_a_key_are_tuned_and_said(tmp_path: Path) -> None:
    """In one place the text score is right and in the other wrong."""
    scored, weights = tmp_path / "scored.jsonl", tmp_path / "w.json"
    places = {"hall": ("black hat", "black cat"), "yard": ("black cat", "black hat")}
    save_nbest(
        [
            replace(utterance(f"{place}{i}", *texts), extra={"place": place})
            for place, texts in places.items()
            for i in range(20)
        ],
        scored,
    )
    done = run("tune", scored, "-o", weights, "--by", "place")
    assert done.exit_code == 0, done.output
    assert "weights by 'place', cross-validated WER 0.00%" in done.stdout
    assert set(json.loads(weights.read_text())["domains"]) == {"hall", "yard"}
    ranked = tmp_path / "ranked.jsonl"
    done = run("rescore", scored, "-o", ranked, "--weights", weights)
    assert "weights by 'place': hall, yard; the shared ones for all others" in done.stderr
    chosen = [json.loads(line)["hypotheses"][0]["text"] for line in ranked.open()]
    assert chosen == ["black cat"] * 40
    done = run("tune", scored, "-o", weights, "--by", "room")
    assert done.exit_code == 2
    assert "'room'" in done.stderr


def test_names_complete_themselves_in_a_shell() -> None:
    complete = BashComplete(main, {}, "relisten", "_RELISTEN_COMPLETE").get_completions
    assert [one.value for one in complete([], "resc")] == ["rescore"]
    assert "--format" in [one.value for one in complete(["transcribe"], "--f")]


def test_evaluate_refuses_the_tuning_set(tmp_path: Path, scored: Path) -> None:
    weights, ranked = tmp_path / "w.json", tmp_path / "ranked"
    run("tune", scored, "-o", weights)
    run("rescore", scored, "-o", ranked, "--weights", weights)
    done = run("evaluate", ranked, "--json", tmp_path / "report.json")
    assert done.exit_code == 2
    assert "all 30 utterances with a reference served" in done.stderr
    assert not (tmp_path / "report.json").exists()


def test_a_dash_is_standard_input_and_output(scored: Path) -> None:
    lines = scored.read_text()
    done = run("rescore", "-", "-o", "-", "--quiet", given=lines)
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 30
    done = run("evaluate", "-", "--json", "-", "--quiet", given=done.stdout)
    assert json.loads(done.stdout)["n_utterances"] == 30


def test_refused_utterances_are_listed_with_exit_code_1(tmp_path: Path) -> None:
    ranked = tmp_path / "ranked"
    save_nbest([utterance("a", "black cat"), utterance("b", "x", reference=None)], ranked)
    done = run("evaluate", ranked)
    assert done.exit_code == 1
    assert "1 refused:\n  b: it has no reference" in done.stderr


def test_one_list_without_a_score_does_not_end_the_rest(tmp_path: Path) -> None:
    """Under named weights: it is refused by name, the others are ranked, exit code 1. Where all
    lack the score, the weights are wrong: one sentence, exit code 2, and the old file stays."""
    lines = [
        '{"id": "a", "hypotheses": [{"text": "x", "scores": {"asr": -1, "text": -2}}]}',
        '{"id": "b", "hypotheses": [{"text": "x", "scores": {"asr": -1}}]}',
        '{"id": "c", "hypotheses": [{"text": "y", "scores": {"asr": -1, "text": -2}}]}',
    ]
    scored, weights, ranked = (tmp_path / name for name in ("s.jsonl", "w.json", "r.jsonl"))
    weights.write_text('{"values": {"asr": 1.0, "text": 0.5}}')
    scored.write_text("\n".join(lines))
    done = run("rescore", scored, "-o", ranked, "--weights", weights, "--quiet")
    assert done.exit_code == 1
    assert "1 refused:\n  b: 'b': hypothesis 0 has no score 'text'" in done.stderr
    assert [one.id for one in load_nbest(ranked)] == ["a", "c"]
    scored.write_text(lines[1])
    done = run("rescore", scored, "-o", ranked, "--weights", weights, "--quiet")
    assert done.exit_code == 2
    assert "has no score 'text'; add it with" in done.stderr
    assert [one.id for one in load_nbest(ranked)] == ["a", "c"]


GOOD = '{"id": "a", "reference": "x", "hypotheses": [{"text": "x", "scores": {"asr": -1}}]}\n'


@pytest.mark.parametrize(
    ("bad_line", "what"),
    [
        (GOOD, "'a': this id occurs twice"),
        ('{"id": "b", "hypotheses": [{"te', "truncated"),
        ('{"id": "b", "hypotheses": [{"text": "x", "scores": {"asr": NaN}}]}', "'b'.*asr.*nan"),
        ('{"id": "b", "hypotheses": [{"text": "x", "scores": {"asr": null}}]}', "'b'.*asr.*None"),
    ],
)
@pytest.mark.parametrize("command", ["rescore", "tune", "evaluate"])
def test_a_broken_line_is_refused_and_listed(
    tmp_path: Path, command: str, bad_line: str, what: str
) -> None:
    """The line before it and the one behind it are read. Where nothing else is there, it is one
    sentence."""
    path, output = tmp_path / "in.jsonl", tmp_path / "out"
    option = "--json" if command == "evaluate" else "-o"
    path.write_text(GOOD + bad_line.strip() + "\n" + GOOD.replace('"a"', '"c"'))
    done = run(command, path, option, output, "--quiet")
    assert done.exit_code == 1
    assert re.search(f"1 refused:\n  .*{what}", done.stderr)
    if command != "tune":
        written = output.read_text()
        assert '"n_utterances": 2' in written if command == "evaluate" else written.count("\n") == 2
    output.unlink()
    path.write_text(bad_line.replace(GOOD, '{"id": 7, "reference": "x"}'))
    done = run(command, path, option, output, "--quiet")
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    sentence = done.stderr.strip()
    assert sentence.startswith("Error: ")
    assert "\n" not in sentence
    assert bad_line == GOOD or re.search(what, sentence)
    assert not output.exists()


def test_without_first_pass_scores_its_order_stays(tmp_path: Path) -> None:
    """A language model alone does not know better than the recogniser; named weights are obeyed."""
    path, ranked, weights = tmp_path / "in.jsonl", tmp_path / "ranked", tmp_path / "w.json"
    line = {"id": "b", "hypotheses": [{"text": "x", "scores": {"text": -9}}, {"text": "y y"}]}
    path.write_text(GOOD + json.dumps(line))
    done = run("rescore", path, "-o", ranked)
    assert done.exit_code == 0
    assert "gave no scores (asr), so its order is kept" in done.stderr
    second = json.loads(ranked.read_text().splitlines()[1])
    assert [h["text"] for h in second["hypotheses"]] == ["x", "y y"]
    weights.write_text('{"values": {"asr": 1}}')
    done = run("rescore", path, "-o", ranked, "--weights", weights)
    assert done.exit_code == 1  # the other list is ranked
    assert "no score 'asr'" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "nowhere.jsonl"],
        ["rescore", "nowhere.jsonl", "-o", "out"],
        ["rescore", "{scored}", "-o", "out", "--weights", "nowhere.json"],
        ["rescore", "{scored}", "-o", "no/such/folder/out"],
        ["rescore", "{scored}", "-o", "out", "--input-format", "abc"],
        ["rescore", "{scored}"],
        ["score", "{scored}", "-o", "out", "--components", "asr"],
        ["score", "{scored}", "-o", "out", "--model", "no-such-model"],
        ["transcribe", "a.wav", "b.wav", "--format", "srt"],
        ["evaluate", "{scored}", "--normaliser", "french"],
    ],
)
def test_wrong_usage_is_exit_code_2(
    tmp_path: Path, scored: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*(argument.format(scored=scored) for argument in arguments))
    assert done.exit_code == 2
    assert "Error: " in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_resume_goes_on_with_a_torn_file(tmp_path: Path, scored: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    run("rescore", scored, "-o", whole)
    torn = whole.read_bytes()[:1000]
    output.with_name("out.partial").write_bytes(torn)
    assert run("rescore", scored, "-o", output, "--resume").exit_code == 0
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", ["", *main.commands])
def test_help_has_an_example(name: str) -> None:
    done = run(*name.split(), "--help")
    assert done.exit_code == 0
    if name:
        assert f"Example: relisten {name} " in done.output


@pytest.mark.parametrize("name", main.commands)
def test_examples_name_options_that_exist(name: str) -> None:
    command = main.commands[name]
    params = command.get_params(click.Context(command))
    known = {flag for option in params for flag in option.opts}
    words = (command.epilog or "").split()
    assert {word for word in words if word.startswith("-")} <= known


def test_docs_are_the_help() -> None:
    """In a process of its own: a command keeps the help option of the first context it is in."""
    made = subprocess.run(
        [sys.executable, "-m", "relisten.apps.clidocs"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
        check=True,
    ).stdout
    assert DOCS.read_text(encoding="utf-8") == made, (
        "run `python -m relisten.apps.clidocs > docs/cli.md`"
    )


def test_installed_command_runs() -> None:
    code = "from relisten.apps.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
    )
    assert "transcribe" in done.stdout
    assert done.stderr == ""


def test_a_bar_ends_at_its_end(tmp_path: Path) -> None:
    """Lines are utterances in files of ours alone: bars of tables ended at 2 of 6, of a service's
    answer at 2 of 1."""
    names = ("a.jsonl", "a.tsv", "a.json", "google.json")
    lines, table, pretty, answer = (tmp_path / name for name in names)
    answer.write_text('{"results": [{"alternatives": [{"transcript": "a"}]}, {}]}')
    lines.write_text('{"id": "a"}\n\n{"id": "b"}')
    table.write_text("id\ttext\na\tx\na\ty\n")
    pretty.write_text('{\n "id": "a"\n}\n')
    paths = (lines, table, pretty, answer)
    assert [count_lines(str(path)) for path in paths] == [2, None, None, None]
    assert count_lines(str(tmp_path)) is None
