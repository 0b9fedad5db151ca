"""N-best lists broken in common ways, for `relisten doctor` to detect.

    python tests/broken_lists.py SCORED FOLDER

writes SCORED's broken versions to FOLDER, a file each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from relisten.core.types import Hypothesis, NBest
from relisten.io.nbest import load_nbest, save_nbest

Break = Callable[[NBest, np.random.Generator], NBest]


def with_asr(utterance: NBest, asr: np.ndarray) -> NBest:
    return replace(
        utterance,
        hypotheses=tuple(
            replace(h, scores={**h.scores, "asr": float(value)})
            for h, value in zip(utterance.hypotheses, asr, strict=True)
        ),
    )


def asr_of(utterance: NBest) -> np.ndarray:
    return np.array([h.scores["asr"] for h in utterance.hypotheses])


def wrong_sign(utterance: NBest, rng: np.random.Generator) -> NBest:
    """Costs, in the place of log-probabilities."""
    return with_asr(utterance, -asr_of(utterance))


def averages(utterance: NBest, rng: np.random.Generator) -> NBest:
    """Divided by the length, here words and the end."""
    n_words = np.array([len(h.text.split()) for h in utterance.hypotheses])
    return with_asr(utterance, asr_of(utterance) / (n_words + 1))


def log10(utterance: NBest, rng: np.random.Generator) -> NBest:
    return with_asr(utterance, asr_of(utterance) / np.log(10))


def shuffled(utterance: NBest, rng: np.random.Generator) -> NBest:
    """Scores of the right list beside the wrong texts."""
    return with_asr(utterance, rng.permutation(asr_of(utterance)))


def copies(utterance: NBest, rng: np.random.Generator) -> NBest:
    """Ten copies of the last hypothesis behind it."""
    padding: tuple[Hypothesis, ...] = utterance.hypotheses[-1:] * 10
    return replace(utterance, hypotheses=utterance.hypotheses + padding)


BREAKS: Mapping[str, Break] = {
    b.__name__: b for b in (wrong_sign, averages, log10, shuffled, copies)
}


def broken(utterances: list[NBest], name: str, seed: int = 0) -> list[NBest]:
    rng = np.random.default_rng(seed)
    return [BREAKS[name](utterance, rng) for utterance in utterances]


if __name__ == "__main__":
    source, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for kind in BREAKS:
        save_nbest(broken(load_nbest(source), kind), folder / f"{kind}.jsonl")
