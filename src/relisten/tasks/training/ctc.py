"""Second stage: the CTC head, trained on frames that were encoded once and altered at each draw.

Its artefacts are ctc_head.safetensors, one ctc-foldK.safetensors a fold of the cross-fitting, and
ctc-layers.safetensors where it gets encoder layers of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from relisten.core.types import UsageError
from relisten.lm.backend.linear import OneDNNLinear
from relisten.speech.ctc.head import STEPS, CTCHead, alphabet_of
from relisten.speech.ctc.likelihood import ctc_nats
from relisten.speech.whisper.encoder import WhisperEncoder
from relisten.speech.whisper.layers import (
    UpperLayers,
    layer_id,
    n_encoder_layers,
    read_encoder_weights,
)
from relisten.tasks.training.batches import draw_alike
from relisten.tasks.training.cross_fit import add_ctc_log_probs, fold_of
from relisten.tasks.training.examples import Example, TrainingData, all_of
from relisten.tasks.training.features import FeatureSpec, frames_for
from relisten.tasks.training.keys import key
from relisten.tasks.training.loop import products_dtype, train
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule

BATCH_FRAMES, LEARNING_RATE = 2048, 2e-3
LAYERS_BATCH_FRAMES, LAYERS_LEARNING_RATE = 1024, 1e-3
"""The same for a CTC head with layers of its own, after its training without them."""
TIME_FACTORS = (0.88, 1.15)
"""Frames are resampled in time by a factor between them."""
HIDDEN_FRAMES = 6
"""Twice an utterance, up to so many frames become its mean."""


@dataclass(frozen=True)
class CTCConfig:
    """CTC head."""

    steps: int = key(1500, "Training steps of the CTC head; 0: the bundle gets none.")
    layers: int = key(
        0, "How many of the last layers of a Whisper encoder the CTC head then makes its own."
    )
    layer_steps: int = key(1000, "Training steps of the CTC head together with these layers.")

    def __post_init__(self) -> None:
        if self.layers and not self.steps:
            raise UsageError("ctc.layers are a CTC head's, and ctc.steps is 0: there is none")


def train_ctc_heads(
    config: CTCConfig, folds: int, spec: FeatureSpec, data: TrainingData, run: Run
) -> CTCHead | None:
    """The CTC head of the bundle; None where none is asked for, or nothing is transcribed.

    Every example's speech gets the log-probabilities of a CTC head.
    """
    if not config.steps or not data.transcribed:
        return None
    ctc_head = cross_fit_ctc(config.steps, folds, spec.encoder.id, spec.pool, data, run)
    if not config.layers:
        return ctc_head
    assert isinstance(spec.encoder, WhisperEncoder)
    return train_encoder_layers(config, ctc_head, spec.encoder, data, run)


def cross_fit_ctc(
    steps: int, folds: int, encoder_id: str, pool: int, data: TrainingData, run: Run
) -> CTCHead:
    """The CTC head trained on all transcribed examples, kept in `run.state` with the folds' heads.

    Every example's speech gets the log-probabilities of a head that was trained on none of its
    speaker; that of development examples, of the head of all. Raises UsageError where a fold has no
    speaker.
    """
    everything = all_of(data.transcribed)
    alphabet = alphabet_of({e.cached.text for e in everything})
    frame_dim = everything[0].cached.frames.shape[1]

    def fitted(name: str, speakers: set[str]) -> CTCHead:
        path = run.state / f"{name}.safetensors"
        if path.exists():
            return CTCHead.load(path)
        if not speakers:
            raise UsageError(f"{name}: no speaker is left; cross-fitting needs more of them")
        sets = [
            ([e for e in examples if e.cached.speaker in speakers], weight)
            for examples, weight in data.transcribed
        ]
        torch.manual_seed(run.seed)
        ctc_head = CTCHead(frame_dim, alphabet, encoder_id, pool).to(PartialState().device)
        run.say(f"{name}: {len(all_of(sets))} utterances")
        some = TrainingData([one for one in sets if one[0]], data.dev)
        train_ctc(ctc_head, some, ctc_schedule(ctc_head, steps), run.inside(name))
        ctc_head.cpu().save(path)
        return CTCHead.load(path)

    fold = {e.cached.speaker: fold_of(e.cached.speaker, folds) for e in everything}
    for k in range(folds):
        ctc_head = fitted(f"ctc-fold{k}", {speaker for speaker in fold if fold[speaker] != k})
        for example in everything:
            if fold[example.cached.speaker] == k:
                add_ctc_log_probs(example, ctc_head)
    ctc_head = fitted("ctc_head", set(fold))
    for example in data.dev:
        add_ctc_log_probs(example, ctc_head)
    return ctc_head


def train_encoder_layers(
    config: CTCConfig, ctc_head: CTCHead, encoder: WhisperEncoder, data: TrainingData, run: Run
) -> CTCHead:
    """The CTC head with the last layers of its encoder made its own; its state in `run.state`.

    It starts as the head that was trained without them: an untrained head would spoil the layers
    first (arXiv:2202.10054). The speech of development examples gets its log-probabilities.
    """
    path = run.state / "ctc-layers.safetensors"
    if not path.exists():
        weights = read_encoder_weights(encoder.folder)
        torch.manual_seed(run.seed)
        grown = CTCHead(
            len(ctc_head.norm.weight),
            ctc_head.alphabet,
            layer_id(ctc_head.encoder_id, n_encoder_layers(weights) - config.layers),
            ctc_head.pool,
            len(ctc_head.second_norm.weight),
            UpperLayers(weights, config.layers),
        )
        grown.load_state_dict(ctc_head.state_dict(), strict=False)
        grown.to(PartialState().device)
        train_ctc(grown, data, ctc_schedule(grown, config.layer_steps), run.inside(path.stem))
        grown.cpu().save(path)
    grown = CTCHead.load(path, lambda: encoder.folder)
    for example in data.dev:
        add_ctc_log_probs(example, grown)
    return grown


def ctc_schedule(ctc_head: CTCHead, steps: int) -> Schedule:
    """For a CTC head that is trained from the start."""
    rate = LEARNING_RATE if ctc_head.layers is None else LAYERS_LEARNING_RATE
    return Schedule(steps, rate, warmup_steps=steps // 10, eval_every=max(1, min(500, steps)))


def train_ctc(ctc_head: CTCHead, data: TrainingData, schedule: Schedule, run: Run) -> float:
    """Train in place on what is transcribed; nats per development word, NaN where there is none."""
    labels_of = cache(ctc_head.labels)
    budget = BATCH_FRAMES if ctc_head.layers is None else LAYERS_BATCH_FRAMES
    sets = data.transcribed

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        rng = np.random.default_rng([run.seed, step, micro])
        batch = draw_alike(sets, lambda e: len(e.cached.frames), budget, rng)
        frames = [altered(frames_for(ctc_head, e.cached).astype(np.float32), rng) for e in batch]
        labels = [labels_of(e.cached.text) for e in batch]
        ctc_head.train()
        nats = _nats(ctc_head, frames, labels)
        # A text with more labels than the frames can hold costs infinitely much: left out.
        finite = nats.where(nats.isfinite(), torch.zeros_like(nats))
        return "per label", finite.sum() / sum(map(len, labels)), sum(map(len, frames))

    def dev_metrics() -> dict[str, float]:
        return {"ctc": ctc_nats_per_word(ctc_head, data.dev)} if data.dev else {}

    figures = train(dict(ctc_head.named_parameters()), schedule, micro_step, dev_metrics, run)
    ctc_head.eval()
    return figures.get("ctc", float("nan"))


def altered(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames [T', D] as another speaker, or noise, might have left them: resampled in time, with
    gaps."""
    n_frames = max(1, round(len(frames) * rng.uniform(*TIME_FACTORS)))
    at = np.linspace(0, len(frames) - 1, n_frames)
    left, share = at.astype(int), (at % 1).astype(np.float32)[:, None]
    right = np.minimum(left + 1, len(frames) - 1)
    resampled: np.ndarray = frames[left] * (1 - share) + frames[right] * share
    mean = resampled.mean(0)
    for _ in range(2):
        start = rng.integers(n_frames)
        resampled[start : start + rng.integers(HIDDEN_FRAMES)] = mean
    return resampled


@torch.inference_mode()
def ctc_nats_per_word(ctc_head: CTCHead, examples: Sequence[Example]) -> float:
    """Nats per reference word that the CTC head gives the labels of its text; texts with more
    labels than the frames can hold are left out."""
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
    # bfloat16 is 3 times as fast where there is AVX-512.
    is_narrow = ctc_head.training and dtype == torch.bfloat16
    with torch.autocast(device.type, dtype, enabled=is_narrow), OneDNNLinear():
        log_probs = ctc_head(padded.to(device), torch.tensor(n_frames, device=device))
    return ctc_nats(log_probs, [STEPS * ctc_head.n_pooled(n) for n in n_frames], labels)
