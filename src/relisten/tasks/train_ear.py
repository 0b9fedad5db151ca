"""Training an ear: letters by CTC on frames that were heard once, made other each time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from relisten.core.types import UsageError
from relisten.lm.linear import OneDNNLinear
from relisten.speech.ear import STEPS, Ear, alphabet_of, ctc_nats
from relisten.speech.whisper_layers import (
    UpperLayers,
    layer_id,
    n_encoder_layers,
    read_encoder_weights,
)
from relisten.tasks.corpus import frames_for
from relisten.tasks.examples import Corpus, Example, Report, draw_alike, fold_of
from relisten.tasks.loop import Schedule, products_dtype, train

BATCH_FRAMES = 2048
LEARNING_RATE = 2e-3
LAYERS_BATCH_FRAMES, LAYERS_RATE = 1024, 1e-3
"""The same for an ear with layers of its own, once it has learnt to hear without them."""
SPEEDS = (0.88, 1.15)
"""Frames are stretched by a factor between them."""
HIDDEN_FRAMES = 6
"""Twice an utterance, up to so many frames become its mean."""


def train_ear(
    ear: Ear,
    corpus: Corpus,
    dev: Sequence[Example],
    steps: int,
    seed: int,
    state: Path,
    report: Report,
) -> float:
    """Train in place, resumable from `state`; nats of the letters of a development word."""
    spelled = cache(ear.letters)
    budget, rate = BATCH_FRAMES, LEARNING_RATE
    if ear.layers is not None:
        budget, rate = LAYERS_BATCH_FRAMES, LAYERS_RATE
    schedule = Schedule(steps, rate, steps // 10, max(1, min(500, steps)), seed)

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        rng = np.random.default_rng([seed, step, micro])
        batch = draw_alike(corpus, lambda e: len(e.heard.frames), budget, rng)
        frames = [altered(frames_for(ear, e.heard).astype(np.float32), rng) for e in batch]
        letters = [spelled(e.heard.text) for e in batch]
        ear.train()
        nats = _nats(ear, frames, letters)
        is_sayable = nats.isfinite()
        n_letters = sum(map(len, letters))
        loss = nats.where(is_sayable, torch.zeros_like(nats)).sum() / n_letters
        return "a letter", loss, sum(map(len, frames))

    def gauge() -> dict[str, float]:
        return {"letters": letter_nats_a_word(ear, dev)} if dev else {}

    figures = train(dict(ear.named_parameters()), schedule, micro_step, gauge, state, report)
    ear.eval()
    return figures.get("letters", float("nan"))


def altered(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames [T', D] as another speaker, or noise, might have left them: stretched, with gaps."""
    n_frames = max(1, round(len(frames) * rng.uniform(*SPEEDS)))
    at = np.linspace(0, len(frames) - 1, n_frames)
    below, share = at.astype(int), (at % 1).astype(np.float32)[:, None]
    above = np.minimum(below + 1, len(frames) - 1)
    stretched: np.ndarray = frames[below] * (1 - share) + frames[above] * share
    mean = stretched.mean(0)
    for _ in range(2):
        start = rng.integers(n_frames)
        stretched[start : start + rng.integers(HIDDEN_FRAMES)] = mean
    return stretched


@torch.inference_mode()
def letter_nats_a_word(ear: Ear, examples: Sequence[Example]) -> float:
    """What the letters of a reference word cost the ear, nats; unsayable ones left out."""
    ear.eval()
    total, n_words = 0.0, 0
    for example in examples:
        frames = frames_for(ear, example.heard).astype(np.float32)
        nats = _nats(ear, [frames], [ear.letters(example.heard.text)])
        if nats.isfinite():
            total += float(nats)
            n_words += len(example.words)
    return total / max(1, n_words)


def _nats(ear: Ear, frames: Sequence[np.ndarray], letters: Sequence[Sequence[int]]) -> Tensor:
    n_frames, device = [len(one) for one in frames], ear.out.weight.device
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in frames], True)
    dtype = products_dtype("auto")
    is_narrow = ear.training and dtype == torch.bfloat16  # 3 times as fast, where there is AVX-512
    with torch.autocast(device.type, dtype, enabled=is_narrow), OneDNNLinear():
        log_probs = ear(padded.to(device), torch.tensor(n_frames, device=device))
    return ctc_nats(log_probs, [STEPS * ear.n_pooled(n) for n in n_frames], letters)


def school_ears(
    folder: Path,
    corpus: Corpus,
    dev: Sequence[Example],
    encoder_id: str,
    pool: int,
    folds: int,
    steps: int,
    seed: int,
    report: Report,
) -> Ear:
    """The ear trained on all transcribed examples; its state, and that of the folds', in `folder`.

    Every example's speech gets the letters that an ear heard in it which was trained on none of its
    speaker; those of dev, the ear's of all. Raises UsageError where a fold has no speaker.
    """
    everything = [e for examples, _ in corpus for e in examples]
    alphabet = alphabet_of({e.heard.text for e in everything})
    frame_dim = everything[0].heard.frames.shape[1]

    def schooled(name: str, speakers: set[str]) -> Ear:
        path = folder / f"{name}.safetensors"
        if path.exists():
            return Ear.load(path)
        if not speakers:
            raise UsageError(f"{name}: no speaker is left; cross-fitting needs more of them")
        some = [
            ([e for e in examples if e.heard.speaker in speakers], weight)
            for examples, weight in corpus
        ]
        torch.manual_seed(seed)
        ear = Ear(frame_dim, alphabet, encoder_id, pool).to(PartialState().device)
        report(f"{name}: {sum(len(examples) for examples, _ in some)} utterances")
        train_ear(ear, [s for s in some if s[0]], dev, steps, seed, folder / name, report)
        ear.cpu().save(path)
        return Ear.load(path)

    fold = {e.heard.speaker: fold_of(e.heard.speaker, folds) for e in everything}
    for k in range(folds):
        ear = schooled(f"ear-fold{k}", {speaker for speaker in fold if fold[speaker] != k})
        for example in everything:
            if fold[example.heard.speaker] == k:
                example.hear_letters(ear.hear(example.heard.frames))
    ear = schooled("ear", set(fold))
    for example in dev:
        example.hear_letters(ear.hear(example.heard.frames))
    return ear


def grow_layers(
    ear: Ear,
    corpus: Corpus,
    dev: Sequence[Example],
    encoder_folder: Path,
    n_layers: int,
    steps: int,
    seed: int,
    folder: Path,
    report: Report,
) -> Ear:
    """The ear with the last n_layers of its Whisper encoder made its own; its state in `folder`.

    It starts as the ear that was trained without them, or what it does not know yet would spoil
    them first (arXiv:2202.10054). The speech of dev gets the letters that it hears.
    """
    path = folder / "ear-layers.safetensors"
    if not path.exists():
        weights = read_encoder_weights(encoder_folder)
        torch.manual_seed(seed)
        grown = Ear(
            len(ear.norm.weight),
            ear.alphabet,
            layer_id(ear.encoder_id, n_encoder_layers(weights) - n_layers),
            ear.pool,
            len(ear.second_norm.weight),
            UpperLayers(weights, n_layers),
        )
        grown.load_state_dict(ear.state_dict(), strict=False)
        grown.to(PartialState().device)
        train_ear(grown, corpus, dev, steps, seed, folder / path.stem, report)
        grown.cpu().save(path)
    grown = Ear.load(path, lambda: encoder_folder)
    for example in dev:
        example.hear_letters(grown.hear(frames_for(grown, example.heard)))
    return grown
