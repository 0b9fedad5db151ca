"""From a reference to a rescorer: where speech and language model are introduced to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from relisten.core.combine import Weights
from relisten.core.familiarity import Familiarity
from relisten.core.rules import NO_RULES, Rules
from relisten.core.types import (
    ADAPTED,
    ASR,
    CTC,
    CTC_ADAPTED,
    OF_TAUGHT,
    TEXT,
    TEXT_GIVEN_SPEECH,
    ModelError,
    NBest,
    UsageError,
)
from relisten.io.bundle import (
    ADAPTER,
    CODEBOOK,
    CONFIG,
    CTC_HEAD,
    EXTENSION,
    FAMILIARITY,
    RECOGNISER,
    BundleConfig,
    read_bundle,
    resolve_base,
    resolve_bundle,
)
from relisten.io.device import torch_placement
from relisten.lm.backend.int8 import to_int8
from relisten.lm.load import (
    load_extension,
    load_for_scoring,
    merge_adapter,
    text_lm,
    text_vocabulary,
)
from relisten.lm.model import SpeechExtension, SpeechTextLM
from relisten.lm.scorer import Component, Scorer, ScoringInput, SpeechOrder
from relisten.lm.sequences import Speech
from relisten.lm.texts import TextEncoder, TextForm
from relisten.speech.codebook import pool_frames
from relisten.speech.ctc.head import CTCHead
from relisten.speech.first_pass import FirstPass
from relisten.speech.frames import FRAME_S
from relisten.speech.guard import Guard, load_statistics
from relisten.speech.load import load_first_pass
from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper
from relisten.tasks.defaults import FIRST_PASS
from relisten.tasks.frontend import SpeechFrontend, bundle_frontend
from relisten.tasks.hypotheses.join import check_names
from relisten.tasks.weights import UNTUNED_TEXT_WEIGHTS, ModelIdentity, identify

TEXT_FORM: TextForm = "spoken"
"""In which a text LM reads hypotheses: as good as the surface form on 600 utterances of read
sentences (22.6 % WER, tuned), and they share more words: 23 % fewer seconds."""


@dataclass(frozen=True)
class LoadedRescorer:
    """A language model ready to score, its speech frontend (None: it reads text only), and weights.

    first_pass: reference of the recogniser that the weights are for. identity: which model it is.
    language: of its speech. load_adapted: loads the recogniser taught the user's speech, if any.
    adapted_ctc_head: on what its encoder hears. guard: tells speech that it was not taught.
    """

    scorer: Scorer
    weights: Weights
    identity: ModelIdentity
    frontend: SpeechFrontend | None = None
    first_pass: str = FIRST_PASS
    language: str = "en"
    load_adapted: Callable[[], CTranslate2Whisper] | None = None
    adapted_ctc_head: CTCHead | None = None
    guard: Guard | None = None

    @cached_property
    def adapted(self) -> CTranslate2Whisper | None:
        """The recogniser taught the user's speech, loaded when its score is first asked for."""
        return self.load_adapted() if self.load_adapted else None

    @property
    def components(self) -> tuple[str, ...]:
        """The scores it can give."""
        has_ctc_head = self.frontend is not None and self.frontend.ctc_head is not None
        has = {
            CTC: has_ctc_head,
            ADAPTED: self.load_adapted is not None,
            CTC_ADAPTED: self.adapted_ctc_head is not None,
        }
        return (*self.scorer.components, *(name for name, is_given in has.items() if is_given))

    def check(self, component: str) -> None:
        """Raises ModelError where it cannot give this score."""
        if component not in (CTC, *OF_TAUGHT):
            self.scorer.order_of(cast(Component, component))
        elif component not in self.components:
            known, lacks = ", ".join(self.components), "adapted recogniser"
            lacks = lacks if component == ADAPTED else "CTC head"
            raise ModelError(f"this model has no {lacks} for {component}; it scores {known}")

    def encode(
        self,
        recordings: Sequence[np.ndarray],
        components: Sequence[str],
        heard: Sequence[np.ndarray | None] | None = None,
    ) -> list[Speech]:
        """What the scores of speech are computed from, of recordings, 16 kHz float32 [T] each.

        heard: windows of the adapted recogniser, where they are at hand for speech that is not
        strange. Raises UsageError for a recording that is too long for the adapted recogniser,
        where a score of it is asked for.
        """
        others = [name for name in components if name not in (TEXT, *OF_TAUGHT)]
        if others:
            speeches = self.need_frontend().encode(recordings, others)
        else:
            speeches = [Speech(np.zeros((0, 1), np.int32), FRAME_S) for _ in recordings]
        if not {*OF_TAUGHT} & {*components}:
            return speeches
        self.check(ADAPTED)
        assert self.adapted is not None
        strange = [False] * len(recordings)
        windows = [one for one in heard or () if one is not None]
        if len(windows) < len(recordings):
            windows = self.adapted.windows(recordings)
            strange = self.guard.are_strange(recordings) if self.guard else strange
        return [
            replace(one, window=window, is_strange=is_strange)
            for one, window, is_strange in zip(speeches, windows, strange, strict=True)
        ]

    def lacks(self, utterance: NBest, components: Sequence[str], has_speech: bool) -> str | None:
        """What an utterance lacks that one of these scores needs, as a sentence; None where all can
        be given. has_speech: whether there is a recording of it."""
        is_cut_at_words = self.scorer.speech_order != "speech_first"
        for component in components:
            if component != TEXT and not has_speech:
                return (
                    f"it names no recording, which {component} needs; add the key 'audio', or "
                    "score `text` alone"
                )
            if component != TEXT_GIVEN_SPEECH or not is_cut_at_words:
                continue
            for place, hypothesis in enumerate(utterance.hypotheses, 1):
                if len(hypothesis.word_ends_s or ()) != len(hypothesis.text.split()):
                    return (
                        f"hypothesis {place} does not say when each word ends, which {component} "
                        "needs; make the list with `relisten nbest`, add word_ends_s, or score "
                        "other components"
                    )
        return None

    def score(self, utterances: Sequence[ScoringInput], component: str) -> list[np.ndarray]:
        """One score of every hypothesis, a float64 [N] an utterance, nats.

        Raises ModelError where it cannot give it, UsageError where an utterance lacks what it
        needs.
        """
        self.check(component)
        if component == ADAPTED:
            return [self._adapted_scores(utterance) for utterance in utterances]
        if component == CTC_ADAPTED:
            return [self._adapted_ctc_scores(utterance) for utterance in utterances]
        if component != CTC:
            return self.scorer.score(utterances, cast(Component, component))
        ctc_head = self.need_frontend().ctc_head
        assert ctc_head is not None
        scores = []
        for utterance in utterances:
            if utterance.speech is None or utterance.speech.ctc_log_probs is None:
                raise UsageError(f"{CTC} is scored on the utterance's speech, and it has none")
            scores.append(ctc_head.score(utterance.speech.ctc_log_probs, utterance.texts))
        return scores

    def _adapted_ctc_scores(self, utterance: ScoringInput) -> np.ndarray:
        ctc_head, window = self.adapted_ctc_head, _window(utterance, CTC_ADAPTED)
        assert ctc_head is not None
        log_probs = ctc_head.log_probs(pool_frames(window, ctc_head.pool))
        return ctc_head.score(log_probs, utterance.texts)

    def _adapted_scores(self, utterance: ScoringInput) -> np.ndarray:
        window = _window(utterance, ADAPTED)
        assert self.adapted is not None
        scorer = self.adapted.scorer(np.zeros(0, np.float32), window)
        rated = scorer.score(utterance.texts, timed=False)
        return np.array([hypothesis.scores[ASR] for hypothesis in rated])

    def need_frontend(self) -> SpeechFrontend:
        """Its speech frontend. Raises ModelError where it reads text only."""
        if self.frontend is None:
            raise ModelError("this model reads text only; score `text` alone")
        return self.frontend


def load_rescorer(
    reference: str, device: str = "auto", dtype: str = "auto", rules: Rules = NO_RULES
) -> LoadedRescorer:
    """The rescorer of a bundle, or of a causal LM, which then knows text only.

    reference: a folder, a known name or a hub id. dtype: of the LM: float32, bfloat16, int8 (on the
    CPU), or auto: float32 on the CPU, bfloat16 on CUDA. rules: the user's own, by which the LM
    reads texts; without them those of the bundle's weights. Raises ModelError where it cannot be
    had, or its parts do not belong together; UsageError for a dtype that it does not run in.
    """
    is_int8 = dtype == "int8"
    lm_device, lm_dtype = torch_placement(device, "float32" if is_int8 else dtype)
    if is_int8 and lm_device != "cpu":
        raise UsageError(f"dtype int8: a language model has it on the CPU, not on {lm_device}")
    folder = resolve_bundle(reference)
    identity = identify(reference, folder)
    config = read_bundle(folder) if (folder / CONFIG).is_file() else None
    base = folder if config is None else resolve_base(folder, config)
    causal, tokenizer = load_for_scoring(base, lm_dtype, lm_device)
    if config is not None and (folder / ADAPTER).is_file():
        merge_adapter(causal, folder)
    if is_int8:
        to_int8(causal)
    if config is None:
        scorer = Scorer(
            text_lm(causal, tokenizer), TextEncoder(tokenizer, TEXT_FORM, rules), components=(TEXT,)
        )
        return LoadedRescorer(scorer, UNTUNED_TEXT_WEIGHTS, identity)
    model, frontend = text_lm(causal, tokenizer), None
    if config.has_speech:
        extension = load_extension(folder / EXTENSION, causal)
        frontend = bundle_frontend(folder, config, device, "auto" if is_int8 else dtype)
        _check_fit(folder, extension, frontend)
        vocabulary = text_vocabulary(tokenizer, extension.shape.n_units)
        model = SpeechTextLM(causal, vocabulary, extension)
    form = cast(TextForm, config.text_form)
    texts = TextEncoder(tokenizer, form, rules if rules.pairs else config.weights.rules)
    scorer = Scorer(
        model, texts, cast(SpeechOrder, config.speech_order), components=config.components
    )
    return LoadedRescorer(
        scorer,
        config.weights,
        identity,
        frontend,
        config.first_pass,
        config.language,
        _adapted_of(folder, config.language, device),
        _adapted_ctc_head_of(folder),
        _load_guard(folder, config, config.language, device),
    )


@dataclass(frozen=True)
class Listeners:
    """Recognisers that make the lists; the first one rates what the others add. guard: where they
    are one that was taught a user's speech. language: of the speech."""

    first_passes: Sequence[FirstPass]
    guard: Guard | None = None
    language: str = "en"


def load_listeners(
    reference: str | Path,
    names: Sequence[str] = (),
    language: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Listeners:
    """The recognisers of these names; where none is named, that which the model `reference` holds,
    else that which its weights are for. language: None for the model's own.

    Raises ModelError where one cannot be had, UsageError where two have one name.
    """
    folder = resolve_bundle(str(reference))
    config = read_bundle(folder) if (folder / CONFIG).is_file() else None
    language = language or (config.language if config else "en")
    if config and not names and (load_taught := _adapted_of(folder, language, device, dtype)):
        guard = _load_guard(folder, config, language, device, dtype)
        return Listeners([load_taught()], guard, language)
    names = names or (config.first_pass if config else FIRST_PASS,)
    recognisers = [load_first_pass(name, device, dtype, language) for name in names]
    check_names(recognisers)
    return Listeners(recognisers, language=language)


def _adapted_of(
    folder: Path, language: str, device: str = "auto", dtype: str = "auto"
) -> Callable[[], CTranslate2Whisper] | None:
    """Loads the recogniser in a bundle that was taught the user's speech; None: there is none."""
    path = folder / RECOGNISER
    if not path.is_dir():
        return None
    name = ADAPTED.rpartition(".")[2]
    return lambda: CTranslate2Whisper(path, device, dtype, language, name)


def _adapted_ctc_head_of(folder: Path) -> CTCHead | None:
    path = folder / RECOGNISER / CTC_HEAD
    return CTCHead.load(path) if path.is_file() else None


def _window(utterance: ScoringInput, component: str) -> np.ndarray:
    if utterance.speech is None or utterance.speech.window is None:
        raise UsageError(f"{component} is scored on the utterance's speech, and it has none")
    return utterance.speech.window


def _load_guard(
    folder: Path, config: BundleConfig, language: str, device: str = "auto", dtype: str = "auto"
) -> Guard | None:
    path = folder / FAMILIARITY
    if not path.is_file():
        return None
    return Guard(
        load_statistics(Familiarity, path),
        lambda: load_first_pass(config.first_pass, device, dtype, language),
        device,
    )


def _check_fit(folder: Path, extension: SpeechExtension, frontend: SpeechFrontend) -> None:
    """Raises ModelError where extension, codebook and CTC head are of different sizes."""
    shape, codebook = extension.shape, frontend.codebook
    n_labels = 1 + len(frontend.ctc_head.alphabet) if frontend.ctc_head else 0
    width = codebook.centroids.shape[2] + n_labels
    wanted = (shape.n_units, shape.levels, shape.frame_dim or width)
    found = (codebook.n_units, codebook.levels, width)
    if wanted != found:
        raise ModelError(
            f"{folder}: {EXTENSION} is for (units, levels, width of sounds) {wanted}, {CODEBOOK} "
            f"and {CTC_HEAD} have {found}; they do not belong together"
        )
