"""The command line: one command a task, its options the task's parameters."""

from __future__ import annotations

import os
import warnings
from typing import Any

import click

from relisten.apps.console import (
    Commands,
    audio_progress,
    bound_memory,
    count_lines,
    finish,
    note,
    progress,
    spinner,
)
from relisten.apps.evaluation_commands import doctor, evaluate
from relisten.apps.options import (
    components_of,
    confidence_option,
    cue_options,
    decision_option,
    decoding_options,
    format_option,
    input_options,
    language_option,
    model_option,
    normaliser_option,
    output_option,
    phrases_option,
    placement_options,
    proposal_options,
    quiet_option,
    resume_option,
    rules_option,
    second_pass_options,
    seed_option,
    systems_of,
    taken,
)
from relisten.apps.serve.command import serve
from relisten.apps.training_commands import adapt, finetune, learn, pretrain
from relisten.tasks.defaults import FIRST_PASS


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="relisten")
def main() -> None:
    """A second pass over a recogniser's N-best list: pick the right hypothesis.

    \b
    Exit codes: 0 all done; 1 done, but some utterances were refused (listed);
    2 wrong usage, unreadable input or an output that cannot be written;
    70 a fault of relisten; 130 interrupted; 141 standard output was closed.
    """
    bound_memory()
    # Our own progress bars and sentences are enough.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.showwarning = lambda message, *_: note(f"Warning: {message}", quiet=False)


@main.command(epilog="Example: relisten transcribe talks/ --output-dir texts --format srt --resume")
@click.argument("audio", nargs=-1, required=True)
@click.option(
    "-o", "--output", default="-", metavar="FILE", help="File to write; standard output by default."
)
@click.option(
    "--output-dir",
    metavar="FOLDER",
    help="Folder for a file each, written as soon as a recording is finished.",
)
@click.option(
    "--format",
    "format",
    type=click.Choice(["text", "json", "srt", "vtt"]),
    default="text",
    show_default=True,
    help="json: a line a recording, with the first pass's text, and times and confidence of words.",
)
@click.option(
    "--channels",
    type=click.Choice(["mix", "split", "left", "right"]),
    default="mix",
    show_default=True,
    help="Of stereo: their average, a transcript each, or one alone.",
)
@second_pass_options
@cue_options
@placement_options
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where an interrupted run stopped, be it in the middle of a recording.",
)
@quiet_option
def transcribe(phrases: str | None, weights: str | None, quiet: bool, **options: Any) -> None:
    """Transcribe recordings: first pass, second pass, the better text.

    AUDIO: files, folders with all below them, patterns such as 'talks/**/*.mp3', lists of
    recordings or of turns of speakers (.jsonl, .csv, …), "-" for standard input. Silence, noise
    and music have no text. Of several recordings, each line of text begins with the name of its
    own and a tab.
    """
    from relisten.speech.first_pass import DecodingOptions
    from relisten.tasks.bias import read_phrases
    from relisten.tasks.cues import CueOptions
    from relisten.tasks.inputs import seconds_named
    from relisten.tasks.second_pass import SecondPassOptions
    from relisten.tasks.transcribe import transcribe
    from relisten.tasks.weights import load_weights

    decoding, cues = taken(DecodingOptions, options), taken(CueOptions, options)
    second_pass = taken(
        SecondPassOptions,
        options,
        phrases=read_phrases(phrases) if phrases else (),
        weights=load_weights(weights) if weights else None,
    )
    total_s = seconds_named(options["audio"], options["channels"])
    with audio_progress("transcribe", total_s, quiet) as tick:
        outcome = transcribe(
            **options, decoding=decoding, options=second_pass, cues=cues, tick=tick
        )
    finish(outcome.refused)


@main.command(
    epilog="Example: relisten nbest dev.jsonl -o nbest.jsonl --first-pass whisper-tiny.en "
    "--first-pass whisper-base --samples 10 --propose 5"
)
@click.argument("manifest")
@output_option
@click.option(
    "--first-pass",
    multiple=True,
    metavar="NAME",
    help="Recogniser: whisper-tiny.en, large-v3, turbo, a local folder or a hub id; by default "
    "those of the model. Again for another one: its hypotheses join the list, rated by the first.",
)
@language_option
@decoding_options
@proposal_options
@model_option
@normaliser_option
@click.option(
    "--merge/--no-merge", default=True, show_default=True, help="Merge equal normalised texts."
)
@placement_options
@resume_option
@quiet_option
def nbest(quiet: bool, **options: Any) -> None:
    """Propose N hypotheses for every utterance of a MANIFEST (JSON lines).

    Hypotheses that an utterance has already are kept: they join the list behind the first pass's,
    rated anew.
    """
    from relisten.speech.first_pass import DecodingOptions
    from relisten.tasks.nbest import make_nbest

    decoding = taken(DecodingOptions, options)
    with progress("nbest", count_lines(options["manifest"]), quiet) as tick:
        outcome = make_nbest(**options, decoding=decoding, tick=tick)
    finish(outcome.refused)


@main.command(
    epilog="Example: relisten combine whisper=whisper.jsonl canary=canary.jsonl -o lists.jsonl "
    "--mix"
)
@click.argument("systems", nargs=-1, required=True, metavar="NAME=FILE...", callback=systems_of)
@output_option
@click.option(
    "--mix",
    is_flag=True,
    help="Add texts that take over one stretch of words from another system's.",
)
@click.option(
    "--key",
    default="id",
    show_default=True,
    metavar="KEY",
    help="What makes two lines one utterance: id, audio (the recording and its start), or a key of "
    "the utterances.",
)
@normaliser_option
@format_option
@quiet_option
def combine(quiet: bool, **options: Any) -> None:
    """Join the outputs of several recognisers, FILEs of any layout, in one list an utterance.

    The first NAME is the first pass, whose text stays where nothing is better: name the best one
    first. Every other text gets its agreement with each system, which `tune` weighs and `rescore`
    ranks by; both need no score of the recognisers.
    """
    from relisten.tasks.hypotheses.combine import combine

    total = count_lines(next(iter(options["systems"].values())))
    with progress("combine", total, quiet) as tick:
        outcome = combine(**options, tick=tick, say=lambda line: note(line, quiet))
    finish(outcome.refused)


@main.command(
    epilog="Example: relisten codebook train.jsonl -o bundle --units 512 --levels 4 --pool 4"
)
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder to write it to.")
@click.option(
    "--encoder",
    default=FIRST_PASS,
    show_default=True,
    metavar="NAME",
    help="Speech encoder: a Whisper name or folder, or hubert:FOLDER_OR_ID@LAYER.",
)
@click.option("--units", default=500, show_default=True, help="Codes of each level.")
@click.option("--levels", default=1, show_default=True, help="Residual levels of a unit.")
@click.option("--pool", default=1, show_default=True, help="Encoder frames that a unit spans.")
@seed_option
@placement_options
@quiet_option
def codebook(quiet: bool, **options: Any) -> None:
    """Fit a codebook of speech units on the recordings of MANIFESTs.

    Ends with what the codes leave, in nats per word, where word times and references are known.
    """
    from relisten.apps.tables import print_codebook
    from relisten.tasks.codebook import make_codebook

    n_lines = [count_lines(manifest) for manifest in options["manifests"]]
    total = None if None in n_lines else sum(filter(None, n_lines))
    with progress("codebook", total, quiet) as tick:
        report = make_codebook(**options, tick=tick)
    print_codebook(report)
    finish(report.refused)


@main.command(epilog="Example: relisten units dev.jsonl -o units.jsonl --model bundle")
@click.argument("manifest")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE|FOLDER/",
    help='JSON lines, "-" is standard output; Parquet shards where it ends with / or is a folder.',
)
@model_option
@click.option("--deduplicate", is_flag=True, help="Merge equal neighbours, keep their durations.")
@placement_options
@resume_option
@quiet_option
def units(quiet: bool, **options: Any) -> None:
    """Write the speech units of every utterance of a MANIFEST."""
    from relisten.tasks.units import make_units

    with progress("units", count_lines(options["manifest"]), quiet) as tick:
        outcome = make_units(**options, tick=tick)
    finish(outcome.refused)


@main.command(
    epilog="Example: relisten bias nbest.jsonl -o biased.jsonl --phrases names.txt --inject"
)
@click.argument("nbest")
@output_option
@phrases_option
@click.option(
    "--inject",
    is_flag=True,
    help="Add hypotheses with a phrase in the place of what sounds like it; score them next.",
)
@normaliser_option
@input_options
@resume_option
@quiet_option
def bias(quiet: bool, **options: Any) -> None:
    """Favour hypotheses of an NBEST file that hold names, products, terms you expect.

    Adds the score `context`, which `tune` weighs like any other and `rescore` counts as it is where
    no one tuned it. Phrases under an utterance's own key `context`, one a line, count for it.
    """
    from relisten.tasks.bias import bias

    with progress("bias", count_lines(options["nbest"]), quiet) as tick:
        outcome = bias(**options, tick=tick)
    finish(outcome.refused)


@main.command(epilog="Example: relisten score nbest.jsonl -o scored.jsonl --components text")
@click.argument("nbest")
@output_option
@model_option
@click.option(
    "--components",
    default="",
    callback=components_of,
    help="Of text, text_given_speech, speech_given_text, ctc, with commas between, or all: what "
    "the model has learnt. By default what its weights count and an utterance has the means for.",
)
@click.option(
    "--wrong-speech",
    is_flag=True,
    help="A control: give each utterance another one's speech, to see what speech itself gains.",
)
@rules_option
@input_options
@placement_options
@resume_option
@quiet_option
def score(quiet: bool, **options: Any) -> None:
    """Add a language model's scores to every hypothesis of an NBEST file."""
    from relisten.tasks.score import score

    with progress("score", count_lines(options["nbest"]), quiet) as tick:
        outcome = score(**options, tick=tick, say=lambda line: note(line, quiet))
    finish(outcome.refused)


@main.command(epilog="Example: relisten tune scored-dev.jsonl -o weights.json")
@click.argument("scored")
@output_option
@normaliser_option
@rules_option
@click.option(
    "--components",
    default="",
    callback=components_of,
    help="Scores to weigh, with commas between; all that are stored, and length, by default.",
)
@click.option("--folds", default=5, show_default=True, help="Parts of the cross-validation.")
@click.option(
    "--by",
    metavar="KEY",
    help="Key of the utterances, say domain, whose values get weights of their own, shrunk towards "
    "the shared ones as far as cross-validation asks.",
)
@click.option(
    "--always",
    is_flag=True,
    help="Write the tuned weights even where it is not certain that they beat the first pass.",
)
@seed_option
@input_options
@quiet_option
def tune(output: str, always: bool, quiet: bool, **options: Any) -> None:
    """Find weights on development utterances that have scores and references.

    Where no gain over the first pass, or over the best of combined systems, is certain, the weights
    written keep that one's choice.
    With them go the temperature and the ceiling that make word confidence true.
    Where the output is a bundle's folder, they become the bundle's own.
    """
    from relisten.apps.tables import print_tuning
    from relisten.tasks.tune import tune
    from relisten.tasks.weights import save_weights

    with spinner("tuning", quiet):
        result, refused = tune(**options)
    save_weights(result.weights if always else result.cautious_weights, output)
    print_tuning(result, to_stderr=output == "-", always=always)
    finish(refused)


@main.command(
    epilog="Example: relisten rescore scored.jsonl -o ranked.jsonl --weights weights.json "
    "--decision mbr"
)
@click.argument("scored")
@output_option
@click.option(
    "--weights",
    metavar="FILE|BUNDLE",
    help="What `relisten tune` wrote, or a bundle; by default the weights of the model that scored "
    "the lists.",
)
@decision_option
@confidence_option
@input_options
@resume_option
@quiet_option
def rescore(weights: str | None, quiet: bool, **options: Any) -> None:
    """Rank every utterance's hypotheses by their weighted scores, best first.

    Each gets its posterior, the first also a confidence for each of its words.
    Equal texts, case and punctuation aside, become one hypothesis first, as `tune` counts them:
    their first-pass probabilities add up, all else is the first one's.
    """
    from relisten.tasks.rescore import rescore
    from relisten.tasks.weights import load_weights

    chosen = load_weights(weights) if weights else None
    if chosen and chosen.domains:
        domains = ", ".join(chosen.domains)
        note(f"weights by {chosen.by!r}: {domains}; the shared ones for all others", quiet)
    with progress("rescore", count_lines(options["scored"]), quiet) as tick:
        outcome = rescore(**options, weights=chosen, tick=tick, say=lambda line: note(line, quiet))
    finish(outcome.refused)


for command in (learn, pretrain, finetune, adapt, evaluate, doctor, serve):
    main.add_command(command)
