"""Configurations of `pretrain`: what a YAML file and the command line may say, and what not."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relisten.apps.cli import main
from relisten.core.types import Refusal, UsageError
from relisten.tasks.adapt import AdaptConfig
from relisten.tasks.finetune import FinetuneConfig
from relisten.tasks.pretrain import PretrainConfig
from relisten.tasks.training.codebook import CodebookConfig
from relisten.tasks.training.config import FORMER, keep_config, read_config
from relisten.tasks.training.ctc import CTCConfig
from relisten.tasks.training.features import FeaturesConfig
from relisten.tasks.training.keys import keys_of
from relisten.tasks.training.lm import LMConfig
from relisten.tasks.training.schedule import Schedule

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
        "output: ../out\ncache: cache\nlm: {base: ../lm}\n"
        "features: {first_pass: whisper-base, encoder: 'hubert:../lm@2'}\n"
        "manifests: {../../data/a.jsonl: 2, b.jsonl: 0.5}\ndev_manifests: [/c.jsonl]\n"
    )
    config = read_config(PretrainConfig, path, {})
    assert config.output == str(tmp_path / "out")
    assert config.cache == str(tmp_path / "recipe" / "cache")
    assert (config.lm.base, config.features.first_pass) == (str(tmp_path / "lm"), "whisper-base")
    assert config.features.encoder == f"hubert:{tmp_path / 'lm'}@2"
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
    del record["components"], record["schedule"]["patience"]
    path.write_text(json.dumps(record))
    keep_config(tmp_path, config)
    assert json.loads(path.read_text())["components"] == []
    patient = replace(config.schedule, patience=1)
    other = replace(config, components=("text",), dev_nbest=("b",), schedule=patient)
    with pytest.raises(UsageError, match=r"other components, schedule\.patience; name another"):
        keep_config(tmp_path, other)
    watched = replace(config.schedule, eval_every=7)
    keep_config(tmp_path, replace(config, dev_nbest=("b.jsonl",), schedule=watched))


def test_a_run_is_refused_where_a_file_of_it_has_changed(tmp_path: Path) -> None:
    """A list that grew or was corrected between two calls: the first part of the steps would be of
    other data than the rest, without a word. What is only watched may change."""
    lists, watched = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    lists.write_text("one\n")
    watched.write_text("one\n")
    config = FinetuneConfig("out", {str(lists): 1.0}, dev_nbest=(str(watched),))
    keep_config(tmp_path, config)
    keep_config(tmp_path, config)
    watched.write_text("two\n")
    keep_config(tmp_path, config)
    lists.write_text("one\ntwo\n")
    with pytest.raises(UsageError, match=r"a\.jsonl: changed since the run in .* began"):
        keep_config(tmp_path, config)
    (tmp_path / "config.json.run.json").unlink()  # of an earlier version
    keep_config(tmp_path, config)


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
    path = written(SMALLEST + "schedule: {steps: 3, learning_rate: 5e-4}\n")
    overrides = {
        "schedule.steps": "7",
        "output": "here",
        "lm.base": "123",
        "lm.tasks": '{"text": 1}',
        "dev_manifests": '["d.jsonl"]',
    }
    config = read_config(PretrainConfig, path, overrides)
    assert (config.schedule.steps, config.output, config.lm.base) == (7, "here", "123")
    assert (config.lm.tasks, config.dev_manifests) == ({"text": 1.0}, ("d.jsonl",))
    assert config.schedule.learning_rate == 5e-4, "a text to YAML, which wants a dot in it"
    assert config.schedule.warmup_steps == 50, "the section's other keys keep their defaults"


OLD_PRETRAIN = """
output: runs/out
manifests: {a.jsonl: 1}
base: gpt2
text_form: surface
first_pass: whisper-base
encoder: hubert:h@2
tasks: {text: 1, speech: 1}
units: 9
levels: 2
pool: 4
folds: 4
projector_epochs: 5
ear_steps: 6
ctc_layers: 1
ear_layer_steps: 7
lora_rank: 3
steps: 10
batch_tokens: 11
learning_rate: 0.5
warmup_steps: 12
eval_every: 13
schedule: linear
accumulate: 14
patience: 15
dev_manifests: [b.jsonl]
"""


def test_former_keys_are_read(written) -> None:
    """All keys of a file of an earlier version, flat and under their former names."""
    config = read_config(PretrainConfig, written(OLD_PRETRAIN), {})
    assert config.features == FeaturesConfig("whisper-base", "hubert:h@2", 4)
    assert config.ctc == CTCConfig(steps=6, layers=1, layer_steps=7)
    assert (config.projector.epochs, config.folds) == (5, 4)
    assert config.codebook == CodebookConfig(units=9, levels=2)
    assert config.lm == LMConfig("gpt2", "surface", {"text": 1.0, "speech": 1.0}, 3, 11)
    assert config.schedule == Schedule(10, 0.5, 12, 13, "linear", 14, 15)
    for kind in (FinetuneConfig, AdaptConfig):
        source = "nbest" if kind is FinetuneConfig else "manifests"
        text = f"output: o\n{source}: {{a: 1}}\nsteps: 3\nschedule: linear\nlora_rank: 2\n"
        config = read_config(kind, written(text), {"steps": "4"})
        assert (config.schedule.steps, config.schedule.decay, config.lora_rank) == (4, "linear", 2)


def test_every_former_key_has_a_key_of_today() -> None:
    assert set(FORMER.values()) <= set(keys_of(PretrainConfig))
    assert not set(FORMER) & set(keys_of(PretrainConfig))


@pytest.mark.parametrize(
    ("text", "overrides", "what"),
    [
        (
            SMALLEST + "ctc: {step: 3}",
            {},
            r"c\.yaml: unknown keys ctc\.step; known: output, manifests, .*ctc\.steps",
        ),
        ("manifests: {a: 1}", {}, r"c\.yaml: needs output"),
        ("output: x", {}, r"c\.yaml: pretrain needs at least one manifest"),
        ("- 1", {}, r"c\.yaml: holds no keys"),
        ("a: [", {}, r"c\.yaml: is not YAML"),
        (SMALLEST + "ctc: 3", {}, r"c\.yaml: unknown keys ctc; known"),
        (SMALLEST + "steps: 1\nschedule: {steps: 2}", {}, r"schedule\.steps is given twice"),
        (SMALLEST + "steps: 1.5", {}, r"c\.yaml: schedule\.steps is 1\.5; it must be a whole"),
        (SMALLEST + "steps: yes", {}, r"schedule\.steps is True; it must be a whole number"),
        (
            SMALLEST + "learning_rate: .nan",
            {},
            r"schedule\.learning_rate is nan; it must be a number",
        ),
        (SMALLEST + "base: 3", {}, r"lm\.base is 3; it must be a text"),
        (SMALLEST + "text_form: said", {}, r"lm\.text_form is 'said'; .* one of: surface, spoken"),
        (SMALLEST + "dev_manifests: a", {}, r"dev_manifests is '.*a'; it must be a list"),
        (SMALLEST + "tasks: {sung: 1}", {}, r"lm\.tasks is 'sung'; it must be one of: text, "),
        ("output: x\nmanifests: {a: b}", {}, r"manifests: .*a is 'b'; it must be a number"),
        (SMALLEST + "folds: 1", {}, r"c\.yaml: folds is 1; cross-fitting needs at least 2"),
        (
            SMALLEST,
            {"lm.lora_rank": "big"},
            r"^--lm\.lora-rank is 'big'; it must be a whole number",
        ),
        (SMALLEST, {"tasks": '["text"]'}, r"^--lm\.tasks is \['text'\]; it must be a mapping"),
    ],
)
def test_what_does_not_fit_is_one_sentence(written, text: str, overrides, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        read_config(PretrainConfig, written(text), overrides)
    assert "\n" not in str(caught.value)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Result, list[PretrainConfig]]:
    """The command with its training replaced by one that says a line and knows the outcome."""
    seen: list[PretrainConfig] = []

    def train(config: PretrainConfig, report, refuse) -> dict[str, float]:
        seen.append(config)
        report("step 1/1")
        if config.seed == 13:
            refuse(Refusal("u7", "no.wav is not there"))
        return {"chunked": 1.25}

    monkeypatch.setattr("relisten.tasks.pretrain.pretrain", train)
    return CliRunner().invoke(main, ["pretrain", *arguments]), seen


def test_command(written, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(SMALLEST)
    options = ["--schedule.warmup-steps", "1", "--schedule.eval_every", "2"]
    options += ["--tasks", '{"text": 1}', "--ear_steps", "3"]  # former names
    done, [config] = run(monkeypatch, path, *options)
    assert done.exit_code == 0, done.output
    assert (config.schedule.warmup_steps, config.schedule.eval_every) == (1, 2)
    assert (config.lm.tasks, config.ctc.steps) == ({"text": 1.0}, 3)
    told, *next_step = done.stderr.splitlines()
    assert told == "step 1/1"
    assert f"relisten tune SCORED -o {config.output}" in next_step[-1]
    assert "chunked  1.250" in done.stdout
    done, _ = run(monkeypatch, path, "--quiet")
    assert done.stderr == ""
    done, _ = run(monkeypatch, path, "--seed", "13")
    assert done.exit_code == 1, "trained on the others"
    assert "u7: no.wav is not there" in done.stderr
    assert "chunked  1.250" in done.stdout


def test_adapt_command(written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys from the file and from the command line; `model` may be a folder beside the file."""
    seen: list[AdaptConfig] = []

    def train(config: AdaptConfig, report, refuse) -> dict[str, float]:
        seen.append(config)
        return {"speech": 2.5}

    monkeypatch.setattr("relisten.tasks.adapt.adapt", train)
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
    assert "--learn-from is 'rumours'; it must be one of: pseudo_references, units" in done.stderr


def test_wrong_command_lines_train_nothing(written, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(SMALLEST)
    for arguments in ([path, "--no-such", "1"], [path, "--steps", "x"], ["nowhere.yaml"], []):
        done, seen = run(monkeypatch, *arguments)
        assert (done.exit_code, seen) == (2, []), arguments
        assert "Error: " in done.stderr


@pytest.mark.parametrize(("command", "kind"), COMMANDS)
def test_help_explains_every_key_and_gives_its_default(command: str, kind: type) -> None:
    shown = CliRunner().invoke(main, [command, "--help"], terminal_width=200).stdout
    texts = {}
    for part in re.split(r"\n\s*(?=--)", shown):
        name, _, text = part.partition(" ")
        texts[name] = " ".join(text.split())
    for name, key in keys_of(kind).items():
        text = texts[f"--{name.replace('_', '-')}"]
        assert key.help[0].isupper(), f"{name} is explained by a sentence"
        assert key.help[-1] == ".", f"{name} is explained by a sentence"
        assert " ".join(key.help.split()) in text
        if isinstance(key.default, str | int | float):
            default = json.dumps(key.default) if isinstance(key.default, bool) else key.default
            assert f"[default: {'none' if default == '' else default}]" in text
    if kind is PretrainConfig:
        assert json.dumps(PretrainConfig("o", {"m": 1}).lm.tasks) in texts["--lm.tasks"]
        assert "\nCTC head:\n" in shown


@pytest.mark.parametrize(("_", "kind"), COMMANDS)
def test_what_affects_training_is_said_where_a_key_is_declared(_: str, kind: type) -> None:
    """Keys of paths say so by their type, and the others whether a run may change them."""
    free = {name for name, key in keys_of(kind).items() if not key.affects_training}
    watched = {"dev_nbest", "dev_utterances"} if kind is FinetuneConfig else {"dev_manifests"}
    assert free == {"output", "cache", "schedule.eval_every", *watched}


def test_a_missing_library_names_the_extra(written, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"peft": None}
    monkeypatch.setattr("relisten.io.extras.find_spec", lambda name: found.get(name, name))
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
    text_alone = replace(trained.lm, tasks={"text": 1.0})
    assert baseline == replace(trained, output=baseline.output, lm=text_alone)
    assert len(trained.manifests) == 6
