"""N-best lists as MWER trains on them: merged, with their word errors and their speech."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from relisten.core.combine import component_scores, fingerprint
from relisten.core.error_rates import errors_matrix
from relisten.core.text import normaliser
from relisten.core.types import ASR, TEXT, Hypothesis, NBest, UsageError
from relisten.io.nbest import read_nbest
from relisten.lm.model import SpeechTextLM
from relisten.lm.scorer import Component, Scorer, ScoringInput
from relisten.lm.sequences import Speech, speech_inputs
from relisten.lm.training import projector_guesses
from relisten.speech.codebook import Codebook
from relisten.speech.first_pass import FirstPass, load_first_pass
from relisten.tasks.corpus import Heard, hear_manifest
from relisten.tasks.examples import fold_of
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
    components that it does not give. codebook: the bundle's, where a component needs speech; the
    recordings are then heard by `first_pass`, once, and kept in `cache`.
    """

    scorer: Scorer
    components: Sequence[Component]
    stored: Sequence[str]
    max_hypotheses: int
    codebook: Codebook | None
    first_pass: str
    cache: Path

    @property
    def hears(self) -> bool:
        return any(component != TEXT for component in self.components)

    def read(
        self, path: str, needs_reference: bool, adds_reference: bool
    ) -> tuple[list[TrainingList], Counter[str]]:
        """The lists of a file, and for how many utterances there is none, by reason.

        needs_reference: the reference is to be scored too. adds_reference: it is one of the
        hypotheses.
        """
        heard = self._heard(path) if self.hears else {}
        lists: list[TrainingList] = []
        left_out: Counter[str] = Counter()
        for utterance in read_nbest(path):
            made = self._list(utterance, heard, needs_reference, adds_reference)
            if isinstance(made, str):
                left_out[made] += 1
            else:
                lists.append(made)
        return lists, left_out

    @cached_property
    def _ears(self) -> FirstPass:
        assert self.codebook is not None
        first_pass = load_first_pass(self.first_pass)
        if first_pass.encoder.id != self.codebook.encoder_id:
            raise UsageError(
                f"the bundle hears through {self.codebook.encoder_id}, and {self.first_pass} has "
                f"{first_pass.encoder.id}: lists cannot be heard by it"
            )
        return first_pass

    def _heard(self, path: str) -> dict[str, Heard]:
        """An N-best file is a manifest too: frames, and where the words of the reference end."""
        assert self.codebook is not None
        return {h.id: h for h in hear_manifest(path, self._ears, self.codebook.pool, self.cache)}

    def _list(
        self,
        utterance: NBest,
        heard: Mapping[str, Heard],
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
            speech, ends = self._speech(heard[utterance.id]), heard[utterance.id].word_ends_s
        is_shouted = utterance.reference.isupper()
        said = utterance.reference.lower() if is_shouted else utterance.reference
        if adds_reference:
            kept = _with_reference(kept, said, ends)
        normalise = normaliser(NORMALISER)
        truth = normalise(utterance.reference)
        merged = replace(merged, hypotheses=kept)
        made = TrainingList(
            utterance.id,
            str(utterance.extra.get("speaker", utterance.id)),
            ScoringInput(tuple(h.text for h in kept), tuple(h.word_ends_s for h in kept), speech),
            ScoringInput((said,), (ends,), speech),
            errors_matrix(truth, [normalise(h.text) for h in kept]).astype(np.float32),
            len(truth.split()),
            {c: component_scores(merged, c).astype(np.float32) for c in self.stored},
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

    def _speech(self, heard: Heard) -> Speech:
        assert self.codebook is not None
        speech = heard.speech
        assert speech.frames is not None
        codes = replace(self.codebook, pool=1).units(speech.frames)  # its frames are pooled already
        return replace(speech, codes=codes)


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


class HeldOutGuesses:
    """What projectors that never heard a speaker guess for that speaker's chunks.

    folder: the state of the run that schooled the bundle's projector, with those of its folds.
    """

    def __init__(self, folder: Path, model: SpeechTextLM) -> None:
        paths = sorted(folder.glob("projector-fold*.safetensors"))
        if not paths or model.extension is None or model.extension.projector is None:
            raise UsageError(
                f"{folder}: no projectors of folds for this bundle; name the folder `state` of the "
                "run of `relisten pretrain` that made it, or leave folds_of out"
            )
        self._table = model.text_embedding.weight.detach().float().cpu()
        self._projectors = []
        for k in range(len(paths)):
            projector = copy.deepcopy(model.extension.projector).cpu()
            projector.load_state_dict(load_file(folder / f"projector-fold{k}.safetensors"))
            self._projectors.append(projector.eval())
        self._vocabulary = model.vocabulary

    def __call__(self, ids: np.ndarray, rows: np.ndarray, one: TrainingList) -> np.ndarray:
        """float32 [n_chunks, E] for the chunks among the positions ids, rows [L], in order."""
        assert one.speech is not None
        _, features = speech_inputs(self._vocabulary, ids, rows, one.speech)
        projector = self._projectors[fold_of(one.speaker, len(self._projectors))]
        return projector_guesses(projector, self._table, features)


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
