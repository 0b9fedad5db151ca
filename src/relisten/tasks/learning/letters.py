"""A bundle's CTC head goes on being trained, on the user's speech and in its letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from accelerate import PartialState

from relisten.core.text import spoken
from relisten.io.sources import resolve_model
from relisten.speech.codebook import pool_frames
from relisten.speech.ctc.head import CTCHead
from relisten.speech.frames import FRAME_RATE_HZ, SpeechEncoder
from relisten.speech.load import load_encoder
from relisten.speech.whisper.layers import LowerLayers
from relisten.tasks.training.ctc import LAYERS_BATCH_FRAMES, train_ctc
from relisten.tasks.training.examples import Example, TrainingData
from relisten.tasks.training.features import CachedUtterance
from relisten.tasks.training.recordings import Recording
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule

PASSES, FEWEST_STEPS, MOST_STEPS = 6.0, 60, 400
"""Over the speech: from English letters to German ones most is learnt in three."""
LEARNING_RATE = 1e-3
FEWEST_OF_A_LETTER = 3
"""Rarer ones are not learnt: slips of the pen, and names from abroad."""


def teach_letters(
    start: Path,
    encoder: str,
    learnt: Sequence[Recording],
    watched: Sequence[Recording],
    adds_letters: bool,
    run: Run,
) -> Path:
    """The CTC head of the file `start`, trained on the recordings, as a file in `run.state`.

    encoder: reference of the one whose frames, or those of whose lower layers, the head takes.
    adds_letters: whether it learns those of the transcripts that it does not know. watched:
    training stops where they cost more.
    """
    path = run.state / "ctc_head.safetensors"
    if path.exists():
        return path
    ctc_head = CTCHead.load(start, lambda: resolve_model(encoder))
    if adds_letters:
        ctc_head = ctc_head.with_letters(letters_of(one.text for one in learnt))
    n_frames = ctc_head.pool * LAYERS_BATCH_FRAMES * MOST_STEPS  # more are hardly drawn
    chosen = _of_duration(learnt, n_frames / FRAME_RATE_HZ, run.seed)
    steps = letter_steps(sum(one.duration_s for one in chosen), ctc_head.pool)
    run.say(f"CTC head: {len(chosen)} utterances, {steps} steps")
    heard: SpeechEncoder
    if ctc_head.layers is None:
        heard = load_encoder(encoder)
    else:
        heard = LowerLayers(resolve_model(encoder), len(ctc_head.layers.layers))
    data = TrainingData(
        [(_examples(chosen, heard, ctc_head), 1.0)], _examples(watched, heard, ctc_head)
    )
    schedule = Schedule(
        steps,
        LEARNING_RATE,
        warmup_steps=min(50, steps // 4),
        eval_every=max(1, steps // 6),
        patience=2 if watched else 0,
    )
    train_ctc(ctc_head.to(PartialState().device), data, schedule, run)
    ctc_head.cpu().save(path)
    return path


def letters_of(texts: Iterable[str]) -> list[str]:
    """The letters of the texts in spoken form that are not rare."""
    counts = Counter(letter for text in texts for letter in spoken(text))
    return [letter for letter, n in counts.items() if n >= FEWEST_OF_A_LETTER]


def letter_steps(duration_s: float, pool: int) -> int:
    """How long a CTC head is trained on speech of that duration."""
    wanted = PASSES * duration_s * FRAME_RATE_HZ / pool / LAYERS_BATCH_FRAMES
    return min(max(round(wanted), FEWEST_STEPS), MOST_STEPS)


def _of_duration(recordings: Sequence[Recording], most_s: float, seed: int) -> list[Recording]:
    order = np.random.default_rng(seed).permutation(len(recordings))
    ends_s = np.cumsum([recordings[row].duration_s for row in order])
    return [recordings[row] for row in sorted(order[ends_s <= max(most_s, ends_s[0])])]


def _examples(
    recordings: Sequence[Recording], heard: SpeechEncoder, ctc_head: CTCHead
) -> list[Example]:
    """Those whose text has letters that the head knows; heard: makes the frames that it takes."""
    made = []
    for one in recordings:
        if not ctc_head.labels(one.text):
            continue
        [frames] = heard.encode([one.samples()])
        lower, pooled = None, pool_frames(frames, ctc_head.pool).astype(np.float16)
        if ctc_head.layers is not None:
            lower = frames.astype(np.float16)
        unit_s = ctc_head.pool / FRAME_RATE_HZ
        cached = CachedUtterance(one.id, one.speaker, one.text, (), pooled, unit_s, lower)
        made.append(Example(cached, [[]] * len(spoken(one.text).split()), cached.speech))
    return made
