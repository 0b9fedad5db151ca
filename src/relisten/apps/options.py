"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from relisten.tasks.defaults import MODEL

Command = Callable[..., Any]


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator that adds several options, the first one first in `--help`."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


output_option = click.option(
    "-o", "--output", required=True, metavar="FILE", help='File to write; "-" is standard output.'
)
placement_options = options(
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where the models run.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "int8"]),
        default="auto",
        show_default=True,
        help="Precision of the models.",
    ),
)
resume_option = click.option(
    "--resume", is_flag=True, help="Go on where an interrupted run stopped; skip finished ids."
)
quiet_option = click.option("--quiet", is_flag=True, help="No progress bar and no notes.")
normaliser_option = click.option(
    "--normaliser",
    type=click.Choice(["english", "basic", "none"]),
    default="english",
    show_default=True,
    help="Rules that make texts comparable (Whisper's).",
)
input_options = options(
    click.option(
        "--input-format",
        default="auto",
        show_default=True,
        metavar="FORMAT",
        help="Layout of what is read: native, tsv, nemo, kaldi, whisper, …; auto looks.",
    ),
    click.option(
        "--manifest",
        metavar="FILE",
        help="Where audio and references stand that the layout has no place for.",
    ),
)

richer_options = options(
    click.option("--samples", default=0, show_default=True, help="Temperature samples to add."),
    click.option(
        "--propose",
        default=0,
        show_default=True,
        help="Texts to add that the model's CTC head finds: spelled, and mixed with the list's own.",
    ),
)
language_option = click.option(
    "--language",
    default="en",
    show_default=True,
    help="Spoken language of a multilingual recogniser; auto: told by CTC head.",
)
beam_options = options(
    click.option("--beam", default=10, show_default=True, help="Width of the beam search."),
    click.option("--n-best", default=10, show_default=True, help="Hypotheses to keep of the beam."),
)
phrases_option = click.option(
    "--phrases",
    metavar="FILE",
    help="Names and terms that are likely to be said, one a line; a weight may follow a tab.",
)
model_option = click.option(
    "--model",
    default=MODEL,
    show_default=True,
    metavar="BUNDLE",
    help="Language model that listens again: a bundle, a causal LM's folder, a name, a hub id.",
)
seed_option = click.option(
    "--seed", default=0, show_default=True, help="Of all that is drawn at random."
)


def components_of(ctx: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    """`text,length` → ("text", "length")."""
    return tuple(name for part in value.split(",") if (name := part.strip()))
