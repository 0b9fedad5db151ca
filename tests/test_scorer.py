"""The tree scorer gives exactly the scores of one pass per hypothesis."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from relisten.core.types import ModelError, UsageError
from relisten.lm.model import SpeechTextLM
from relisten.lm.scorer import Scorer, ScoringInput
from relisten.lm.sequences import Speech
from relisten.lm.vocabulary import Vocabulary
from tiny_models import (
    ARCHITECTURES,
    LEVELS,
    N_TEXT,
    N_UNITS,
    naive_score,
    tiny_causal_lm,
    tiny_speech_text_lm,
)

COMPONENTS = ("text", "text_given_speech", "speech_given_text")


class WordsAsNumbers:
    """A stand-in tokenizer: "2 3+4" is two words, of one and of two tokens; "_" has none."""

    def words(self, text: str) -> list[list[int]]:
        return [[int(t) for t in w.split("+")] if w != "_" else [] for w in text.split()]


def utterance(seed: int, n: int, frame_dim: int = 6) -> ScoringInput:
    """n hypotheses that share words; one empty, one the prefix of another, one twice."""
    rng = np.random.default_rng(seed)
    n_units = int(rng.integers(5, 30))
    base = ["+".join(map(str, rng.integers(2, 5, rng.integers(1, 4)))) for _ in range(6)]
    texts = ["", " ".join(base[:3]), " ".join(base), " ".join(base)]
    while len(texts) < n:
        words = list(base)
        words[int(rng.integers(6))] = rng.choice(["7", "8+9", "_"])
        texts.append(" ".join(words[: rng.integers(1, 7)]))
    ends = [tuple(np.linspace(0.3, n_units * 0.08, len(t.split()))) for t in texts[:n]]
    return ScoringInput(
        tuple(texts[:n]),
        tuple(ends),
        Speech(
            rng.integers(0, N_UNITS, (n_units, LEVELS)).astype(np.int32),
            0.08,
            rng.normal(size=(n_units, frame_dim)).astype(np.float32),
        ),
    )


def assert_parity(scorer: Scorer, utterances: list[ScoringInput], component: str) -> None:
    for u, scores in zip(utterances, scorer.score(utterances, component), strict=True):
        for sequence, score in zip(scorer.sequences(u, component), scores, strict=True):
            expected = naive_score(scorer.model, sequence, u.speech)
            n_scored = int((sequence.scored > 0).sum())
            assert score == pytest.approx(expected, abs=1e-4 * n_scored)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("order", ["speech_first", "interleaved", "chunked"])
def test_parity_with_one_pass_per_hypothesis(architecture, order):
    model = tiny_speech_text_lm(architecture, frame_dim=6)
    scorer = Scorer(model, WordsAsNumbers(), order, batch_tokens=200)
    utterances = [utterance(0, 8), utterance(1, 1), utterance(2, 5)]
    for component in COMPONENTS if order == "chunked" else ("text_given_speech",):
        assert_parity(scorer, utterances, component)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_text_only_lm_agrees_with_its_own_logits(architecture):
    """log P(y) of a plain LM, summed from the transformers model's own logits, EOS counted."""
    causal = tiny_causal_lm(architecture)
    scorer = Scorer(SpeechTextLM(causal, Vocabulary(64, 0, 1)), WordsAsNumbers())
    texts = ("2 3+4 5", "", "2 3+4", "9")
    (scores,) = scorer.score([ScoringInput(texts)], "text")
    for text, score in zip(texts, scores, strict=True):
        ids = [0, *(t for w in WordsAsNumbers().words(text) for t in w), 1]
        with torch.inference_mode():
            logs = causal(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        expected = sum(float(logs[i - 1, ids[i]]) for i in range(1, len(ids)))
        assert score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("component", COMPONENTS)
def test_batch_size_and_order_change_nothing(component):
    model = tiny_speech_text_lm("llama", frame_dim=6)
    utterances = [utterance(seed, n) for seed, n in enumerate([3, 9, 1, 6, 12])]
    whole = Scorer(model, WordsAsNumbers(), batch_tokens=100_000).score(utterances, component)
    for batch_tokens in (1, 60, 700):
        scorer = Scorer(model, WordsAsNumbers(), batch_tokens=batch_tokens)
        for a, b in zip(whole, scorer.score(utterances, component), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)
        backwards = scorer.score(utterances[::-1], component)[::-1]
        for a, b in zip(whole, backwards, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_uniform_model_gives_log_of_the_vocabulary():
    """With all output rows zero every token that can follow is equally likely: text positions have
    60 text tokens + 2 markers, unit positions 10 units + 2 markers."""
    model = tiny_speech_text_lm("llama")
    for tensor in (
        model.causal.get_output_embeddings().weight,
        model.extension.marker_head,
        model.extension.unit_head,
    ):
        torch.nn.init.zeros_(tensor)
    scorer = Scorer(model, WordsAsNumbers(), "speech_first")
    speech = Speech(np.zeros((7, LEVELS), np.int32), 0.08)
    u = ScoringInput(("2 3+4",), speech=speech)
    n_tokens, n_units = 3 + 1, 7 + 1  # EOS and the closing marker are counted
    text = -n_tokens * math.log(N_TEXT + 2)
    assert scorer.score([u], "text")[0][0] == pytest.approx(text, rel=1e-5)
    assert scorer.score([u], "text_given_speech")[0][0] == pytest.approx(text, rel=1e-5)
    assert scorer.score([u], "speech_given_text")[0][0] == pytest.approx(
        -n_units * math.log(N_UNITS + 2), rel=1e-5
    )


def test_what_is_missing_is_named():
    text_only = Scorer(SpeechTextLM(tiny_causal_lm("gpt2"), Vocabulary(64, 0, 1)), WordsAsNumbers())
    with pytest.raises(ModelError, match="knows text only"):
        text_only.score([ScoringInput(("2",))], "speech_given_text")
    scorer = Scorer(tiny_speech_text_lm("gpt2"), WordsAsNumbers(), "interleaved")
    with pytest.raises(UsageError, match="needs the utterance's speech"):
        scorer.score([ScoringInput(("2",))], "text_given_speech")
    speech = Speech(np.zeros((7, LEVELS), np.int32), 0.08)
    with pytest.raises(UsageError, match="one word end per word"):
        scorer.score([ScoringInput(("2 3",), ((0.3,),), speech)], "text_given_speech")
