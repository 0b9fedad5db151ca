"""What `pretrain` or `adapt` would take, from the configuration and the LM's config.json alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from relisten.io.bundle import (
    ADAPTER_CONFIG,
    CODEBOOK,
    read_bundle,
    resolve_base,
    resolve_bundle,
)
from relisten.io.nbest import read_nbest
from relisten.lm.load import load_causal_config
from relisten.lm.model import SpeechExtension, SpeechShape
from relisten.speech.codebook import Codebook
from relisten.tasks.adapt import AdaptConfig, default_tasks
from relisten.tasks.pretrain import PretrainConfig
from relisten.tasks.training.codebook import CodebookConfig
from relisten.tasks.training.lm import LMConfig
from relisten.tasks.training.trainable import add_lora

GPU_BYTES = 80e9
GPU_SHARE = 0.9
"""Of a GPU's memory that is filled; the rest is the allocator's."""
SPEEDS: Mapping[str, float] = {
    "2 CPU cores": 0.18e12,
    "A100 80 GB": 0.4 * 312e12,
    "H100 80 GB": 0.4 * 989e12,
}
"""FLOP/s. Two cores read 320 tokens/s with SmolLM2-135M and LoRA, 0.57 GFLOP each (measured); GPUs
are taken at 40 % of what their makers publish for dense bfloat16 products."""
KEPT_BYTES: Mapping[str, tuple[int, int, int]] = {"bfloat16": (40, 4, 10), "float32": (36, 8, 16)}
"""What a layer keeps of a token for the backward pass, bytes for each dimension of (hidden state,
keys, feed-forward). Counted on autograd's saved tensors of a Llama, the greater of full training
and LoRA, which in bfloat16 keeps its inputs in float32."""


@dataclass(frozen=True)
class Source:
    """A manifest. n_utterances: that have a recording or a reference; None where the file is not
    there. hours: of those n_timed that say how long they last."""

    path: str
    n_utterances: int | None = None
    n_timed: int = 0
    hours: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """What it takes. Bytes: on one device that holds all; flops and hours: of arithmetic alone.

    n_parameters: of the LM; n_trained: of these or of LoRA; n_speech: of units and markers, trained
    too (the projector of chunks, a few million, is not counted). kept_bytes: activations.
    """

    architecture: str
    n_parameters: int
    n_trained: int
    n_speech: int
    tokens_per_step: int
    n_steps: int
    weight_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    kept_bytes: int
    flops_per_token: float
    sources: tuple[Source, ...] = field(default=())

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return self.flops_per_token * self.tokens_per_step * self.n_steps

    @property
    def hours(self) -> dict[str, float]:
        """On each machine of `SPEEDS`."""
        return {name: self.flops / speed / 3600 for name, speed in SPEEDS.items()}

    @property
    def n_gpus(self) -> int | None:
        """GPUs of 80 GB that share weights, gradients and optimiser state; each keeps a batch of
        its own. None where a batch alone is too much."""
        left = GPU_SHARE * GPU_BYTES - self.kept_bytes
        shared = self.weight_bytes + self.gradient_bytes + self.optimiser_bytes
        return math.ceil(shared / left) if left > 0 else None


def estimate(config: PretrainConfig) -> Estimate:
    """What `pretrain(config)` would take; nothing is loaded, encoded or trained.

    Beside LoRA, weights count in config.dtype; what is trained in float32, as do its gradients and
    AdamW's two moments. Activations: `KEPT_BYTES` for each token of a batch and layer, and the
    float32 log-probabilities of its text vocabulary. FLOPs per token: 2 N forward and 2 N
    back to the inputs for the N parameters that multiply (an input table apart from the head does
    not), 2 for each trained one: 6 N where all are, 4 N and a little with LoRA. Attention itself,
    below 2 % at 500 tokens, is left out, and so is encoding the manifests once.
    Raises ModelError where the LM's config.json cannot be had.
    """
    lm = load_causal_config(config.lm.base)
    causal = _without_memory(lm)
    embedded, head = causal.get_input_embeddings().weight, causal.get_output_embeddings().weight
    n_lm = sum(p.numel() for p in causal.parameters())
    if config.lm.lora_rank:
        with torch.device("meta"):
            add_lora(causal, config.lm.lora_rank, config.lm.base, config.seed)
    else:
        embedded.requires_grad_(False)  # they stay what the projector guesses among
    n_trained = sum(p.numel() for p in causal.parameters() if p.requires_grad)
    n_all = sum(p.numel() for p in causal.parameters())
    n_speech = 0
    if config.lm.has_speech:
        shape = SpeechShape(config.codebook.units, config.codebook.levels)
        extension = SpeechExtension(shape, embedded.shape[1], head.shape[1])
        n_speech = sum(p.numel() for p in extension.parameters())
    multiply = n_all - (0 if embedded is head else embedded.numel())
    n_bytes = 2 if config.lm.lora_rank and config.dtype != "float32" else 4
    floats = 4 * (n_trained + n_speech)
    return Estimate(
        architecture=lm.model_type,
        n_parameters=n_lm,
        n_trained=n_trained,
        n_speech=n_speech,
        tokens_per_step=config.lm.batch_tokens * config.schedule.accumulate,
        n_steps=config.schedule.steps,
        weight_bytes=n_bytes * (n_all - n_trained) + floats,
        gradient_bytes=floats,
        optimiser_bytes=2 * floats,
        kept_bytes=config.lm.batch_tokens * _kept_per_token(lm, config.dtype),
        flops_per_token=4.0 * multiply + 2.0 * n_trained,
        sources=tuple(_source(path) for path in (*config.manifests, *config.dev_manifests)),
    )


def as_pretraining(config: AdaptConfig) -> PretrainConfig:
    """The pre-training that takes what an adaptation takes: of the same LM, adapter, units and
    tasks, by the same schedule.

    Raises ModelError where the bundle, or the LM that it was made on, cannot be had.
    """
    folder = resolve_bundle(config.model)
    bundle = read_bundle(folder)
    rank, units = config.lora_rank, CodebookConfig()
    if (folder / ADAPTER_CONFIG).is_file():
        rank = json.loads((folder / ADAPTER_CONFIG).read_text())["r"]
    if bundle.has_speech:
        codebook = Codebook.load(folder / CODEBOOK)
        units = CodebookConfig(codebook.n_units, codebook.levels)
    tasks = config.tasks or default_tasks(config, bundle)
    return PretrainConfig(
        output=config.output,
        manifests={**config.manifests, **config.replay},
        dev_manifests=config.dev_manifests,
        codebook=units,
        lm=LMConfig(str(resolve_base(folder, bundle)), "spoken", tasks, rank, config.batch_tokens),
        schedule=config.schedule,
        dtype=config.dtype,
    )


def _without_memory(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _kept_per_token(lm: Any, dtype: str) -> int:
    """Bytes that the forward pass of a token leaves behind for the backward pass."""
    hidden = lm.hidden_size
    head_dim = getattr(lm, "head_dim", None) or hidden // lm.num_attention_heads
    keys = head_dim * (getattr(lm, "num_key_value_heads", None) or lm.num_attention_heads)
    sizes = (getattr(lm, name, None) for name in ("intermediate_size", "ffn_dim", "n_inner"))
    forward = next(filter(None, sizes), 4 * hidden)
    of_hidden, of_keys, of_forward = KEPT_BYTES.get(dtype, KEPT_BYTES["bfloat16"])
    layer = of_hidden * hidden + of_keys * keys + of_forward * forward
    return lm.num_hidden_layers * layer + 4 * lm.vocab_size


def _source(path: str) -> Source:
    if not Path(path).is_file():
        return Source(path)
    utterances = [u.duration_s for u in read_nbest(path) if u.reference or u.audio]
    known = [seconds for seconds in utterances if seconds is not None]
    return Source(path, len(utterances), len(known), sum(known) / 3600)


def describe_estimate(config: PretrainConfig, found: Estimate) -> str:
    """The estimate as lines of text."""
    n_tokens = found.tokens_per_step * found.n_steps
    how = (
        f"LoRA of rank {config.lm.lora_rank}" if config.lm.lora_rank else "all but token embeddings"
    )
    gigabytes = {
        "weights": found.weight_bytes,
        "gradients": found.gradient_bytes,
        "optimiser": found.optimiser_bytes,
        "activations": found.kept_bytes,
    }
    parts = ", ".join(f"{name} {n / 1e9:.1f}" for name, n in gigabytes.items())
    gpus = f"{found.n_gpus} of 80 GB" if found.n_gpus else "none of 80 GB; lower lm.batch_tokens"
    gigaflops = found.flops_per_token / 1e9
    hours = " · ".join(f"{name} {_short(h)}" for name, h in found.hours.items())
    rows = {
        "LM": f"{config.lm.base}: {found.architecture}, {found.n_parameters:,} parameters",
        "trained": f"{found.n_trained:,} ({how}), {found.n_speech:,} of units and markers",
        "steps": f"{found.n_steps:,} of {found.tokens_per_step:,} tokens, {n_tokens:,} in all",
        "gigabytes": f"{parts}; {sum(gigabytes.values()) / 1e9:.1f} in all",
        "GPUs": gpus,
        "arithmetic": f"{gigaflops:.2f} GFLOP per token, {found.flops:.2e} in all",
        "hours": f"{hours}; encoding the recordings is not counted",
    }
    lines = [f"{name:<12}{row}" for name, row in rows.items()]
    return "\n".join([*lines, "manifests", *(f"  {_source_line(s)}" for s in found.sources)])


def _source_line(source: Source) -> str:
    if source.n_utterances is None:
        return f"{source.path}: not there yet"
    timed = "" if source.n_timed == source.n_utterances else f" of the {source.n_timed} timed"
    return f"{source.path}: {source.n_utterances:,} utterances, {source.hours:.1f} hours{timed}"


def _short(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
