"""Every model that relisten knows by name, tiny: its commands run as written, without a network."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relisten
from relisten.core.combine import Weights
from relisten.io.bundle import BundleConfig, write_bundle
from relisten.io.pinned import PINNED
from relisten.io.sources import resolve_model, weights_hash
from relisten.lm.load import save_extension
from relisten.lm.model import SpeechExtension, SpeechShape
from relisten.speech.codebook import Codebook
from relisten.speech.ctc.head import CTCHead
from relisten.speech.vad import VAD_FRAME
from relisten.tasks.defaults import MODEL
from relisten.tasks.transcript import Transcript
from tiny_models import N_TEXT, tiny_causal_lm
from tiny_speech import CHARACTERS, noise, tiny_ct2_whisper, tiny_whisper

RECORDING_S = 45.0
ENCODER_DIM = 32


def tiny_text_lm(folder: Path) -> Path:
    """A 2-layer causal LM over characters, with its tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = {token: i for i, token in enumerate(["<|endoftext|>", *CHARACTERS])}
    assert len(tokens) <= N_TEXT
    tokenizer = Tokenizer(models.BPE(tokens, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tiny_causal_lm("llama").save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(
        folder
    )
    return folder


def write_noise(path: Path, seed: int, seconds: float = RECORDING_S) -> None:
    """Noise as 16 bit WAV."""
    write_wav(path, noise(seconds, seed))


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Samples at 16 kHz, float [T], as 16 bit WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 20_000).astype("<i2").tobytes())


def fill_cache(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make `folder` the cache, a tiny model in the place of each known one: nothing is fetched."""
    patch.setenv("RELISTEN_CACHE", str(folder))
    patch.setattr("relisten.io.sources._check_files", lambda *_: None)
    for name, model in PINNED.items():
        with patch.context() as offline:
            offline.setattr("relisten.io.sources._download", lambda *_: {})
            offline.setattr("relisten.io.sources._take_files", lambda *_: None)
            place = resolve_model(name)
        if name.startswith("whisper"):
            place.rmdir()
            tiny_ct2_whisper(tiny_whisper(folder / f"{name}-source"), place)
        elif name == "demo-speech":
            for seed, file in enumerate(model.files):
                write_noise(place / file.name, seed)
        else:
            tiny_text_lm(place)
    tiny_bundle(folder / "bundles" / MODEL)
    patch.setattr("relisten.io.bundle.SHIPPED", folder / "bundles")
    take_noise_for_speech(patch)


class AllIsSpeech:
    """A detector for recordings of noise, which tiny models know no better than speech."""

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        return np.ones(-(-len(samples) // VAD_FRAME), np.float32)


def take_noise_for_speech(patch: pytest.MonkeyPatch) -> None:
    """Whatever is transcribed, all of it is speech."""
    patch.setattr("relisten.speech.segmentation.VoiceActivityDetector", AllIsSpeech)


def transcripts_of(audio: Sequence[str], bundle: str, **options: Any) -> list[Transcript]:
    """The transcripts of recordings, as Python has them."""
    return relisten.Rescorer.from_pretrained(bundle, **options).transcribe_all(audio)


def small_ctc_batches(patch: pytest.MonkeyPatch) -> None:
    """Batches of CTC heads of some utterances, not of a minute and more: a tenth of the time."""
    for name in ("BATCH_FRAMES", "LAYERS_BATCH_FRAMES"):
        patch.setattr(f"relisten.tasks.training.ctc.{name}", 128)


def tiny_bundle(folder: Path) -> None:
    """A text-only bundle on the tiny LM, in the place of the default one."""
    base = "smollm2-135m"
    weights = Weights({"asr": 1.0, "text": 0.3, "length": 0.4})
    write_bundle(folder, BundleConfig(base, weights_hash(resolve_model(base)), "spoken", weights))


def tiny_speech_bundle(folder: Path, weights: Weights) -> None:
    """A speech-text bundle on the tiny LM, with a CTC head of seven letters."""
    lm = resolve_model("smollm2-135m")
    encoder_id = f"whisper-{weights_hash(resolve_model('whisper-tiny.en'))}"
    config = BundleConfig(
        base="smollm2-135m",
        base_hash=weights_hash(lm),
        text_form="spoken",
        weights=weights,
        encoder="whisper-tiny.en",
        encoder_id=encoder_id,
    )
    write_bundle(folder, config)
    torch.manual_seed(1)
    save_extension(SpeechExtension(SpeechShape(5, 1), 32, 32), folder / "extension.safetensors")
    Codebook(np.zeros((1, 5, ENCODER_DIM), np.float32), 2, encoder_id).save(
        folder / "codebook.safetensors"
    )
    CTCHead(ENCODER_DIM, " abcdefg", encoder_id, 2, width=8).save(folder / "ctc_head.safetensors")
