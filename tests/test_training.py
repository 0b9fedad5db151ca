"""Losses, the projector, and the training loop on a tiny random LM."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from relisten.core.types import UsageError
from relisten.lm.model import ChunkProjector, SpeechTextLM
from relisten.lm.sequences import (
    AS_SPEECH,
    AS_TEXT,
    Order,
    Speech,
    build_sequence,
    chunk_features,
)
from relisten.lm.training import projector_guesses, sequence_losses, train_projector
from relisten.lm.vocabulary import Vocabulary
from relisten.tasks.training.batches import draw_batch
from relisten.tasks.training.cross_fit import fold_of
from relisten.tasks.training.examples import (
    Example,
    TrainingData,
    check_served,
    untranscribed_example,
)
from relisten.tasks.training.features import CachedUtterance
from relisten.tasks.training.lm import Training, example_losses, nats_per_word, train_lm
from relisten.tasks.training.projector import ProjectorConfig, cross_fit_projectors
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.training.text_corpus import TextExamples
from relisten.tasks.training.trainable import add_lora, lora_tensors
from tiny_models import LEVELS, N_UNITS, naive_score, tiny_causal_lm, tiny_speech_text_lm

FRAME_DIM, UNIT_S = 6, 0.04
WORDS = (2, 3, 4, 5)


def example(seed: int, n_words: int = 3) -> Example:
    """Every word is its own direction in frame space, plus noise; a word lasts 8 units."""
    rng = np.random.default_rng(seed)
    words = rng.choice(WORDS, n_words)
    frames = np.concatenate([np.eye(FRAME_DIM)[[w - 2] * 8] for w in words])
    frames = (4 * frames + rng.normal(scale=0.3, size=frames.shape)).astype(np.float32)
    ends = tuple(UNIT_S * 8 * (i + 1) for i in range(n_words))
    codes = rng.integers(0, N_UNITS, (len(frames), LEVELS)).astype(np.int32)
    speech = Speech(codes, UNIT_S, frames)
    cached = CachedUtterance(
        f"u{seed}", f"s{seed % 5}", "", ends, frames.astype(np.float16), UNIT_S
    )
    return Example(cached, [[int(w)] for w in words], speech)


@pytest.mark.parametrize(
    "order", ["text", "speech_first", "interleaved", "chunked", "text_first", "speech"]
)
def test_losses_are_the_naive_scores(order):
    model = tiny_speech_text_lm("llama", FRAME_DIM)
    examples = [example(seed, n) for seed, n in enumerate([3, 1, 5])]
    sequences = [
        build_sequence(order, model.vocabulary, e.words, e.speech, e.cached.word_ends_s)
        for e in examples
    ]
    with torch.inference_mode():
        losses = sequence_losses(model, sequences, [e.speech for e in examples])
    assert len(losses) == sum(int((s.scored > 0).sum()) for s in sequences)
    expected = sum(
        naive_score(model, s, e.speech) for s, e in zip(sequences, examples, strict=True)
    )
    assert float(losses.sum()) == pytest.approx(-expected, rel=1e-4)


@pytest.mark.parametrize("order", ["text", "speech_first", "text_first", "interleaved"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_gradients_are_those_of_the_plain_loop(order, architecture):
    """One padded batch through the transformers model, its tables grown by markers and units, one
    cross-entropy over what can follow."""
    model = tiny_speech_text_lm(architecture)
    head, extension = model.causal.get_output_embeddings().weight, model.extension
    examples = [example(seed, n) for seed, n in enumerate([3, 1, 5])]
    sequences = [
        build_sequence(order, model.vocabulary, e.words, e.speech, e.cached.word_ends_s)
        for e in examples
    ]
    trained = [p for name, p in model.named_parameters() if "projector" not in name]
    trained = [p for p in trained if p is not model.text_embedding.weight]
    ours = sequence_losses(model, sequences, [e.speech for e in examples]).mean()
    our_grads = torch.autograd.grad(ours, trained, allow_unused=True)

    n_text, length = model.vocabulary.n_text, max(map(len, sequences))
    embedded = torch.zeros(len(sequences), length, head.shape[1])
    seen = torch.zeros(len(sequences), length, dtype=torch.long)
    labels = torch.full((len(sequences), length), -100)
    allowed = torch.zeros(len(sequences), length, n_text + 2 + N_UNITS, dtype=torch.bool)
    for b, (sequence, e) in enumerate(zip(sequences, examples, strict=True)):
        n = len(sequence)
        levels = extension.unit_embedding
        rows = [
            model.text_embedding.weight[i]
            if i < n_text
            else extension.marker_embedding[i - n_text]
            if i < n_text + 2
            else sum(levels[q, code] for q, code in enumerate(e.speech.codes[start]))
            for i, (start, _) in zip(sequence.ids.tolist(), sequence.spans.tolist(), strict=True)
        ]
        scored = torch.from_numpy(sequence.scored).long()
        embedded[b, :n], seen[b, :n] = torch.stack(rows), 1
        labels[b, :n] = torch.where(scored > 0, torch.from_numpy(sequence.ids), -100)
        allowed[b, :n, :n_text] = scored[:, None] == AS_TEXT
        allowed[b, :n, n_text + 2 :] = scored[:, None] == AS_SPEECH
        allowed[b, :n, n_text : n_text + 2] = True
    outputs = torch.cat([head[:n_text], extension.marker_head, extension.unit_head])
    hidden = model.causal.base_model(inputs_embeds=embedded, attention_mask=seen).last_hidden_state
    logits = (hidden[:, :-1] @ outputs.T)[labels[:, 1:] >= 0]
    logits = logits.masked_fill(~allowed[labels >= 0], -torch.inf)
    plain = torch.nn.functional.cross_entropy(logits, labels[labels >= 0])

    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)
    for a, e in zip(our_grads, torch.autograd.grad(plain, trained, allow_unused=True), strict=True):
        a, e = (torch.zeros(()) if grad is None else grad for grad in (a, e))
        assert float((a - e).norm()) <= 1e-5 * float(e.norm())


@pytest.mark.parametrize("order", get_args(Order))
def test_no_crosstalk(order):
    """What a sequence's tokens cost does not depend on what shares its batch."""
    model = tiny_speech_text_lm("llama", FRAME_DIM)
    examples = [example(seed, n) for seed, n in enumerate([3, 1, 5, 2])]

    def losses(batch):
        with torch.inference_mode():
            return example_losses(model, order, batch, is_cross_fitted=False)

    alone = [losses([e]) for e in examples]
    torch.testing.assert_close(losses(examples), torch.cat(alone))
    others = losses([examples[0], example(77, 6)])
    torch.testing.assert_close(others[: len(alone[0])], alone[0])


def test_speech_is_held_once_in_half_precision():
    """Of float16 frames the chunks are described as of the same frames in float32: sums are."""
    e = example(0, 40)
    speech = e.cached.speech
    assert np.shares_memory(speech.frames, e.cached.frames)
    spans = speech.chunks(e.cached.word_ends_s)
    half = chunk_features(speech, spans)
    assert half.dtype == np.float32
    wide = replace(speech, frames=speech.frames.astype(np.float32))
    np.testing.assert_array_equal(half, chunk_features(wide, spans))


def test_given_guesses_replace_the_projectors_own():
    model = tiny_speech_text_lm("llama", FRAME_DIM)
    e = example(0)
    s = build_sequence("chunked", model.vocabulary, e.words, e.speech, e.cached.word_ends_s)
    table = model.text_embedding.weight
    own = projector_guesses(model.extension.projector, table, e.chunk_features())
    with torch.inference_mode():
        plain = sequence_losses(model, [s], [e.speech])
        same = sequence_losses(model, [s], [e.speech], [own])
        other = sequence_losses(model, [s], [e.speech], [own + 1])
    torch.testing.assert_close(plain, same)
    assert not torch.allclose(plain, other)


def test_the_projector_learns_what_can_be_heard():
    """Words that sound apart are told apart on unseen recordings: the guess is the word's own
    embedding, nearly."""
    torch.manual_seed(0)
    table = torch.randn(10, 12)
    train, unseen = [example(s) for s in range(300)], [example(1000 + s) for s in range(20)]
    projector = ChunkProjector(FRAME_DIM, 12, len(WORDS), width=64)
    projector.word_tokens[:] = torch.tensor(WORDS)
    words = np.array([w[0] - 2 for e in train for w in e.words])
    chunks = np.concatenate([e.chunk_features()[:-1] for e in train])
    train_projector(projector, table, chunks, words, epochs=6)
    for e in unseen:
        guesses = projector_guesses(projector, table, e.chunk_features()[:-1])
        nearest = torch.cdist(torch.from_numpy(guesses), table).argmin(1)
        assert nearest.tolist() == [w[0] for w in e.words]


def cross_fit(folder: Path, examples: list[Example], table: torch.Tensor) -> ChunkProjector:
    folder.mkdir(exist_ok=True)
    run = Run(folder, 0, lambda line: None)
    return cross_fit_projectors(ProjectorConfig(epochs=1), 2, examples, table, 0, run)


def test_nobody_is_guessed_by_a_projector_that_was_trained_on_them(tmp_path):
    """The projector of a fold is the same, to the byte, whatever the speech of its speakers; that
    of the other fold, which is trained on them, is not. And their guesses are its guesses."""
    examples = [example(seed) for seed in range(40)]
    table = torch.randn(10, 12)
    projector = cross_fit(tmp_path / "a", examples, table)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == [
        "projector-fold0.safetensors",
        "projector-fold1.safetensors",
        "projector.safetensors",
    ]
    altered = [example(seed) for seed in range(40)]
    for e in altered:
        if fold_of(e.cached.speaker, 2) == 0:
            e.speech = replace(e.speech, frames=e.speech.frames[::-1])
    cross_fit(tmp_path / "b", altered, table)
    same = [(tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names]
    assert same == [True, False, False]
    for e in examples:
        chunks = e.chunk_features()
        fold = tmp_path / "a" / f"projector-fold{fold_of(e.cached.speaker, 2)}.safetensors"
        held_out = copy.deepcopy(projector)
        held_out.load_state_dict(load_file(fold))
        expected = projector_guesses(held_out, table, chunks)
        np.testing.assert_allclose(e.guesses, expected, rtol=2e-3, atol=1e-3)
        assert not np.allclose(e.guesses, projector_guesses(projector, table, chunks), atol=1e-2)


def test_words_are_cross_fitted_in_training_only():
    """The losses of a training batch come from the examples' guesses, those of development data
    from the model's own projector."""
    model, examples = world()
    model.eval()
    batch = examples[:4]

    def losses(is_cross_fitted: bool) -> torch.Tensor:
        with torch.inference_mode():
            return example_losses(model, "chunked", batch, is_cross_fitted)

    own, cross_fitted = losses(False), losses(True)
    assert not torch.allclose(own, cross_fitted)
    for e in batch:
        table = model.text_embedding.weight
        e.guesses = projector_guesses(model.extension.projector, table, e.chunk_features())
    torch.testing.assert_close(losses(True), own)


def test_the_lm_is_trained_on_cross_fitted_guesses(tmp_path):
    """Other guesses make another adapter: the projector's own are the same in both runs."""
    adapters = []
    for name, added in (("a", 0.0), ("b", 0.5)):
        model, examples = world()
        for e in examples:
            e.guesses = e.guesses + added
        chunked = replace(training(2), tasks={"chunked": 1.0})
        train_lm(model, chunked, TrainingData([(examples, 1.0)]), Run(tmp_path / name, 0, print))
        adapters.append(lora_tensors(model.causal))
    assert any(not torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])


@pytest.mark.parametrize("order", ["speech_first", "interleaved", "chunked"])
def test_wrong_speech_is_another_recordings(order):
    """That of the recording half the list on, resampled to the length of the right one."""
    model = tiny_speech_text_lm("llama", FRAME_DIM)
    examples = [example(seed, n) for seed, n in enumerate([3, 1, 5, 2])]
    exchanged = [
        replace(e, speech=examples[(i + 2) % 4].speech.stretched(len(e.speech)))
        for i, e in enumerate(examples)
    ]
    with torch.inference_mode():
        total = sum(float(example_losses(model, order, [e], False).sum()) for e in exchanged)
    wrong = nats_per_word(model, order, examples, wrong_speech=True)
    assert wrong == pytest.approx(total / 11, rel=1e-4)
    assert wrong != pytest.approx(nats_per_word(model, order, examples), rel=1e-3)


def test_the_orders_by_hand():
    """Words "2" and "3" of two units each, codes 4 to 8, the fifth after the last word; 60 text
    tokens, then <speech> 60, <text> 61 and the units from 62; BOS 0, EOS 1."""
    vocabulary = Vocabulary(60, 0, 1, N_UNITS)
    speech = Speech(np.arange(4, 9, dtype=np.int32)[:, None], UNIT_S)
    spoken, written, units = 60, 61, [66, 67, 68, 69, 70]
    by_hand = {
        "text": [0, written, 2, 3, 1],
        "speech_first": [0, spoken, *units, written, 2, 3, 1],
        "interleaved": [
            *(0, spoken, *units[:2], written, 2),
            *(spoken, *units[2:4], written, 3),
            *(spoken, units[4], written, 1),
        ],
        "chunked": [0, spoken, 2, spoken, 3, spoken, 1],
        "text_first": [0, written, 2, 3, spoken, *units, written],
        "speech": [0, spoken, *units, written],
    }
    assert set(by_hand) == set(get_args(Order))
    for order, ids in by_hand.items():
        ends = (2 * UNIT_S, 4 * UNIT_S)
        assert build_sequence(order, vocabulary, [[2], [3]], speech, ends).ids.tolist() == ids


def world() -> tuple[SpeechTextLM, list[Example]]:
    torch.manual_seed(0)
    causal = tiny_causal_lm("llama")
    examples = [example(seed) for seed in range(40)]
    extension = tiny_speech_text_lm("llama", FRAME_DIM).extension
    extension.projector = ChunkProjector(
        FRAME_DIM, causal.get_input_embeddings().weight.shape[1], len(WORDS), width=64
    )
    extension.projector.word_tokens[:] = torch.tensor(WORDS)
    for e in examples:
        table = causal.get_input_embeddings().weight
        e.guesses = table[[*(w[0] for w in e.words), 1]].detach().numpy()
    model = SpeechTextLM(causal, Vocabulary(60, 0, 1, N_UNITS), extension)
    add_lora(causal, 4, "tiny", 0)
    return model, examples


def training(steps: int, **options) -> Training:
    schedule = Schedule(steps, learning_rate=1e-2, warmup_steps=2, eval_every=4, **options)
    return Training({"chunked": 0.7, "text": 0.3}, 60, schedule)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_training_goes_on_to_the_same_bits(tmp_path, accumulate):
    """8 steps in one go, and 4 steps, a stop, 4 more: the same weights."""
    schedule = training(8, accumulate=accumulate)
    whole, examples = world()
    train_lm(whole, schedule, TrainingData([(examples, 1.0)]), Run(tmp_path / "a", 0, print))

    stopped, examples = world()

    class Stop(Exception):
        pass

    calls = []

    def stop_after_the_second(line: str) -> None:
        calls.append(line)
        if len(calls) == 2:
            raise Stop

    run = Run(tmp_path / "b", 0, stop_after_the_second)
    with pytest.raises(Stop):
        train_lm(stopped, schedule, TrainingData([(examples, 1.0)]), run)
    resumed, examples = world()
    train_lm(resumed, schedule, TrainingData([(examples, 1.0)]), replace(run, say=print))
    assert calls[0].startswith("step 4/8")
    for name, tensor in lora_tensors(whole.causal).items():
        assert torch.equal(tensor, lora_tensors(resumed.causal)[name]), name
    for a, b in zip(whole.extension.parameters(), resumed.extension.parameters(), strict=True):
        assert torch.equal(a, b)


def test_training_lowers_the_metric_and_leaves_the_lm_alone(tmp_path):
    model, examples = world()
    before = {n: p.clone() for n, p in model.causal.named_parameters() if "lora_" not in n}
    start = nats_per_word(model, "text", examples)
    train_lm(model, training(30), TrainingData([(examples, 1.0)]), Run(tmp_path))
    assert nats_per_word(model, "text", examples) < start - 1
    for name, parameter in model.causal.named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, before[name])


def test_each_source_serves_what_it_has():
    """The order is drawn first, then a source that can serve it: text alone is never asked for
    speech, nor speech alone for text; where both can, their weights tell."""
    texts = TextExamples(np.array([2, 3, 4, 5], np.int32), np.array([1, 4]))
    silent = [untranscribed_example(example(s).cached) for s in range(6)]
    corpora = [([example(s) for s in range(4)], 1.0), (texts, 2.0), (silent, 1.0), ([], 9.0)]
    tasks: dict[Order, float] = {"text": 0.4, "speech": 0.3, "chunked": 0.3}
    drawn = [draw_batch(corpora, tasks, 100, 0, step) for step in range(60)]
    kinds = {
        order: Counter(
            ("both" if e.words else "speech") if len(e.speech) else "text"
            for o, batch in drawn
            if o == order
            for e in batch
        )
        for order in tasks
    }
    assert set(kinds["text"]) == {"both", "text"}
    assert set(kinds["speech"]) == {"both", "speech"}
    assert set(kinds["chunked"]) == {"both"}
    assert sum(order == "text" for order, _ in drawn) in range(15, 33), "0.4 of 60 steps"
    check_served(corpora, tasks)
    with pytest.raises(UsageError, match="no source can serve the task chunked: it is made of tr"):
        check_served(corpora[1:], tasks)
    with pytest.raises(UsageError, match="no source can serve the task speech"):
        check_served([(texts, 1.0), (silent, 0.0)], {"speech": 1.0})


def test_batches_are_drawn_by_weight_and_within_budget():
    corpora = [([example(s, 2) for s in range(9)], 1.0), ([example(99, 4)], 0.0)]
    drawn = [draw_batch(corpora, {"chunked": 1.0}, 40, 0, step) for step in range(20)]
    assert all(order == "chunked" for order, _ in drawn)
    assert all(len(e.words) == 2 for _, batch in drawn for e in batch), "weight 0 is never drawn"
    assert {len(batch) for _, batch in drawn} == {6}, "6 sequences of 6 positions fit 40 tokens"
    again = draw_batch(corpora, {"chunked": 1.0}, 40, 0, 7)[1]
    assert [e.cached.id for e in again] == [e.cached.id for e in drawn[7][1]]
