"""From an hour of a user's speech to a bundle, and to the truth about what it gained.

The recogniser is taught the speech (`tasks.training.recogniser`), the language model its words. On
speakers of whom nothing was learnt, the lists of the recogniser as it was and as it is now are
joined, scored and weighed, and all is compared with what a user would do instead: take the
recogniser alone, fine-tuned on the same speech. Every stage keeps what it made, and a run that was
stopped goes on from it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from accelerate import PartialState

from relisten.core.combine import DEFAULT_WEIGHTS, Weights, fingerprint
from relisten.core.familiarity import Familiarity, OtherSpeech
from relisten.core.leakage import TrainedOn
from relisten.core.types import ASR, CTC, LENGTH, TEXT, NBest, Refusal, UsageError
from relisten.io.bundle import (
    CONFIG,
    CTC_HEAD,
    EXTENSION,
    FAMILIARITY,
    OTHER_SPEECH,
    RECOGNISER,
    WORDS,
    BundleConfig,
    add_trained_on,
    ctc_head_path,
    read_bundle,
    read_trained_on,
    resolve_bundle,
    write_bundle,
)
from relisten.io.files import write_text
from relisten.io.nbest import read_nbest, save_nbest
from relisten.io.sources import resolve_model
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.guard import frame_means, load_statistics, save_statistics
from relisten.speech.load import load_encoder
from relisten.speech.whisper.convert import as_ctranslate2
from relisten.tasks.defaults import MODEL
from relisten.tasks.learning.letters import teach_letters
from relisten.tasks.learning.outcome import LearningReport, judge, real_time_factors
from relisten.tasks.learning.prepare import (
    HELD_OUT,
    MOST_WATCHED,
    UNTRANSCRIBED,
    WATCHED,
    Prepared,
    prepare,
)
from relisten.tasks.nbest import make_nbest
from relisten.tasks.score import score
from relisten.tasks.second_pass import FAMILIARITY_KEY, STRANGE
from relisten.tasks.streams import Say, Tick, no_tick
from relisten.tasks.training.config import STATE, keep_config
from relisten.tasks.training.cross_fit import fold_of
from relisten.tasks.training.examples import Example, TrainingData
from relisten.tasks.training.lm import Training, train_lm
from relisten.tasks.training.loop import products_dtype
from relisten.tasks.training.pseudo import pseudo_references
from relisten.tasks.training.recogniser import UTTERANCES_PER_STEP, RecogniserTraining
from relisten.tasks.training.recordings import Recording, kept_recordings
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.training.text_corpus import read_references, read_sentences, read_texts
from relisten.tasks.training.trainable import open_for_training
from relisten.tasks.weights import save_weights

Stage = Callable[[str, int | None], AbstractContextManager[Tick]]
"""(what is done, how many utterances) → a progress bar."""

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
MIN_CONFIDENCE = 0.8
"""Lowest posterior of a text that is taken for the transcript of a recording without one."""


@dataclass(frozen=True)
class LearnOptions:
    """What `relisten learn` is asked for; a run with other settings needs another output.

    model: bundle to start from. first_pass: the recogniser to teach; None: the bundle's. language:
    of the speech, an ISO code; None: the bundle's. dev: manifests that are held out instead of a
    part of the speech. texts: text corpora of the domain, for the language model. steps: of the
    recogniser's training; None: by the amount of speech.
    """

    model: str = MODEL
    first_pass: str | None = None
    language: str | None = None
    dev: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    steps: int | None = None
    seed: int = 0


def no_stage(name: str, n_utterances: int | None) -> AbstractContextManager[Tick]:
    """The `Stage` of those who do not watch."""
    return nullcontext(no_tick)


def learn(
    speech: Sequence[str],
    output: str,
    options: LearnOptions = LearnOptions(),
    say: Say = print,
    stage: Stage = no_stage,
) -> tuple[LearningReport | None, tuple[Refusal, ...]]:
    """What was gained by the bundle that is written to the folder `output`, None where no
    transcript was left to judge by; and the utterances that were left out.

    speech: the user's, in any form that `gather_speech` reads; with none, the language model alone
    learns, from the texts of the options. Raises UsageError where there is nothing to learn from,
    or the recogniser is none that can be taught.
    """
    folder = Path(output)
    run = Run(folder / STATE, options.seed, say)
    run.state.mkdir(parents=True, exist_ok=True)
    keep_config(run.state, options)
    bundle = read_bundle(_bundle_folder(options.model))
    if not speech:
        _learn_texts(folder, bundle, options, run)
        return None, ()
    language = options.language or bundle.language
    first_pass = options.first_pass or bundle.first_pass
    normaliser = "english" if language == "en" else "basic"
    with stage("reading", None) as tick:
        prepared = prepare(speech, options.dev, run.state / "speech", options.seed, say, tick)
    before = read_trained_on(resolve_bundle(options.model)) or TrainedOn()
    if known := sum(
        fingerprint(one) in bundle.weights.tuned_on or before.has_seen(one) == "utterance"
        for one in prepared.held_out
    ):
        say(
            f"{known} of the held-out utterances served to make {options.model}, so its own part "
            "may look better than it is; hold out others with --dev"
        )
    if prepared.untranscribed:
        prepared = _with_pseudo_references(prepared, options.model, bundle, run)
    _teach_recogniser(prepared, first_pass, language, normaliser, folder, options, run)
    _teach_lm(prepared, folder, options, run)
    _teach_letters(prepared, folder, language, options, run)
    add_trained_on(folder, _trained_on(prepared, options.texts))
    fallback = _fallback(bundle, language)
    _describe_speech(prepared, folder, options.seed, say)
    _finish_bundle(folder, first_pass, language, normaliser, fallback)
    if not prepared.held_out:
        say("no transcript was left to tune or judge by; the weights are those of other speech")
        return None, prepared.refused
    report = _judged(prepared, folder, language, normaliser, fallback, stage, options.seed)
    save_weights(_guarded(report.tuning.cautious_weights, fallback), output)
    factors = real_time_factors(output, prepared.held_out, str(prepared.folder / HELD_OUT))
    return replace(report, real_time_factors=factors), prepared.refused


def _trained_on(speech: Prepared, texts: Sequence[str]) -> TrainedOn:
    """All that was learnt from or watched; of pseudo-references, the recording and the text."""
    pseudo = {one.id for one in speech.untranscribed}
    own = [
        replace(one, reference=None) if one.id in pseudo else one
        for one in (*speech.learnt, *speech.watched)
    ]
    sentences = (sentence for path in texts for sentence in read_sentences(path))
    return TrainedOn.of(own, chain((one.reference or "" for one in speech.learnt), sentences))


def _learn_texts(output: Path, start: BundleConfig, options: LearnOptions, run: Run) -> None:
    """Write a bundle whose language model has read the texts; all else is that started from."""
    if not options.texts:
        raise UsageError("nothing to learn from: name SPEECH, or texts of the domain with --text")
    if options.dev or options.steps:
        raise UsageError("--dev and --steps are for speech, and none was named; leave them out")
    nothing = Prepared(run.state / "speech", [], [], [], [], frozenset())
    nothing.folder.mkdir(exist_ok=True)
    save_nbest([], nothing.folder / WATCHED)
    _teach_lm(nothing, output, options, run)
    add_trained_on(output, _trained_on(nothing, options.texts))
    write_bundle(output, replace(read_bundle(output), weights=start.weights))
    run.say(
        "the weights are those of the bundle started from; with transcribed recordings, tell what "
        f"was gained: relisten nbest, score and tune with --model {output}, or relisten learn"
    )


def _bundle_folder(model: str) -> Path:
    folder = resolve_bundle(model)
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{model}: is no bundle; start from one, such as {MODEL}")
    return folder


def _with_pseudo_references(
    speech: Prepared, model: str, bundle: BundleConfig, run: Run
) -> Prepared:
    """Recordings without a transcript, with what the bundle is confident of in its place."""
    inside = run.inside("pseudo")
    inside.state.mkdir(parents=True, exist_ok=True)
    manifest = str(speech.folder / UNTRANSCRIBED)
    found = pseudo_references(manifest, model, bundle, inside.state, MIN_CONFIDENCE, inside)
    known = [replace(u, reference=found[u.id].text) for u in speech.untranscribed if u.id in found]
    return replace(speech, learnt=[*speech.learnt, *known])


def _teach_recogniser(
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
    schedule = recogniser_schedule(len(training.examples), bool(speech.watched), options.steps)
    run.say(f"recogniser: {len(training.examples)} utterances, {schedule.steps} steps")
    made = inside.state / "made"
    training.train(schedule, made)
    made.rename(output / RECOGNISER)


def _describe_speech(speech: Prepared, output: Path, seed: int, say: Say) -> None:
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


def _fallback(start: BundleConfig, language: str) -> dict[str, float]:
    """Weights for speech that the recogniser was not taught: those of the bundle started from."""
    if language == start.language:
        return dict(start.weights.values)
    return dict(DEFAULT_WEIGHTS.values)


def _guarded(weights: Weights, fallback: Mapping[str, float]) -> Weights:
    return replace(weights, by=FAMILIARITY_KEY, domains={STRANGE: fallback})


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


def _teach_lm(speech: Prepared, output: Path, options: LearnOptions, run: Run) -> None:
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


def _teach_letters(
    speech: Prepared, output: Path, language: str, options: LearnOptions, run: Run
) -> None:
    """Put the CTC head, taught the speech, in the place of that started from, with the words that
    it may propose. In another language it is given letters, for which the LM has no ear."""
    start = _bundle_folder(options.model)
    config, ctc_head = read_bundle(start), ctc_head_path(start)
    if ctc_head is None:
        return
    learnt, watched = (
        kept_recordings(some, speech.recordings) for some in (speech.learnt, speech.watched)
    )
    is_foreign = language != config.language
    inside = run.inside("letters")
    made = teach_letters(ctc_head, str(config.encoder), learnt, watched, is_foreign, inside)
    shutil.copyfile(made, output / CTC_HEAD)
    words = {word for one in learnt for word in one.text.split()}
    if not is_foreign and (start / WORDS).is_file():
        words |= {*(start / WORDS).read_text(encoding="utf-8").split()}
    write_text(output / WORDS, "\n".join(sorted(words)) + "\n")
    if is_foreign:
        write_bundle(output, replace(read_bundle(output), components=(TEXT,), text_only=True))
        (output / EXTENSION).unlink(missing_ok=True)


def _manifest(utterances: Sequence[NBest], run: Run) -> Path:
    path = run.state / "transcripts.jsonl"
    bare = [NBest(u.id, reference=u.reference) for u in utterances]
    save_nbest(bare, path)
    return path


def _finish_bundle(
    output: Path,
    first_pass: str,
    language: str,
    normaliser: str,
    fallback: Mapping[str, float],
) -> None:
    """Write what the bundle is for."""
    config = read_bundle(output)
    has_head = ctc_head_path(output) is not None
    values = {name: v for name, v in BEFORE_TUNING.values.items() if name != CTC or has_head}
    weights = _guarded(Weights(values, normaliser, config.weights.tuned_on), fallback)
    write_bundle(output, replace(config, first_pass=first_pass, language=language, weights=weights))


def _judged(
    speech: Prepared,
    output: Path,
    language: str,
    normaliser: str,
    fallback: Mapping[str, float],
    stage: Stage,
    seed: int,
) -> LearningReport:
    """Lists of the held-out speakers, scored; the report on them."""
    state, manifest = output / STATE, str(speech.folder / HELD_OUT)
    lists, scored = (str(state / f"held-out-{name}.jsonl") for name in ("lists", "scored"))
    n, model = len(speech.held_out), str(output)
    recognisers = {"first": read_bundle(output).first_pass, "alone": str(output / RECOGNISER)}
    best_of = {}
    for (name, reference), label in zip(
        recognisers.items(), ("first pass", "recogniser alone"), strict=True
    ):
        path = str(state / f"held-out-{name}.jsonl")
        with stage(label, n) as tick:
            make_nbest(
                manifest,
                path,
                (reference,),
                language,
                DecodingOptions(n_best=1),
                normaliser=normaliser,
                resume=True,
                tick=tick,
            )
        best_of[name] = list(read_nbest(path))
    with stage("lists", n) as tick:
        make_nbest(manifest, lists, model=model, normaliser=normaliser, resume=True, tick=tick)
    with stage("scores", n) as tick:
        has_head = ctc_head_path(output) is not None
        components = (TEXT, CTC) if has_head else (TEXT,)
        score(lists, scored, model, components, resume=True, tick=tick)
    return judge(
        list(read_nbest(scored)),
        best_of["first"],
        best_of["alone"],
        speech.seen,
        Weights(fallback, normaliser),
        seed,
    )
