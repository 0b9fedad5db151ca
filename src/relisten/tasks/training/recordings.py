"""Transcribed recordings for training a recogniser: decoded once, kept as 16-bit samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relisten.core.types import NBest
from relisten.io.audio import RATE_HZ
from relisten.io.files import write_text
from relisten.tasks.streams import Refusal, load_recording

FULL_SCALE = 32767


@dataclass(frozen=True, slots=True)
class Recording:
    """An utterance and its samples, int16 [T] at 16 kHz, read from the disk when they are used."""

    id: str
    speaker: str
    text: str
    pcm: np.ndarray

    @property
    def duration_s(self) -> float:
        """Of the recording, s."""
        return len(self.pcm) / RATE_HZ

    def samples(self) -> np.ndarray:
        """Float32 [T], full scale 1."""
        return self.pcm.astype(np.float32) / FULL_SCALE


def keep_recordings(
    utterances: Iterable[NBest], source: str, path: Path
) -> Iterator[NBest | Refusal]:
    """Write the recordings of utterances of the file `source` to `path`; what became of each.

    `path` and its index beside it appear when all are written.
    """
    index: dict[str, tuple[int, int]] = {}
    part, at = path.with_suffix(".part"), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        for utterance in utterances:
            samples = load_recording(utterance, source)
            if isinstance(samples, Refusal):
                yield samples
                continue
            pcm = np.rint(np.clip(samples, -1, 1) * FULL_SCALE).astype("<i2")
            file.write(pcm.tobytes())
            index[utterance.id] = at, len(pcm)
            at += len(pcm)
            yield utterance
    part.rename(path)
    write_text(path.with_suffix(".json"), json.dumps(index) + "\n")


def kept_recordings(utterances: Iterable[NBest], path: Path) -> list[Recording]:
    """The utterances of which `path` holds a recording, with the references they are given here."""
    index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    pcm = np.memmap(path, "<i2", "r") if path.stat().st_size else np.zeros(0, "<i2")
    kept = []
    for u in utterances:
        if u.id in index:
            start, length = index[u.id]
            text = u.reference or ""
            kept.append(Recording(u.id, u.speaker or u.id, text, pcm[start : start + length]))
    return kept
