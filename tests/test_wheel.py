"""The wheel holds what a user needs and nothing else; the core needs no library of an extra."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import relisten

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "relisten"
EXTRAS = {
    *("transformers", "accelerate", "gguf", "sklearn", "scipy", "peft", "pyarrow", "yaml"),
    *("tensorboard", "fastapi", "uvicorn", "ray"),
}
"""Libraries that no plain installation has."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built of a copy, so that the checkout stays as it is, by the setuptools that is here."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", folder / "tree" / "src", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tree")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--quiet", "-w", str(folder)],
        cwd=folder / "tree",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_it_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    here = {
        str(path.relative_to(ROOT / "src"))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == here
    assert {"relisten/py.typed", "relisten/bundles/relisten-tiny/trained_on.safetensors"} <= names


def test_its_metadata_are_whole(wheel: zipfile.ZipFile) -> None:
    [path] = [name for name in wheel.namelist() if name.endswith("METADATA")]
    head, _, readme = wheel.read(path).decode().partition("\n\n")
    fields = [line.partition(": ")[::2] for line in head.splitlines()]
    known = dict(fields)
    assert (known["Name"], known["Version"]) == ("relisten", relisten.__version__)
    assert known["License-Expression"] == "Apache-2.0"
    assert {"Summary", "Author", "Keywords", "Requires-Python", "License-File"} <= {*known}
    assert readme.lstrip().startswith("# relisten")
    needed = [value for name, value in fields if name == "Requires-Dist"]
    core = {re.split(r"[^\w-]", one)[0] for one in needed if "extra ==" not in one}
    assert not core & {*EXTRAS, "scikit-learn", "pyyaml"}
    assert core >= {"numpy", "torch", "ctranslate2", "av", "tokenizers"}


def test_libraries_of_extras_are_imported_inside_functions_alone() -> None:
    """But for the modules of training and the server, which are loaded when they are asked for."""
    training = {"training", "learning", "serve"}
    trainers = {"pretrain.py", "finetune.py", "adapt.py"}
    for path in PACKAGE.rglob("*.py"):
        if training & {*path.parts} or path.name in trainers:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            module = getattr(node, "module", None)
            found = {one.split(".")[0] for one in ([module] if module else names)}
            is_import = isinstance(node, ast.Import | ast.ImportFrom)
            assert not (is_import and found & EXTRAS), f"{path}: {found}"


CORE_ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from relisten.apps.cli import main
import relisten.api, relisten.tasks.transcribe, relisten.tasks.tune, relisten.tasks.doctor.doctor
import relisten.tasks.evaluation.evaluate, relisten.lm.load, relisten.tasks.loading
main(["--version"], standalone_mode=False)
"""


def test_the_core_is_imported_without_the_extras() -> None:
    code = CORE_ALONE.replace("{names!r}", repr(EXTRAS - {"yaml"}))  # ctranslate2 brings yaml
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert relisten.__version__ in done.stdout
