"""The public surface: its names, its lightness, and that the commands take what the tasks take."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import click
import pytest

import relisten
from relisten.apps.cli import main

NAMES = [
    "Hypothesis",
    "NBest",
    "RelistenError",
    "Rescorer",
    "evaluate",
    "load_nbest",
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
    assert methods == {"from_pretrained", "weights", "transcribe", "score", "rescore"}


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
    "score": "relisten.tasks.score:score",
    "tune": "relisten.tasks.tune:tune",
    "rescore": "relisten.tasks.rescore:rescore",
    "evaluate": "relisten.tasks.evaluation.evaluate:evaluate",
    "doctor": "relisten.tasks.doctor.doctor:doctor",
}
OF_THE_COMMAND_ALONE = {
    "transcribe": {"output", "format"},  # the task returns transcripts, the command writes them
    "tune": {"output"},
    # The task takes utterances, not a file, and the page is made of them and its report.
    "evaluate": {"json_path", "html_path", "weights", "input_format", "manifest"},
    "doctor": {"json_path"},
}


@pytest.mark.parametrize("name", TASKS)
def test_options_are_the_tasks_parameters(name: str) -> None:
    module, function = TASKS[name].split(":")
    parameters = inspect.signature(getattr(import_module(module), function)).parameters
    options = {option.name: option for option in main.commands[name].params}
    of_command = OF_THE_COMMAND_ALONE.get(name, set()) | {"quiet"}
    assert set(options) - of_command == set(parameters) - {"tick"} - (
        {"n_resamples"} if name == "evaluate" else set()
    )
    arguments = ["x"] if name in ("evaluate", "doctor") else ["x", "-o", "y"]
    defaults = main.commands[name].make_context(name, arguments).params
    for key, parameter in parameters.items():
        if isinstance(options.get(key), click.Option) and parameter.default is not parameter.empty:
            assert defaults[key] == parameter.default, key


def test_every_command_is_held_to_its_task() -> None:
    """Those that train take the keys of a configuration; test_config.py holds them to it."""
    assert {*TASKS, "pretrain", "finetune", "adapt"} == set(main.commands)
