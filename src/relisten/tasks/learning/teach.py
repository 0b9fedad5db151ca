"""The stages of `learn` that teach: what each part of the bundle makes of the user's speech.

Each keeps what it made, in the bundle or in the run's state, and is not done again.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from accelerate import PartialState

from relisten.core.combine import Weights
from relisten.core.familiarity import Familiarity, OtherSpeech
from relisten.core.leakage import TrainedOn
from relisten.core.types import ASR, CTC, LENGTH, TEXT, NBest
from relisten.io.bundle import (
    CONFIG,
    CTC_HEAD,
    FAMILIARITY,
    OTHER_SPEECH,
    RECOGNISER,
    WORDS,
    ctc_head_path,
)
from relisten.io.files import write_text
from relisten.io.nbest import save_nbest
from relisten.io.sources import resolve_model
from relisten.speech.guard import frame_means, load_statistics, save_statistics
from relisten.speech.load import load_encoder
from relisten.speech.whisper.convert import as_ctranslate2
from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper
from relisten.tasks.learning.letters import train_letters
from relisten.tasks.learning.options import LearnOptions
from relisten.tasks.learning.prepare import (
    MOST_WATCHED,
    WATCHED,
    Prepared,
)
from relisten.tasks.streams import Say
from relisten.tasks.training.cross_fit import fold_of
from relisten.tasks.training.examples import Example, TrainingData
from relisten.tasks.training.lm import Training, train_lm
from relisten.tasks.training.loop import products_dtype
from relisten.tasks.training.recogniser import UTTERANCES_PER_STEP, RecogniserTraining
from relisten.tasks.training.recordings import Recording, kept_recordings
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.training.text_corpus import read_references, read_sentences, read_texts
from relisten.tasks.training.trainable import open_for_training

BEFORE_TUNING = Weights({ASR: 1.0, TEXT: 0.3, CTC: 0.1, LENGTH: 0.6})
"""Where no transcript is left to tune on: what 413 lists of read sentences asked for."""
PASSES, FEWEST_STEPS, MOST_STEPS = 3.0, 100, 400
"""Of the recogniser's training: most is learnt in the first pass over the speech."""
LM_PASSES, LM_BATCH_TOKENS = 3.0, 768
"""Of the language model over the transcripts, at most; it stops where watched texts lose."""
MOST_LM_STEPS, MOST_SENTENCES = 150, 10_000
"""Sentences of each text corpus; more than so many steps can read."""
MOST_DESCRIBING = 300
"""Recordings that the speech is described by, to know other speech from it."""


def teach_recogniser(
    speech: Prepared,
    first_pass: str,
    language: str,
    normaliser: str,
    output: Path,
    options: LearnOptions,
    run: Run,
) -> None:
    """Write the taught recogniser to the bundle, unless it is there."""
    if (output / RECOGNISER).is_dir():
        return
    inside = run.inside("recogniser")
    training = RecogniserTraining(
        as_ctranslate2(resolve_model(first_pass), inside.state / "converted"),
        language,
        normaliser,
        kept_recordings(speech.learnt, speech.recordings),
        kept_recordings(speech.watched, speech.recordings),
        inside,
    )
    steps, step_s = _planned_steps(training, options)
    schedule = recogniser_schedule(len(training.examples), bool(speech.watched), steps)
    minutes = math.ceil(schedule.steps * step_s / 60)
    run.say(
        f"recogniser: {len(training.examples)} utterances, {schedule.steps} steps of {step_s:.1f} "
        f"s, {minutes} min at most"
    )
    made = inside.state / "made"
    training.train(schedule, made)
    made.rename(output / RECOGNISER)


def _planned_steps(training: RecogniserTraining, options: LearnOptions) -> tuple[int, float]:
    """Steps of the recogniser's training, and seconds of one of them, as found when it began."""
    path = training.run.state / "plan.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        step_s = training.seconds_per_step()
        steps = recogniser_schedule(len(training.examples), False, options.steps).steps
        if options.hours is not None:
            steps = max(1, min(steps, int(3600 * options.hours / step_s)))
        write_text(path, json.dumps({"steps": steps, "seconds_per_step": step_s}) + "\n")
    plan = json.loads(path.read_text(encoding="utf-8"))
    return plan["steps"], plan["seconds_per_step"]


def describe_own_speech(speech: Prepared, output: Path, seed: int, say: Say) -> None:
    """Write to the bundle what tells the speech from other speech."""
    if (output / FAMILIARITY).is_file():
        return
    if not (path := output / OTHER_SPEECH).is_file():
        say("the bundle started from does not know other speech; all will be taken for your own")
        return
    learnt = kept_recordings(speech.learnt, speech.recordings)
    unlearnt = kept_recordings(speech.watched, speech.recordings)
    unlearnt += kept_recordings(speech.held_out, speech.held_out_recordings)
    kinds = load_statistics(OtherSpeech, path)
    encoder = load_encoder(kinds.encoder)

    def means(recordings: Sequence[Recording]) -> np.ndarray:
        found = frame_means(encoder, [one.samples() for one in recordings])
        return np.array([one for one in found if one is not None])

    known, others = map(means, familiar_examples(learnt, unlearnt, seed))
    if len(known) < 2 or not len(others):
        say("one recording does not tell your speech from other speech; all will be taken for it")
        return
    save_statistics(Familiarity.of(known, others, kinds), output / FAMILIARITY)


def familiar_examples(
    learnt: Sequence[Recording], unlearnt: Sequence[Recording], seed: int
) -> tuple[list[Recording], list[Recording]]:
    """Recordings that describe the speech, at most MOST_DESCRIBING, and others of it: those that
    nothing was learnt from, else of other speakers where that can be."""
    order = np.random.default_rng(seed).permutation(len(learnt))[:MOST_DESCRIBING]
    some = [learnt[row] for row in order]
    if unlearnt:
        return some, list(unlearnt)
    known = [one for one in some if fold_of(one.speaker, 4)]
    others = [one for one in some if not fold_of(one.speaker, 4)]
    return (known, others) if known and others else (some[::2] or some, some[1::2] or some)


def recogniser_schedule(n_utterances: int, is_watched: bool, steps: int | None = None) -> Schedule:
    """How long the recogniser is trained on so many utterances."""
    wanted = round(PASSES * n_utterances / UTTERANCES_PER_STEP)
    steps = steps or min(max(wanted, FEWEST_STEPS), MOST_STEPS)
    return Schedule(
        steps,
        3e-5,
        warmup_steps=min(50, steps // 4),
        eval_every=max(1, steps // 8 if is_watched else steps // 4),
        patience=3 if is_watched else 0,
    )


def teach_lm(speech: Prepared, output: Path, options: LearnOptions, run: Run) -> None:
    """Write the bundle's language model, which has read the transcripts, unless it is there."""
    if (output / CONFIG).is_file():
        return
    inside = run.inside("lm")
    inside.state.mkdir(parents=True, exist_ok=True)
    dtype = products_dtype("auto")
    trainable = open_for_training(options.model, dtype, 16, PartialState().device, options.seed)
    references = [
        [example for example in read_references(str(path), trainable.texts) if example is not None]
        for path in (_manifest(speech.learnt, inside), speech.folder / WATCHED)
    ]
    learnt, watched = references
    sets: list[tuple[Sequence[Example], float]] = [(learnt, 1.0)] if learnt else []
    for path in options.texts:
        sentences = read_texts(path, trainable.texts, inside.state)
        order = np.random.default_rng(options.seed).permutation(len(sentences))[:MOST_SENTENCES]
        some = [sentences[row] for row in order]
        n_watched = 0 if references[1] else min(MOST_WATCHED, len(some) // 20)
        watched += some[:n_watched]
        sets.append((some[n_watched:], 1.0))
    if sets:
        n_tokens = sum(len(word) for some, _ in sets for one in some for word in one.words)
        steps = min(max(round(LM_PASSES * n_tokens / LM_BATCH_TOKENS), 20), MOST_LM_STEPS)
        schedule = Schedule(
            steps,
            2e-4,
            warmup_steps=min(10, steps // 2),
            eval_every=max(1, steps // 6),
            patience=2 if watched else 0,
        )
        n_sentences = sum(len(some) for some, _ in sets) - len(learnt)
        read = f"{len(learnt):,} transcripts, {n_sentences:,} sentences"
        run.say(f"language model: {read}, {steps} steps")
        training = Training({"text": 1.0}, LM_BATCH_TOKENS, schedule, dtype)
        train_lm(trainable.model, training, TrainingData(sets, watched), inside)
    weights = replace(BEFORE_TUNING, tuned_on=trainable.config.weights.tuned_on)
    trainable.save(output, weights, TrainedOn())


def teach_ctc_head(speech: Prepared, output: Path, language: str, run: Run) -> None:
    """Write the CTC head of the taught recogniser beside it."""
    path = output / RECOGNISER / CTC_HEAD
    if path.exists():
        return
    recogniser = CTranslate2Whisper(output / RECOGNISER, "auto", "auto", language)
    learnt, watched = (
        kept_recordings(some, speech.recordings) for some in (speech.learnt, speech.watched)
    )
    if made := train_letters(recogniser, learnt, watched, run.inside("letters")):
        shutil.copyfile(made, path)


def add_words(output: Path, speech: Prepared, texts: Sequence[str]) -> None:
    """To those that the CTC head may propose: those of the transcripts and of the texts."""
    path = output / WORDS
    if ctc_head_path(output) is None or not path.is_file():
        return
    words = {*path.read_text(encoding="utf-8").split()}
    words |= {word for one in speech.learnt for word in (one.reference or "").split()}
    for text in texts:
        sentences = islice(read_sentences(text), MOST_SENTENCES)
        words |= {word for sentence in sentences for word in sentence.split()}
    write_text(path, "\n".join(sorted(words)) + "\n")


def _manifest(utterances: Sequence[NBest], run: Run) -> Path:
    path = run.state / "transcripts.jsonl"
    bare = [NBest(u.id, reference=u.reference) for u in utterances]
    save_nbest(bare, path)
    return path
