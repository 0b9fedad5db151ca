"""Real speech beside the checkout, and sounds that are no speech, for tests that need ears."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from relisten.io.audio import load_audio

RATE_HZ = 16_000
FOLDER = Path(__file__).parents[2] / "shared" / "data"
SETS = ("speechocean", "ljspeech", "steelsky", "kerstin")
"""Each has a split `dev`."""


def utterances(name: str, n: int) -> Iterator[tuple[str, np.ndarray, str]]:
    """(path, samples, reference) of the first n of a set; the test is skipped where it is not."""
    listed = FOLDER / name / "dev.jsonl"
    if not listed.is_file():
        pytest.skip(f"no {name} beside the checkout")
    for line in listed.read_text(encoding="utf-8").splitlines()[:n]:
        record = json.loads(line)
        path = listed.parent / record["audio"]
        yield str(path), load_audio(path), record["reference"]


@cache
def joined(name: str, n: int, pause_s: float, noise: float = 0.0) -> np.ndarray:
    """The first n utterances with a pause behind each, in noise."""
    pause = np.zeros(round(pause_s * RATE_HZ), np.float32)
    parts = [part for _, samples, _ in utterances(name, n) for part in (samples, pause)]
    whole = np.concatenate(parts)
    hiss = np.random.default_rng(0).standard_normal(len(whole)).astype(np.float32)
    return whole + noise * hiss


@cache
def sounds() -> dict[str, np.ndarray]:
    """Kind and duration → silence, hiss, hum, tones, a melody, drums, … of 0.02 to 10 s."""
    return {
        f"{kind} {seconds} s": samples.astype(np.float32)
        for seconds in (0.02, 0.5, 3.0, 10.0)
        for kind, samples in _sounds(np.arange(round(seconds * RATE_HZ)) / RATE_HZ).items()
    }


def _sounds(t: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    white = random.standard_normal(len(t))
    brown = np.cumsum(white)
    beat = t % 0.25
    melody, drums = np.zeros(len(t)), np.exp(-30 * beat) * white
    for n, start_s in enumerate(np.arange(0, t[-1], 0.3)):
        since = np.maximum(0, t - start_s)
        pitch_hz = 220 * 2 ** ([0, 4, 7, 12, 7, 5][n % 6] / 12)
        note = sum(np.sin(2 * np.pi * pitch_hz * h * since) / h for h in range(1, 9))
        melody += 0.15 * np.exp(-4 * since) * note
    return {
        "silence": np.zeros(len(t)),
        "faint-hiss": 1e-4 * white,
        "hiss": 0.01 * white,
        "roar": 0.3 * white,
        "rumble": 0.5 * brown / np.abs(brown).max(),
        "pulsing-hiss": 0.3 * white * (1 + np.sin(2 * np.pi * 4 * t)) / 2,
        "hum": sum(0.2 / k * np.sin(2 * np.pi * 50 * k * t) for k in range(1, 8)),
        "tone": 0.3 * np.sin(2 * np.pi * 1_000 * t),
        "chord": sum(0.15 * np.sin(2 * np.pi * f * t) for f in (261.6, 329.6, 392.0, 523.3)),
        "dialling": 0.3 * (np.sin(2 * np.pi * 697 * t) + np.sin(2 * np.pi * 1_209 * t)),
        "sweep": 0.3 * np.sin(2 * np.pi * (100 + 200 * t) * t),
        "clicks": 0.9 * (np.arange(len(t)) % 8_000 == 0),
        "melody": melody.clip(-1, 1),
        "drums": 0.5 * drums,
    }
