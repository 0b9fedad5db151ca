"""Training a CTC head: letters by CTC on frames that were heard once, made other each time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from relisten.core.types import UsageError
from relisten.lm.backend.linear import OneDNNLinear
from relisten.speech.ctc.head import STEPS, CTCHead, alphabet_of
from relisten.speech.ctc.likelihood import ctc_nats
from relisten.speech.whisper.layers import (
    UpperLayers,
    layer_id,
    n_encoder_layers,
    read_encoder_weights,
)
from relisten.tasks.training.cache import frames_for
from relisten.tasks.training.examples import Corpus, Example, Report, draw_alike, fold_of
from relisten.tasks.training.loop import Schedule, products_dtype, train

BATCH_FRAMES = 2048
LEARNING_RATE = 2e-3
LAYERS_BATCH_FRAMES, LAYERS_RATE = 1024, 1e-3
"""The same for a CTC head with layers of its own, once it has learnt to hear without them."""
SPEEDS = (0.88, 1.15)
"""Frames are stretched by a factor between them."""
HIDDEN_FRAMES = 6
"""Twice an utterance, up to so many frames become its mean."""


def train_ctc(
    ctc_head: CTCHead,
    corpus: Corpus,
    dev: Sequence[Example],
    steps: int,
    seed: int,
    state: Path,
    report: Report,
) -> float:
    """Train in place, resumable from `state`; nats of the letters of a development word."""
    spelled = cache(ctc_head.labels)
    budget, rate = BATCH_FRAMES, LEARNING_RATE
    if ctc_head.layers is not None:
        budget, rate = LAYERS_BATCH_FRAMES, LAYERS_RATE
    schedule = Schedule(steps, rate, steps // 10, max(1, min(500, steps)), seed)

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        rng = np.random.default_rng([seed, step, micro])
        batch = draw_alike(corpus, lambda e: len(e.cached.frames), budget, rng)
        frames = [altered(frames_for(ctc_head, e.cached).astype(np.float32), rng) for e in batch]
        labels = [spelled(e.cached.text) for e in batch]
        ctc_head.train()
        nats = _nats(ctc_head, frames, labels)
        is_sayable = nats.isfinite()
        n_labels = sum(map(len, labels))
        loss = nats.where(is_sayable, torch.zeros_like(nats)).sum() / n_labels
        return "a letter", loss, sum(map(len, frames))

    def dev_metrics() -> dict[str, float]:
        return {"ctc": ctc_nats_per_word(ctc_head, dev)} if dev else {}

    figures = train(
        dict(ctc_head.named_parameters()), schedule, micro_step, dev_metrics, state, report
    )
    ctc_head.eval()
    return figures.get("ctc", float("nan"))


def altered(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames [T', D] as another speaker, or noise, might have left them: stretched, with gaps."""
    n_frames = max(1, round(len(frames) * rng.uniform(*SPEEDS)))
    at = np.linspace(0, len(frames) - 1, n_frames)
    lower_layers, share = at.astype(int), (at % 1).astype(np.float32)[:, None]
    above = np.minimum(lower_layers + 1, len(frames) - 1)
    stretched: np.ndarray = frames[lower_layers] * (1 - share) + frames[above] * share
    mean = stretched.mean(0)
    for _ in range(2):
        start = rng.integers(n_frames)
        stretched[start : start + rng.integers(HIDDEN_FRAMES)] = mean
    return stretched


@torch.inference_mode()
def ctc_nats_per_word(ctc_head: CTCHead, examples: Sequence[Example]) -> float:
    """What the letters of a reference word cost the CTC head, nats; unsayable ones left out."""
    ctc_head.eval()
    total, n_words = 0.0, 0
    for example in examples:
        frames = frames_for(ctc_head, example.cached).astype(np.float32)
        nats = _nats(ctc_head, [frames], [ctc_head.labels(example.cached.text)])
        if nats.isfinite():
            total += float(nats)
            n_words += len(example.words)
    return total / max(1, n_words)


def _nats(
    ctc_head: CTCHead, frames: Sequence[np.ndarray], labels: Sequence[Sequence[int]]
) -> Tensor:
    n_frames, device = [len(one) for one in frames], ctc_head.out.weight.device
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in frames], True)
    dtype = products_dtype("auto")
    is_narrow = (
        ctc_head.training and dtype == torch.bfloat16
    )  # 3 times as fast, where there is AVX-512
    with torch.autocast(device.type, dtype, enabled=is_narrow), OneDNNLinear():
        log_probs = ctc_head(padded.to(device), torch.tensor(n_frames, device=device))
    return ctc_nats(log_probs, [STEPS * ctc_head.n_pooled(n) for n in n_frames], labels)


def cross_fit_ctc(
    folder: Path,
    corpus: Corpus,
    dev: Sequence[Example],
    encoder_id: str,
    pool: int,
    folds: int,
    steps: int,
    seed: int,
    report: Report,
) -> CTCHead:
    """The CTC head trained on all transcribed examples; its state, and that of the folds', in `folder`.

    Every example's speech gets the letters that a CTC head heard in it which was trained on none of its
    speaker; those of dev, the CTC head's of all. Raises UsageError where a fold has no speaker.
    """
    everything = [e for examples, _ in corpus for e in examples]
    alphabet = alphabet_of({e.cached.text for e in everything})
    frame_dim = everything[0].cached.frames.shape[1]

    def fitted(name: str, speakers: set[str]) -> CTCHead:
        path = folder / f"{name}.safetensors"
        if path.exists():
            return CTCHead.load(path)
        if not speakers:
            raise UsageError(f"{name}: no speaker is left; cross-fitting needs more of them")
        some = [
            ([e for e in examples if e.cached.speaker in speakers], weight)
            for examples, weight in corpus
        ]
        torch.manual_seed(seed)
        ctc_head = CTCHead(frame_dim, alphabet, encoder_id, pool).to(PartialState().device)
        report(f"{name}: {sum(len(examples) for examples, _ in some)} utterances")
        train_ctc(ctc_head, [s for s in some if s[0]], dev, steps, seed, folder / name, report)
        ctc_head.cpu().save(path)
        return CTCHead.load(path)

    fold = {e.cached.speaker: fold_of(e.cached.speaker, folds) for e in everything}
    for k in range(folds):
        ctc_head = fitted(f"ctc-fold{k}", {speaker for speaker in fold if fold[speaker] != k})
        for example in everything:
            if fold[example.cached.speaker] == k:
                example.set_ctc_log_probs(ctc_head.log_probs(example.cached.frames))
    ctc_head = fitted("ctc_head", set(fold))
    for example in dev:
        example.set_ctc_log_probs(ctc_head.log_probs(example.cached.frames))
    return ctc_head


def train_encoder_layers(
    ctc_head: CTCHead,
    corpus: Corpus,
    dev: Sequence[Example],
    encoder_folder: Path,
    n_layers: int,
    steps: int,
    seed: int,
    folder: Path,
    report: Report,
) -> CTCHead:
    """The CTC head with the last n_layers of its Whisper encoder made its own; its state in `folder`.

    It starts as the CTC head that was trained without them, or what it does not know yet would spoil
    them first (arXiv:2202.10054). The speech of dev gets the letters that it hears.
    """
    path = folder / "ctc-layers.safetensors"
    if not path.exists():
        weights = read_encoder_weights(encoder_folder)
        torch.manual_seed(seed)
        grown = CTCHead(
            len(ctc_head.norm.weight),
            ctc_head.alphabet,
            layer_id(ctc_head.encoder_id, n_encoder_layers(weights) - n_layers),
            ctc_head.pool,
            len(ctc_head.second_norm.weight),
            UpperLayers(weights, n_layers),
        )
        grown.load_state_dict(ctc_head.state_dict(), strict=False)
        grown.to(PartialState().device)
        train_ctc(grown, corpus, dev, steps, seed, folder / path.stem, report)
        grown.cpu().save(path)
    grown = CTCHead.load(path, lambda: encoder_folder)
    for example in dev:
        example.set_ctc_log_probs(grown.log_probs(frames_for(grown, example.cached)))
    return grown
