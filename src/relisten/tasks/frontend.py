"""The speech frontend: recordings in, units and CTC log-probabilities out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from relisten.core.types import COMPONENTS, CTC, TEXT, ModelError, UsageError
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
from relisten.speech.frames import SpeechEncoder
from relisten.speech.load import load_encoder
from relisten.speech.whisper.layers import LowerLayers

ENCODER_FILE = "codebook.json"
"""Which encoder a codebook is for, where no LM has been trained on it yet."""


@dataclass(frozen=True)
class SpeechFrontend:
    """Turns recordings into speech on the unit grid, with the CTC head's log-probabilities where
    there is one.

    encoder_reference: the speech encoder, loaded when it is first needed. words: a file of the
    words that the CTC head was trained on.
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
        """The encoder's layers below those that the CTC head holds itself, if it holds any. Raises
        ModelError where they are another encoder's."""
        head = self.ctc_head
        if head is None or head.layers is None:
            return None
        lower_layers = LowerLayers(resolve_model(self.encoder_reference), len(head.layers.layers))
        if lower_layers.id != head.encoder_id:
            raise ModelError(
                f"the CTC head is for frames of {head.encoder_id}, not of {lower_layers.id}"
            )
        return lower_layers

    def encode(
        self, recordings: Sequence[np.ndarray], components: Sequence[str] = COMPONENTS
    ) -> list[Speech]:
        """Units, pooled frames and CTC log-probabilities of recordings, 16 kHz float32 [T] each.

        components: the scores to be given; units are left out where none of them needs units, and
        the CTC head does without their frames.
        """
        if self.lower_layers is not None and set(components) <= {TEXT, CTC}:
            return [
                Speech(
                    np.zeros((len(log_probs), 1), np.int32), self.codebook.unit_s, None, log_probs
                )
                for log_probs in self._ctc_log_probs(recordings, ())
                if log_probs is not None
            ]
        codebook, frames = self.codebook, self.encoder.encode(recordings)
        pooled = [pool_frames(one, codebook.pool) for one in frames]
        return [
            Speech(codebook.units(one), codebook.unit_s, its_pooled, log_probs)
            for one, its_pooled, log_probs in zip(
                frames, pooled, self._ctc_log_probs(recordings, pooled), strict=True
            )
        ]

    def _ctc_log_probs(
        self, recordings: Sequence[np.ndarray], pooled: Sequence[np.ndarray]
    ) -> list[np.ndarray | None]:
        if self.ctc_head is None:
            return [None] * len(recordings)
        frames = pooled if self.lower_layers is None else self.lower_layers.encode(recordings)
        return [self.ctc_head.log_probs(one) for one in frames]


def bundle_frontend(
    folder: Path, config: BundleConfig, device: str = "auto", dtype: str = "auto"
) -> SpeechFrontend:
    """The speech frontend of a bundle. Raises ModelError where its parts do not belong together."""
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
    """The CTC head, where the bundle has one; encoder: the reference of its encoder."""
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
    """The speech frontend of a bundle, or of a codebook that `save_codebook` wrote.

    Raises ModelError where there is no codebook.
    """
    folder = resolve_bundle(reference)
    if (folder / CONFIG).is_file() and (config := read_bundle(folder)).has_speech:
        return bundle_frontend(folder, config, device, dtype)
    try:
        encoder = json.loads((folder / ENCODER_FILE).read_text(encoding="utf-8"))["encoder"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{reference}: holds no codebook; name a bundle with a speech model, or a folder that "
            "`relisten codebook` wrote"
        ) from error
    return SpeechFrontend(Codebook.load(folder / CODEBOOK), encoder, device, dtype)


def _from_anywhere(encoder_reference: str) -> str:
    """The reference with the whole path of a local folder, KIND:FOLDER@LAYER or FOLDER."""
    kind, colon, rest = encoder_reference.partition(":")
    model, _, layer = rest.rpartition("@")
    if colon and Path(model).is_dir():
        return f"{kind}:{Path(model).resolve()}@{layer}"
    path = Path(encoder_reference)
    return str(path.resolve()) if path.is_dir() else encoder_reference


def save_codebook(codebook: Codebook, encoder_reference: str, folder: str) -> None:
    """Write a codebook, and which encoder it is for, to a folder.

    Raises UsageError where an LM lies there that was trained on another codebook.
    """
    path = Path(folder)
    if (path / EXTENSION).is_file():
        raise UsageError(f"{folder}: holds an LM trained on its own codebook; name another folder")
    path.mkdir(parents=True, exist_ok=True)
    codebook.save(path / CODEBOOK)
    described = json.dumps({"encoder": _from_anywhere(encoder_reference)}, indent=1)
    (path / ENCODER_FILE).write_text(described + "\n", encoding="utf-8")
