"""The main job on real recordings, for people to watch: `python -m relisten.apps.demo`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relisten.apps.console import Commands
from relisten.tasks.defaults import MODEL

if TYPE_CHECKING:
    from relisten.core.combine import Weights
    from relisten.tasks.transcript import Segment, Transcript

SHOWN = 3
"""Hypotheses of each list; the first pass's choice is shown wherever it has come to stand."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A part of a recording, in seconds, and what is said in it."""

    file: str
    start_s: float
    end_s: float
    reference: str


SENTENCES = (
    Sentence(
        "telephone.wav",
        11.6,
        18.0,
        "You know, I heard a beep. This is Diane in New Jersey. And I'm Sheila in Texas, "
        "originally from Chicago.",
    ),
    Sentence(
        "telephone.wav",
        18.0,
        22.0,
        "Oh, I'm originally from Chicago also. I'm in New Jersey now, though.",
    ),
    Sentence(
        "endgame_nagg_nell.wav",
        17.4,
        22.3,
        "What are you talking about? Laughing? I thought you were in pain.",
    ),
    Sentence(
        "endgame_nagg_nell.wav",
        22.3,
        28.3,
        "Not now. Do you remember the day I went and fetched you from that ditch? No.",
    ),
    Sentence("beckett.wav", 0.0, 6.2, "Ever tried. Ever failed. No matter. Try again."),
)
"""Sentences in which the first pass errs, and easy ones."""


@click.group(cls=Commands, invoke_without_command=True)
@click.option("--model", default=MODEL, show_default=True, metavar="BUNDLE")
def main(model: str) -> None:
    """Transcribe parts of real recordings: first pass, second pass, what changed and why."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    from relisten.api import Rescorer
    from relisten.core.error_rates import word_errors
    from relisten.core.text import cached_normaliser
    from relisten.io.audio import RATE_HZ, load_audio
    from relisten.io.sources import resolve_model

    recordings = resolve_model("demo-speech")
    click.echo(f"transcribing {len(SENTENCES)} sentences; the models load first", err=True)
    rescorer = Rescorer.from_pretrained(model)
    normalise = cached_normaliser("english")
    console = Console()
    n_words = n_before = n_after = 0
    for one in SENTENCES:
        path = recordings / one.file
        samples = load_audio(path, start_s=one.start_s, duration_s=one.end_s - one.start_s)
        transcript = rescorer.transcribe(samples, rate_hz=RATE_HZ)
        show(console, one, transcript, rescorer.weights)
        reference = normalise(one.reference)
        n_words += len(reference.split())
        n_before += word_errors(reference, normalise(transcript.first_pass_text)).errors
        n_after += word_errors(reference, normalise(transcript.text)).errors
    console.rule()
    console.print(
        f"wrong words of {n_words}: first pass {n_before}, second pass {n_after}; five sentences "
        "are a look, the README has what 1,240 say"
    )


def show(console: Console, sentence: Sentence, transcript: Transcript, weights: Weights) -> None:
    """One sentence: its texts, and for each segment the head of the list that was ranked."""
    console.rule(f"{sentence.file}, {sentence.start_s:g} to {sentence.end_s:g} s", align="left")
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in transcript.seconds.items())
    for label, text in (
        ("said", Text(sentence.reference)),
        ("first pass", Text(transcript.first_pass_text)),
        ("chosen", Text(transcript.text)),
        ("changed", word_diff(transcript.first_pass_text, transcript.text)),
        ("seconds", Text(stages)),
    ):
        console.print(Text(f"{label:<12}", "bold") + text)
    for segment in transcript.segments:
        console.print(ranking(segment, weights))


def ranking(segment: Segment, weights: Weights) -> Table:
    """The best hypotheses now, each with its place before, what each score counts for (weight times
    score, nats), their sum, and how its words differ from the chosen ones."""
    from relisten.core.combine import combined_scores, component_scores

    hypotheses = segment.nbest.hypotheses
    title = f"{segment.start_s:.1f} to {segment.end_s:.1f} s, a list of {len(hypotheses)}"
    table = Table(title=title, title_justify="left", title_style="dim", box=None, pad_edge=False)
    weighed = {name: weight for name, weight in weights.values.items() if weight}
    for heading in ("now", "before", *weighed, "sum"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("words")
    counted = [w * component_scores(segment.nbest, name) for name, w in weighed.items()]
    sums = combined_scores(segment.nbest, weights)
    for n, hypothesis in enumerate(hypotheses):
        if n >= SHOWN and hypothesis.first_pass_rank != 0:
            continue
        rank = n if hypothesis.first_pass_rank is None else hypothesis.first_pass_rank
        numbers = [f"{column[n]:.1f}" for column in [*counted, sums]]
        words = (
            word_diff(segment.text, hypothesis.text, bare) if n else Text(shortened(segment.text))
        )
        table.add_row(str(n + 1), str(rank + 1), *numbers, words)
    return table


def shortened(text: str) -> str:
    """The first and last three words of a text of more than six."""
    words = text.split()
    return text if len(words) <= 6 else " ".join([*words[:3], "…", *words[-3:]])


def bare(word: str) -> str:
    """A word without case and punctuation around it."""
    return word.strip(".,;:?!\"'-").casefold()


def word_diff(before: str, after: str, key: Callable[[str], str] = str) -> Text:
    """Words taken out in red and struck, words put in in green, between them a few that stayed.

    key: words that are the same under it have stayed.
    """
    old, new = before.split(), after.split()
    parts: list[Text] = []
    matcher = difflib.SequenceMatcher(None, [*map(key, old)], [*map(key, new)], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            parts.append(Text(shortened(" ".join(old[a:b])), "dim"))
            continue
        if b > a:
            parts.append(Text(f"[-{' '.join(old[a:b])}-]", "red strike"))
        if d > c:
            parts.append(Text(f"[+{' '.join(new[c:d])}+]", "green"))
    return Text("nothing", "dim") if old == new else Text(" ").join(parts)


if __name__ == "__main__":
    main()
