"""A CTC head on what the taught recogniser's encoder hears.

The encoder has learnt the speech already, so two convolutions over its frames learn to spell it in
minutes, whatever the language is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from relisten.core.text import spoken
from relisten.speech.codebook import pool_frames
from relisten.speech.ctc.head import CTCHead, alphabet_of
from relisten.speech.frames import FRAME_RATE_HZ
from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper
from relisten.tasks.streams import in_chunks
from relisten.tasks.training.ctc import BATCH_FRAMES, train_ctc
from relisten.tasks.training.examples import Example, TrainingData
from relisten.tasks.training.features import CachedUtterance
from relisten.tasks.training.recordings import Recording
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule

POOL = 2
PASSES, FEWEST_STEPS, MOST_STEPS = 9.0, 300, 1200
"""Over the speech: with 2.9 h, watched texts cost least after seven."""
MOST_ENCODED_S = 8 * 3600.0
"""Of speech, drawn at random: its frames are held, 90 to 180 MB an hour."""
FEWEST_OF_A_LETTER = 3
"""Rarer ones are not learnt: slips of the pen, and names from abroad."""
WINDOWS_TOGETHER = 8


def train_letters(
    recogniser: CTranslate2Whisper,
    learnt: Sequence[Recording],
    watched: Sequence[Recording],
    run: Run,
) -> Path | None:
    """The CTC head, trained on the recordings, as a file in `run.state`; None where they spell
    nothing.

    watched: training stops where they cost more.
    """
    path = run.state / "ctc_head.safetensors"
    if path.exists():
        return path
    chosen = _of_duration(learnt, MOST_ENCODED_S, run.seed)
    steps = letter_steps(sum(one.duration_s for one in chosen))
    run.say(f"CTC head: {len(chosen)} utterances, {steps} steps")
    torch.manual_seed(run.seed)
    alphabet = alphabet_of((one.text for one in chosen), FEWEST_OF_A_LETTER)
    ctc_head = CTCHead(recogniser.encoder.dim, alphabet, recogniser.encoder.id, POOL)
    examples, dev = (list(_examples(some, recogniser, ctc_head)) for some in (chosen, watched))
    if not examples:
        run.say("CTC head: none, since no letter is written often enough to learn it")
        return None
    schedule = Schedule(
        steps,
        2e-3,
        warmup_steps=min(50, steps // 4),
        eval_every=max(1, steps // 8),
        patience=3 if dev else 0,
    )
    data = TrainingData([(examples, 1.0)], dev)
    train_ctc(ctc_head.to(PartialState().device), data, schedule, run)
    ctc_head.cpu().save(path)
    return path


def letter_steps(duration_s: float) -> int:
    """How long a CTC head is trained on speech of that duration."""
    wanted = PASSES * duration_s * FRAME_RATE_HZ / POOL / BATCH_FRAMES
    return min(max(round(wanted), FEWEST_STEPS), MOST_STEPS)


def _of_duration(recordings: Sequence[Recording], most_s: float, seed: int) -> list[Recording]:
    order = np.random.default_rng(seed).permutation(len(recordings))
    ends_s = np.cumsum([recordings[row].duration_s for row in order])
    return [recordings[row] for row in sorted(order[ends_s <= max(most_s, ends_s[0])])]


def _examples(
    recordings: Sequence[Recording], recogniser: CTranslate2Whisper, ctc_head: CTCHead
) -> Iterator[Example]:
    """Those whose text has letters that the head knows."""
    spelled = (one for one in recordings if ctc_head.labels(one.text))
    for some in in_chunks(spelled, WINDOWS_TOGETHER):
        windows = recogniser.windows([one.samples() for one in some])
        for one, window in zip(some, windows, strict=True):
            frames = pool_frames(window, POOL).astype(np.float16)
            unit_s = POOL / FRAME_RATE_HZ
            cached = CachedUtterance(one.id, one.speaker, one.text, (), frames, unit_s)
            yield Example(cached, [[]] * len(spoken(one.text).split()), cached.speech)
