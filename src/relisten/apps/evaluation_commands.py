"""The commands that judge: error rates, and what may be broken."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from relisten.apps.console import count_lines, finish, progress, spinner
from relisten.apps.options import (
    input_options,
    normaliser_option,
    placement_options,
    quiet_option,
    rules_option,
    seed_option,
)
from relisten.core.types import Refusal, UsageError
from relisten.io.files import write_text


@click.command(epilog="Example: relisten evaluate ranked.jsonl --html report.html --by speaker")
@click.argument("ranked")
@click.option(
    "--reference",
    metavar="FILE",
    help="What was said, where RANKED does not tell: trn, stm (RANKED may be a ctm), lists, or "
    "plain lines, `id text` or as many as RANKED has.",
)
@click.option("--json", "json_path", metavar="FILE", help='Write the report there; "-" is stdout.')
@click.option(
    "--html",
    "html_path",
    metavar="FILE",
    help="Write a page there: errors, charts, confused words, every utterance. It opens anywhere.",
)
@click.option(
    "--by",
    multiple=True,
    metavar="KEY",
    help="A key of the utterances to part the errors by; may be given again. The page's default: "
    "speaker, where known.",
)
@click.option(
    "--weights",
    metavar="FILE",
    help="What the file was ranked with, for the page: what other weights would have done.",
)
@normaliser_option
@rules_option
@seed_option
@input_options
@quiet_option
def evaluate(
    ranked: str,
    reference: str | None,
    json_path: str | None,
    html_path: str | None,
    by: tuple[str, ...],
    weights: str | None,
    input_format: str,
    manifest: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Word and character error rates: first pass, merged, rescored, oracle; with intervals.

    RANKED is a file of lists, or one text an utterance in any layout that is read.
    """
    from relisten.apps.tables import print_evaluation
    from relisten.io.nbest import read_nbest
    from relisten.tasks.evaluation.evaluate import evaluate
    from relisten.tasks.evaluation.references import read_with_references

    unreadable: list[Refusal] = []
    if reference:
        pair = ranked, reference, input_format, manifest
        utterances = read_with_references(*pair, unreadable.append)
    else:
        utterances = read_nbest(ranked, input_format, manifest, unreadable.append)
    keys = by or (("speaker",) if html_path else ())
    tally = None
    if html_path:
        from relisten.tasks.evaluation.analysis import ErrorAnalyser
        from relisten.tasks.leakage import REFERENCE_SEEN
        from relisten.tasks.weights import load_weights

        known = load_weights(weights) if weights else None
        tally = ErrorAnalyser(
            options["normaliser"], (*keys, REFERENCE_SEEN), known, options["rules"]
        )
    with progress("evaluate", count_lines(ranked), quiet) as tick:
        watch = tally.add if tally else None
        report = evaluate(utterances, **options, by=keys, tick=tick, watch=watch)
    if missing := set(by) - {one.key for one in report.by}:
        raise UsageError(f"--by {', '.join(sorted(missing))}: no utterance has this key")
    if json_path:
        write_text(json_path, json.dumps(report.to_json(), indent=2) + "\n")
    if html_path and tally:
        from relisten.apps.report.page import render

        write_text(html_path, render(tally.result(report), os.path.basename(ranked)))
    if json_path != "-":
        print_evaluation(report)
    finish((*unreadable, *report.refused))


@click.command(epilog="Example: relisten doctor scored-dev.jsonl --json checkup.json")
@click.argument("nbest", metavar="NBEST_OR_SCORED")
@click.option(
    "--model",
    metavar="BUNDLE",
    help="Check this model's tokenizer on the texts, too: a bundle, a causal LM's folder, a name.",
)
@click.option("--json", "json_path", metavar="FILE", help='Write the report there; "-" is stdout.')
@normaliser_option
@rules_option
@seed_option
@input_options
@placement_options
@quiet_option
def doctor(nbest: str, json_path: str | None, quiet: bool, **options: Any) -> None:
    """I gained little: is it a bug? Checks lists, scores, and what they hold.

    Reads development lists, before or after scoring, with or without references. Ends with a
    verdict and the next command. Exit code 1 where something is broken or cannot be read.
    """
    from relisten.apps.doctor_table import print_doctor
    from relisten.tasks.doctor.doctor import doctor

    with spinner("looking", quiet):
        report = doctor(nbest, **options)
    if json_path:
        write_text(json_path, json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")
    if json_path != "-":
        print_doctor(report)
    finish(report.refused)
    if report.is_broken:
        raise click.exceptions.Exit(1)
