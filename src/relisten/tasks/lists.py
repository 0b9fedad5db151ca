"""N-best lists as MWER trains on them: merged, with their word errors and their speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from relisten.core.combine import component_scores, fingerprint
from relisten.core.error_rates import errors_matrix
from relisten.core.text import normaliser
from relisten.core.types import ASR, LETTERS, TEXT, Hypothesis, NBest, UsageError
from relisten.io.nbest import read_nbest
from relisten.lm.scorer import Component, Scorer, ScoringInput
from relisten.lm.sequences import Speech
from relisten.speech.ear import Ear
from relisten.speech.first_pass import load_first_pass
from relisten.tasks.corpus import Heard, Hearing, frames_for, hear_manifest
from relisten.tasks.held_out import HeldOut
from relisten.tasks.loading import Listener
from relisten.tasks.rescore import merge_equal

NORMALISER = "english"
"""What word errors are counted under, and equal texts merged."""


@dataclass(frozen=True)
class TrainingList:
    """One utterance's hypotheses, in first-pass order, no two equal.

    errors: float32 [N], of n_reference words. stored: component → float32 [N], what is not the
    LM's to say: `asr`, `length`. reference: what was said, and where its words end if it was heard.
    """

    id: str
    speaker: str
    hypotheses: ScoringInput
    reference: ScoringInput
    errors: np.ndarray
    n_reference: int
    stored: Mapping[str, np.ndarray]
    fingerprint: str

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
    components that it does not give. listener: how the bundle hears, where a score needs speech;
    recordings are then heard once and kept in `cache`. first_pass: tells where words end.
    """

    scorer: Scorer
    components: Sequence[Component]
    stored: Sequence[str]
    max_hypotheses: int
    listener: Listener | None
    first_pass: str
    cache: Path

    @property
    def hears(self) -> bool:
        return LETTERS in self.stored or any(component != TEXT for component in self.components)

    def read(
        self,
        path: str,
        needs_reference: bool,
        adds_reference: bool,
        held_out: HeldOut | None = None,
    ) -> tuple[list[TrainingList], Counter[str]]:
        """The lists of a file, and for how many utterances there is none, by reason.

        needs_reference: the reference is to be scored too. adds_reference: it is one of the
        hypotheses. held_out: letters are heard by ears that never heard the speaker.
        """
        heard = self._heard(path) if self.hears else {}
        lists: list[TrainingList] = []
        left_out: Counter[str] = Counter()
        for utterance in read_nbest(path):
            speaker = str(utterance.extra.get("speaker", utterance.id))
            ear = self.listener.ear if self.listener else None
            ear = held_out.ear(speaker) if held_out else ear
            made = self._list(utterance, speaker, heard, ear, needs_reference, adds_reference)
            if isinstance(made, str):
                left_out[made] += 1
            else:
                lists.append(made)
        return lists, left_out

    @cached_property
    def _hearing(self) -> Hearing:
        assert self.listener is not None
        return self.listener.beside(load_first_pass(self.first_pass))

    def _heard(self, path: str) -> dict[str, Heard]:
        """An N-best file is a manifest too: frames, and where the words of the reference end."""
        return {h.id: h for h in hear_manifest(path, self._hearing, self.cache)}

    def _list(
        self,
        utterance: NBest,
        speaker: str,
        heard: Mapping[str, Heard],
        ear: Ear | None,
        needs_reference: bool,
        adds_reference: bool,
    ) -> TrainingList | str:
        """Or why there is none."""
        if not utterance.reference:
            return "no reference"
        if not utterance.hypotheses:
            return "no hypotheses"
        if self.hears and utterance.id not in heard:
            return "no readable recording"
        merged = merge_equal(utterance, NORMALISER)
        kept = merged.hypotheses[: self.max_hypotheses]
        speech, ends = None, None
        if self.hears:
            own = heard[utterance.id]
            speech, ends = self._speech(own, ear), own.word_ends_s
        is_shouted = utterance.reference.isupper()
        said = utterance.reference.lower() if is_shouted else utterance.reference
        if adds_reference:
            kept = _with_reference(kept, said, ends)
        normalise = normaliser(NORMALISER)
        truth = normalise(utterance.reference)
        merged = replace(merged, hypotheses=kept)
        made = TrainingList(
            utterance.id,
            speaker,
            ScoringInput(tuple(h.text for h in kept), tuple(h.word_ends_s for h in kept), speech),
            ScoringInput((said,), (ends,), speech),
            errors_matrix(truth, [normalise(h.text) for h in kept]).astype(np.float32),
            len(truth.split()),
            _stored(merged, self.stored, speech, ear),
            fingerprint(utterance),
        )
        try:
            for component in self.components:
                self.scorer.sequences(made.hypotheses, component)
                if needs_reference:
                    self.scorer.sequences(made.reference, component)
        except UsageError:
            return "no word ends"
        return made

    def _speech(self, heard: Heard, ear: Ear | None) -> Speech:
        assert self.listener is not None
        of_pooled = replace(self.listener.codebook, pool=1)
        letters = ear.hear(frames_for(ear, heard)).astype(np.float16) if ear else None
        return replace(heard.speech, codes=of_pooled.units(heard.frames), letters=letters)


def _stored(
    merged: NBest, names: Sequence[str], speech: Speech | None, ear: Ear | None
) -> dict[str, np.ndarray]:
    """Component → float32 [N], what the LM does not say; letters as the ear hears them."""
    stored = {}
    for name in names:
        if name == LETTERS and ear is not None and speech is not None:
            assert speech.letters is not None
            column = ear.score(speech.letters, [h.text for h in merged.hypotheses])
        else:
            column = component_scores(merged, name)
        stored[name] = column.astype(np.float32)
    return stored


def _with_reference(
    hypotheses: tuple[Hypothesis, ...], said: str, word_ends_s: tuple[float, ...] | None
) -> tuple[Hypothesis, ...]:
    """The hypotheses and the reference, unless it is among them.

    The first pass never scored it. It fell off the list, so it gets the score of the last one that
    did not: an upper bound. With a better one, the best hypothesis's say, the weights would learn
    from lists on which the first pass is not as wrong as it was.
    """
    normalise = normaliser(NORMALISER)
    if any(normalise(h.text) == normalise(said) for h in hypotheses):
        return hypotheses
    asr = [h.scores[ASR] for h in hypotheses if ASR in h.scores]
    scores = {ASR: min(asr)} if asr else {}
    return (*hypotheses, Hypothesis(said, scores, word_ends_s))


def draw_lists(
    corpus: Sequence[tuple[Sequence[TrainingList], float]],
    size: int,
    seed: int,
    step: int,
    micro: int,
) -> list[TrainingList]:
    """`size` lists drawn by weight, alike in length; the same for the same (seed, step, micro)."""
    rng = np.random.default_rng([seed, step, micro])
    mass = np.array([len(lists) * weight for lists, weight in corpus])
    drawn = []
    for s in rng.choice(len(corpus), 16 * size, p=mass / mass.sum()):
        lists = corpus[s][0]
        drawn.append(lists[rng.integers(len(lists))])
    drawn.sort(key=lambda one: one.n_words)
    start = int(rng.integers(len(drawn) - size + 1))
    return drawn[start : start + size]
