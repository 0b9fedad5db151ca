"""Mutation testing of the files that every figure rests on: `make mutants`.

    python tests/mutants.py [FILE...] [--sample N] [--seed S]

Each mutant is one small fault in one file (a < for a <=, a + for a -, another constant); the tests
of that file must fail. The parent has imported the libraries, none of ours; a forked child imports
the file with the fault and runs its tests. Survivors are printed, a line each; exit code 1 where
one is not in tests/mutants-judged.txt, which says of each known one why it does no harm.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
JUDGED = ROOT / "tests" / "mutants-judged.txt"
TESTS = {
    "core/tune.py": "test_tune test_overruling test_leakage",
    "core/weight_search.py": "test_tune",
    "core/line_search.py": "test_tune",
    "core/combine.py": "test_combine test_tasks",
    "core/bootstrap.py": "test_bootstrap",
    "core/error_rates.py": "test_error_rates",
    "core/leakage.py": "test_leakage",
    "lm/tree.py": "test_tree",
    "lm/mwer.py": "test_mwer",
}
"""File of the package → the tests that hold it."""
LIBRARIES = ("numpy", "torch", "transformers", "pytest", "hypothesis", "rapidfuzz", "click", "rich")
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or,
    ast.Or: ast.And, ast.FloorDiv: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "argmin": "argmax"}
NAMES |= {"argmax": "argmin", "argsort": "flip", "cumsum": "cumprod", "sum": "max"}


@dataclass(frozen=True)
class Mutant:
    """A fault in `file`, at a line of it, and the whole source with it."""

    file: str
    line: int
    fault: str
    source: str

    def __str__(self) -> str:
        return f"{self.file} | {self.fault}"


def mutants_of(file: str, source: str) -> Iterator[Mutant]:
    """Every mutant, in the order of the source. Annotations and docstrings are left alone."""
    tree = ast.parse(source)
    skipped = {id(inner) for node in ast.walk(tree) for inner in _without_effect(node)}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for changed in _faults(node):
            twin = copy.deepcopy(tree)
            target = [*ast.walk(twin)][place]
            before = _statement(twin, target)
            for name, value in changed.items():
                setattr(target, name, value)
            line = getattr(node, "lineno", 0)
            fault = f"{before} -> {_statement(twin, target)}"
            yield Mutant(file, line, fault, ast.unparse(ast.fix_missing_locations(twin)))


def _faults(node: ast.AST) -> Iterator[dict[str, object]]:
    """Changes of a node: attribute → value."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield {"ops": [SWAPS[type(node.ops[0])](), *node.ops[1:]]}
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        yield {"op": SWAPS[type(node.op)]()}
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield {"op": ast.UAdd()}
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield {"operand": ast.UnaryOp(ast.Not(), copy.deepcopy(node.operand))}
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield {"value": not node.value}
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield {"value": node.value + 1}
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield {"attr": NAMES[node.attr]}
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield {"id": NAMES[node.id]}


def _without_effect(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        if (inner := getattr(node, name, None)) is not None:
            yield from ast.walk(inner)
    if isinstance(node, ast.keyword) and node.arg in ("frozen", "slots", "repr", "strict"):
        yield from ast.walk(node)  # arguments that check what holds, or show it
    if isinstance(node, ast.Raise):
        yield from ast.walk(node)


def _statement(tree: ast.AST, target: ast.AST) -> str:
    """The innermost expression around a node that can be read by itself, in one line."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    node = target
    while not isinstance(node, ast.stmt) and len(ast.unparse(node)) < 40:
        node = parents[node]
    return " ".join(ast.unparse(node).split())[:150]


class _Faulty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a source of its own."""

    def __init__(self, mutant: Mutant) -> None:
        self._path = ROOT / "src" / "relisten" / mutant.file
        self._name = "relisten." + mutant.file.removesuffix(".py").replace("/", ".")
        self._source = mutant.source

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module) -> None:  # type: ignore[no-untyped-def]
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)


def passes(mutant: Mutant, timeout_s: float = 600.0) -> bool:
    """Whether the tests of its file pass with the mutant; False where they take too long."""
    child = os.fork()
    if child == 0:
        _run_tests(mutant)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run_tests(mutant: Mutant) -> None:
    import pytest
    from hypothesis import settings

    code = 1
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
        settings.load_profile("mutants")
        sys.meta_path.insert(0, _Faulty(mutant))
        paths = [str(ROOT / "tests" / f"{name}.py") for name in TESTS[mutant.file].split()]
        code = int(pytest.main([*paths, "-x", "-q", "-n0", "-p", "no:cacheprovider"]))
    finally:
        os._exit(code)


def judged() -> dict[str, str]:
    """Known survivor → why it does no harm."""
    lines = JUDGED.read_text(encoding="utf-8").splitlines() if JUDGED.exists() else []
    pairs = [line.rpartition(" # ") for line in lines if " # " in line]
    return {mutant.strip(): reason for mutant, _, reason in pairs}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", default=[*TESTS], metavar="FILE")
    parser.add_argument("--sample", type=int, default=100, help="mutants, of all files together")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    for name in LIBRARIES:
        importlib.import_module(name)
    sources = {file: (ROOT / "src" / "relisten" / file).read_text() for file in asked.files}
    limits = {}
    for file, source in sources.items():
        start = time.monotonic()
        if not passes(Mutant(file, 0, "", source)):
            print(f"{file}: its tests fail without a fault; mend that first", file=sys.stderr)
            return 2
        limits[file] = 30 + 5 * (time.monotonic() - start)
    everything = [mutant for file, source in sources.items() for mutant in mutants_of(file, source)]
    drawn = random.Random(asked.seed).sample(everything, min(asked.sample, len(everything)))
    known, n_killed, unjudged = judged(), 0, 0
    for n, mutant in enumerate(drawn, 1):
        print(f"{n} of {len(drawn)}: {mutant}", file=sys.stderr, flush=True)
        if not passes(mutant, limits[mutant.file]):
            n_killed += 1
            continue
        reason = known.get(str(mutant))
        unjudged += reason is None
        print(f"{mutant} # {reason or f'SURVIVES, line {mutant.line}'}", flush=True)
    print(
        f"{n_killed} of {len(drawn)} mutants killed (of {len(everything)} possible ones), "
        f"{len(drawn) - n_killed} survive, {unjudged} of them unjudged"
    )
    return 1 if unjudged else 0


if __name__ == "__main__":
    sys.exit(main())
