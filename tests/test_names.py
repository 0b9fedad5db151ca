"""One name means one thing: no two files define a public class, alias or constant of one name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import relisten

ROOT = Path(relisten.__file__).parent

ALLOWED = {
    "CHUNK_SIZE": "of each command's own work",
    "FORMAT": "the version of each file's own layout",
    "Item": "a type variable",
}
"""Name → why two files may define it."""


def defined_names(source: str) -> Iterator[str]:
    """Public classes, type aliases and constants that a module defines at its top level."""
    for node in ast.parse(source).body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_no_name_is_defined_twice() -> None:
    files: dict[str, list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        for name in set(defined_names(path.read_text(encoding="utf-8"))):
            if not name.startswith("_"):
                files[name].append(str(path.relative_to(ROOT)))
    doublets = {name: where for name, where in files.items() if len(where) > 1}
    assert {name: where for name, where in doublets.items() if name not in ALLOWED} == {}


def test_the_rule_would_notice() -> None:
    source = "class A: ...\nB = int\nC: int = 3\nif B:\n    D = 1\ndef f():\n    E = 2\n"
    assert list(defined_names(source)) == ["A", "B", "C"]
