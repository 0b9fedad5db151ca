"""Trees in one row, apart or in blocks, get the scores of full sequences one by one."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relisten.lm import forward
from relisten.lm import model as model_module
from relisten.lm.attention import BLOCK, Forest
from relisten.lm.backend.llama_folder import MODEL_TYPES, load_llama
from relisten.lm.model import SpeechTextLM
from relisten.lm.scorer import Scorer
from relisten.lm.sequences import TokenSequence
from relisten.lm.tree import PrefixTree, build_tree, visible
from test_scorer import COMPONENTS, WordsAsNumbers, assert_parity, utterance
from tiny_models import tiny_speech_text_lm

CPU = torch.device("cpu")
UTTERANCES = [utterance(seed, n) for seed, n in enumerate([8, 1, 5, 12])]


def tiny_llama(folder, architecture: str = "llama") -> SpeechTextLM:
    """The tiny model of this architecture, run by relisten's own decoder."""
    whole = tiny_speech_text_lm(architecture, frame_dim=6)
    whole.causal.save_pretrained(folder)
    return SpeechTextLM(load_llama(folder, torch.float32), whole.vocabulary, whole.extension).eval()


@pytest.fixture
def blocks(monkeypatch):
    """The way to attend of a GPU, on the CPU."""
    monkeypatch.setattr(forward, "in_blocks", lambda device: True)
    monkeypatch.setattr(model_module, "own_products", lambda device: nullcontext())


@pytest.mark.parametrize("architecture", MODEL_TYPES)
def test_trees_apart_get_the_scores_of_one_by_one(tmp_path, architecture):
    scorer = Scorer(tiny_llama(tmp_path, architecture), WordsAsNumbers(), batch_tokens=200)
    for component in COMPONENTS:
        assert_parity(scorer, UTTERANCES, component)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("architecture", MODEL_TYPES)
@pytest.mark.parametrize("batch_tokens", [200, None])
def test_trees_in_blocks_get_the_scores_of_one_by_one(tmp_path, blocks, architecture, batch_tokens):
    """One batch of some 700 nodes, and several; Mistral sees 12 positions."""
    scorer = Scorer(tiny_llama(tmp_path, architecture), WordsAsNumbers(), batch_tokens=batch_tokens)
    for component in COMPONENTS:
        assert_parity(scorer, UTTERANCES, component)


def test_all_layers_and_lengths_are_compiled_once(tmp_path, blocks):
    """Traced whole, as for a GPU, but run on the CPU."""
    from torch._dynamo.utils import counters

    model = tiny_llama(tmp_path)
    expected = Scorer(model, WordsAsNumbers()).score(UTTERANCES, "text")
    for layer in model.causal.model.layers:
        layer.compile(dynamic=True, fullgraph=True, backend="eager")
    scorer = Scorer(model, WordsAsNumbers())
    scorer.score(UTTERANCES[:1], "text")
    counters.clear()
    for _ in range(3):
        for some in (UTTERANCES, UTTERANCES * 7, UTTERANCES[1:2]):
            found = scorer.score(some, "text")
            for a, b in zip(found, expected if len(some) > 1 else expected[1:2], strict=False):
                np.testing.assert_allclose(a, b, atol=1e-3)
    assert counters["stats"]["unique_graphs"] <= 1, "the second layer's own, no more"


def tree_of(texts: list[list[int]]) -> PrefixTree:
    return build_tree([TokenSequence.of_text([0, *ids, 1]) for ids in texts])


trees = st.lists(
    st.lists(st.lists(st.integers(2, 3), max_size=40), min_size=1, max_size=9).map(tree_of),
    min_size=1,
    max_size=9,
)


@given(trees, st.sampled_from([None, 5]))
@settings(max_examples=40, deadline=None)
def test_blocks_say_who_sees_whom(some, window):
    """The mask, read block by block, lets through what each tree's own matrix has."""
    forest = Forest.of(some, window, fill=True)
    length = len(forest)
    expected = np.eye(length, dtype=bool)
    for tree, start in zip(some, forest.bounds[:-1], strict=False):
        seen = visible(tree.stop, tree.depth)
        if window is not None:
            seen &= tree.depth[:, None] - tree.depth < window
        expected[start : start + len(tree), start : start + len(tree)] = seen
    mask = forest.block_mask(CPU)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    inside = mask.mask_mod(0, 0, i, j).numpy()
    whole = np.zeros_like(inside)
    for counts, indices, is_full in (
        (mask.kv_num_blocks, mask.kv_indices, False),
        (mask.full_kv_num_blocks, mask.full_kv_indices, True),
    ):
        for row in range(length // BLOCK):
            for column in indices[0, 0, row, : counts[0, 0, row]].tolist():
                rows = slice(row * BLOCK, (row + 1) * BLOCK)
                columns = slice(column * BLOCK, (column + 1) * BLOCK)
                whole[rows, columns] = True if is_full else inside[rows, columns]
    np.testing.assert_array_equal(whole, expected)
