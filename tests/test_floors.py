"""The floors of the house: who may import whom. Each rule is shown to notice what breaks it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import relisten

ROOT = Path(relisten.__file__).parent
PUBLIC = ["relisten.api"]
"""What an app may use as anybody else does."""
FLOORS = {"core": 0, "io": 1, "speech": 2, "lm": 2, "tasks": 3, "apps": 4}
HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "ctranslate2",
    "sklearn",
    "av",
    "safetensors",
    "rapidfuzz",
}
"""Libraries that `relisten --help` does not wait for."""
SCREEN = {"click", "rich"}
"""Libraries that `apps` imports, and no task."""
FILE_WRITERS = ("pyarrow", "safetensors.torch.save", "safetensors.numpy.save")
"""How the names begin that write Parquet and safetensors; `io` alone imports them."""
INFERENCE = (
    "relisten.api",
    *(
        f"relisten.tasks.{name}"
        for name in (
            *("transcribe", "nbest", "score", "rescore", "tune", "bias", "second_pass", "frontend"),
            *("loading", "hypotheses", "evaluation", "doctor"),
        )
    ),
)
"""Files and folders that train nothing."""
TRAINING = ("relisten.tasks.training", "relisten.tasks.learning")
"""Folders of what trains."""

Sources = Mapping[str, str]
"""Module of ours → its source."""


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


SOURCES = {
    module_name(path): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))
}


@cache
def imported_names(source: str, top_only: bool = False) -> frozenset[str]:
    """What a source imports when it runs, `from a import b` as a.b.

    Not what stands under `if TYPE_CHECKING`. top_only: nor what stands inside functions.
    """
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
        elif not (top_only and is_function):
            pending += ast.iter_child_nodes(node)
    return frozenset(found)


def imported_files(sources: Sources, module: str, top_only: bool = False) -> set[str]:
    """The modules of ours that one imports."""
    names = imported_names(sources[module], top_only)
    return {name if name in sources else name.rpartition(".")[0] for name in names} & {*sources}


def reached(sources: Sources, start: Iterable[str], top_only: bool = False) -> set[str]:
    """These modules, what they import, what that imports, and so on."""
    seen: set[str] = set()
    pending = set(start)
    while pending:
        module = pending.pop()
        seen.add(module)
        pending |= imported_files(sources, module, top_only) - seen
    return seen


def is_within(module: str, folders: Iterable[str]) -> bool:
    return any(module == folder or module.startswith(f"{folder}.") for folder in folders)


def upward_imports(sources: Sources) -> set[tuple[str, str]]:
    """(module, what it imports) of a higher floor, or of a neighbour: `speech` and `lm` do not know
    each other. Files in the root of the package are the public surface: they may import all, and
    no floor imports them."""

    def floor(module: str) -> str:
        return module.split(".")[1] if "." in module else ""

    return {
        (module, name)
        for module in sources
        if floor(module) in FLOORS
        for name in imported_names(sources[module])
        if name.split(".")[0] == "relisten"
        and floor(name) != floor(module)
        and FLOORS.get(floor(name), len(FLOORS)) >= FLOORS[floor(module)]
        and not (floor(module) == "apps" and is_within(name, PUBLIC))
    }


def circles(sources: Sources) -> set[str]:
    """Modules that import themselves by way of others, also by imports inside functions."""
    return {m for m in sources if m in reached(sources, imported_files(sources, m))}


def trainers(sources: Sources) -> set[str]:
    """Modules of INFERENCE that reach a folder of TRAINING, even by way of others."""
    inference = {module for module in sources if is_within(module, INFERENCE)}
    return {m for m in inference if any(is_within(r, TRAINING) for r in reached(sources, [m]))}


def screen_users(sources: Sources) -> set[str]:
    """Tasks that import a library of the command line."""
    return {
        module
        for module in sources
        if is_within(module, ["relisten.tasks"])
        and SCREEN & {name.split(".")[0] for name in imported_names(sources[module])}
    }


def file_writers(sources: Sources) -> set[str]:
    """Modules outside `io` that import what writes Parquet or safetensors."""
    return {
        module
        for module in sources
        if not is_within(module, ["relisten.io"])
        and any(name.startswith(FILE_WRITERS) for name in imported_names(sources[module]))
    }


def libraries_at_start(sources: Sources) -> set[str]:
    """What importing `relisten.apps.cli` imports at once, also by way of files of ours."""
    start = {"relisten", "relisten.apps", "relisten.apps.cli"} & {*sources}
    names = [imported_names(sources[m], True) for m in reached(sources, start, top_only=True)]
    return {name.split(".")[0] for some in names for name in some}


def test_imports_go_down_the_floors() -> None:
    assert upward_imports(SOURCES) == set()
    notices = {
        "relisten.core.x": "def f():\n    from relisten.tasks.score import score\n",
        "relisten.lm.x": "import relisten.speech.codebook",
        "relisten.io.x": "from relisten import api",
        "relisten.tasks.x": "import relisten",
    }
    assert {module for module, _ in upward_imports(notices)} == {*notices}
    assert not upward_imports({"relisten.lm.x": "from relisten.io.audio import load_audio"})


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert circles(SOURCES) == set()
    a, b, c = (f"relisten.io.{name}" for name in "abc")
    round_trip = {
        a: f"from {b} import f",
        b: f"def f():\n    from relisten.io import c\n    import {c}",
        c: f"class C:\n    import {a}",
    }
    assert circles(round_trip) == {a, b, c}
    for_types = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {a}"
    assert circles({**round_trip, c: for_types}) == set()


def test_inference_never_reaches_training() -> None:
    assert trainers(SOURCES) == set()
    by_way_of = {
        "relisten.tasks.score": "import relisten.tasks.shared",
        "relisten.tasks.shared": "def f():\n    from relisten.tasks.training.loop import train",
        "relisten.tasks.training.loop": "",
        "relisten.tasks.hypotheses.join": "from relisten.tasks import score",
        "relisten.tasks.scores": "import relisten.tasks.training.loop",
    }
    assert trainers(by_way_of) == {"relisten.tasks.score", "relisten.tasks.hypotheses.join"}


def test_tasks_do_not_know_the_screen() -> None:
    assert screen_users(SOURCES) == set()
    assert screen_users({"relisten.tasks.x": "def f():\n    from rich.table import Table"})
    assert not screen_users({"relisten.apps.x": "import click"})


def test_parquet_and_safetensors_are_written_by_io_alone() -> None:
    assert file_writers(SOURCES) == set()
    for source in (
        "import pyarrow.parquet as pq",
        "def f():\n    from safetensors.torch import load_file, save_file",
        "from safetensors.numpy import save",
    ):
        assert file_writers({"relisten.lm.x": source})
        assert not file_writers({"relisten.io.x": source})
    assert not file_writers({"relisten.lm.x": "from safetensors.torch import load_file"})


def test_the_command_line_starts_light() -> None:
    """And the names in HEAVY are those of libraries that we do import somewhere."""
    assert libraries_at_start(SOURCES) & HEAVY == set()
    assert "click" in libraries_at_start(SOURCES)
    ours = {name.split(".")[0] for s in SOURCES.values() for name in imported_names(s)}
    assert ours >= HEAVY | SCREEN
    slow = {
        "relisten.apps.cli": "from relisten.core.text import spoken",
        "relisten.core.text": "import numpy as np\ndef f():\n    import torch",
    }
    assert libraries_at_start(slow) & HEAVY == {"numpy"}
