"""Training a speech-text LM on a mixture of sequence orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from relisten.lm.model import SpeechTextLM
from relisten.lm.sequences import Order
from relisten.tasks.training.examples import (
    Corpus,
    Example,
    Report,
    draw_batch,
    example_losses,
    n_positions,
    nats_a_word,
)
from relisten.tasks.training.loop import Schedule, train
from relisten.tasks.training.trainable import trained_parameters


@dataclass(frozen=True)
class Training:
    """What to train on, how long and how hard. tasks: order → weight in the mixture; batch_tokens:
    of a micro-step, padding included; dtype: of the products, where the LM's own is wider."""

    tasks: Mapping[Order, float]
    batch_tokens: int
    schedule: Schedule
    dtype: torch.dtype = torch.float32


def train_lm(
    model: SpeechTextLM,
    training: Training,
    corpus: Corpus,
    dev: Sequence[Example],
    state: Path,
    report: Report,
) -> dict[str, float]:
    """Train in place; nats a development word in each order at the end."""
    trained = trained_parameters(model)

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        order, batch = draw_batch(
            corpus, training.tasks, training.batch_tokens, training.schedule.seed, step, micro
        )
        model.train()
        is_narrower = training.dtype.itemsize < model.dtype.itemsize
        with torch.autocast(model.device.type, training.dtype, enabled=is_narrower):
            loss = example_losses(model, order, batch, is_cross_fitted=True).mean()
        return order, loss, sum(n_positions(order, example) for example in batch)

    def dev_metrics() -> dict[str, float]:
        return _dev_metrics(model, training, dev) if dev else {}

    return train(trained, training.schedule, micro_step, dev_metrics, state, report)


def _dev_metrics(
    model: SpeechTextLM, training: Training, dev: Sequence[Example]
) -> dict[str, float]:
    nats = {str(order): nats_a_word(model, order, dev) for order in training.tasks}
    for order in set(training.tasks) & {"speech_first", "interleaved", "chunked"}:
        nats[f"{order}, wrong speech"] = nats_a_word(model, order, dev, wrong_speech=True)
    return nats
