"""N-best lists in, the same lists with a model's scores out: scored once, kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from relisten.core.types import COMPONENTS, TEXT, NBest, UsageError
from relisten.lm.scorer import ScoringInput
from relisten.lm.sequences import Speech
from relisten.tasks.defaults import MODEL
from relisten.tasks.loading import LoadedRescorer, load_rescorer
from relisten.tasks.streams import (
    Outcome,
    Refusal,
    Tick,
    load_recording,
    no_tick,
    walk,
    work_on_accepted,
)

CHUNK_SIZE, GPU_CHUNK_SIZE = 16, 512
"""Utterances scored together: enough to fill batches of some 1,000 tokens, on a GPU of 16,000."""


def score(
    nbest: str,
    output: str,
    model: str = MODEL,
    components: tuple[str, ...] = (),
    wrong_speech: bool = False,
    input_format: str = "auto",
    manifest: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    resume: bool = False,
    tick: Tick = no_tick,
) -> Outcome:
    """What became of the utterances of the file `nbest`, written with scores to `output`.

    Adds each of `components` (all that the model has learnt, by default) to every hypothesis, in
    nats, replacing what was stored under its name. An utterance whose recording or word ends are
    missing, where a component needs them, is refused. wrong_speech: a control; each utterance is
    scored with the speech of the one before it (among those scored together), brought to its
    length: what the scores still gain, speech itself did not give. Raises UsageError for an
    unknown component, ModelError where the model has none of it.
    """
    check_components(components)
    rescorer = load_rescorer(model, device, dtype)
    components = components or rescorer.components
    for component in components:
        rescorer.check(component)  # fails now, not after an hour
    on_cpu = rescorer.scorer.model.device.type == "cpu"
    return walk(
        nbest,
        output,
        lambda chunk: score_chunk(rescorer, chunk, components, nbest, wrong_speech),
        CHUNK_SIZE if on_cpu else GPU_CHUNK_SIZE,
        input_format,
        manifest,
        resume,
        tick,
    )


def score_chunk(
    rescorer: LoadedRescorer,
    chunk: Sequence[NBest],
    components: Sequence[str],
    source: str,
    wrong_speech: bool = False,
) -> list[NBest | Refusal]:
    """The utterances with `components` added, their recordings read from beside the file `source`.

    Raises ModelError where the model has no such component.
    """
    speeches: Sequence[Speech | Refusal | None] = [None] * len(chunk)
    if any(component != TEXT for component in components):
        recordings = [_recording(utterance, source) for utterance in chunk]
        frontend = rescorer.need_frontend()
        speeches = work_on_accepted(recordings, lambda some: frontend.encode_for(components, some))
        if wrong_speech:
            speeches = work_on_accepted(speeches, exchanged)
    return add_scores(rescorer, chunk, speeches, components)


def _recording(utterance: NBest, source: str) -> np.ndarray | Refusal:
    recording = load_recording(utterance, source)
    if isinstance(recording, Refusal) and utterance.audio is None:
        reason = f"{recording.reason}, or score with --components text"
        return replace(recording, reason=reason)
    return recording


def exchanged(speeches: Sequence[Speech]) -> list[Speech]:
    """Each utterance's speech replaced by that of the one before it, brought to its length."""
    if len(speeches) < 2:
        raise UsageError("the wrong-speech control needs at least two utterances scored together")
    return [speeches[i - 1].stretched(len(speech)) for i, speech in enumerate(speeches)]


def check_components(components: Sequence[str]) -> None:
    """Raises UsageError where one is not for relisten to give."""
    unknown = [component for component in components if component not in COMPONENTS]
    if unknown:
        raise UsageError(
            f"components to score: {', '.join(components)}; give some of {', '.join(COMPONENTS)}"
        )


def add_scores(
    rescorer: LoadedRescorer,
    utterances: Sequence[NBest],
    speeches: Sequence[Speech | Refusal | None],
    components: Sequence[str],
) -> list[NBest | Refusal]:
    """The utterances with `components` added, nats; one whose speech is refused, is refused.

    Where one lacks what a component needs (word ends, say), the others are scored alone.
    """
    items = [
        speech if isinstance(speech, Refusal) else (utterance, _scoring_input(utterance, speech))
        for utterance, speech in zip(utterances, speeches, strict=True)
    ]
    try:
        return work_on_accepted(items, lambda some: _scored(rescorer, some, components))
    except UsageError:
        return [
            item if isinstance(item, Refusal) else _scored_or_refused(rescorer, item, components)
            for item in items
        ]


Scorable = tuple[NBest, ScoringInput]


def _scoring_input(utterance: NBest, speech: Speech | None) -> ScoringInput:
    return ScoringInput(
        texts=tuple(hypothesis.text for hypothesis in utterance.hypotheses),
        word_ends_s=tuple(hypothesis.word_ends_s for hypothesis in utterance.hypotheses),
        speech=speech,
    )


def _scored(
    rescorer: LoadedRescorer, items: Sequence[Scorable], components: Sequence[str]
) -> list[NBest]:
    inputs = [scoring_input for _, scoring_input in items]
    columns = {name: rescorer.score(inputs, name) for name in components}
    scored = []
    for u, (utterance, _) in enumerate(items):
        hypotheses = tuple(
            replace(
                hypothesis,
                scores={**hypothesis.scores, **{c: float(columns[c][u][n]) for c in components}},
            )
            for n, hypothesis in enumerate(utterance.hypotheses)
        )
        scored.append(replace(utterance, hypotheses=hypotheses))
    return scored


def _scored_or_refused(
    rescorer: LoadedRescorer, item: Scorable, components: Sequence[str]
) -> NBest | Refusal:
    try:
        return _scored(rescorer, [item], components)[0]
    except UsageError as error:
        return Refusal(item[0].id, str(error))
