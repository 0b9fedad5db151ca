"""A Whisper taught the user's speech: encoder and decoder trained on short windows, then written
back into CTranslate2's form, in which it decodes as fast as before.

The recordings are played faster and slower and get gaps in time and frequency (SpecAugment,
arXiv:1904.08779). Transcripts keep their way of writing; what is all in capitals becomes lower
case.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from torch.nn import functional

from relisten.core.error_rates import word_errors
from relisten.core.text import cached_normaliser, lower_if_capitals
from relisten.core.types import UsageError
from relisten.io.audio import RATE_HZ, from_samples
from relisten.io.ct2 import write_ct2_weights
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.whisper.ctranslate2 import MAX_TOKENS, CTranslate2Whisper
from relisten.speech.whisper.encoder import SHORT_WINDOWS, short_window_s
from relisten.speech.whisper.features import log_mel
from relisten.speech.whisper.model import WhisperModel
from relisten.tasks.training.loop import products_dtype, train
from relisten.tasks.training.recordings import Recording
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule

SILENCE_S = 0.5
"""Behind the speech of each window."""
UTTERANCES_PER_STEP = 16
PLAYED_AT = (0.9, 1.0, 1.1)
TIME_MASKS, TIME_MASK_SHARE = 2, 0.1
"""Gaps in time, each up to a share of the window."""
BAND_MASKS, BAND_MASK_MELS = 2, 12
"""Gaps in frequency, each up to so many of 80 bands."""
TIMED_STEPS = 4
"""To tell how long training will take; the first of them does not count."""
IGNORED = -100
"""Label of a position that costs nothing."""


@dataclass
class RecogniserTraining:
    """Trains the Whisper in `folder`, CTranslate2 form.

    language: of a multilingual one, ISO code. normaliser: that word errors are counted under. dev:
    recordings of speakers that are not trained on; their word errors decide when to stop.
    """

    folder: Path
    language: str
    normaliser: str
    examples: Sequence[Recording]
    dev: Sequence[Recording]
    run: Run
    _labels: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recogniser = CTranslate2Whisper(self.folder, "cpu", "int8", self.language)
        self.device = PartialState().device
        self.prompt = [*self.recogniser.prompt(self.language), self.recogniser.text_only]
        fit = [one for one in self.examples if 0 < len(self._label(one)) <= MAX_TOKENS]
        self.examples = sorted(fit, key=lambda one: len(one.pcm))
        if not self.examples:
            raise UsageError("no recording with a transcript to train the recogniser on")

    def train(self, schedule: Schedule, output: Path) -> dict[str, float]:
        """Train, and write the best recogniser to the folder `output`; its development WER, %."""
        model = WhisperModel(self.folder).to(self.device)

        def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
            rng = np.random.default_rng([self.run.seed, step, micro])
            loss, n_tokens = self._loss(model, rng)
            return "per token", loss, n_tokens

        def dev_metrics() -> dict[str, float]:
            if not self.dev:
                return {}
            folder = self.run.state / "evaluated"
            self.write(model.trained(), folder)
            wer = self.wer(folder)
            shutil.rmtree(folder)
            return {"WER": wer}

        figures = train(model.trained(), schedule, micro_step, dev_metrics, self.run)
        self.write(model.trained(), output)
        return figures

    def seconds_per_step(self) -> float:
        """Of its training here, as some steps of an untouched copy take."""
        model = WhisperModel(self.folder).to(self.device)
        took = []
        for step in range(TIMED_STEPS):
            start = time.perf_counter()
            loss, _ = self._loss(model, np.random.default_rng(step))
            loss.backward()  # type: ignore[no-untyped-call]
            took.append(time.perf_counter() - start)
        return float(np.mean(took[1:]))

    def _loss(self, model: WhisperModel, rng: np.random.Generator) -> tuple[Tensor, int]:
        """Of a batch, nats a token, and its tokens."""
        model.train()
        dtype = products_dtype("auto")
        mels, tokens, labels = self._batch(rng, model.n_mels)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            hidden = model(mels, tokens)[labels != IGNORED]
            logits = model.logits(hidden)
        loss = functional.cross_entropy(logits.float(), labels[labels != IGNORED])
        return loss, int((labels != IGNORED).sum())

    def write(self, trained: Mapping[str, Tensor], output: Path) -> None:
        """The recogniser with these variables as a folder in CTranslate2 form."""
        output.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.is_file() and path.name not in ("model.bin", "config.json"):
                shutil.copyfile(path, output / path.name)
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        config[SHORT_WINDOWS] = SILENCE_S
        (output / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        values = {name: one.detach().float().cpu().numpy() for name, one in trained.items()}
        write_ct2_weights(self.folder / "model.bin", output / "model.bin", values)

    def wer(self, folder: Path) -> float:
        """Word errors of the recogniser in a folder on the development recordings, %."""
        recogniser = CTranslate2Whisper(folder, "auto", "auto", self.language)
        results = recogniser.decode(
            [one.samples() for one in self.dev], DecodingOptions(beam=1, n_best=1), timed=False
        )
        normalise = cached_normaliser(self.normaliser)
        counts = [
            word_errors(normalise(one.text), normalise(result.hypotheses[0].text))
            for one, result in zip(self.dev, results, strict=True)
        ]
        n_words = sum(count.n_reference for count in counts)
        return 100 * sum(count.errors for count in counts) / max(1, n_words)

    def _label(self, one: Recording) -> list[int]:
        if one.id not in self._labels:
            self._labels[one.id] = list(self.recogniser.tokens(lower_if_capitals(one.text)))
        return self._labels[one.id]

    def _batch(self, rng: np.random.Generator, n_mels: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, n_mels, T], tokens and labels int64 [B, L] of recordings of like length."""
        size = min(UTTERANCES_PER_STEP, len(self.examples))
        start = int(rng.integers(1 - size, len(self.examples)))
        start = min(max(start, 0), len(self.examples) - size)
        chosen = self.examples[start : start + size]
        audio = [played(one.samples(), float(rng.choice(PLAYED_AT))) for one in chosen]
        longest_s = max(map(len, audio)) / RATE_HZ
        mels = log_mel(audio, short_window_s(longest_s, SILENCE_S), n_mels)
        for features in mels:
            mask(features, rng)
        rows = [self._label(one) for one in chosen]
        n_prompt, width = len(self.prompt), max(map(len, rows)) + len(self.prompt)
        tokens = torch.full((size, width), self.recogniser.end)
        labels = torch.full((size, width), IGNORED)
        for row, ids in enumerate(rows):
            tokens[row, : n_prompt + len(ids)] = torch.tensor([*self.prompt, *ids])
            ended = torch.tensor([*ids, self.recogniser.end])
            labels[row, n_prompt - 1 : n_prompt + len(ids)] = ended
        features = torch.from_numpy(mels)
        return features.to(self.device), tokens.to(self.device), labels.to(self.device)


def played(samples: np.ndarray, speed: float) -> np.ndarray:
    """The recording played faster or slower, its pitch changed with it."""
    return samples if speed == 1 else from_samples(samples, round(RATE_HZ * speed))


def mask(features: np.ndarray, rng: np.random.Generator) -> None:
    """Put gaps into log-mel features [n_mels, T], in place."""
    n_mels, n_frames = features.shape
    mean = features.mean()
    for _ in range(TIME_MASKS):
        length = int(rng.integers(1 + int(TIME_MASK_SHARE * n_frames)))
        start = int(rng.integers(n_frames - length + 1))
        features[:, start : start + length] = mean
    for _ in range(BAND_MASKS):
        height = int(rng.integers(1 + BAND_MASK_MELS * n_mels // 80))
        start = int(rng.integers(n_mels - height + 1))
        features[start : start + height] = mean
