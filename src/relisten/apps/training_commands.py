"""The commands that train: their options are the keys of a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from relisten.apps.configured import ConfiguredCommand
from relisten.apps.console import finish, note, progress
from relisten.apps.options import quiet_option, seed_option
from relisten.core.types import Refusal
from relisten.tasks.defaults import MODEL

config_argument = click.argument(
    "config", metavar="CONFIG.yaml", type=click.Path(exists=True, dir_okay=False)
)
dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help="Train nothing; print parameters, memory, GPUs and hours that the run would take.",
)
HOW = """

    CONFIG.yaml holds the keys below, its relative paths counted from its folder; each can be given
    here instead. A run that was killed goes on when it is started again.
    """


@click.command(
    cls=ConfiguredCommand,
    keys="relisten.tasks.pretrain:PretrainConfig",
    help="Continue the pre-training of a language model on speech and text, into a bundle." + HOW,
    epilog="Example: relisten pretrain recipes/speechocean/pretrain.yaml --schedule.steps 100",
)
@config_argument
@dry_run_option
@quiet_option
def pretrain(config: str, dry_run: bool, quiet: bool, **overrides: str | None) -> None:
    from relisten.tasks.pretrain import PretrainConfig, pretrain

    settings = _settings(PretrainConfig, config, overrides)
    if dry_run:
        from relisten.tasks.estimate import describe_estimate, estimate

        click.echo(describe_estimate(settings, estimate(settings)))
        return
    refused: list[Refusal] = []
    metrics = pretrain(settings, lambda line: note(line, quiet), refused.append)
    _tell(settings.output, "development speech costs, in nats per word", metrics, quiet)
    finish(tuple(refused))


@click.command(
    cls=ConfiguredCommand,
    keys="relisten.tasks.finetune:FinetuneConfig",
    help="Tune a bundle for fewer word errors on N-best lists (MWER), its weights with it." + HOW,
    epilog="Example: relisten finetune recipes/speechocean/mwer.yaml --schedule.steps 100",
)
@config_argument
@quiet_option
def finetune(config: str, quiet: bool, **overrides: str | None) -> None:
    from relisten.tasks.finetune import FinetuneConfig, finetune

    settings = _settings(FinetuneConfig, config, overrides)
    metrics = finetune(settings, lambda line: note(line, quiet))
    _tell(settings.output, "on development lists, in %", metrics, quiet)


@click.command(
    cls=ConfiguredCommand,
    keys="relisten.tasks.adapt:AdaptConfig",
    help="Adapt a bundle to recordings that nobody transcribed, into another bundle." + HOW,
    epilog="Example: relisten adapt recipes/speechocean/adapt.yaml --schedule.steps 100",
)
@config_argument
@dry_run_option
@quiet_option
def adapt(config: str, dry_run: bool, quiet: bool, **overrides: str | None) -> None:
    from relisten.tasks.adapt import AdaptConfig, adapt

    settings = _settings(AdaptConfig, config, overrides)
    if dry_run:
        from relisten.tasks.estimate import as_pretraining, describe_estimate, estimate

        plan = as_pretraining(settings)
        click.echo(describe_estimate(plan, estimate(plan)))
        return
    refused: list[Refusal] = []
    metrics = adapt(settings, lambda line: note(line, quiet), refused.append)
    _tell(settings.output, "development speech costs, in nats per word", metrics, quiet)
    finish(tuple(refused))


def _settings(kind: type[Any], config: str, overrides: Mapping[str, str | None]) -> Any:
    """The configuration. Raises UsageError where it does not fit."""
    from relisten.tasks.training.config import read_config

    given = {key: value for key, value in overrides.items() if value is not None}
    return read_config(kind, config, given)


def _tell(bundle: str, what: str, metrics: Mapping[str, float], quiet: bool) -> None:
    click.echo(f"{bundle}: a bundle; {what}:")
    for name, figure in metrics.items():
        click.echo(f"  {name}  {figure:.3f}")
    note(
        "next, weights for its scores, from development lists with references:\n"
        f"  relisten score NBEST -o SCORED --model {bundle} --components all\n"
        f"  relisten tune SCORED -o {bundle}",
        quiet,
    )


@click.command(
    epilog="Example: relisten learn my-speech.jsonl -o my-bundle --dev other-speakers.jsonl"
)
@click.argument("speech", nargs=-1)
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder of the bundle.")
@click.option(
    "--from",
    "model",
    default=MODEL,
    show_default=True,
    metavar="BUNDLE",
    help="Bundle to start from.",
)
@click.option(
    "--first-pass",
    metavar="NAME",
    help="The Whisper to teach, of CTranslate2 or transformers; by default the bundle's.",
)
@click.option("--language", metavar="CODE", help="Of the speech; by default the bundle's.")
@click.option(
    "--dev",
    multiple=True,
    metavar="SPEECH",
    help="Held out instead of a part of the speech: other speakers or recordings, transcribed.",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="FILE",
    help="Text of the domain for the language model: .txt, a paragraph a line, or .jsonl.",
)
@click.option(
    "--phrases",
    multiple=True,
    metavar="FILE",
    help="Names and terms of the domain, one a line: the language model reads them.",
)
@click.option("--steps", type=int, help="Of the recogniser's training; by the speech by default.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    help="That the recogniser's training, the longest part, may take at most.",
)
@click.option(
    "--curve",
    is_flag=True,
    help="Learn from a quarter and a half of the speech as well: is more worth it?",
)
@seed_option
@click.option("--json", "json_path", metavar="FILE", help='Write the report there; "-" is stdout.')
@quiet_option
def learn(
    speech: tuple[str, ...], output: str, json_path: str | None, quiet: bool, **options: Any
) -> None:
    """Teach a recogniser and its second pass your SPEECH, and see what that gains.

    SPEECH: recordings with their transcripts, as a manifest (JSON lines, NeMo, CSV, TSV), a Kaldi
    data folder, or a folder with texts beside the recordings; recordings without a transcript serve
    where the bundle is confident of what they say. Some speakers are held out, and judge. Without
    SPEECH the language model alone learns, from --text or --phrases. A run that was stopped goes on
    when it is started again.
    """
    from relisten.apps.tables import print_learning
    from relisten.io.files import write_text
    from relisten.tasks.training.config import need_train_extra

    need_train_extra()
    from relisten.tasks.learning.learn import learn
    from relisten.tasks.learning.options import LearnOptions

    report, refused = learn(
        speech,
        output,
        LearnOptions(**options),
        lambda line: note(line, quiet),
        lambda label, total: progress(label, total, quiet),
    )
    if report is not None and json_path:
        write_text(json_path, json.dumps(report.to_json(), indent=1) + "\n")
    if report is not None and json_path != "-":
        print_learning(report, output)
    finish(refused)
