"""Whisper's decoder reading many texts at once: against transformers reading them one by one.

What its scores mean is tested with the first passes (test_first_pass.py), which use it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from relisten.core.types import ModelError
from relisten.speech.whisper_decoder import WhisperDecoder, _tree
from tiny_speech import tiny_ct2_whisper, tiny_whisper


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    return tiny_ct2_whisper(source, tmp_path_factory.mktemp("ct2") / "whisper")


def test_texts_that_begin_alike_share_their_beginning():
    nodes, parents, paths = _tree([7, 8], [(1, 2), (1, 3, 2), (), (1, 2)])
    assert nodes == [7, 8, 1, 2, 3, 2]
    assert parents == [-1, 0, 1, 2, 2, 4]
    assert [path.tolist() for path in paths] == [[1, 2, 3], [1, 2, 4, 5], [1], [1, 2, 3]]


def test_many_at_once_are_each_alone(source, folder):
    """Sequences with shared beginnings, one of a single token, one twice, over random frames."""
    generator = np.random.default_rng(0)
    frames = generator.normal(size=(40, 32)).astype(np.float32)
    prompt = [5, 9, 3]
    sequences = [(1, 2, 3, 4), (1, 2, 9), (2,), (1, 2, 3, 5, 6), (1, 2, 9)]
    decoder = WhisperDecoder(folder, "cpu")
    together = decoder.logprobs(decoder.hear(frames), prompt, sequences)
    model = WhisperForConditionalGeneration.from_pretrained(source).eval()
    for ids, found in zip(sequences, together, strict=True):
        with torch.no_grad():
            logits = model(
                encoder_outputs=BaseModelOutput(torch.from_numpy(frames)[None]),
                decoder_input_ids=torch.tensor([[*prompt, *ids[:-1]]]),
            ).logits[0, len(prompt) - 1 :]
        expected = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum()
        assert found == pytest.approx(float(expected), abs=1e-3)
    assert together[1] == together[4]
    assert decoder.logprobs(decoder.hear(frames), prompt, []) == []


def test_a_folder_without_a_decoder_is_refused(folder, tmp_path):
    whole = (folder / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(whole.replace(b"decoder/", b"elsewhr/"))
    with pytest.raises(ModelError, match="holds no decoder of a Whisper"):
        WhisperDecoder(tmp_path, "cpu")
