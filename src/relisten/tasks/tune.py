"""Development utterances with stored scores in, weights out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from relisten.core.combine import Weights
from relisten.core.tune import TuningResult, tune_weights
from relisten.core.types import FormatError, NBest, UsageError
from relisten.io.bundle import read_bundle, write_bundle
from relisten.io.nbest import read_nbest
from relisten.tasks.streams import Refusal


def tune(
    scored: str,
    normaliser: str = "english",
    components: tuple[str, ...] = (),
    folds: int = 5,
    seed: int = 0,
    by: str | None = None,
    input_format: str = "auto",
    manifest: str | None = None,
) -> tuple[TuningResult, tuple[Refusal, ...]]:
    """The weights found on the file `scored`, and the utterances left out, having no reference.

    components: the scores to weigh; empty: all that every hypothesis has, and length. by: a key of
    the utterances whose values get weights of their own.
    Raises UsageError where no utterance has a reference.
    """
    known: list[NBest] = []
    refused: list[Refusal] = []
    for utterance in read_nbest(scored, input_format, manifest):
        if utterance.reference is None:
            refused.append(Refusal(utterance.id, "it has no reference"))
        else:
            known.append(utterance)
    if not known:
        raise UsageError(f"{scored}: no utterance has a reference; tuning needs what was said")
    result = tune_weights(
        known,
        normaliser=normaliser,
        components=components or None,
        folds=folds,
        seed=seed,
        by=by,
    )
    return result, tuple(refused)


def save_weights(weights: Weights, output: str) -> None:
    """Write weights to a file, "-" for standard output; into relisten.json where `output` is a
    bundle's folder."""
    folder = Path(output)
    if folder.is_dir():
        write_bundle(folder, replace(read_bundle(folder), weights=weights))
        return
    with click.open_file(output, "w", encoding="utf-8") as file:
        file.write(json.dumps(weights.to_json(), indent=2) + "\n")


def load_weights(path: str) -> Weights:
    """The weights that `relisten tune` wrote to `path`. Raises FormatError for another layout."""
    with open(path, encoding="utf-8") as file:
        try:
            return Weights.from_json(json.load(file))
        except (ValueError, FormatError) as error:
            raise FormatError(f"{path}: {error}; make it with `relisten tune`") from error
