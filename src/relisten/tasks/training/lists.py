"""N-best lists as MWER trains on them: merged, with their word errors and their speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from relisten.core.combine import component_scores
from relisten.core.error_rates import errors_matrix
from relisten.core.text import lower_if_capitals, normaliser
from relisten.core.types import ASR, CTC, TEXT, Hypothesis, NBest, UsageError
from relisten.io.nbest import read_nbest
from relisten.lm.scorer import Component, Scorer, ScoringInput
from relisten.lm.sequences import Speech
from relisten.speech.ctc.head import CTCHead
from relisten.speech.load import load_first_pass
from relisten.tasks.frontend import SpeechFrontend
from relisten.tasks.ranking import merge_equal
from relisten.tasks.training.cross_fit import CrossFitted
from relisten.tasks.training.examples import WeightedSets
from relisten.tasks.training.features import (
    CachedUtterance,
    FeatureSpec,
    cache_manifest,
    feature_spec_of,
    frames_for,
)

NORMALISER = "english"
"""What word errors are counted under, and equal texts merged."""


@dataclass(frozen=True)
class TrainingList:
    """One utterance's hypotheses, in first-pass order, no two equal.

    errors: float32 [N], of n_reference words. stored: component → float32 [N], scores that the LM
    does not give: `asr`, `length`. reference: its text, and where its words end if its recording
    was encoded. utterance: its id and reference as they were given.
    """

    id: str
    speaker: str
    hypotheses: ScoringInput
    reference: ScoringInput
    errors: np.ndarray
    n_reference: int
    stored: Mapping[str, np.ndarray]
    utterance: NBest

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def speech(self) -> Speech | None:
        return self.hypotheses.speech

    @property
    def n_words(self) -> int:
        """Of all its hypotheses: what it costs to score it, about."""
        return sum(len(text.split()) for text in self.hypotheses.texts)


@dataclass(frozen=True)
class ListReader:
    """Turns N-best files into training lists.

    scorer: of the model to be trained. components: the LM's scores that are asked for. stored: the
    components that it does not give. frontend: the bundle's, where a score needs speech; recordings
    are then encoded once and kept in `cache`. first_pass: tells where words end.
    """

    scorer: Scorer
    components: Sequence[Component]
    stored: Sequence[str]
    max_hypotheses: int
    frontend: SpeechFrontend | None
    first_pass: str
    cache: Path

    @property
    def needs_speech(self) -> bool:
        return CTC in self.stored or any(component != TEXT for component in self.components)

    def read(
        self,
        path: str,
        needs_reference: bool,
        adds_reference: bool,
        cross_fitted: CrossFitted | None = None,
    ) -> tuple[list[TrainingList], Counter[str]]:
        """The lists of a file, and for how many utterances there is none, by reason.

        needs_reference: the reference is to be scored too. adds_reference: it becomes one of the
        hypotheses. cross_fitted: gives the CTC head that was not trained on the speaker.
        """
        cached = self._cached(path) if self.needs_speech else {}
        lists: list[TrainingList] = []
        left_out: Counter[str] = Counter()
        for utterance in read_nbest(path):
            speaker = utterance.speaker or utterance.id
            ctc_head = self.frontend.ctc_head if self.frontend else None
            ctc_head = cross_fitted.ctc_head(speaker) if cross_fitted else ctc_head
            made = self._list(utterance, speaker, cached, ctc_head, needs_reference, adds_reference)
            if isinstance(made, str):
                left_out[made] += 1
            else:
                lists.append(made)
        return lists, left_out

    @cached_property
    def _feature_spec(self) -> FeatureSpec:
        assert self.frontend is not None
        return feature_spec_of(self.frontend, load_first_pass(self.first_pass))

    def _cached(self, path: str) -> dict[str, CachedUtterance]:
        """An N-best file is a manifest too: frames, and where the words of the reference end."""
        cached = cache_manifest(path, self._feature_spec, self.cache)
        return {one.id: one for one in cached.utterances}

    def _list(
        self,
        utterance: NBest,
        speaker: str,
        cached: Mapping[str, CachedUtterance],
        ctc_head: CTCHead | None,
        needs_reference: bool,
        adds_reference: bool,
    ) -> TrainingList | str:
        """Or why there is none."""
        if not utterance.reference:
            return "no reference"
        if not utterance.hypotheses:
            return "no hypotheses"
        if self.needs_speech and utterance.id not in cached:
            return "no readable recording"
        merged = merge_equal(utterance, NORMALISER)
        kept = merged.hypotheses[: self.max_hypotheses]
        speech, ends = None, None
        if self.needs_speech:
            own = cached[utterance.id]
            speech, ends = self._speech(own, ctc_head), own.word_ends_s
        reference = lower_if_capitals(utterance.reference)
        if adds_reference:
            kept = _with_reference(kept, reference, ends)
        normalise = normaliser(NORMALISER)
        truth = normalise(utterance.reference)
        merged = replace(merged, hypotheses=kept)
        made = TrainingList(
            utterance.id,
            speaker,
            ScoringInput(tuple(h.text for h in kept), tuple(h.word_ends_s for h in kept), speech),
            ScoringInput((reference,), (ends,), speech),
            errors_matrix(truth, [normalise(h.text) for h in kept]).astype(np.float32),
            len(truth.split()),
            _stored(merged, self.stored, speech, ctc_head),
            NBest(utterance.id, reference=utterance.reference),
        )
        try:
            for component in self.components:
                self.scorer.sequences(made.hypotheses, component)
                if needs_reference:
                    self.scorer.sequences(made.reference, component)
        except UsageError:
            return "no word ends"
        return made

    def _speech(self, cached: CachedUtterance, ctc_head: CTCHead | None) -> Speech:
        assert self.frontend is not None
        of_pooled = replace(self.frontend.codebook, pool=1)
        ctc_log_probs = (
            ctc_head.log_probs(frames_for(ctc_head, cached)).astype(np.float16)
            if ctc_head
            else None
        )
        return replace(
            cached.speech, codes=of_pooled.units(cached.frames), ctc_log_probs=ctc_log_probs
        )


def _stored(
    merged: NBest, names: Sequence[str], speech: Speech | None, ctc_head: CTCHead | None
) -> dict[str, np.ndarray]:
    """Component → float32 [N], the scores that the LM does not give; `ctc` from the CTC head."""
    stored = {}
    for name in names:
        if name == CTC and ctc_head is not None and speech is not None:
            assert speech.ctc_log_probs is not None
            column = ctc_head.score(speech.ctc_log_probs, [h.text for h in merged.hypotheses])
        else:
            column = component_scores(merged, name)
        stored[name] = column.astype(np.float32)
    return stored


def _with_reference(
    hypotheses: tuple[Hypothesis, ...], reference: str, word_ends_s: tuple[float, ...] | None
) -> tuple[Hypothesis, ...]:
    """The hypotheses and the reference, unless it is among them.

    The first pass never scored it. It fell off the list, so it gets the score of the last one that
    did not: an upper bound. With a better one, the best hypothesis's say, the weights would learn
    from lists on which the first pass is not as wrong as it was.
    """
    normalise = normaliser(NORMALISER)
    if any(normalise(h.text) == normalise(reference) for h in hypotheses):
        return hypotheses
    asr = [h.scores[ASR] for h in hypotheses if ASR in h.scores]
    scores = {ASR: min(asr)} if asr else {}
    return (*hypotheses, Hypothesis(reference, scores, word_ends_s))


def draw_lists(
    sets: WeightedSets[TrainingList],
    size: int,
    seed: int,
    step: int,
    micro: int,
) -> list[TrainingList]:
    """`size` lists drawn by weight, alike in length; the same for the same (seed, step, micro)."""
    rng = np.random.default_rng([seed, step, micro])
    shares = np.array([len(lists) * weight for lists, weight in sets])
    drawn = []
    for s in rng.choice(len(sets), 16 * size, p=shares / shares.sum()):
        lists = sets[s][0]
        drawn.append(lists[rng.integers(len(lists))])
    drawn.sort(key=lambda one: one.n_words)
    start = int(rng.integers(len(drawn) - size + 1))
    return drawn[start : start + size]
