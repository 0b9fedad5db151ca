"""What a speech-text LM is trained on: sets of examples from manifests and text corpora."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relisten.core.types import UsageError
from relisten.lm.texts import TextEncoder
from relisten.tasks.training.cache import (
    CachedUtterance,
    FeatureSpec,
    cache_manifest,
    cache_untranscribed,
)
from relisten.tasks.training.examples import Example, Report, make_example, untranscribed_example
from relisten.tasks.training.text_corpus import TextExamples, read_references, read_texts

DEV_UTTERANCES = 100
"""Of each development set the gauge reads so many, evenly spread."""


@dataclass(frozen=True)
class Sources:
    """Turns files into examples, and says what it found. cache: where that is kept.

    feature_spec: None where only the order `text` is wanted; then no recording is opened.
    """

    feature_spec: FeatureSpec | None
    texts: TextEncoder
    cache: Path
    report: Report

    def transcribed(self, manifest: str, is_needed: bool = True) -> list[Example]:
        """The utterances of a manifest that have a reference; they serve any order.

        Raises UsageError where there are none, and they are needed.
        """
        if self.feature_spec is None:
            found = read_references(manifest, self.texts)
        else:
            cached = cache_manifest(manifest, self.feature_spec, self.cache)
            found = [make_example(one, self.texts) for one in cached]
        if not found:
            if is_needed:
                needed = "a reference" + (" and a readable recording" if self.feature_spec else "")
                raise UsageError(f"{manifest}: no utterance with {needed}")
            return []
        made = [example for example in found if example is not None]
        n_words = sum(len(example.words) for example in made)
        self.report(f"{manifest}: {len(made)} of {len(found)} utterances, {n_words} words")
        return made

    def untranscribed(self, manifest: str) -> list[CachedUtterance]:
        """The utterances of a manifest that have no reference."""
        assert self.feature_spec is not None, "recordings without transcripts are heard or nothing"
        cached = cache_untranscribed(manifest, self.feature_spec, self.cache)
        if cached:
            hours = sum(len(h.frames) * h.unit_s for h in cached) / 3600
            self.report(f"{manifest}: {len(cached)} untranscribed utterances, {hours:.2f} hours")
        return cached

    def speech(self, manifest: str) -> list[Example]:
        """`untranscribed`, as examples for the order `speech`."""
        return [untranscribed_example(cached) for cached in self.untranscribed(manifest)]

    def text(self, path: str) -> TextExamples:
        """The sentences of a text corpus, for the order `text`."""
        examples = read_texts(path, self.texts, self.cache)
        self.report(f"{path}: {len(examples)} sentences, {len(examples.tokens)} tokens")
        return examples

    def development(self, manifests: Sequence[str]) -> list[Example]:
        """What the gauge is read from."""
        dev: list[Example] = []
        for manifest in manifests:
            made = self.transcribed(manifest)
            dev += made[:: max(1, len(made) // DEV_UTTERANCES)][:DEV_UTTERANCES]
        return dev
