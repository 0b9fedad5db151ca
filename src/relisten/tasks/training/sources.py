"""What a speech-text LM is trained on: sets of examples from manifests and text corpora."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relisten.core.types import UsageError
from relisten.io.nbest import Refuse
from relisten.lm.sequences import Order
from relisten.lm.texts import TextEncoder
from relisten.tasks.streams import Refusal, Say, refuse_nothing
from relisten.tasks.training.examples import (
    Example,
    TrainingData,
    check_served,
    make_example,
    untranscribed_example,
)
from relisten.tasks.training.features import (
    CachedUtterance,
    FeatureSpec,
    cache_manifest,
    cache_untranscribed,
)
from relisten.tasks.training.text_corpus import TextExamples, read_references, read_texts

DEV_UTTERANCES = 100
"""So many of each development set are evaluated on, evenly spread."""


@dataclass(frozen=True)
class Sources:
    """Turns files into examples, and says what it found. cache: where that is kept.

    spec: None where only the order `text` is wanted; then no recording is opened. refuse: told of
    each utterance that cannot be read.
    """

    spec: FeatureSpec | None
    texts: TextEncoder
    cache: Path
    say: Say
    refuse: Refuse = refuse_nothing

    def data(
        self,
        manifests: Mapping[str, float],
        texts: Mapping[str, float],
        dev_manifests: Sequence[str],
        tasks: Mapping[Order, float],
    ) -> TrainingData:
        """All that a mixture of tasks is trained on; mappings: path → weight.

        Utterances without a reference serve the task `speech` alone and are read for it alone.
        Raises UsageError where a task cannot be served.
        """
        takes_speech = bool(tasks.get("speech"))
        sets: list[tuple[Sequence[Example], float]] = []
        for manifest, weight in manifests.items():
            sets.append((self.transcribed(manifest, is_needed=not takes_speech), weight))
            if takes_speech:
                sets.append((self.speech(manifest), weight))
        sets += [(self.text(path), weight) for path, weight in texts.items()]
        check_served(sets, tasks)
        return TrainingData(sets, self.development(dev_manifests))

    def transcribed(self, manifest: str, is_needed: bool = True) -> list[Example]:
        """The utterances of a manifest that have a reference; they serve any order.

        Raises UsageError where there are none, and they are needed.
        """
        refused: Sequence[Refusal] = ()
        if self.spec is None:
            found = read_references(manifest, self.texts)
        else:
            cached = cache_manifest(manifest, self.spec, self.cache)
            found = [make_example(one, self.texts) for one in cached.utterances]
            refused = cached.refused
            for refusal in refused:
                self.refuse(refusal)
        made = [example for example in found if example is not None]
        n_words, n_all = sum(len(example.words) for example in made), len(found) + len(refused)
        if n_all:
            counted = f"{len(made)} of {n_all} utterances, {n_words} words"
            self.say(f"{manifest}: {counted}{told(refused)}")
        if not found and is_needed:
            needed = "a reference" + (" and a readable recording" if self.spec else "")
            raise UsageError(f"{manifest}: no utterance with {needed}{told(refused)}")
        return made

    def untranscribed(self, manifest: str) -> list[CachedUtterance]:
        """The utterances of a manifest that have no reference."""
        assert self.spec is not None, "without features there is nothing but text"
        cached = cache_untranscribed(manifest, self.spec, self.cache)
        for refusal in cached.refused:
            self.refuse(refusal)
        if cached.utterances or cached.refused:
            hours = sum(len(one.frames) * one.unit_s for one in cached.utterances) / 3600
            counted = f"{len(cached.utterances)} untranscribed utterances, {hours:.2f} hours"
            self.say(f"{manifest}: {counted}{told(cached.refused)}")
        return cached.utterances

    def speech(self, manifest: str) -> list[Example]:
        """`untranscribed`, as examples for the order `speech`."""
        return [untranscribed_example(cached) for cached in self.untranscribed(manifest)]

    def text(self, path: str) -> TextExamples:
        """The sentences of a text corpus, for the order `text`."""
        examples = read_texts(path, self.texts, self.cache)
        self.say(f"{path}: {len(examples)} sentences, {len(examples.tokens)} tokens")
        return examples

    def development(self, manifests: Sequence[str]) -> list[Example]:
        """What is evaluated on: some utterances of each manifest."""
        dev: list[Example] = []
        for manifest in manifests:
            made = self.transcribed(manifest)
            dev += made[:: max(1, len(made) // DEV_UTTERANCES)][:DEV_UTTERANCES]
        return dev


def told(refused: Sequence[Refusal]) -> str:
    """How many were refused, and the first of them, as the end of a sentence; "" for none."""
    if not refused:
        return ""
    return f"; {len(refused)} refused, the first is {refused[0].id!r}: {refused[0].reason}"
