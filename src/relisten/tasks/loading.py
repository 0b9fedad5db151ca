"""From a reference to a rescorer: where speech and language model are introduced to each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from relisten.core.combine import DEFAULT_LENGTH_WEIGHT, Weights
from relisten.core.types import ASR, CTC, LENGTH, TEXT, ModelError, UsageError
from relisten.io.bundle import (
    ADAPTER,
    CODEBOOK,
    CONFIG,
    CTC_HEAD,
    EXTENSION,
    WORDS,
    BundleConfig,
    ctc_head_path,
    read_bundle,
    resolve_base,
    resolve_bundle,
)
from relisten.io.sources import resolve_model
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
from relisten.speech.codebook import Codebook, pool_frames
from relisten.speech.ctc.head import CTCHead
from relisten.speech.encoders import SpeechEncoder, load_encoder, torch_placement
from relisten.speech.first_pass import FirstPass, FirstPassResult
from relisten.speech.whisper.layers import LowerLayers
from relisten.tasks.defaults import FIRST_PASS
from relisten.tasks.training.cache import FeatureSpec

TEXT_FORM: TextForm = "spoken"
"""In which a text LM reads hypotheses: as good as the surface form on 600 utterances of read
sentences (22.6 % WER, tuned), and they share more words: 23 % fewer seconds."""
UNTUNED_TEXT_WEIGHTS = Weights({ASR: 1.0, TEXT: 0.3, LENGTH: DEFAULT_LENGTH_WEIGHT})
"""Of a text LM that nobody tuned; SmolLM2-135M earns 0.28 for `text` on those utterances."""
ENCODER_FILE = "codebook.json"
"""Which encoder a codebook is for, where no LM has been trained on it yet."""


@dataclass(frozen=True)
class SpeechFrontend:
    """Turns recordings into speech on the unit grid, and what the CTC head hears in it, if there is one.

    encoder_reference: the speech encoder, loaded when it is first needed. Frames of the first pass
    serve as well where its encoder's id is the codebook's. words: a file of the words that the CTC head
    was trained on.
    """

    codebook: Codebook
    encoder_reference: str
    device: str = "auto"
    dtype: str = "auto"
    ctc_head: CTCHead | None = None
    words: str | None = None

    @cached_property
    def encoder(self) -> SpeechEncoder:
        """The speech encoder. Raises ModelError where the codebook was fitted on another one."""
        encoder = load_encoder(self.encoder_reference, self.device, self.dtype)
        if encoder.id != self.codebook.encoder_id:
            raise ModelError(
                f"the codebook was fitted on frames of {self.codebook.encoder_id}, "
                f"but {self.encoder_reference} is {encoder.id}"
            )
        return encoder

    def feature_spec(self, first_pass: FirstPass) -> FeatureSpec:
        """How recordings are heard for training: through the first pass's own encoder where it is
        the codebook's, so that no second one is loaded."""
        is_own = first_pass.encoder.id == self.codebook.encoder_id
        encoder = first_pass.encoder if is_own else self.encoder
        return FeatureSpec(first_pass, encoder, self.codebook.pool, lower_layers=self.lower_layers)

    @cached_property
    def lower_layers(self) -> LowerLayers | None:
        """The encoder's layers under the CTC head's own, if it has any. Raises ModelError where they
        are another encoder's."""
        if self.ctc_head is None or self.ctc_head.layers is None:
            return None
        n_layers = len(self.ctc_head.layers.layers)
        lower_layers = LowerLayers(resolve_model(self.encoder_reference), n_layers)
        if lower_layers.id != self.ctc_head.encoder_id:
            raise ModelError(
                f"the CTC head is for frames of {self.ctc_head.encoder_id}, not of {lower_layers.id}"
            )
        return lower_layers

    def encode(
        self, recordings: Sequence[np.ndarray], frames: Sequence[np.ndarray] | None = None
    ) -> list[Speech]:
        """The units of recordings, 16 kHz float32 [T] each, and the letters in them.

        frames: those of the same recordings by the same encoder, float32 [T, D] each, if at hand.
        """
        codebook = self.codebook
        frames = self.encoder.encode(recordings) if frames is None else frames
        pooled = [pool_frames(one, codebook.pool) for one in frames]
        return [
            Speech(codebook.units(one), codebook.unit_s, some, ctc_log_probs)
            for one, some, ctc_log_probs in zip(
                frames, pooled, self._ctc_log_probs(recordings, pooled), strict=True
            )
        ]

    def encode_for(
        self,
        components: Sequence[str],
        recordings: Sequence[np.ndarray],
        frames: Sequence[np.ndarray] | None = None,
    ) -> list[Speech]:
        """Recordings as `encode` gives them, with no more than these scores ask for: units are left
        out where letters alone count and the CTC head does without their frames."""
        if self.lower_layers is None or not set(components) <= {TEXT, CTC}:
            return self.encode(recordings, frames)
        return [
            Speech(
                np.zeros((len(ctc_log_probs), 1), np.int32),
                self.codebook.unit_s,
                None,
                ctc_log_probs,
            )
            for ctc_log_probs in self._ctc_log_probs(recordings, ())
            if ctc_log_probs is not None
        ]

    def encode_decoded(
        self,
        first_pass: FirstPass,
        components: Sequence[str],
        recordings: Sequence[np.ndarray],
        decoded: Sequence[FirstPassResult],
    ) -> list[Speech]:
        """`encode_for` of recordings of which the first pass has made first-pass results: its frames serve
        where its encoder is the codebook's."""
        is_own = first_pass.encoder.id == self.codebook.encoder_id
        frames = [result.frames for result in decoded] if is_own else None
        return self.encode_for(components, recordings, frames)

    def _ctc_log_probs(
        self, recordings: Sequence[np.ndarray], pooled: Sequence[np.ndarray]
    ) -> list[np.ndarray | None]:
        if self.ctc_head is None:
            return [None] * len(recordings)
        taken = pooled if self.lower_layers is None else self.lower_layers.encode(recordings)
        return [self.ctc_head.log_probs(one) for one in taken]


@dataclass(frozen=True)
class LoadedRescorer:
    """A language model ready to score, how it hears (None: it knows text only), and weights.

    first_pass: reference of the recogniser that the weights are for.
    """

    scorer: Scorer
    weights: Weights
    frontend: SpeechFrontend | None = None
    first_pass: str = FIRST_PASS

    @property
    def components(self) -> tuple[str, ...]:
        """The scores it can give."""
        has_ctc_head = self.frontend is not None and self.frontend.ctc_head is not None
        return (*self.scorer.components, *((CTC,) if has_ctc_head else ()))

    def check(self, component: str) -> None:
        """Raises ModelError where it cannot give this score."""
        if component != CTC:
            self.scorer.order_of(cast(Component, component))
        elif component not in self.components:
            known = ", ".join(self.components)
            raise ModelError(f"this model has no CTC head for letters; it scores {known}")

    def score(self, utterances: Sequence[ScoringInput], component: str) -> list[np.ndarray]:
        """One score of every hypothesis, a float64 [N] an utterance, nats.

        Raises ModelError where it cannot give it, UsageError where an utterance lacks what it
        needs.
        """
        self.check(component)
        if component != CTC:
            return self.scorer.score(utterances, cast(Component, component))
        ctc_head = self.need_frontend().ctc_head
        assert ctc_head is not None
        scores = []
        for utterance in utterances:
            if utterance.speech is None or utterance.speech.ctc_log_probs is None:
                raise UsageError("letters are heard in the utterance's speech, and it has none")
            scores.append(ctc_head.score(utterance.speech.ctc_log_probs, utterance.texts))
        return scores

    def need_frontend(self) -> SpeechFrontend:
        """How it hears. Raises ModelError where it knows text only."""
        if self.frontend is None:
            raise ModelError("this model knows text only; score with --components text")
        return self.frontend


def load_rescorer(reference: str, device: str = "auto", dtype: str = "auto") -> LoadedRescorer:
    """The rescorer of a bundle, or of a causal LM, which then knows text only.

    reference: a folder, a known name or a hub id. dtype: of the LM: float32, bfloat16, int8 (on the
    CPU), or auto: float32 on the CPU, bfloat16 on CUDA. Raises ModelError where it cannot be had,
    or its parts do not belong together; UsageError for a dtype that it does not run in.
    """
    is_int8 = dtype == "int8"
    lm_device, lm_dtype = torch_placement(device, "float32" if is_int8 else dtype)
    if is_int8 and lm_device != "cpu":
        raise UsageError(f"dtype int8: a language model has it on the CPU, not on {lm_device}")
    folder = resolve_bundle(reference)
    config = read_bundle(folder) if (folder / CONFIG).is_file() else None
    base = folder if config is None else resolve_base(folder, config)
    causal, tokenizer = load_for_scoring(base, lm_dtype, lm_device)
    if config is not None and (folder / ADAPTER).is_file():
        merge_adapter(causal, folder)
    if is_int8:
        to_int8(causal)
    if config is None:
        scorer = Scorer(
            text_lm(causal, tokenizer), TextEncoder(tokenizer, TEXT_FORM), components=(TEXT,)
        )
        return LoadedRescorer(scorer, UNTUNED_TEXT_WEIGHTS)
    model, frontend = text_lm(causal, tokenizer), None
    if config.has_speech:
        extension = load_extension(folder / EXTENSION, causal)
        frontend = bundle_frontend(folder, config, device, "auto" if is_int8 else dtype)
        _check_fit(folder, extension, frontend)
        vocabulary = text_vocabulary(tokenizer, extension.shape.n_units)
        model = SpeechTextLM(causal, vocabulary, extension)
    texts = TextEncoder(tokenizer, cast(TextForm, config.text_form))
    scorer = Scorer(
        model, texts, cast(SpeechOrder, config.speech_order), components=config.components
    )
    return LoadedRescorer(scorer, config.weights, frontend, config.first_pass)


def bundle_frontend(
    folder: Path, config: BundleConfig, device: str = "auto", dtype: str = "auto"
) -> SpeechFrontend:
    """How a bundle hears. Raises ModelError where its parts do not belong together."""
    codebook = Codebook.load(folder / CODEBOOK)
    if codebook.encoder_id != config.encoder_id:
        raise ModelError(
            f"{folder}: {CODEBOOK} is for frames of {codebook.encoder_id}, "
            f"the bundle for frames of {config.encoder_id}; they do not belong together"
        )
    ctc_head = _bundle_ctc_head(folder, codebook, str(config.encoder))
    words = str(folder / WORDS) if (folder / WORDS).is_file() else None
    return SpeechFrontend(codebook, str(config.encoder), device, dtype, ctc_head, words)


def _bundle_ctc_head(folder: Path, codebook: Codebook, encoder: str) -> CTCHead | None:
    """What hears letters, where the bundle has it; encoder: the reference of its encoder."""
    path = ctc_head_path(folder)
    if path is None:
        return None
    ctc_head = CTCHead.load(path, lambda: resolve_model(encoder))
    whose = (
        ctc_head.encoder_id if ctc_head.layers is None else ctc_head.encoder_id.rpartition("@")[0]
    )
    if (whose, ctc_head.pool) != (codebook.encoder_id, codebook.pool):
        raise ModelError(
            f"{path}: for frames of {ctc_head.encoder_id} pooled by {ctc_head.pool}, {CODEBOOK} "
            f"for those of {codebook.encoder_id} by {codebook.pool}; they do not belong together"
        )
    return ctc_head


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


def load_frontend(reference: str, device: str = "auto", dtype: str = "auto") -> SpeechFrontend:
    """How a bundle, or a codebook that `save_codebook` wrote, hears.

    Raises ModelError where there is no codebook.
    """
    folder = resolve_bundle(reference)
    if (folder / CONFIG).is_file() and (config := read_bundle(folder)).has_speech:
        return bundle_frontend(folder, config, device, dtype)
    try:
        encoder = json.loads((folder / ENCODER_FILE).read_text(encoding="utf-8"))["encoder"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{reference}: holds no codebook; name a bundle that hears, or a folder that "
            "`relisten codebook` wrote"
        ) from error
    return SpeechFrontend(Codebook.load(folder / CODEBOOK), encoder, device, dtype)


def save_codebook(codebook: Codebook, encoder_reference: str, folder: str) -> None:
    """Write a codebook, and which encoder it is for, to a folder.

    Raises UsageError where an LM lies there that was trained on another codebook.
    """
    path = Path(folder)
    if (path / EXTENSION).is_file():
        raise UsageError(f"{folder}: holds an LM trained on its own codebook; name another folder")
    path.mkdir(parents=True, exist_ok=True)
    codebook.save(path / CODEBOOK)
    described = json.dumps({"encoder": encoder_reference}, indent=1)
    (path / ENCODER_FILE).write_text(described + "\n", encoding="utf-8")
