"""Encoders: frames of the right number, the right layer, and no dependence on neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModel, WhisperFeatureExtractor

from relisten.core.types import ModelError, UsageError
from relisten.io.device import torch_placement
from relisten.speech.hubert import HFEncoder
from relisten.speech.load import load_encoder
from relisten.speech.whisper.encoder import WhisperEncoder
from relisten.speech.whisper.features import log_mel
from tiny_speech import noise, tiny_ct2_whisper, tiny_ctc, tiny_whisper

AUDIO = [noise(1.0), noise(0.501, 1), np.zeros(0, np.float32), noise(0.02, 2)]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    root = tmp_path_factory.mktemp("whisper")
    return WhisperEncoder(tiny_ct2_whisper(tiny_whisper(root / "hf"), root / "ct2"), "cpu")


@pytest.fixture(scope="module")
def speech_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hf")
    return {kind: tiny_ctc(root / kind, kind) for kind in ("wav2vec2", "hubert", "wavlm")}


@pytest.mark.parametrize(
    ("n_samples", "n_mels"), [(0, 80), (100, 80), (48_001, 128), (160_000, 80)]
)
def test_log_mel_is_that_of_transformers(n_samples, n_mels):
    samples = noise(10)[:n_samples]
    padded = np.pad(samples, (0, 160_000 - n_samples))
    extractor = WhisperFeatureExtractor(feature_size=n_mels, chunk_length=10)
    expected = extractor(padded, sampling_rate=16_000, return_tensors="np").input_features
    np.testing.assert_allclose(log_mel([samples], 10, n_mels), expected, atol=2e-5)


def test_frame_counts(whisper, speech_folders):
    encoders = [whisper, HFEncoder(speech_folders["hubert"], 1, "cpu")]
    for encoder in encoders:
        for samples, frames in zip(AUDIO, encoder.encode(AUDIO), strict=True):
            assert frames.shape == (math.ceil(len(samples) / 16_000 * 50), encoder.dim)
            assert frames.dtype == np.float32


def test_neighbours_do_not_matter(whisper, speech_folders):
    for encoder in (whisper, HFEncoder(speech_folders["wav2vec2"], 2, "cpu")):
        together = encoder.encode([*AUDIO, noise(11.0)])
        for samples, frames in zip(AUDIO, together, strict=False):
            np.testing.assert_allclose(encoder.encode([samples])[0], frames, atol=2e-3)


def test_long_recordings_are_whisper_windows_side_by_side(whisper):
    samples = noise(31.0)
    frames = whisper.encode([samples])[0]
    assert len(frames) == 1550
    np.testing.assert_allclose(frames[1500:], whisper.encode([samples[480_000:]])[0], atol=2e-3)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
@pytest.mark.parametrize("layer", [0, 2, 3, -1])
def test_any_layer_equals_that_of_the_whole_model(speech_folders, kind, layer):
    """Layers above are cut away, which must not change those below (nor the last one's norm)."""
    folder = speech_folders[kind]
    samples = noise(0.4)  # 20 frames: 80 samples of padding give the last hop its window
    normed = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    inputs = torch.from_numpy(np.pad(normed, (0, 80)))[None]
    with torch.no_grad():
        model = AutoModel.from_pretrained(folder).eval()
        expected = model(inputs, output_hidden_states=True).hidden_states[layer][0].numpy()
    frames = HFEncoder(folder, layer, "cpu").encode([samples])[0]
    np.testing.assert_allclose(frames, expected, atol=1e-4)


def test_id_names_weights_and_layer(whisper, speech_folders, tmp_path):
    a = HFEncoder(speech_folders["hubert"], 1, "cpu")
    b = HFEncoder(speech_folders["hubert"], 2, "cpu")
    assert a.id.startswith("hubert-")
    assert a.id.endswith("@1")
    assert a.id[:-1] == b.id[:-1]
    assert a.id != b.id
    moved = tmp_path / "elsewhere"
    moved.symlink_to(whisper.folder)
    assert WhisperEncoder(moved, "cpu").id == whisper.id


def test_refusals(speech_folders, tmp_path):
    with pytest.raises(ModelError, match="layer 4 asked for, it has 0 to 3"):
        HFEncoder(speech_folders["hubert"], 4, "cpu")
    with pytest.raises(UsageError, match="name its layer, as in hubert:MODEL@9"):
        load_encoder("hubert:somewhere")
    with pytest.raises(UsageError, match="dtype int8"):
        torch_placement("cpu", "int8")
    (tmp_path / "model.bin").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot load"):
        WhisperEncoder(tmp_path, "cpu")


def test_load_encoder_by_folder(speech_folders):
    encoder = load_encoder(f"wavlm:{speech_folders['wavlm']}@2", device="cpu")
    assert encoder.id.startswith("wavlm-")
    assert encoder.dim == 32
