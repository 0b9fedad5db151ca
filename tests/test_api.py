"""The public surface: its names, its lightness, and that the commands take what the tasks take."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from importlib import import_module

import click
import pytest

import relisten
from relisten.apps.cli import main
from relisten.core.decide import DECISIONS
from relisten.tasks.cues import CueOptions

NAMES = [
    "DecodingOptions",
    "Hypothesis",
    "NBest",
    "RelistenError",
    "Rescorer",
    "SecondPassOptions",
    "Weights",
    "evaluate",
    "load_nbest",
    "load_weights",
    "save_nbest",
    "tune_weights",
]


def test_public_names() -> None:
    assert relisten.__all__ == NAMES
    assert dir(relisten) == NAMES
    assert all(callable(getattr(relisten, name)) for name in NAMES)
    with pytest.raises(AttributeError, match="Transcriber"):
        relisten.Transcriber  # noqa: B018


def test_rescorer_methods() -> None:
    methods = {name for name in vars(relisten.Rescorer) if not name.startswith("_")}
    assert methods == {
        *("from_pretrained", "weights", "transcribe", "transcribe_all", "score", "rescore")
    }


def test_python_has_the_defaults_of_the_command() -> None:
    """`transcribe` of the command line and of `Rescorer` do the same where nothing is said."""
    options = main.commands["transcribe"].make_context("transcribe", ["x"]).params
    parameters = inspect.signature(relisten.Rescorer.from_pretrained).parameters
    for name in ("model", "first_pass", "language", "device", "dtype"):
        assert parameters[name].default == options[name], name
    for kind in (relisten.DecodingOptions, relisten.SecondPassOptions):
        for field in fields(kind):
            if field.name in options and field.name not in ("phrases", "weights"):
                assert options[field.name] == field.default, field.name


@pytest.mark.parametrize("what", ["import relisten", "import relisten.apps.cli"])
def test_importing_is_light(what: str) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'ctranslate2', 'av', 'sklearn', 'rich'}"
    code = f"import sys; {what}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


TASKS = {
    "transcribe": "relisten.tasks.transcribe:transcribe",
    "nbest": "relisten.tasks.nbest:make_nbest",
    "codebook": "relisten.tasks.codebook:make_codebook",
    "units": "relisten.tasks.units:make_units",
    "bias": "relisten.tasks.bias:bias",
    "combine": "relisten.tasks.hypotheses.combine:combine",
    "learn": "relisten.tasks.learning.learn:learn",
    "score": "relisten.tasks.score:score",
    "tune": "relisten.tasks.tune:tune",
    "rescore": "relisten.tasks.rescore:rescore",
    "evaluate": "relisten.tasks.evaluation.evaluate:evaluate",
    "doctor": "relisten.tasks.doctor.doctor:doctor",
}
OF_THE_COMMAND_ALONE = {
    "tune": {"output", "always"},
    "learn": {"json_path"},
    # The task takes utterances, not a file, and the page is made of them and its report.
    "evaluate": {"reference", "json_path", "html_path", "weights", "input_format", "manifest"},
    "doctor": {"json_path"},
}
OF_THE_TASK_ALONE = {"tick", "say", "stage", "watch", "n_resamples", "margin", "max_pause_s"}
"""What watches the task, and what nobody should need to set."""


def task_parameters(function: Callable[..., object]) -> dict[str, object]:
    """Name → default; frozen options stand for their fields."""
    found: dict[str, object] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(parameter.default) and name in ("decoding", "options", "cues"):
            found |= {field.name: field.default for field in fields(parameter.default)}
        else:
            found[name] = parameter.default
    return found


@pytest.mark.parametrize("name", TASKS)
def test_options_are_the_tasks_parameters(name: str) -> None:
    module, function = TASKS[name].split(":")
    parameters = task_parameters(getattr(import_module(module), function))
    options = {option.name: option for option in main.commands[name].params}
    of_command = OF_THE_COMMAND_ALONE.get(name, set()) | {"quiet"}
    assert set(options) - of_command == set(parameters) - OF_THE_TASK_ALONE
    arguments = ["x"] if name in ("evaluate", "doctor", "transcribe") else ["x", "-o", "y"]
    arguments = ["a=x", "b=y", "-o", "y"] if name == "combine" else arguments
    defaults = main.commands[name].make_context(name, arguments).params
    for key, default in parameters.items():
        if isinstance(options.get(key), click.Option) and key not in ("phrases", "first_pass"):
            assert default in (defaults[key], inspect.Parameter.empty), key
    if default := parameters.get("first_pass"):
        assert defaults["first_pass"] == default


def test_every_command_is_held_to_its_task() -> None:
    """Those that train take the keys of a configuration; test_config.py holds them to it. The
    server is held to `transcribe` by test_serve.py."""
    assert {*TASKS, "pretrain", "finetune", "adapt", "serve"} == set(main.commands)


def test_cue_options_have_the_defaults_of_cues() -> None:
    defaults = main.commands["transcribe"].make_context("transcribe", ["x"]).params
    offered = {key: value for key, value in asdict(CueOptions()).items() if key != "max_pause_s"}
    assert {key: defaults[key] for key in offered} == offered


def test_decisions_are_spelled_alike() -> None:
    """The command's choices, written out so that `--help` stays light, and the type's."""
    for command in ("rescore", "transcribe"):
        [option] = [one for one in main.commands[command].params if one.name == "decision"]
        assert isinstance(option.type, click.Choice)
        assert tuple(option.type.choices) == DECISIONS
