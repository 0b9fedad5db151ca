"""N-best lists in, the same lists with a bonus for phrases that are likely to be said out."""

from __future__ import annotations

from pathlib import Path

from relisten.core.biasing import Biasing, Phrase, parse_phrases
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import FormatError, NBest, UsageError
from relisten.io.provenance import content_hash
from relisten.tasks.second_pass import biasing_of
from relisten.tasks.streams import Outcome, Tick, no_tick, walk


def bias(
    nbest: str,
    output: str,
    phrases: str | None = None,
    inject: bool = False,
    normaliser: str = "english",
    input_format: str = "auto",
    manifest: str | None = None,
    resume: bool = False,
    tick: Tick = no_tick,
) -> Outcome:
    """What became of the utterances of the file `nbest`, written with `context` to `output`.

    phrases: a file of phrases, one a line, a weight behind a tab if need be. An utterance's own
    `context` is a list of phrases, too, one a line, and adds to them; without the file it alone
    counts. inject: add hypotheses with a phrase in the place of what sounds like it.
    Raises FormatError for a weight that is none, UsageError where the file holds no phrase.
    """
    common = read_phrases(phrases) if phrases else ()
    shared = Biasing(common, normaliser_named(normaliser))

    def work(chunk: list[NBest]) -> list[NBest]:
        return [biasing_of(utterance, shared).apply(utterance, inject) for utterance in chunk]

    return walk(
        nbest,
        output,
        work,
        {
            "command": "bias",
            "phrases": content_hash(phrases),
            "inject": inject,
            "normaliser": normaliser,
        },
        input_format=input_format,
        manifest=manifest,
        resume=resume,
        tick=tick,
        needs_hypotheses=True,
    )


def read_phrases(path: str) -> tuple[Phrase, ...]:
    """The phrases of a file. Raises FormatError, UsageError where there is none."""
    try:
        phrases = parse_phrases(Path(path).read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not UTF-8 ({error.reason}); convert the file") from error
    if not phrases:
        raise UsageError(f"{path}: holds no phrase; write one a line")
    return phrases
