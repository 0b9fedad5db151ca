"""A CTranslate2 model.bin written anew: what was replaced, what stayed, and that it still loads."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from relisten.core.types import ModelError
from relisten.io.ct2 import read_ct2_weights, write_ct2_weights
from relisten.io.sources import weights_hash
from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper
from tiny_speech import noise, tiny_ct2_whisper, tiny_whisper

NAME = "decoder/layer_0/ffn/linear_0/weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Storage type → the same tiny Whisper stored so."""
    from ctranslate2.converters import TransformersConverter

    root = tmp_path_factory.mktemp("whispers")
    source = tiny_whisper(root / "hf")
    made = {"float32": tiny_ct2_whisper(source, root / "float32")}
    for kind in ("float16", "int8"):
        converter = TransformersConverter(str(source), copy_files=["tokenizer.json"])
        converter.convert(str(root / kind), quantization=kind)
        made[kind] = root / kind
    return made


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("float32", 0.0), ("float16", 1e-3), ("int8", 1e-2)]
)
def test_what_is_replaced_is_read_back_and_all_else_stays(folders, tmp_path, kind, tolerance):
    source = folders[kind]
    before = read_ct2_weights(source / "model.bin")
    value = np.random.default_rng(0).normal(size=before[NAME].shape).astype(np.float32)
    shutil.copytree(source, tmp_path / "new")
    write_ct2_weights(source / "model.bin", tmp_path / "new" / "model.bin", {NAME: value})
    after = read_ct2_weights(tmp_path / "new" / "model.bin")
    assert after.keys() == before.keys()
    np.testing.assert_allclose(after[NAME], value, atol=tolerance * np.abs(value).max())
    for name in before.keys() - {NAME}:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert weights_hash(tmp_path / "new") != weights_hash(source)
    recordings = [noise(1.0)]
    first = CTranslate2Whisper(source, "cpu").decode(recordings)[0].hypotheses[0].scores
    changed = CTranslate2Whisper(tmp_path / "new", "cpu").decode(recordings)[0].hypotheses[0].scores
    assert changed != first


def test_the_same_values_give_the_same_model(folders, tmp_path):
    source = folders["float32"]
    same = read_ct2_weights(source / "model.bin")
    shutil.copytree(source, tmp_path / "new")
    write_ct2_weights(source / "model.bin", tmp_path / "new" / "model.bin", {NAME: same[NAME]})
    results = [
        CTranslate2Whisper(f, "cpu").decode([noise(1.0)]) for f in (source, tmp_path / "new")
    ]
    assert results[0][0].hypotheses == results[1][0].hypotheses


def test_a_tied_matrix_is_replaced_under_all_its_names(folders, tmp_path):
    source = folders["float32"]
    value = 2 * read_ct2_weights(source / "model.bin")["decoder/embeddings/weight"]
    write_ct2_weights(
        source / "model.bin", tmp_path / "model.bin", {"decoder/projection/weight": value}
    )
    after = read_ct2_weights(tmp_path / "model.bin")
    np.testing.assert_array_equal(after["decoder/embeddings/weight"], value)
    np.testing.assert_array_equal(after["decoder/projection/weight"], value)


@pytest.mark.parametrize("name", [NAME, "decoder/nothing"])
def test_what_the_model_does_not_have_is_refused(folders, tmp_path, name):
    source = folders["float32"] / "model.bin"
    with pytest.raises(ModelError, match=name):
        write_ct2_weights(source, tmp_path / "model.bin", {name: np.zeros((2, 3), np.float32)})
