"""Whisper's encoder in two parts: against CTranslate2, and under a CTC head with upper layers."""

import numpy as np
import pytest
import torch

from relisten.core.types import ModelError
from relisten.io.ct2 import read_ct2_weights
from relisten.speech.ctc.head import STEPS, CTCHead
from relisten.speech.whisper.encoder import WhisperEncoder
from relisten.speech.whisper.layers import (
    LowerLayers,
    UpperLayers,
    n_encoder_layers,
    read_encoder_weights,
)
from tiny_speech import noise, tiny_ct2_whisper, tiny_whisper


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    source = tiny_whisper(tmp_path_factory.mktemp("source"))
    return tiny_ct2_whisper(source, tmp_path_factory.mktemp("ct2") / "whisper")


def grown(folder, seed=0):
    """A CTC head with the upper one of two layers, whose updates are not zero."""
    torch.manual_seed(seed)
    layers = UpperLayers(read_encoder_weights(folder), 1, rank=2)
    ctc_head = CTCHead(32, " ab", LowerLayers(folder, 1).id, 2, width=8, layers=layers)
    for name, parameter in ctc_head.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.1)
    return ctc_head.eval()


@pytest.mark.parametrize("n_upper", [1, 2])
def test_both_parts_together_are_ctranslate2s_encoder(folder, n_upper):
    """On a full window, where neither pads, before anything is trained."""
    samples = noise(30.0)
    lower = LowerLayers(folder, n_upper).encode([samples])[0]
    above = UpperLayers(read_encoder_weights(folder), n_upper).eval()
    with torch.inference_mode():
        ours = above(torch.from_numpy(lower)[None])[0].numpy()
    theirs = WhisperEncoder(folder, "cpu", "float32").encode([samples])[0]
    assert ours.shape == theirs.shape == (1500, 32)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_a_recordings_frames_do_not_depend_on_its_neighbours(folder):
    layers = LowerLayers(folder, 1)
    short, long = noise(1.23, 1), noise(31.0, 2)
    together = layers.encode([short, long, short[:0]])
    assert [len(frames) for frames in together] == [62, 1550, 0]
    np.testing.assert_array_equal(together[0], layers.encode([short])[0])
    np.testing.assert_array_equal(together[1][1500:], layers.encode([long[480_000:]])[0])


def test_padding_does_not_change_the_speech(folder):
    """13 frames, of which the last is pooled alone, in a batch with 20."""
    ctc_head = grown(folder)
    one, other = (
        np.random.default_rng(n).normal(size=(n, 32)).astype(np.float32) for n in (13, 20)
    )
    padded = torch.zeros(2, 20, 32)
    padded[0, :13], padded[1] = torch.from_numpy(one), torch.from_numpy(other)
    with torch.inference_mode():
        both = ctc_head(padded, torch.tensor([13, 20])).numpy()
    assert both.shape == (2, 10 * STEPS, 4)
    assert ctc_head.n_pooled(13) == 7
    np.testing.assert_allclose(
        both[0, : 7 * STEPS], ctc_head.log_probs(one).reshape(14, -1), atol=1e-5
    )
    np.testing.assert_allclose(both[1], ctc_head.log_probs(other).reshape(20, -1), atol=1e-5)


def test_untrained_layers_change_nothing(folder):
    """A CTC head that has just been given upper layers returns what it returned without them."""
    torch.manual_seed(0)
    plain = CTCHead(32, " ab", "encoder", 1, width=8).eval()
    layers = UpperLayers(read_encoder_weights(folder), 1)
    taken = CTCHead(32, " ab", "encoder@1", 1, width=8, layers=layers).eval()
    missing, unexpected = taken.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("layers.") for name in missing)
    lower = LowerLayers(folder, 1).encode([noise(1.0)])[0]
    with torch.inference_mode():
        above = layers(torch.from_numpy(lower)[None])[0].numpy()
    np.testing.assert_allclose(taken.log_probs(lower), plain.log_probs(above), atol=1e-5)


def test_saved_is_what_was_trained_and_not_the_encoder(folder, tmp_path):
    ctc_head = grown(folder)
    ctc_head.save(tmp_path / "ctc_head.safetensors")
    loaded = CTCHead.load(tmp_path / "ctc_head.safetensors", lambda: folder)
    frames = np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32)
    np.testing.assert_allclose(loaded.log_probs(frames), ctc_head.log_probs(frames), atol=2e-2)
    own = {name.split(".")[-1] for name in ctc_head.state_dict() if ".feed_up." in name}
    assert own == {"up", "down"}
    with pytest.raises(ModelError, match="name the encoder"):
        CTCHead.load(tmp_path / "ctc_head.safetensors")


def test_weights_that_cannot_be_read(folder, tmp_path):
    weights = read_encoder_weights(folder)
    assert n_encoder_layers(weights) == 2
    with pytest.raises(ModelError, match="3 upper layers asked for, the encoder has 2"):
        UpperLayers(weights, 3)
    with pytest.raises(ModelError, match=r"no model\.bin here"):
        read_encoder_weights(tmp_path)
    whole = (folder / "model.bin").read_bytes()
    path = tmp_path / "model.bin"
    path.write_bytes(b"\x07" + whole[1:])
    with pytest.raises(ModelError, match="layout 7 of CTranslate2, wanted 6"):
        read_ct2_weights(path, "encoder/")
    path.write_bytes(whole[:1000])
    with pytest.raises(ModelError, match="cannot be read"):
        read_ct2_weights(path, "encoder/")


def test_quantised_weights_are_scaled_back(tmp_path):
    """int8: each row to within half a step of its largest value over 127; floats as they are."""
    from ctranslate2.converters import TransformersConverter

    source = tiny_whisper(tmp_path / "source")
    for name in ("int8", "float32"):
        convert = TransformersConverter(str(source)).convert
        convert(str(tmp_path / name), quantization=None if name == "float32" else name)
    exact = read_ct2_weights(tmp_path / "float32" / "model.bin", "decoder/")
    found = read_ct2_weights(tmp_path / "int8" / "model.bin", "decoder/")
    assert found.keys() == exact.keys()
    for name, values in exact.items():
        steps = np.abs(values).max(-1, keepdims=True) / 127 if values.ndim == 2 else 0.0
        assert (np.abs(found[name] - values) <= 0.51 * steps + 1e-7).all(), name
    name = "layer_0/ffn/linear_0/weight"
    assert np.abs(found[name] - exact[name]).max() > 0
