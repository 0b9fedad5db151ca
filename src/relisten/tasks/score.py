"""N-best lists in, the same lists with a model's scores out: scored once, kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from relisten.core.types import COMPONENTS, OF_TAUGHT, TEXT, NBest, UsageError
from relisten.io.audio import RATE_HZ
from relisten.io.rules import read_rules
from relisten.lm.sequences import Speech
from relisten.tasks.defaults import MODEL
from relisten.tasks.loading import LoadedRescorer, load_rescorer
from relisten.tasks.ranking import add_scores
from relisten.tasks.streams import (
    AudioSource,
    Outcome,
    Refusal,
    Say,
    Tick,
    load_recording,
    no_tick,
    say_nothing,
    walk,
    work_on_accepted,
)
from relisten.tasks.weights import with_scored_by

CHUNK_SIZE, GPU_CHUNK_SIZE = 16, 512
"""Utterances scored together: enough to fill batches of some 1,000 tokens, on a GPU of 16,000."""

ALL = ("all",)
"""As components: every score that the model has learnt to give."""


def score(
    nbest: str,
    output: str,
    model: str = MODEL,
    components: tuple[str, ...] = (),
    wrong_speech: bool = False,
    rules: str | None = None,
    input_format: str = "auto",
    manifest: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    resume: bool = False,
    tick: Tick = no_tick,
    say: Say = say_nothing,
) -> Outcome:
    """What became of the utterances of the file `nbest`, written with scores to `output`.

    Adds each of `components` to every hypothesis, in nats, replacing what was stored under its
    name; see `ListScorer`. By default those that the model's weights count, as far as an utterance
    has what they need. rules: a file of the user's own rules, by which the LM reads texts; without
    it those of the model's weights. Raises UsageError for an unknown component, ModelError where
    the model has none of it.
    """
    check_components(components)
    rescorer = load_rescorer(model, device, dtype, read_rules(rules))
    scorer = ListScorer(rescorer, components, wrong_speech, say=say)
    on_cpu = scorer.rescorer.scorer.model.device.type == "cpu"
    return walk(
        nbest,
        output,
        lambda chunk: scorer.score(chunk, nbest),
        {
            "command": "score",
            "model": scorer.rescorer.identity.hash,
            "components": scorer.components or scorer.rescorer.weights.to_score,
            "wrong speech": wrong_speech,
            "dtype": dtype,
            "rules": scorer.rescorer.scorer.texts.rules.pairs,
        },
        CHUNK_SIZE if on_cpu else GPU_CHUNK_SIZE,
        input_format,
        manifest,
        resume,
        tick,
        needs_hypotheses=True,
    )


def check_components(components: tuple[str, ...]) -> None:
    """Raises UsageError where one is not for relisten to give."""
    if components != ALL and not set(components) <= set(COMPONENTS):
        raise UsageError(
            f"components to score: {', '.join(components)}; give some of {', '.join(COMPONENTS)}"
        )


@dataclass
class ListScorer:
    """Adds a model's scores to stored N-best lists, and the record of the model with them.

    components: what to score, or `ALL`; an utterance that lacks what one of them needs (a
    recording, the ends of words) is refused. Empty: what the model's weights count; what an
    utterance lacks the means for is then left out, and `say` is told. wrong_speech: a control; each
    utterance is scored with the speech of the one before it (among those scored together), brought
    to its length: what the scores still gain, speech itself did not give.
    Raises ModelError where the model does not give one of the components.
    """

    rescorer: LoadedRescorer
    components: tuple[str, ...] = ()
    wrong_speech: bool = False
    say: Say = say_nothing
    _left_out: set[str] = field(default_factory=set, repr=False)
    _last_speech: Speech | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.components == ALL:
            self.components = self.rescorer.components
        for component in self.components:
            self.rescorer.check(component)  # fails now, not after an hour

    def score(self, chunk: Sequence[NBest], source: AudioSource) -> list[NBest | Refusal]:
        """The utterances with their scores, their recordings read from `source`."""
        rows_of: dict[tuple[str, ...], list[int]] = {}
        results: list[NBest | Refusal] = list(chunk)
        for row, utterance in enumerate(chunk):
            rows_of.setdefault(self._wanted(utterance), []).append(row)
        for row in rows_of.pop((), []):
            reason = "it names no recording, and this model's weights count no score without one"
            results[row] = Refusal(chunk[row].id, f"{reason}; name the components to score")
        for components, rows in rows_of.items():
            scored = self._scored([chunk[row] for row in rows], components, source)
            for row, one in zip(rows, scored, strict=True):
                results[row] = one
        return results

    def _wanted(self, utterance: NBest) -> tuple[str, ...]:
        """The scores to add to an utterance."""
        if self.components:
            return tuple(self.components)
        kept = []
        for component in self.rescorer.weights.to_score or (TEXT,):
            if self.rescorer.lacks(utterance, [component], utterance.audio is not None) is None:
                kept.append(component)
            elif component not in self._left_out:
                self._left_out.add(component)
                needs = "a recording" if utterance.audio is None else "the ends of all words"
                self.say(f"{component} is left out where an utterance lacks {needs}")
        return tuple(kept)

    def _scored(
        self, chunk: Sequence[NBest], components: Sequence[str], source: AudioSource
    ) -> list[NBest | Refusal]:
        speeches: Sequence[Speech | Refusal | None] = [None] * len(chunk)
        if any(component != TEXT for component in components):
            recordings = [self._recording(utterance, components, source) for utterance in chunk]
            speeches = work_on_accepted(
                recordings, lambda some: self.rescorer.encode(some, components)
            )
            if self.wrong_speech:
                speeches = work_on_accepted(speeches, self._exchanged)
        identity = replace(self.rescorer.identity, wrong_speech=self.wrong_speech)
        return [
            one if isinstance(one, Refusal) else with_scored_by(one, identity, components)
            for one in add_scores(self.rescorer, chunk, speeches, components)
        ]

    def _recording(
        self, utterance: NBest, components: Sequence[str], source: AudioSource
    ) -> np.ndarray | Refusal:
        samples = load_recording(utterance, source)
        asked = [component for component in components if component in OF_TAUGHT]
        if asked and not isinstance(samples, Refusal):
            assert self.rescorer.adapted is not None
            max_s = self.rescorer.adapted.max_duration_s
            if len(samples) > max_s * RATE_HZ:
                lasts = f"it lasts {len(samples) / RATE_HZ:.1f} s"
                reason = f"{lasts}, and {asked[0]} is given to at most {max_s:g} s; cut it"
                return Refusal(utterance.id, reason)
        return samples

    def _exchanged(self, speeches: Sequence[Speech]) -> list[Speech]:
        swapped = exchanged(speeches, self._last_speech)
        self._last_speech = speeches[-1] if speeches else self._last_speech
        return swapped


def exchanged(speeches: Sequence[Speech], before: Speech | None = None) -> list[Speech]:
    """Each utterance's speech replaced by that of the one before it, brought to its length, the
    first by that of the last; one alone takes `before`. Raises UsageError where there is none."""
    if len(speeches) == 1 and before is None:
        raise UsageError("the wrong-speech control needs at least two utterances")
    others = [before] if len(speeches) == 1 else [*speeches[-1:], *speeches[:-1]]
    return [
        other.stretched(len(speech))
        for other, speech in zip(others, speeches, strict=True)
        if other is not None
    ]
