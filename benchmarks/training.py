"""Tokens per second of a pre-training step: ours against the plain loop of transformers.

    python benchmarks/training.py [--model NAME] [--layers N] [--lora-rank R] [--save RESULTS.json]

The same sequences (units of speech, then text) and the same LM in float32, trained with AdamW; each
way runs in a process of its own, in turns, and is measured in wall-clock and in CPU seconds. Plain:
the LM's embeddings resized to hold the units, one padded batch, `model(ids, labels=…).loss`,
everything trained. Ours: units in tables of their own, logits only where something is scored and
over what can follow there, frozen token embeddings, products by the quicker of oneDNN and MKL,
AdamW in one pass, freed memory kept. Products: the matrix products of our step alone. The last line
is one JSON object.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scoring import WRITTEN_LISTS, idle_cores, machine, tell
from torch import nn

from relisten.apps.console import bound_memory
from relisten.io.nbest import load_nbest
from relisten.io.sources import resolve_model
from relisten.lm.backend.linear import OneDNNLinear
from relisten.lm.load import load_causal_lm, text_vocabulary
from relisten.lm.model import SpeechExtension, SpeechShape, SpeechTextLM
from relisten.lm.sequences import Speech, TokenSequence, build_sequence
from relisten.lm.texts import TextEncoder
from relisten.lm.training import sequence_losses
from relisten.tasks.training.loop import adamw
from relisten.tasks.training.trainable import add_lora, thaw

N_UNITS, N_SPEECH, BATCH_SIZE = 500, 110, 6
"""First-level codes; units of 4.4 s of speech at 25 Hz; sequences per step, some 768 tokens."""
Step = Callable[[], int]
"""Trains one step and returns the number of tokens fed."""


@dataclass(frozen=True)
class Setting:
    """What is trained. layers: only the first so many (0: all); lora_rank: 0 for all weights."""

    reference: str
    layers: int
    lora_rank: int

    def load(self) -> tuple[nn.Module, Any]:
        causal, tokenizer = load_causal_lm(resolve_model(self.reference))
        if self.layers:
            causal.base_model.layers = causal.base_model.layers[: self.layers]
        return causal, tokenizer


def sequences_of(
    model: SpeechTextLM, texts: TextEncoder
) -> tuple[list[TokenSequence], list[Speech]]:
    """One batch: random units before written texts, which are scored."""
    rng = np.random.default_rng(0)
    lines = [u.hypotheses[0].text for u in load_nbest(WRITTEN_LISTS) if u.hypotheses]
    chosen = random.Random(0).sample(lines, BATCH_SIZE)
    speeches = [
        Speech(rng.integers(0, N_UNITS, (N_SPEECH, 1)).astype(np.int32), 0.04) for _ in chosen
    ]
    built = [
        build_sequence("speech_first", model.vocabulary, texts.words(text), speech)
        for text, speech in zip(chosen, speeches, strict=True)
    ]
    return built, speeches


def ours(setting: Setting) -> Step:
    model, batch, speeches = our_batch(setting)
    optimiser = adamw([{"params": [p for p in model.parameters() if p.requires_grad]}], 1e-5)

    def step() -> int:
        optimiser.zero_grad()
        sequence_losses(model, batch, speeches).mean().backward()
        optimiser.step()
        return n_fed(batch)

    return step


def our_batch(setting: Setting) -> tuple[SpeechTextLM, list[TokenSequence], list[Speech]]:
    bound_memory()
    causal, tokenizer = setting.load()
    if setting.lora_rank:
        add_lora(causal, setting.lora_rank, setting.reference, 0)
    else:
        thaw(causal)
    rows = causal.get_output_embeddings().weight.shape[1]
    columns = causal.get_input_embeddings().weight.shape[1]
    extension = SpeechExtension(SpeechShape(N_UNITS), columns, rows)
    model = SpeechTextLM(causal, text_vocabulary(tokenizer, N_UNITS), extension).train()
    return model, *sequences_of(model, TextEncoder(tokenizer))


def plain(setting: Setting) -> Step:
    causal, tokenizer = setting.load()
    vocabulary = text_vocabulary(tokenizer, N_UNITS)
    batch, _ = sequences_of(SpeechTextLM(causal, vocabulary), TextEncoder(tokenizer))
    causal.resize_token_embeddings(vocabulary.first_unit_id + N_UNITS)
    causal.requires_grad_(True).train()
    if setting.lora_rank:
        add_lora(causal, setting.lora_rank, setting.reference, 0)
        causal.get_input_embeddings().requires_grad_(True)  # the units' rows are among them
    length = max(map(len, batch))
    ids = torch.full((len(batch), length), vocabulary.eos_id)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, sequence in enumerate(batch):
        n, own = len(sequence), torch.from_numpy(sequence.ids)
        ids[row, :n], mask[row, :n] = own, 1
        labels[row, :n] = torch.where(torch.from_numpy(sequence.scored > 0), own, -100)
    optimiser = torch.optim.AdamW([p for p in causal.parameters() if p.requires_grad], 1e-5)

    def step() -> int:
        optimiser.zero_grad()
        causal(ids, attention_mask=mask, labels=labels).loss.backward()
        optimiser.step()
        return n_fed(batch)

    return step


def products(setting: Setting) -> Step:
    """The matrix products of our step and nothing else: a lower bound of its time."""
    model, batch, _ = our_batch(setting)
    head = model.causal.get_output_embeddings()
    layers = [m for m in model.causal.base_model.modules() if isinstance(m, nn.Linear)]
    n_scored = sum(int((sequence.scored > 0).sum()) for sequence in batch)
    work = [
        (rows, torch.randn(rows, layer.in_features, requires_grad=True), layer.weight)
        for rows, some in ((n_fed(batch), layers), (n_scored, [head]))
        for layer in some
    ]

    def step() -> int:
        for rows, x, weight in work:
            with OneDNNLinear():
                y = nn.functional.linear(x, weight)
            wanted = [x, weight] if weight.requires_grad else [x]
            torch.autograd.grad(y, wanted, torch.ones(rows, len(weight)))
        return n_fed(batch)

    return step


def n_fed(batch: list[TokenSequence]) -> int:
    return sum(len(sequence) - 1 for sequence in batch)


WAYS = {"plain": plain, "ours": ours, "products": products}


def tokens_per_second(way: str, setting: Setting, steps: int, threads: int) -> tuple[float, float]:
    """Per wall-clock second, and per CPU second of all threads together."""
    torch.set_num_threads(threads)
    step = WAYS[way](setting)
    step()  # warm-up
    best = best_cpu = 0.0
    for _ in range(steps):
        start, start_cpu = time.perf_counter(), time.process_time()
        n_tokens = step()
        best = max(best, n_tokens / (time.perf_counter() - start))
        best_cpu = max(best_cpu, n_tokens / (time.process_time() - start_cpu))
    return best, best_cpu


@click.command()
@click.option("--model", "reference", default="smollm2-135m", help="Any causal LM.")
@click.option("--layers", default=0, help="Train a small LM of its first so many layers (0: all).")
@click.option("--lora-rank", default=0, help="Train LoRA of this rank (0: all weights).")
@click.option("--steps", default=4, help="Steps of each process; the quickest counts.")
@click.option("--rounds", default=2, help="Processes of each way, in turns.")
@click.option("--threads", type=int, help="Threads of every way (default: idle cores).")
@click.option(
    "--only", type=click.Choice(list(WAYS)), help="Time this way in this process and print it."
)
@click.option("--save", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def main(
    reference: str,
    layers: int,
    lora_rank: int,
    steps: int,
    rounds: int,
    threads: int | None,
    only: str | None,
    save: Path | None,
) -> None:
    """Time a step of pre-training."""
    threads = threads or idle_cores()
    if only:
        print(*tokens_per_second(only, Setting(reference, layers, lora_rank), steps, threads))
        return
    found = {way: np.zeros(2) for way in WAYS}
    asked = ["--model", reference, "--layers", layers, "--lora-rank", lora_rank]
    asked += ["--steps", steps, "--threads", threads]
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--only", way, *map(str, asked)]
            output = subprocess.check_output(command, text=True)
            found[way] = np.maximum(found[way], [float(f) for f in output.split()[-2:]])
    result = {
        **{f"{way}_tokens_per_s": round(float(value[0]), 1) for way, value in found.items()},
        **{f"{way}_tokens_per_cpu_s": round(float(value[1]), 1) for way, value in found.items()},
        "speedup": float(f"{found['ours'][0] / found['plain'][0]:.3g}"),
        "cpu_speedup": float(f"{found['ours'][1] / found['plain'][1]:.3g}"),
    }
    of = {"model": reference, "layers": layers or "all", "lora_rank": lora_rank or "none"}
    hosts = {**machine(), "threads": threads, **of}
    tell(f"A step of pre-training, {reference}, float32", hosts, result, save)


if __name__ == "__main__":
    main()
