"""Minimum word error rate training: the loss by hand, its gradient against the naive way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from relisten.core.combine import Weights, combined_scores
from relisten.core.types import Hypothesis, NBest, UsageError
from relisten.lm.model import SpeechTextLM
from relisten.lm.mwer import Combination, hypothesis_scores, mwer_loss
from relisten.lm.scorer import Scorer, ScoringInput
from relisten.lm.sequences import Speech, speech_inputs
from relisten.lm.training import sequence_losses
from relisten.lm.tree import build_tree
from relisten.lm.vocabulary import Vocabulary
from tiny_models import LEVELS, N_UNITS, tiny_causal_lm, tiny_speech_text_lm

FRAME_DIM = 6
TEXTS = ("2 3+4 5", "2 3+4", "2 6 5", "7")


class WordsAsNumbers:
    """A stand-in tokenizer: "2 3+4" is two words, of one and of two tokens."""

    def words(self, text: str) -> list[list[int]]:
        return [[int(t) for t in w.split("+")] for w in text.split()]


def test_the_loss_by_hand() -> None:
    """Odds 1 : 3, errors 2 and 0, their mean 1: ¼ · (2 − 1) + ¾ · (0 − 1) = −½. The gradient of
    score n is P_n (errors_n − expected errors), expected 2 · ¼ = ½: ¼ · 1½ and ¾ · −½."""
    scores = torch.tensor([0.0, math.log(3)], requires_grad=True)
    loss = mwer_loss(scores, torch.tensor([2.0, 0.0]))
    loss.backward()
    assert loss.item() == pytest.approx(-0.5)
    assert scores.grad.tolist() == pytest.approx([0.375, -0.375])


def test_lists_with_equally_many_errors_have_no_loss_and_no_gradient() -> None:
    scores = torch.tensor([1.0, 5.0, 2.0], requires_grad=True)
    loss = mwer_loss(scores, torch.tensor([3.0, 3.0, 3.0]))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.abs().max() == 0


def test_the_combination_ranks_as_the_weights_do() -> None:
    """asr's weight 2 becomes 1 and the sharpness 2: the logits are the combined score as it was,
    2 · asr + 0.5 · text + 1 · words."""
    weights = {"asr": 2.0, "text": 0.5, "length": 1.0}
    columns = {"asr": [-1.0, -2.0], "text": [-7.0, -3.0], "length": [2.0, 1.0]}
    combination = Combination(weights)
    assert combination.weights == {"asr": 1.0, "text": 0.25, "length": 0.5}
    combined = combination({name: torch.tensor(column) for name, column in columns.items()})
    hypotheses = tuple(
        Hypothesis(text, {"asr": asr, "text": lm})
        for text, asr, lm in zip(("a b", "c"), columns["asr"], columns["text"], strict=True)
    )
    expected = combined_scores(NBest("u", hypotheses), Weights(weights))
    np.testing.assert_allclose(combined.detach(), expected, rtol=1e-6)
    with pytest.raises(UsageError, match="asr is -1"):
        Combination({"asr": -1.0})


def test_without_a_first_pass_score_the_others_rank_alone() -> None:
    combination = Combination({"text": 0.5, "length": 1.0})
    assert combination.weights == {"text": 0.5, "length": 1.0}
    combined = combination({"text": torch.tensor([-4.0]), "length": torch.tensor([3.0])})
    assert combined.item() == pytest.approx(1.0)


def utterance() -> ScoringInput:
    rng = np.random.default_rng(0)
    speech = Speech(
        rng.integers(0, N_UNITS, (20, LEVELS)).astype(np.int32),
        0.08,
        rng.normal(size=(20, FRAME_DIM)).astype(np.float32),
    )
    ends = tuple(tuple(np.linspace(0.4, 1.5, len(text.split()))) for text in TEXTS)
    return ScoringInput(TEXTS, ends, speech)


def gradients(model: SpeechTextLM, scores: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    mwer_loss(scores, torch.tensor([0.0, 1.0, 2.0, 3.0])).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("component", ["text", "text_given_speech", "guessed"])
def test_gradients_through_the_tree_are_those_of_separate_passes(component: str) -> None:
    """Gradients of the LM and of its extension: text, speech as chunks, and as chunks with given
    guesses."""
    model = tiny_speech_text_lm("llama", FRAME_DIM)
    asked = utterance()
    scorer = Scorer(model, WordsAsNumbers(), "chunked")
    of = "text" if component == "text" else "text_given_speech"
    sequences = scorer.sequences(asked, of)
    speech = None if component == "text" else asked.speech
    tree = build_tree(sequences)
    assert len(tree) < sum(map(len, sequences))

    def guesses(ids: np.ndarray, spans: np.ndarray) -> list[np.ndarray] | None:
        """An arbitrary vector for each chunk, the same for the same chunk."""
        if component != "guessed":
            return None
        _, features = speech_inputs(model.vocabulary, ids, spans, asked.speech)
        return [np.repeat(features[:, :1], 32, 1)]

    (in_tree,) = hypothesis_scores(model, [tree], [speech], guesses(tree.ids, tree.spans))
    apart = torch.stack(
        [
            -sequence_losses(model, [s], [speech], guesses(s.ids[:-1], s.spans[:-1])).sum()
            for s in sequences
        ]
    )
    torch.testing.assert_close(in_tree, apart, atol=1e-5, rtol=1e-5)
    found, expected = gradients(model, in_tree), gradients(model, apart)
    assert found.keys() == expected.keys()
    has_speech = any(name.startswith("extension.projector.rest") for name in found)
    assert has_speech == (component != "text")
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-5, msg=name)


def test_lists_of_several_lengths_share_a_batch() -> None:
    """Padding changes neither scores nor gradients."""
    model = SpeechTextLM(tiny_causal_lm("llama"), Vocabulary(60, 0, 1))
    scorer = Scorer(model, WordsAsNumbers())
    lists = [ScoringInput(TEXTS), ScoringInput(("2 3 4 5 6 7 8", "9"))]
    trees = [build_tree(scorer.sequences(one, "text")) for one in lists]
    together = hypothesis_scores(model, trees, [None, None])
    for tree, scores, one in zip(trees, together, lists, strict=True):
        (alone,) = hypothesis_scores(model, [tree], [None])
        torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(scores.detach(), scorer.score([one], "text")[0], rtol=1e-5)
