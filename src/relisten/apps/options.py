"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import click

from relisten.tasks.defaults import MODEL

Command = Callable[..., Any]
Options = TypeVar("Options")


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


def _be_quiet(ctx: click.Context, option: click.Parameter, is_quiet: bool) -> bool:
    if is_quiet:
        from relisten.io.sources import fetching_quietly

        ctx.with_resource(fetching_quietly())
    return is_quiet


quiet_option = click.option(
    "--quiet", is_flag=True, callback=_be_quiet, help="No progress bar and no notes."
)
normaliser_option = click.option(
    "--normaliser",
    type=click.Choice(["english", "basic", "none"]),
    default="english",
    show_default=True,
    help="Rules that make texts comparable (Whisper's).",
)
rules_option = click.option(
    "--rules",
    metavar="FILE",
    help="Your own rules, one a line: words that count as nothing (fillers), or WORDS = "
    "REPLACEMENT.",
)
format_option = click.option(
    "--input-format",
    default="auto",
    show_default=True,
    metavar="FORMAT",
    help="Layout of what is read: native, tsv, nemo, kaldi, whisper, …; auto looks.",
)
input_options = options(
    format_option,
    click.option(
        "--manifest",
        metavar="FILE",
        help="Where audio and references stand that the layout has no place for; or the recording "
        "that all utterances are parts of.",
    ),
)

language_option = click.option(
    "--language",
    metavar="CODE",
    help="Spoken language of a multilingual recogniser, as an ISO code; auto: detected. By default "
    "the model's.",
)
decoding_options = options(
    click.option("--beam", default=10, show_default=True, help="Width of the beam search."),
    click.option("--n-best", default=10, show_default=True, help="Hypotheses to keep of the beam."),
    click.option("--samples", default=0, show_default=True, help="Hypotheses to sample besides."),
    click.option("--temperature", default=1.0, show_default=True, help="Of the samples."),
    click.option("--seed", default=0, show_default=True, help="Of the samples."),
)
proposal_options = options(
    click.option(
        "--propose",
        type=int,
        help="Hypotheses to add that the model's CTC head proposes: spelled by it, and mixed with "
        "those of the list. By default 10 where the weights count its score; nbest adds none.",
    ),
    click.option(
        "--words",
        metavar="FILE",
        help="Text; proposals are spelled with its words alone. By default with those that the CTC "
        "head was trained on.",
    ),
)
cue_options = options(
    click.option(
        "--max-cue-s", default=6.0, show_default=True, help="Longest cue of srt and vtt, s."
    ),
    click.option(
        "--min-cue-s",
        default=1.0,
        show_default=True,
        help="How long a cue is shown at least, s, unless another one follows.",
    ),
    click.option("--line-width", default=42, show_default=True, help="Characters of a cue's line."),
    click.option("--cue-lines", default=2, show_default=True, help="Lines of a cue."),
)
decision_option = click.option(
    "--decision",
    type=click.Choice(["map", "mbr", "rover"]),
    default="map",
    show_default=True,
    help="map: the highest sum; mbr: the fewest expected word errors; rover: word by word, the "
    "text need not be on the list.",
)
confidence_option = click.option(
    "--confidence/--no-confidence",
    default=True,
    show_default=True,
    help="Give each word of the chosen text a confidence; without it long lists rank faster.",
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
    help="Model of the second pass: a bundle, a causal LM's folder, a name, a hub id.",
)
seed_option = click.option(
    "--seed", default=0, show_default=True, help="Seed for all random draws."
)


def taken(kind: type[Options], options: dict[str, Any], **more: Any) -> Options:
    """The frozen options `kind`, its fields taken out of a command's options; more: those that the
    command makes itself."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: options.pop(name) for name in names & set(options)}, **more)


def components_of(ctx: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    """`text,length` → ("text", "length")."""
    return tuple(name for part in value.split(",") if (name := part.strip()))


def systems_of(
    ctx: click.Context, argument: click.Parameter, given: Sequence[str]
) -> dict[str, str]:
    """`whisper=a.jsonl canary=b.jsonl` → name → file."""
    systems: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not (name.strip() and equals and path):
            raise click.BadParameter(f"{one!r}: write NAME=FILE, as in whisper=whisper.jsonl")
        if name in systems:
            raise click.BadParameter(f"two systems are called {name!r}; give each its own name")
        systems[name] = path
    return systems


upstream_options = options(
    click.option(
        "--upstream",
        metavar="URL",
        help="Address of a server with OpenAI's audio API, as in http://127.0.0.1:9000/v1: its "
        "text comes first, and another one must win clearly. Its key: RELISTEN_UPSTREAM_KEY.",
    ),
    click.option(
        "--upstream-model",
        metavar="NAME",
        help="As that server calls its model; by default the only one it lists, or whisper-1.",
    ),
)
second_pass_options = options(
    model_option,
    click.option(
        "--first-pass",
        multiple=True,
        metavar="NAME",
        help="Recogniser; by default the one that the model's weights are for. Again for another "
        "one: its hypotheses join the list, rated by the first.",
    ),
    language_option,
    upstream_options,
    decoding_options,
    proposal_options,
    phrases_option,
    click.option(
        "--weights",
        metavar="FILE|BUNDLE",
        help="What each score counts for; by default the model's own weights.",
    ),
    decision_option,
    confidence_option,
)
"""Of the commands that take recordings and give the chosen text."""
