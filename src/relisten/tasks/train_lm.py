"""Training a speech-text LM on a mixture of sequence orders: LoRA and the speech extension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relisten.lm.model import SpeechTextLM
from relisten.lm.sequences import Order
from relisten.tasks.examples import (
    Corpus,
    Example,
    Report,
    draw_batch,
    example_losses,
    n_positions,
    nats_a_word,
)
from relisten.tasks.loop import Schedule, train

_SCHOOLED = ("projector.up", "projector.query", "projector.norm", "projector.prior")


@dataclass(frozen=True)
class Training:
    """What to train on, how long and how hard. tasks: order → weight in the mixture; batch_tokens:
    of a micro-step, padding included; dtype: of the products, where the LM's own is wider."""

    tasks: Mapping[Order, float]
    batch_tokens: int
    schedule: Schedule
    dtype: torch.dtype = torch.float32


def add_lora(causal: nn.Module, rank: int, base: str, seed: int) -> dict[str, Any]:
    """Inject LoRA into every linear layer but the head; what adapter_config.json is to say."""
    from peft import LoraConfig, inject_adapter_in_model

    head = causal.get_output_embeddings()
    layers = {
        name: type(module).__name__
        for name, module in causal.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not head
    }
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=sorted({name.rsplit(".", 1)[-1] for name in layers}),
        fan_in_fan_out="Conv1D" in layers.values(),
    )
    torch.manual_seed(seed)
    causal.requires_grad_(False)
    inject_adapter_in_model(config, causal)
    for name, parameter in causal.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return {
        "peft_type": "LORA",
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": sorted(config.target_modules),
        "fan_in_fan_out": config.fan_in_fan_out,
        "base_model_name_or_path": base,
    }


def thaw(causal: nn.Module) -> None:
    """Set every weight of the LM to be trained but its token embeddings: what the projector was
    schooled to guess lies in their space."""
    causal.requires_grad_(True)
    causal.get_input_embeddings().requires_grad_(False)


def lora_tensors(causal: nn.Module) -> dict[str, Tensor]:
    """The LoRA weights under peft's names, half precision."""
    return {
        "base_model.model." + name.replace(".default", ""): parameter.detach().half()
        for name, parameter in causal.named_parameters()
        if "lora_" in name
    }


def train_lm(
    model: SpeechTextLM,
    training: Training,
    corpus: Corpus,
    dev: Sequence[Example],
    state: Path,
    report: Report,
) -> dict[str, float]:
    """Train in place; nats a development word in each order at the end.

    What the projector was schooled in stays as it is.
    """
    for name, parameter in model.named_parameters():
        if name.startswith("extension."):
            parameter.requires_grad_(not name.removeprefix("extension.").startswith(_SCHOOLED))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        order, batch = draw_batch(
            corpus, training.tasks, training.batch_tokens, training.schedule.seed, step, micro
        )
        model.train()
        is_narrower = training.dtype.itemsize < model.dtype.itemsize
        with torch.autocast(model.device.type, training.dtype, enabled=is_narrower):
            loss = example_losses(model, order, batch, is_cross_fitted=True).mean()
        return order, loss, sum(n_positions(order, example) for example in batch)

    def gauge() -> dict[str, float]:
        return _gauge(model, training, dev) if dev else {}

    return train(trained, training.schedule, micro_step, gauge, state, report)


def _gauge(model: SpeechTextLM, training: Training, dev: Sequence[Example]) -> dict[str, float]:
    nats = {str(order): nats_a_word(model, order, dev) for order in training.tasks}
    for order in set(training.tasks) & {"speech_first", "interleaved", "chunked"}:
        nats[f"{order}, wrong speech"] = nats_a_word(model, order, dev, wrong_speech=True)
    return nats
