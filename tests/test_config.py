"""Configurations of `pretrain`: what a YAML file and the command line may say, and what not."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relisten.apps.cli import main
from relisten.core.types import UsageError
from relisten.tasks.adapt import AdaptConfig
from relisten.tasks.finetune import FinetuneConfig
from relisten.tasks.pretrain import PretrainConfig
from relisten.tasks.training import config as config_module
from relisten.tasks.training.config import keep_config, read_config

RECIPES = Path(__file__).parent.parent / "recipes"
COMMANDS = [("pretrain", PretrainConfig), ("finetune", FinetuneConfig), ("adapt", AdaptConfig)]
KINDS = {"mwer": FinetuneConfig, "finetune": FinetuneConfig, "adapt": AdaptConfig}
"""What a shipped file configures, by its name; `pretrain` if it is not named here."""
SMALLEST = "output: runs/out\nmanifests: {data/a.jsonl: 2}\n"


@pytest.fixture
def written(tmp_path: Path):
    """A function that writes `recipe/c.yaml` and gives its path."""
    (tmp_path / "recipe").mkdir()

    def write(text: str) -> str:
        path = tmp_path / "recipe" / "c.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_paths_count_from_the_file_names_stay(tmp_path: Path, written) -> None:
    """`base` is a folder only where there is one."""
    (tmp_path / "lm").mkdir()
    path = written(
        "output: ../out\ncache: cache\nbase: ../lm\nfirst_pass: whisper-base\n"
        "encoder: hubert:../lm@2\n"
        "manifests: {../../data/a.jsonl: 2, b.jsonl: 0.5}\ndev_manifests: [/c.jsonl]\n"
    )
    config = read_config(PretrainConfig, path, {})
    assert config.output == str(tmp_path / "out")
    assert config.cache == str(tmp_path / "recipe" / "cache")
    assert (config.base, config.first_pass) == (str(tmp_path / "lm"), "whisper-base")
    assert config.encoder == f"hubert:{tmp_path / 'lm'}@2"
    assert config.manifests == {
        str(tmp_path.parent / "data" / "a.jsonl"): 2.0,
        str(tmp_path / "recipe" / "b.jsonl"): 0.5,
    }
    assert config.dev_manifests == ("/c.jsonl",)


def test_paths_of_lists_count_from_the_file_too(tmp_path: Path, written) -> None:
    """`folds_of` and `model` as well, where such a folder is there."""
    (tmp_path / "bundle").mkdir()
    path = written(
        "output: out\nmodel: ../bundle\nnbest: {../a.jsonl: 1}\ndev_nbest: [b.jsonl]\n"
        "folds_of: ../bundle/state\n"
    )
    config = read_config(FinetuneConfig, path, {"batch": "2", "add_reference": "true"})
    assert config.model == str(tmp_path / "bundle")
    assert config.folds_of == str(tmp_path / "bundle" / "state")
    assert config.nbest == {str(tmp_path / "a.jsonl"): 1.0}
    assert config.dev_nbest == (str(tmp_path / "recipe" / "b.jsonl"),)
    assert (config.batch, config.add_reference) == (2, True)


def test_a_run_goes_on_where_a_key_came_later(tmp_path: Path) -> None:
    """Lists and mappings too: what was not written down had its default's meaning."""
    config = FinetuneConfig("out", {"a.jsonl": 1.0})
    keep_config(tmp_path, config)
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    del record["components"], record["patience"]
    path.write_text(json.dumps(record))
    keep_config(tmp_path, config)
    assert json.loads(path.read_text())["components"] == []
    with pytest.raises(UsageError, match="other components, patience; name another output"):
        keep_config(tmp_path, replace(config, components=("text",), dev_nbest=("b",), patience=1))
    keep_config(tmp_path, replace(config, dev_nbest=("b.jsonl",)))


def test_finetune_command(written, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[FinetuneConfig] = []

    def tune(config: FinetuneConfig, report) -> dict[str, float]:
        seen.append(config)
        return {"WER": 12.5}

    monkeypatch.setattr("relisten.tasks.finetune.finetune", tune)
    path = written("output: out\nnbest: {a.jsonl: 1}\n")
    done = CliRunner().invoke(main, ["finetune", path, "--ce-weight", "0.5"])
    assert done.exit_code == 0, done.output
    assert seen[0].ce_weight == 0.5
    assert "WER  12.500" in done.stdout


def test_the_command_line_has_the_last_word(written) -> None:
    """Its paths count from the working folder; mappings and lists are JSON."""
    path = written(SMALLEST + "steps: 3\nlearning_rate: 5e-4\n")
    overrides = {
        "steps": "7",
        "output": "here",
        "base": "123",
        "tasks": '{"text": 1}',
        "dev_manifests": '["d.jsonl"]',
    }
    config = read_config(PretrainConfig, path, overrides)
    assert (config.steps, config.output, config.base) == (7, "here", "123")
    assert (config.tasks, config.dev_manifests) == ({"text": 1.0}, ("d.jsonl",))
    assert config.learning_rate == 5e-4, "a text to YAML, which wants a dot in it"


@pytest.mark.parametrize(
    ("text", "overrides", "what"),
    [
        (
            SMALLEST + "step: 3",
            {},
            r"c\.yaml: unknown keys step; known: output, manifests, .*steps",
        ),
        ("output: x", {}, r"c\.yaml: needs manifests"),
        ("- 1", {}, r"c\.yaml: holds no keys"),
        ("a: [", {}, r"c\.yaml: is not YAML"),
        (SMALLEST + "steps: 1.5", {}, r"c\.yaml: steps is 1\.5; it must be a whole number"),
        (SMALLEST + "steps: yes", {}, r"steps is True; it must be a whole number"),
        (SMALLEST + "learning_rate: .nan", {}, r"learning_rate is nan; it must be a number"),
        (SMALLEST + "base: 3", {}, r"base is 3; it must be a text"),
        (SMALLEST + "text_form: said", {}, r"text_form is 'said'; .* one of: surface, spoken"),
        (SMALLEST + "dev_manifests: a", {}, r"dev_manifests is '.*a'; it must be a list"),
        (SMALLEST + "tasks: {sung: 1}", {}, r"tasks is 'sung'; it must be one of: text, "),
        ("output: x\nmanifests: {a: b}", {}, r"manifests: .*a is 'b'; it must be a number"),
        (SMALLEST + "folds: 1", {}, r"c\.yaml: folds is 1; cross-fitting needs at least 2"),
        (SMALLEST, {"lora_rank": "big"}, r"^--lora-rank is 'big'; it must be a whole number"),
        (SMALLEST, {"tasks": '["text"]'}, r"^--tasks is \['text'\]; it must be a mapping"),
    ],
)
def test_what_does_not_fit_is_one_sentence(written, text: str, overrides, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        read_config(PretrainConfig, written(text), overrides)
    assert "\n" not in str(caught.value)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Result, list[PretrainConfig]]:
    """The command with its training replaced by one that says a line and knows the outcome."""
    seen: list[PretrainConfig] = []

    def train(config: PretrainConfig, report) -> dict[str, float]:
        seen.append(config)
        report("step 1/1")
        return {"chunked": 1.25}

    monkeypatch.setattr("relisten.tasks.pretrain.pretrain", train)
    return CliRunner().invoke(main, ["pretrain", *arguments]), seen


def test_command(written, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(SMALLEST)
    options = ["--warmup-steps", "1", "--eval_every", "2", "--tasks", '{"text": 1}']
    done, [config] = run(monkeypatch, path, *options)
    assert done.exit_code == 0, done.output
    assert (config.warmup_steps, config.eval_every, config.tasks) == (1, 2, {"text": 1.0})
    assert done.stderr == "step 1/1\n"
    assert "chunked  1.250" in done.stdout
    done, _ = run(monkeypatch, path, "--quiet")
    assert done.stderr == ""


def test_adapt_command(written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys from the file and from the command line; `model` may be a folder beside the file."""
    seen: list[AdaptConfig] = []
    monkeypatch.setattr(
        "relisten.tasks.adapt.adapt", lambda config, report: seen.append(config) or {"speech": 2.5}
    )
    path = written(
        "model: relisten-tiny\noutput: ../out\nmanifests: {new.jsonl: 1}\n"
        "replay: {old.jsonl: 2}\ntasks: {speech: 0.5, text: 0.5}\n"
    )
    done = CliRunner().invoke(main, ["adapt", path, "--learn-from", "pseudo_references"])
    assert done.exit_code == 0, done.output
    [config] = seen
    assert (config.model, config.learn_from) == ("relisten-tiny", "pseudo_references")
    assert config.replay == {str(Path(path).parent / "old.jsonl"): 2.0}
    assert "speech  2.500" in done.stdout
    done = CliRunner().invoke(main, ["adapt", path, "--learn-from", "rumours"])
    assert done.exit_code == 2
    assert "--learn-from is 'rumours'; it must be one of: units, pseudo_refer" in done.stderr


def test_wrong_command_lines_train_nothing(written, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(SMALLEST)
    for arguments in ([path, "--no-such", "1"], [path, "--steps", "x"], ["nowhere.yaml"], []):
        done, seen = run(monkeypatch, *arguments)
        assert (done.exit_code, seen) == (2, []), arguments
        assert "Error: " in done.stderr


@pytest.mark.parametrize(("command", "kind"), COMMANDS)
def test_help_lists_every_key_with_its_default(command: str, kind: type) -> None:
    lines = CliRunner().invoke(main, [command, "--help"], terminal_width=200).stdout.splitlines()
    for field in fields(kind):
        [line] = [one for one in lines if one.split()[:1] == [f"--{field.name.replace('_', '-')}"]]
        if isinstance(field.default, str | int | float):
            shown = json.dumps(field.default) if isinstance(field.default, bool) else field.default
            assert line.endswith(f"[default: {shown}]")
    if kind is PretrainConfig:
        assert any(json.dumps(PretrainConfig("o", {"m": 1}).tasks) in line for line in lines)


def test_a_missing_library_names_the_extra(written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module, "find_spec", lambda name: None if name == "peft" else name)
    done, seen = run(monkeypatch, written(SMALLEST))
    assert (done.exit_code, seen) == (2, [])
    assert "needs peft, not installed here; run `pip install 'relisten[train]'`" in done.stderr


SHIPPED = sorted(RECIPES.rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shipped_config_loads(path: Path) -> None:
    """And keeps what it makes in the checkout's `runs`, which is not part of the repository."""
    config = read_config(KINDS.get(path.stem, PretrainConfig), str(path), {})
    for made in (config.output, config.cache):
        assert RECIPES.parent / "runs" in Path(made).parents


def test_the_baseline_is_treated_equally() -> None:
    trained, baseline = (
        read_config(PretrainConfig, str(RECIPES / "speechocean" / f"{name}.yaml"), {})
        for name in ("pretrain", "text-only")
    )
    assert baseline == replace(trained, output=baseline.output, tasks={"text": 1.0})
    assert len(trained.manifests) == 6
