"""Teacher forcing of many texts at once: against transformers, which takes them one by one.

What its scores mean is tested with the first passes (test_first_pass.py), which use it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from relisten.core.types import ModelError
from relisten.speech.whisper.decoder import TokenTree, WhisperDecoder
from relisten.speech.whisper.suppression import Suppression
from tiny_speech import tiny_ct2_whisper, tiny_whisper


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    return tiny_ct2_whisper(source, tmp_path_factory.mktemp("ct2") / "whisper")


def test_texts_that_begin_alike_share_their_beginning():
    tree = TokenTree([7, 8])
    paths = [tree.add(ids).tolist() for ids in ((1, 2), (1, 3, 2), (), (1, 2))]
    assert tree.tokens == [7, 8, 1, 2, 3, 2]
    assert tree.parents == [-1, 0, 1, 2, 2, 4]
    assert paths == [[1, 2, 3], [1, 2, 4, 5], [1], [1, 2, 3]]


def test_texts_that_end_alike_share_their_end_after_a_context():
    """2 for 9 in the middle: 3 4 are new nodes behind the 9, 5 and 6 are the first one's; without
    a context all is. What ends otherwise is not alike, nor what agrees for one token alone."""
    sequences = [(1, 2, 3, 4, 5, 6), (1, 9, 3, 4, 5, 6), (1, 9, 3, 4, 5, 7), (8, 6)]
    tree, apart = TokenTree([0], context=3), TokenTree([0])
    assert [tree.add(ids).tolist() for ids in sequences] == [
        [0, 1, 2, 3, 4, 5, 6],
        [0, 1, 7, 8, 9, 5, 6],
        [0, 1, 7, 8, 9, 10, 11],
        [0, 12, 13],
    ]
    assert tree.tokens == [0, 1, 2, 3, 4, 5, 6, 9, 3, 4, 5, 7, 8, 6]
    assert tree.parents == [-1, 0, 1, 2, 3, 4, 5, 1, 7, 8, 9, 10, 0, 12]
    assert [apart.add(ids).tolist() for ids in sequences][1] == [0, 1, 7, 8, 9, 10, 11]


def test_many_at_once_are_each_alone(source, folder):
    """Sequences with shared beginnings, one of a single token, one twice, over random frames."""
    generator = np.random.default_rng(0)
    frames = generator.normal(size=(40, 32)).astype(np.float32)
    prompt = [5, 9, 3]
    sequences = [(1, 2, 3, 4), (1, 2, 9), (2,), (1, 2, 3, 5, 6), (1, 2, 9)]
    decoder = WhisperDecoder(folder, "cpu", Suppression())
    forced_scorer = decoder.forced_scorer(decoder.cross_kv(frames), prompt)
    together = forced_scorer.logprobs(sequences)
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
    assert forced_scorer.logprobs([]) == []


def test_texts_that_come_later_continue_from_what_was_computed(folder, monkeypatch):
    """One by one, again, and as a beginning of another: as all at once, each token once."""
    generator = np.random.default_rng(2)
    decoder = WhisperDecoder(folder, "cpu", Suppression(everywhere=[3], at_start=[1]))
    cross_kv = decoder.cross_kv(generator.normal(size=(40, 32)).astype(np.float32))
    sequences = [(1, 2, 3, 4), (1, 2), (1, 2, 9, 8), (6,), (1, 2, 3, 4)]
    together = decoder.forced_scorer(cross_kv, [5, 7]).logprobs(sequences)
    computed = []
    embed = decoder.embed
    monkeypatch.setattr(
        decoder, "embed", lambda tokens, depth: computed.extend(tokens) or embed(tokens, depth)
    )
    forced_scorer = decoder.forced_scorer(cross_kv, [5, 7])
    apart = [forced_scorer.logprobs([ids])[0] for ids in sequences]
    assert apart == pytest.approx(together, abs=1e-4)
    assert computed == [5, 7, 1, 2, 3, 9]


def test_a_shared_end_costs_what_it_costs_in_the_text_before(folder):
    """The sequence that differs in its second token: its own first four, then the other's."""
    generator = np.random.default_rng(1)
    decoder = WhisperDecoder(folder, "cpu", Suppression())
    cross_kv = decoder.cross_kv(generator.normal(size=(40, 32)).astype(np.float32))
    base, other = (1, 2, 3, 4, 5, 6, 7), (1, 9, 3, 4, 5, 6, 7)

    def nats(ids):
        return decoder.forced_scorer(cross_kv, [5]).logprobs([ids])[0]

    found = decoder.forced_scorer(cross_kv, [5], context=3).logprobs([base, other])
    assert found[0] == pytest.approx(nats(base), abs=1e-4)
    # 5 is node for node the base's: what it predicts, and all behind it, is the base's
    assert found[1] == pytest.approx(nats(other[:5]) + nats(base) - nats(base[:5]), abs=1e-4)
    assert found[1] != pytest.approx(nats(other), abs=1e-4)


def test_a_folder_without_a_decoder_is_refused(folder, tmp_path):
    whole = (folder / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(whole.replace(b"decoder/", b"elsewhr/"))
    with pytest.raises(ModelError, match="holds no decoder of a Whisper"):
        WhisperDecoder(tmp_path, "cpu", Suppression())
