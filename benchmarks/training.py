"""Tokens a second of a pre-training step: ours against the plain loop of transformers.

    python benchmarks/training.py [--model NAME] [--steps N] [--save RESULTS.json]

The same sequences (units of speech, then text) with the same LM in float32, every layer trained by
AdamW, each way in a process of its own and in turns. Plain: the LM's embeddings resized to hold the
units, one padded batch, `model(ids, labels=…).loss`, everything trained. Ours: units in tables of
their own, logits where something is scored, over what can follow there; the token embeddings stay
as they are; oneDNN's products; freed memory kept. The last line is one JSON object.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from scoring import WRITTEN_LISTS, idle_cores, machine, tell

from relisten.apps.console import keep_freed_memory
from relisten.io.nbest import load_nbest
from relisten.io.sources import resolve_model
from relisten.lm.load import load_causal_lm, text_vocabulary
from relisten.lm.model import SpeechExtension, SpeechShape, SpeechTextLM
from relisten.lm.sequences import Speech, TokenSequence, build_sequence
from relisten.lm.texts import TextEncoder
from relisten.lm.training import sequence_losses
from relisten.tasks.trainable import thaw

N_UNITS, N_SPEECH, BATCH_SIZE = 500, 110, 6
"""First-level codes; units of 4.4 s of speech at 25 Hz; sequences a step, some 768 tokens."""
Step = Callable[[], int]


def sequences_of(
    model: SpeechTextLM, texts: TextEncoder
) -> tuple[list[TokenSequence], list[Speech]]:
    """One batch: random units before written texts, all of it scored."""
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


def ours(reference: str) -> Step:
    keep_freed_memory()
    causal, tokenizer = load_causal_lm(resolve_model(reference))
    thaw(causal)
    rows = causal.get_output_embeddings().weight.shape[1]
    columns = causal.get_input_embeddings().weight.shape[1]
    extension = SpeechExtension(SpeechShape(N_UNITS), columns, rows)
    model = SpeechTextLM(causal, text_vocabulary(tokenizer, N_UNITS), extension).train()
    batch, speeches = sequences_of(model, TextEncoder(tokenizer))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-5)

    def step() -> int:
        optimiser.zero_grad()
        sequence_losses(model, batch, speeches).mean().backward()
        optimiser.step()
        return sum(len(sequence) - 1 for sequence in batch)

    return step


def plain(reference: str) -> Step:
    causal, tokenizer = load_causal_lm(resolve_model(reference))
    vocabulary = text_vocabulary(tokenizer, N_UNITS)
    batch, _ = sequences_of(SpeechTextLM(causal, vocabulary), TextEncoder(tokenizer))
    causal.resize_token_embeddings(vocabulary.n_text + 2 + N_UNITS)
    causal.requires_grad_(True).train()
    length = max(map(len, batch))
    ids = torch.full((len(batch), length), vocabulary.eos_id)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, sequence in enumerate(batch):
        n, said = len(sequence), torch.from_numpy(sequence.ids)
        ids[row, :n], mask[row, :n] = said, 1
        labels[row, :n] = torch.where(torch.from_numpy(sequence.scored > 0), said, -100)
    optimiser = torch.optim.AdamW(causal.parameters(), 1e-5)

    def step() -> int:
        optimiser.zero_grad()
        causal(ids, attention_mask=mask, labels=labels).loss.backward()
        optimiser.step()
        return sum(len(sequence) - 1 for sequence in batch)

    return step


WAYS = {"plain": plain, "ours": ours}


def tokens_a_second(way: str, reference: str, steps: int, threads: int) -> float:
    torch.set_num_threads(threads)
    step = WAYS[way](reference)
    step()  # warm-up
    best = 0.0
    for _ in range(steps):
        start = time.perf_counter()
        n_tokens = step()
        best = max(best, n_tokens / (time.perf_counter() - start))
    return best


@click.command()
@click.option("--model", "reference", default="smollm2-135m", help="Any causal LM.")
@click.option("--steps", default=4, help="Of each process; the quickest counts.")
@click.option("--rounds", default=2, help="Processes of each way, in turns.")
@click.option("--threads", type=int, help="Of every contender (default: idle cores).")
@click.option("--only", type=click.Choice(list(WAYS)), help="Time this one here and print it.")
@click.option("--save", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def main(
    reference: str,
    steps: int,
    rounds: int,
    threads: int | None,
    only: str | None,
    save: Path | None,
) -> None:
    """Time a step of pre-training."""
    threads = threads or idle_cores()
    if only:
        print(tokens_a_second(only, reference, steps, threads))
        return
    found: dict[str, float] = dict.fromkeys(WAYS, 0.0)
    for _ in range(rounds):
        for way in WAYS:
            asked = ["--only", way, "--model", reference]
            asked += ["--steps", str(steps), "--threads", str(threads)]
            output = subprocess.check_output([sys.executable, __file__, *asked], text=True)
            found[way] = max(found[way], float(output.split()[-1]))
    result = {
        **{f"{way}_tokens_per_s": round(value, 1) for way, value in found.items()},
        "speedup": float(f"{found['ours'] / found['plain']:.3g}"),
    }
    hosts = {**machine(), "threads": threads, "model": reference}
    tell(f"A step of pre-training, {reference}, float32", hosts, result, save)


if __name__ == "__main__":
    main()
