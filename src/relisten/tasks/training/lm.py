"""Last stage: the LM, trained on a mixture of sequence orders of speech and text. Its artefacts are
the bundle's adapter (or its whole LM) and extension."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from relisten.core.types import UsageError
from relisten.lm.model import ChunkProjector, SpeechExtension, SpeechShape, SpeechTextLM
from relisten.lm.sequences import Order, build_sequence
from relisten.lm.texts import TextForm
from relisten.lm.training import sequence_losses
from relisten.tasks.training.batches import draw_batch, n_positions
from relisten.tasks.training.codebook import CodebookConfig
from relisten.tasks.training.examples import Example, TrainingData
from relisten.tasks.training.keys import ModelReference, key
from relisten.tasks.training.loop import train
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.training.trainable import trained_parameters

SPEECH_ORDERS = frozenset({"speech_first", "interleaved", "chunked"})
"""The orders of text given speech, of which a bundle is asked in one."""


@dataclass(frozen=True)
class LMConfig:
    """Language model."""

    base: ModelReference = key("smollm2-135m", "Causal LM to start from.")
    text_form: TextForm = key(
        "spoken", "How the LM reads text: as it is written, or as it is spoken."
    )
    tasks: Mapping[Order, float] = key(
        {"chunked": 0.75, "text": 0.25},
        f"Sequence order → weight in the mixture; of {', '.join(get_args(Order))}. With text alone "
        "the bundle is a text LM.",
    )
    lora_rank: int = key(16, "Rank of the LoRA adapter; 0: train all layers of the LM instead.")
    batch_tokens: int = key(1024, "Tokens of a batch, padding included.")

    def __post_init__(self) -> None:
        unknown = sorted(set(self.tasks) - set(get_args(Order)))
        if unknown or not self.tasks:
            raise UsageError(
                f"lm.tasks {unknown or 'none'}: give some of {', '.join(get_args(Order))}"
            )
        if len(self.tasks.keys() & SPEECH_ORDERS) > 1:
            raise UsageError(
                "a bundle is asked for text given speech in one order; name one in lm.tasks"
            )

    @property
    def has_speech(self) -> bool:
        """Whether any task is made of speech."""
        return set(self.tasks) != {"text"}


def speech_extension(
    causal: nn.Module,
    config: CodebookConfig,
    projector: ChunkProjector | None,
    transcribed: Sequence[Example],
    n_text: int,
    seed: int,
) -> SpeechExtension:
    """What the LM gets for speech; projector: trained already, where the task `chunked` needs it.

    Markers start as the average token of the transcripts (of the n_text of the tokenizer, where
    nothing is transcribed), in and out: with zeros for output rows every closed word would cost 16
    nats at first.
    """
    table = causal.get_input_embeddings().weight.detach().float()
    head = causal.get_output_embeddings().weight.detach().float()
    torch.manual_seed(seed)
    shape = SpeechShape(config.units, config.levels)
    if projector is not None:
        sizes = len(projector.norm.weight), len(projector.prior)
        shape = SpeechShape(config.units, config.levels, *sizes)
    extension = SpeechExtension(shape, table.shape[1], head.shape[1])
    extension.projector = projector
    counts = Counter(token for e in transcribed for word in e.words for token in word)
    counts = counts or Counter(range(n_text))
    tokens, share = torch.tensor(list(counts)), torch.tensor(list(counts.values())).float()
    share /= share.sum()
    extension.marker_embedding.data[:] = share @ table[tokens]
    extension.marker_head.data[:] = share @ head[tokens]
    return extension


@dataclass(frozen=True)
class Training:
    """What the LM is trained on, how long and how hard.

    tasks: order → weight in the mixture. batch_tokens: of a micro-step, padding included. dtype: of
    the products, where the LM's own is wider.
    """

    tasks: Mapping[Order, float]
    batch_tokens: int
    schedule: Schedule
    dtype: torch.dtype = torch.float32


def train_lm(
    model: SpeechTextLM, training: Training, data: TrainingData, run: Run
) -> dict[str, float]:
    """Train in place; nats per development word in each order at the end."""
    trained = trained_parameters(model)

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        order, batch = draw_batch(
            data.sets, training.tasks, training.batch_tokens, run.seed, step, micro
        )
        model.train()
        is_narrower = training.dtype.itemsize < model.dtype.itemsize
        with torch.autocast(model.device.type, training.dtype, enabled=is_narrower):
            loss = example_losses(model, order, batch, is_cross_fitted=True).mean()
        return order, loss, sum(n_positions(order, example) for example in batch)

    def dev_metrics() -> dict[str, float]:
        return _dev_metrics(model, training, data.dev) if data.dev else {}

    return train(trained, training.schedule, micro_step, dev_metrics, run)


def _dev_metrics(
    model: SpeechTextLM, training: Training, dev: Sequence[Example]
) -> dict[str, float]:
    nats = {str(order): nats_per_word(model, order, dev) for order in training.tasks}
    for order in set(training.tasks) & SPEECH_ORDERS:
        nats[f"{order}, wrong speech"] = nats_per_word(model, order, dev, wrong_speech=True)
    return nats


def example_losses(
    model: SpeechTextLM, order: Order, batch: Sequence[Example], is_cross_fitted: bool
) -> Tensor:
    """Nats of every scored token of a batch, float32 [K].

    is_cross_fitted: chunks enter as the examples' own guesses, where they have them, and not as
    those of the model's projector.
    """
    guesses = None
    if order == "chunked" and is_cross_fitted:
        guesses = [e.guesses.astype(np.float32) for e in batch if e.guesses is not None]
    speeches = [None if order == "text" else e.speech for e in batch]
    sequences = [
        build_sequence(order, model.vocabulary, e.words, e.speech, e.cached.word_ends_s)
        for e in batch
    ]
    return sequence_losses(model, sequences, speeches, guesses)


@torch.inference_mode()
def nats_per_word(
    model: SpeechTextLM, order: Order, examples: Sequence[Example], wrong_speech: bool = False
) -> float:
    """What a reference word costs the model, nats.

    wrong_speech: each reference is read with another recording's speech, resampled to the length of
    its own and cut at the same places. The difference tells whether the model uses speech.
    """
    model.eval()
    if wrong_speech:
        half = len(examples) // 2
        others = [*examples[half:], *examples[:half]]
        examples = [
            replace(e, speech=other.speech.stretched(len(e.speech)))
            for e, other in zip(examples, others, strict=True)
        ]
    total = 0.0
    for i in range(0, len(examples), 8):
        total += float(example_losses(model, order, examples[i : i + 8], False).sum())
    return total / sum(len(e.words) for e in examples)
