"""From an hour of a user's speech to a bundle, and to the truth about what it gained.

The recogniser is taught the speech (`tasks.training.recogniser`), the language model its words, a
CTC head its letters (`tasks.learning.teach`). The lists of the taught recogniser, on speakers of
whom nothing was learnt, are scored and weighed, and all is compared with what a user would do
instead: take the recogniser alone, fine-tuned on the same speech. Every stage keeps what it made,
and a run that was stopped goes on from it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path

from relisten.core.combine import DEFAULT_WEIGHTS, Weights, fingerprint
from relisten.core.leakage import TrainedOn
from relisten.core.types import CTC, CTC_ADAPTED, TEXT, Refusal, UsageError
from relisten.io.bundle import (
    CODEBOOK,
    CONFIG,
    CTC_HEAD,
    EXTENSION,
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
from relisten.io.nbest import read_nbest, rebase_audio, save_nbest
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.load import load_first_pass
from relisten.tasks.bias import read_phrases
from relisten.tasks.defaults import MODEL
from relisten.tasks.learning.held_out import hold_out
from relisten.tasks.learning.options import LearnOptions
from relisten.tasks.learning.outcome import CurvePoint, LearningReport, judge, real_time_factors
from relisten.tasks.learning.prepare import (
    HELD_OUT,
    SPEECH,
    UNTRANSCRIBED,
    WATCHED,
    Prepared,
    prepare,
)
from relisten.tasks.learning.teach import (
    BEFORE_TUNING,
    add_words,
    describe_own_speech,
    teach_ctc_head,
    teach_lm,
    teach_recogniser,
)
from relisten.tasks.nbest import make_nbest
from relisten.tasks.ranking import FAMILIARITY_KEY, STRANGE
from relisten.tasks.score import score
from relisten.tasks.second_pass import PROPOSALS
from relisten.tasks.streams import Say, Tick, no_tick
from relisten.tasks.training.config import STATE, keep_config
from relisten.tasks.training.pseudo import pseudo_references
from relisten.tasks.training.run import Run
from relisten.tasks.training.text_corpus import read_sentences
from relisten.tasks.weights import save_weights

Stage = Callable[[str, int | None], AbstractContextManager[Tick]]
"""(what is done, how many utterances) → a progress bar."""

HELD_OUT_LISTS, FIRST = "held-out-", "first"
FIRST_LISTS = f"{HELD_OUT_LISTS}{FIRST}.jsonl"
"""Of the held-out speech, in the state of a run: the first pass's texts."""
CURVE_SHARES = (0.25, 0.5)
"""Of the speech, which `--curve` learns from besides."""
MIN_CONFIDENCE = 0.8
"""Lowest posterior of a text that is taken for the transcript of a recording without one."""


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
    bundle = read_bundle(_bundle_folder(options.model))
    language = options.language or bundle.language
    first_pass = options.first_pass or bundle.first_pass
    if speech:
        load_first_pass(first_pass, language=language)  # fails now, not after an hour
    folder = Path(output)
    run = Run(folder / STATE, options.seed, say)
    run.state.mkdir(parents=True, exist_ok=True)
    keep_config(run.state, options)
    options = _with_phrases(options, run)
    if not speech:
        _learn_texts(folder, bundle, options, run)
        return None, ()
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
    teach_recogniser(prepared, first_pass, language, normaliser, folder, options, run)
    teach_lm(prepared, folder, options, run)
    teach_ctc_head(prepared, folder, language, run)
    add_words(folder, prepared, options.texts)
    add_trained_on(folder, _trained_on(prepared, options.texts))
    fallback = _fallback(bundle, language)
    describe_own_speech(prepared, folder, options.seed, say)
    _finish_bundle(folder, first_pass, language, normaliser, fallback)
    if not prepared.held_out:
        say("no transcript was left to tune or judge by; the weights are those of other speech")
        return None, prepared.refused
    report = _judged(prepared, folder, language, normaliser, fallback, stage, options.seed)
    save_weights(_guarded(report.tuning.cautious_weights, fallback), output)
    factors = real_time_factors(output, prepared.held_out, str(prepared.folder / HELD_OUT))
    report = replace(report, real_time_factors=factors)
    if options.curve:
        report = replace(report, curve=_curve(prepared, folder, options, say, stage))
    return report, prepared.refused


def _curve(
    speech: Prepared, output: Path, options: LearnOptions, say: Say, stage: Stage
) -> tuple[CurvePoint, ...]:
    """What parts of the speech give, learnt from in the same way and judged on the same."""
    points = []
    everything = [*speech.learnt, *speech.watched]
    for share in CURVE_SHARES:
        folder = output / STATE / f"curve-{share:g}"
        manifest = folder / "part.jsonl"
        (folder / STATE).mkdir(parents=True, exist_ok=True)
        _, part = hold_out(everything, share, len(everything), options.seed)
        save_nbest([rebase_audio(u, speech.folder / SPEECH, manifest) for u in part], manifest)
        if not (known := folder / STATE / FIRST_LISTS).exists():  # the same for all
            shutil.copyfile(output / STATE / FIRST_LISTS, known)
        duration_s = sum(u.duration_s or 0 for u in part)
        say(f"{share:g} of the speech: {duration_s / 3600:.2f} h")
        hours = options.hours and share * options.hours
        dev = (str(speech.folder / HELD_OUT),)
        some = replace(options, dev=dev, hours=hours, curve=False)
        report, _ = learn([str(manifest)], str(folder), some, say, stage)
        assert report is not None
        points.append(CurvePoint(duration_s, report.choices[1].wer, report.choices[-1].wer))
    return tuple(points)


def _with_phrases(options: LearnOptions, run: Run) -> LearnOptions:
    """The phrases as one more text, of a sentence each."""
    if not options.phrases:
        return options
    phrases = [one.text for path in options.phrases for one in read_phrases(path)]
    path = run.state / "phrases.txt"
    write_text(path, "\n".join(phrases) + "\n")
    return replace(options, texts=(*options.texts, str(path)), phrases=())


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
        raise UsageError(
            "nothing to learn from: name SPEECH, or texts of the domain with --text or --phrases"
        )
    if options.dev or options.steps or options.hours:
        raise UsageError(
            "--dev, --steps and --hours are for speech, and none was named; leave them out"
        )
    nothing = Prepared(run.state / "speech", [], [], [], [], frozenset())
    nothing.folder.mkdir(exist_ok=True)
    save_nbest([], nothing.folder / WATCHED)
    teach_lm(nothing, output, options, run)
    add_trained_on(output, _trained_on(nothing, options.texts))
    add_words(output, nothing, options.texts)
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


def _fallback(start: BundleConfig, language: str) -> dict[str, float]:
    """Weights for speech that the recogniser was not taught: those of the bundle started from."""
    if language == start.language:
        return dict(start.weights.values)
    return dict(DEFAULT_WEIGHTS.values)


def _guarded(weights: Weights, fallback: Mapping[str, float]) -> Weights:
    return replace(weights, by=FAMILIARITY_KEY, domains={STRANGE: fallback})


def _finish_bundle(
    output: Path,
    first_pass: str,
    language: str,
    normaliser: str,
    fallback: Mapping[str, float],
) -> None:
    """Write what the bundle is for; of what is of another language the LM alone is kept."""
    config = read_bundle(output)
    if language != config.language and config.has_speech:
        config = replace(config, encoder=None, encoder_id=None, components=(TEXT,))
        write_bundle(output, replace(config, language=language))
        for name in (EXTENSION, CODEBOOK, CTC_HEAD, WORDS):
            (output / name).unlink(missing_ok=True)
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
    lists, scored = (str(state / f"{HELD_OUT_LISTS}{name}.jsonl") for name in ("lists", "scored"))
    n, model = len(speech.held_out), str(output)
    recognisers = {FIRST: read_bundle(output).first_pass, "alone": str(output / RECOGNISER)}
    best_of = {}
    for (name, reference), label in zip(
        recognisers.items(), ("first pass", "recogniser alone"), strict=True
    ):
        path = str(state / f"{HELD_OUT_LISTS}{name}.jsonl")
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
    has_head = ctc_head_path(output) is not None
    with stage("lists", n) as tick:
        make_nbest(
            manifest,
            lists,
            propose=PROPOSALS if has_head else 0,
            model=model,
            normaliser=normaliser,
            resume=True,
            tick=tick,
        )
    with stage("scores", n) as tick:
        hears = {CTC: has_head, CTC_ADAPTED: (output / RECOGNISER / CTC_HEAD).is_file()}
        components = (TEXT, *(name for name, is_there in hears.items() if is_there))
        score(lists, scored, model, components, resume=True, tick=tick)
    return judge(
        list(read_nbest(scored)),
        best_of[FIRST],
        best_of["alone"],
        speech.seen,
        Weights(fallback, normaliser),
        seed,
    )
