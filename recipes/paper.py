"""The steps of speech-text rescoring (arXiv:2409.16654), the same for every corpus.

A recipe's run.py says which manifests its corpus gives; from there on all is in this file. What a
step wrote is not written again, so a run that was stopped goes on when it is started again.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import click

from relisten.apps.cli import main
from relisten.core.types import NBest, RelistenError
from relisten.io.nbest import save_nbest

Manifests = Mapping[str, Callable[[Path, Path], Iterable[NBest]]]
"""Name → from the corpus's folder and that of the manifests, the utterances of one manifest. A
recipe has at least those that its pretrain.yaml names, `mwer`, `dev`, and its test sets."""


def run(recipe: Path, manifests: Manifests, tests: Sequence[str]) -> None:
    """Everything from the corpus to the error rates of `tests`, in the checkout's runs/RECIPE."""
    parser = argparse.ArgumentParser(
        usage="python run.py CORPUS [--skip-finetune] [--key value of pretrain.yaml ...]",
        description="From a corpus to error rates; what is made lies in runs/.",
    )
    parser.add_argument("corpus", type=Path, help="the folder it was unpacked to")
    parser.add_argument("--skip-finetune", action="store_true", help="no training on word errors")
    given, rest = parser.parse_known_args()
    overrides = [part for word in rest for part in word.split("=", 1 if word[:2] == "--" else 0)]
    work = recipe.parent.parent / "runs" / recipe.name
    try:
        prepare(given.corpus, work, manifests)
        for made, arguments in steps(recipe, work, tests, given.skip_finetune, overrides):
            if made is None or not made.exists():
                relisten(arguments)
    except RelistenError as error:
        sys.exit(f"Error: {error}")


def prepare(corpus: Path, work: Path, manifests: Manifests) -> None:
    """Write the manifests that are not there yet."""
    work.mkdir(parents=True, exist_ok=True)
    for name, utterances in manifests.items():
        if not (path := work / f"{name}.jsonl").exists():
            print(f"# {path}", flush=True)
            save_nbest(utterances(corpus, work), path)


def steps(
    recipe: Path, work: Path, tests: Sequence[str], skip_finetune: bool, overrides: Sequence[str]
) -> Iterator[tuple[Path | None, list[str]]]:
    """(what it writes, None where the command itself knows what is left, arguments of `relisten`)
    of each step."""
    config = str(recipe / "pretrain.yaml")
    lists = [*([] if skip_finetune else ["mwer"]), "dev", *tests]
    for name in lists:
        made = work / f"{name}.nbest.jsonl"
        first_pass = ["--first-pass", _first_pass(config, overrides)]
        yield made, ["nbest", str(work / f"{name}.jsonl"), "-o", str(made), *first_pass, "--resume"]
    yield None, ["pretrain", config, *overrides]
    model = work / "model"
    if not skip_finetune:
        yield None, ["finetune", str(recipe / "finetune.yaml")]
        model = work / "model-mwer"
    for name in lists[-1 - len(tests) :]:
        made, scored = work / f"{name}.scored.jsonl", str(work / f"{name}.nbest.jsonl")
        arguments = ["score", scored, "-o", str(made), "--model", str(model)]
        yield made, [*arguments, "--components", "all", "--resume"]
    weights = work / "weights.json"
    yield weights, ["tune", str(work / "dev.scored.jsonl"), "-o", str(weights)]
    for name in tests:
        ranked = work / f"{name}.ranked.jsonl"
        scored = str(work / f"{name}.scored.jsonl")
        yield ranked, ["rescore", scored, "-o", str(ranked), "--weights", str(weights)]
        yield None, ["evaluate", str(ranked), "--json", str(work / f"{name}.report.json")]


def _first_pass(config: str, overrides: Sequence[str]) -> str:
    from relisten.tasks.pretrain import PretrainConfig
    from relisten.tasks.training.config import read_config

    pairs = dict(zip(overrides[::2], overrides[1::2], strict=False))
    given = {key.removeprefix("--").replace("-", "_"): value for key, value in pairs.items()}
    return read_config(PretrainConfig, config, given).features.first_pass


def relisten(arguments: list[str]) -> None:
    """Run a command of ours, shown first. Refused utterances do not stop the run; errors do."""
    print("# relisten", *arguments, flush=True)
    try:
        code = main(arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    gc.collect()  # the models of this step, before the next one loads its own
    if code not in (None, 0, 1):
        sys.exit(code)
