"""The speech frontend: recordings in, units and CTC log-probabilities out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from relisten.core.types import CTC, TEXT, ModelError, UsageError
from relisten.io.bundle import (
    CODEBOOK,
    CONFIG,
    EXTENSION,
    WORDS,
    BundleConfig,
    ctc_head_path,
    read_bundle,
    resolve_bundle,
)
from relisten.io.sources import resolve_model
from relisten.lm.sequences import Speech
from relisten.speech.codebook import Codebook, pool_frames
from relisten.speech.ctc.head import CTCHead
from relisten.speech.first_pass import FirstPass, FirstPassResult
from relisten.speech.frames import SpeechEncoder
from relisten.speech.load import load_encoder
from relisten.speech.whisper.layers import LowerLayers

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
