"""Seconds of a training step of the recogniser: ours against the plain loop of transformers.

    python benchmarks/learn.py SPEECH.jsonl [--first-pass NAME] [--save RESULTS.json]

The same recordings, 16 a step, and a Whisper of the same size in float32, trained whole with AdamW.
Plain: as the documentation of transformers fine-tunes it, windows of 30 s, `model(features,
labels).loss`. Its weights are random, which costs the same. Ours: what `relisten learn` does. The
two take turns. The last line is one JSON object.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from scoring import idle_cores, machine, tell
from transformers import WhisperConfig, WhisperForConditionalGeneration

from relisten.apps.console import bound_memory
from relisten.io.nbest import read_nbest
from relisten.io.sources import resolve_model
from relisten.speech.whisper.features import log_mel
from relisten.speech.whisper.model import WhisperModel
from relisten.tasks.training.loop import adamw
from relisten.tasks.training.recogniser import IGNORED, UTTERANCES_PER_STEP, RecogniserTraining
from relisten.tasks.training.recordings import Recording, keep_recordings, kept_recordings
from relisten.tasks.training.run import Run

Step = Callable[[int], None]


def ours(folder: Path, training: RecogniserTraining) -> Step:
    model = WhisperModel(folder).train()
    optimiser = adamw([{"params": list(model.trained().values())}], 1e-5)

    def step(number: int) -> None:
        mels, tokens, labels = training._batch(np.random.default_rng(number), model.n_mels)
        optimiser.zero_grad()
        logits = model.logits(model(mels, tokens)[labels != IGNORED])
        torch.nn.functional.cross_entropy(logits, labels[labels != IGNORED]).backward()
        optimiser.step()

    return step


def plain(folder: Path, training: RecogniserTraining) -> Step:
    own = WhisperModel(folder)
    width = len(
        next(value for name, value in own.trained().items() if name.endswith("layer_norm/beta"))
    )
    layers = {side: _n_layers(own, side) for side in ("encoder", "decoder")}
    config = WhisperConfig(
        vocab_size=training.recogniser.tokenizer.get_vocab_size(),
        num_mel_bins=own.n_mels,
        d_model=width,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
    )
    model = WhisperForConditionalGeneration(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-5)

    def step(number: int) -> None:
        rng = np.random.default_rng(number)
        start = int(rng.integers(len(training.examples) - UTTERANCES_PER_STEP + 1))
        some = training.examples[start : start + UTTERANCES_PER_STEP]
        features = torch.from_numpy(log_mel([one.samples() for one in some], 30, own.n_mels))
        rows = [[*training._label(one), training.recogniser.end] for one in some]
        labels = torch.full((len(rows), max(map(len, rows))), IGNORED)
        for row, ids in enumerate(rows):
            labels[row, : len(ids)] = torch.tensor(ids)
        optimiser.zero_grad()
        model(input_features=features, labels=labels).loss.backward()
        optimiser.step()

    return step


def _n_layers(model: WhisperModel, side: str) -> int:
    numbers = {name.split("/")[1] for name in model.trained() if name.startswith(f"{side}/layer_")}
    return len(numbers)


@click.command()
@click.argument("manifest")
@click.option("--first-pass", default="whisper-tiny.en", help="The Whisper, CTranslate2 form.")
@click.option("--steps", default=4, help="Steps of each way; the quickest counts.")
@click.option("--utterances", default=200, help="How many of the manifest are drawn from.")
@click.option("--save", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def main(manifest: str, first_pass: str, steps: int, utterances: int, save: Path | None) -> None:
    """Time a training step of the recogniser."""
    bound_memory()
    torch.set_num_threads(idle_cores())
    folder = resolve_model(first_pass)
    with tempfile.TemporaryDirectory() as place:
        some = list(read_nbest(manifest))[:utterances]
        list(keep_recordings(some, manifest, Path(place) / "pcm"))
        kept: list[Recording] = kept_recordings(some, Path(place) / "pcm")
        training = RecogniserTraining(folder, "en", "english", kept, [], Run(Path(place), 0, print))
        ways = {"plain": plain(folder, training), "ours": ours(folder, training)}
        best = dict.fromkeys(ways, float("inf"))
        for number in range(steps + 1):  # the first warms up
            for name, step in ways.items():
                start = time.perf_counter()
                step(number)
                if number:
                    best[name] = min(best[name], time.perf_counter() - start)
    seconds = {f"seconds a step, {name}": round(value, 2) for name, value in best.items()}
    ratio = round(best["plain"] / best["ours"], 1)
    tell("recogniser training", machine(), {**seconds, "plain / ours": ratio}, save)


if __name__ == "__main__":
    main()
