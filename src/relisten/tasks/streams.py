"""What every verb that walks a file shares: refusals, fixed chunks, audio paths that stay true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from relisten.core.types import AudioError, FormatError, NBest, Refusal, UsageError
from relisten.io.audio import load_audio
from relisten.io.nbest import NBestWriter, read_nbest, rebase_audio, resolve_audio
from relisten.io.provenance import Provenance, content_hash


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb did: utterances in = n_done + refused. Utterances of a resumed file count."""

    n_done: int
    refused: tuple[Refusal, ...] = ()


Tick = Callable[[float], None]
"""Called with the number of utterances just finished or refused, or of seconds of audio where
recordings are transcribed: a progress bar, say."""


def no_tick(n_done: float) -> None:
    """Nothing: the `Tick` of those who do not watch."""


Say = Callable[[str], None]
"""Told in a sentence what a person should know: progress, or what was decided unasked."""


def say_nothing(sentence: str) -> None:
    """A `Say` that drops the sentence."""


AudioSource = str | Path | Mapping[str, BinaryIO]
"""Where the recordings are that utterances name: beside this file ("-": in the working folder), or
in these open files, by name."""


def refuse_nothing(refusal: Refusal) -> None:
    """A `Refuse` that drops the refusal."""


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items in their order, the last one shorter."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def walk(
    source: str,
    output: str,
    work: Callable[[list[NBest]], Iterable[NBest | Refusal]],
    made_by: Provenance,
    chunk_size: int = 1,
    input_format: str = "auto",
    manifest: str | None = None,
    resume: bool = False,
    tick: Tick = no_tick,
    needs_hypotheses: bool = False,
    needs_one: bool = False,
) -> Outcome:
    """What became of the utterances of `source`, each chunk of which `work` turned into `output`.

    source, output: paths, "-" for standard input and output.
    made_by: what else than the input decides what is written; recorded beside `output`.
    input_format, manifest: as `read_nbest` takes them.
    work: chunk → for each utterance, in order, what to write or why it is refused.
    resume: a chunk is done again, as a whole, unless all of it is finished: so a batch has the
        same members, and the file the same bytes, as in a run that was never interrupted.
    An utterance that cannot be read or written is refused, the others go on. Memory is that of one
    chunk and of the refusals. Raises UsageError where `needs_hypotheses` and no utterance has any,
    where `needs_one` and all are refused (with the first reason), and where `resume` meets an
    output that was made in another way.
    """
    n_done, has_hypotheses = 0, False
    refused: list[Refusal] = []

    def refuse(refusal: Refusal) -> None:
        refused.append(refusal)
        tick(1)

    inputs = {"input": content_hash(source), "manifest": content_hash(manifest)}
    provenance = {**made_by, **inputs, "input format": input_format}
    utterances = read_nbest(source, input_format, manifest, refuse)
    with NBestWriter(output, resume, provenance) as writer:
        for chunk in in_chunks(utterances, chunk_size):
            has_hypotheses |= any(utterance.hypotheses for utterance in chunk)
            finished = {utterance.id for utterance in chunk if utterance.id in writer.done}
            n_done += len(finished)
            for result in work(chunk) if len(finished) < len(chunk) else ():
                if isinstance(result, Refusal):
                    refused.append(result)
                elif result.id not in finished:
                    try:
                        writer.write(rebase_audio(result, source, output))
                        n_done += 1
                    except FormatError as error:  # such as 1e400 under a key of the user's
                        refused.append(Refusal(result.id, str(error)))
            tick(len(chunk))
        if needs_hypotheses and not has_hypotheses:
            raise no_hypotheses(source, refused)
        if needs_one and refused and not n_done:
            raise UsageError(refused[0].reason)
    return Outcome(n_done, tuple(refused))


def no_hypotheses(source: str, refused: Sequence[Refusal] = ()) -> UsageError:
    """The error of a file of N-best lists that turns out to hold none, or none that can be read."""
    if refused:
        return UsageError(
            f"{source}: no utterance that can be read has hypotheses; {len(refused)} cannot, the "
            f"first: {refused[0].reason}"
        )
    return UsageError(f"{source}: no utterance has hypotheses; make them with `relisten nbest`")


def load_recording(utterance: NBest, source: AudioSource) -> np.ndarray | Refusal:
    """The audio of an utterance read from `source`, 16 kHz float32 [T], or why not."""
    if utterance.audio is None:
        return Refusal(utterance.id, "it names no recording; add the key 'audio'")
    try:
        audio: str | Path | BinaryIO | None
        if isinstance(source, Mapping):
            audio = source.get(utterance.audio)
            if audio is None:
                return Refusal(utterance.id, f"{utterance.audio!r} is not among the recordings")
        else:
            audio = resolve_audio(utterance, str(source))
        return load_audio(audio, start_s=utterance.start_s, duration_s=utterance.duration_s)
    except AudioError as error:
        return Refusal(utterance.id, str(error))


def work_on_accepted(
    items: Sequence[Item | Refusal], work: Callable[[list[Item]], Sequence[Result]]
) -> list[Result | Refusal]:
    """What `work` makes of all items that are not refused, in their places; refusals stay."""
    results = iter(work([item for item in items if not isinstance(item, Refusal)]))
    return [item if isinstance(item, Refusal) else next(results) for item in items]


def all_accepted(results: Sequence[Result | Refusal]) -> list[Result]:
    """The results as they are. Raises UsageError with the first refusal, where there is one."""
    for result in results:
        if isinstance(result, Refusal):
            raise UsageError(f"{result.id!r}: {result.reason}")
    return [result for result in results if not isinstance(result, Refusal)]
