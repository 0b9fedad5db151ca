"""Adapting a bundle to a domain of which there are recordings and no transcripts.

There are two ways to learn from a recording: to go on predicting its units, one after the other
(speech continuation, arXiv:2409.16654), or to take for its transcript what the bundle itself is
confident of (pseudo-references). Either way, replay of transcribed speech keeps what the bundle
knew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from accelerate import PartialState

from relisten.core.types import UsageError
from relisten.io.bundle import BundleConfig, read_bundle, resolve_bundle
from relisten.io.nbest import Refuse
from relisten.lm.sequences import Order
from relisten.speech.load import load_first_pass
from relisten.tasks.defaults import MODEL
from relisten.tasks.frontend import SpeechFrontend, bundle_frontend
from relisten.tasks.streams import Say, refuse_nothing
from relisten.tasks.training.codebook import add_codes
from relisten.tasks.training.config import STATE, keep_config
from relisten.tasks.training.cross_fit import CrossFitted, add_ctc_log_probs
from relisten.tasks.training.examples import (
    Example,
    TrainingData,
    WeightedSets,
    all_of,
    check_served,
    make_example,
    trained_on,
    untranscribed_example,
)
from relisten.tasks.training.features import FeatureSpec, feature_spec_of
from relisten.tasks.training.keys import FilePath, ModelReference, key, section
from relisten.tasks.training.lm import Training, train_lm
from relisten.tasks.training.loop import products_dtype
from relisten.tasks.training.pseudo import PseudoReference, pseudo_references, without_references
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.training.sources import Sources
from relisten.tasks.training.trainable import Trainable, open_for_training


@dataclass(frozen=True)
class AdaptConfig:
    """What `relisten adapt` does; unknown keys are refused."""

    output: FilePath = key(
        MISSING,
        "Folder of the adapted bundle; the run keeps its state in the folder `state` of it.",
        affects_training=False,
    )
    manifests: Mapping[FilePath, float] = key(
        MISSING,
        "Manifest → how often a recording of the new domain is drawn; references in it are never "
        "read.",
    )
    model: ModelReference = key(MODEL, "Bundle to start from.")
    learn_from: Literal["pseudo_references", "units"] = key(
        "pseudo_references",
        "What a recording gives: a pseudo-reference, which serves every task, or its units, which "
        "serve the task speech alone.",
    )
    min_confidence: float = key(
        0.8, "Lowest posterior of the winner of a list that becomes a pseudo-reference."
    )
    replay: Mapping[FilePath, float] = key(
        {}, "Manifest → how often an utterance of it is drawn that has a reference."
    )
    tasks: Mapping[Order, float] = key(
        {},
        "Sequence order → weight in the mixture, drawn before the source; where none is named, "
        "those that the bundle is asked in and that the sources can serve.",
    )
    dev_manifests: tuple[FilePath, ...] = key(
        (), "Manifests of development speech, for evaluation.", affects_training=False
    )
    cache: FilePath = key(
        "runs/cache", "Folder for encoded speech and N-best lists.", affects_training=False
    )
    folds_of: FilePath = key(
        "",
        "Folder `state` of the run that made the bundle: the speech of replay then enters by CTC "
        "heads and projectors that were not trained on its speakers.",
    )
    lora_rank: int = key(
        16, "Rank of the LoRA adapter of a bundle that has none; 0: train all layers of its LM."
    )
    batch_tokens: int = key(1024, "Tokens of a batch, padding included.")
    schedule: Schedule = section(
        Schedule, steps=200, learning_rate=2e-4, warmup_steps=10, eval_every=50
    )
    dtype: str = key(
        "auto",
        "Precision of the LM's products: bfloat16, float32, or auto: float32 on a CPU that is slow "
        "in bfloat16.",
    )
    seed: int = key(0, "Seed for all random draws.")

    def __post_init__(self) -> None:
        if not self.manifests:
            raise UsageError("adapt needs at least one manifest of the new domain")
        if self.learn_from == "units" and self.tasks and not self.tasks.get("speech"):
            raise UsageError(
                "units serve the task speech alone, and tasks gives it no weight; "
                "name it, or learn_from: pseudo_references"
            )
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence is {self.min_confidence:g}; it is a probability")
        self.schedule.check_watched(self.dev_manifests, "dev_manifests")


def adapt(
    config: AdaptConfig, say: Say = print, refuse: Refuse = refuse_nothing
) -> dict[str, float]:
    """Nats per development word, in each order, of the bundle written to `config.output`.

    refuse: told of each utterance that cannot be read; the others are learnt from.
    """
    output = Path(config.output)
    run = Run(output / STATE, config.seed, say)
    dtype, processes = products_dtype(config.dtype), PartialState()
    bundle = read_bundle(resolve_bundle(config.model))
    tasks = config.tasks or default_tasks(config, bundle)
    _check_tasks(config, tasks, bundle)
    run.state.mkdir(parents=True, exist_ok=True)
    with processes.main_process_first():  # the others find what it encoded and scored
        keep_config(run.state, config)
        recordings = {
            without_references(manifest, Path(config.cache)): weight
            for manifest, weight in config.manifests.items()
        }
        pseudo = {}
        if config.learn_from == "pseudo_references":
            pseudo = {
                manifest: pseudo_references(
                    manifest, config.model, bundle, Path(config.cache), config.min_confidence, run
                )
                for manifest in recordings
            }
        trainable = open_for_training(
            config.model, dtype, config.lora_rank, processes.device, config.seed
        )
        data = _data(config, tasks, trainable, recordings, pseudo, say, refuse)
    training = Training(tasks, config.batch_tokens, config.schedule, dtype)
    dev_metrics = train_lm(trainable.model, training, data, run)
    if processes.is_main_process:
        n_new = len(config.manifests)  # of these no reference was read
        seen = trained_on(data.sets[:n_new], False) | trained_on(data.sets[n_new:])
        trainable.save(output, bundle.weights, seen)
    return dev_metrics


def default_tasks(config: AdaptConfig, bundle: BundleConfig) -> Mapping[Order, float]:
    """The mixture where none is named: the orders that the bundle is asked in, and for units the
    order `speech`, alone where no replay can serve the others."""
    if not bundle.has_speech:
        return {"text": 1.0}
    order: Order = bundle.speech_order  # type: ignore[assignment]
    if config.learn_from == "pseudo_references":
        return {order: 0.6, "text": 0.4}
    return {"speech": 0.5, order: 0.375, "text": 0.125} if config.replay else {"speech": 1.0}


def _check_tasks(config: AdaptConfig, tasks: Mapping[Order, float], bundle: BundleConfig) -> None:
    """Raises UsageError for a task that the bundle is never asked in."""
    known = {"text", "text_first", "speech", bundle.speech_order} if bundle.has_speech else {"text"}
    if others := sorted(set(tasks) - known):
        raise UsageError(
            f"tasks names {', '.join(others)}; of {config.model} give some of "
            f"{', '.join(sorted(known))}"
        )


def _data(
    config: AdaptConfig,
    tasks: Mapping[Order, float],
    trainable: Trainable,
    recordings: Mapping[str, float],
    pseudo: Mapping[str, Mapping[str, PseudoReference]],
    say: Say,
    refuse: Refuse,
) -> TrainingData:
    """The new domain and the replay, with all features that the bundle takes; development speech.

    pseudo: manifest → id → pseudo-reference. Raises UsageError where a task cannot be served.
    """
    first_pass = load_first_pass(trainable.config.first_pass)
    frontend, spec = None, FeatureSpec(first_pass, first_pass.encoder, 2)
    if trainable.config.has_speech:
        frontend = bundle_frontend(trainable.folder, trainable.config)
        spec = feature_spec_of(frontend, first_pass)
    sources = Sources(spec, trainable.texts, Path(config.cache), say, refuse)
    domain = _domain(config, trainable, sources, recordings, pseudo)
    replay = [(sources.transcribed(path), weight) for path, weight in config.replay.items()]
    check_served([*domain, *replay], tasks)
    dev = sources.development(config.dev_manifests)
    if frontend:
        _add_features(config, trainable, frontend, [*all_of(domain), *dev], all_of(replay))
    return TrainingData([*domain, *replay], dev)


def _domain(
    config: AdaptConfig,
    trainable: Trainable,
    sources: Sources,
    recordings: Mapping[str, float],
    pseudo: Mapping[str, Mapping[str, PseudoReference]],
) -> WeightedSets[Example]:
    """The recordings of the new domain, as examples of what is learnt from them.

    Raises UsageError where there is nothing to learn from.
    """
    is_pseudo, extension = config.learn_from == "pseudo_references", trainable.model.extension
    if not is_pseudo and (extension is None or not extension.unit_head.any()):
        raise UsageError(
            f"{config.model} never predicted units; adapt it with learn_from: pseudo_references"
        )
    sets: list[tuple[Sequence[Example], float]] = []
    for manifest, weight in recordings.items():
        cached = sources.untranscribed(manifest)
        if not is_pseudo:
            sets.append(([untranscribed_example(one) for one in cached], weight))
            continue
        transcribed = [
            replace(one, text=reference.text, word_ends_s=reference.word_ends_s)
            for one in cached
            if (reference := pseudo[manifest].get(one.id)) is not None
        ]
        made = [make_example(one, trainable.texts) for one in transcribed]
        sets.append(([example for example in made if example is not None], weight))
    if not all_of(sets):
        raise UsageError(f"the new domain gives nothing to learn from: {_why_nothing(config)}")
    return sets


def _why_nothing(config: AdaptConfig) -> str:
    if config.learn_from == "units":
        return "no recording can be read; see what was refused above"
    if config.min_confidence == 0:
        return "no recording can be read, or no list has a winner of two words or more"
    return (
        f"no pseudo-reference of two words or more has a confidence of {config.min_confidence:g}; "
        "lower min_confidence"
    )


def _add_features(
    config: AdaptConfig,
    trainable: Trainable,
    frontend: SpeechFrontend,
    others: Sequence[Example],
    replay: Sequence[Example],
) -> None:
    """Units, CTC log-probabilities and guesses: the bundle's own for speakers that it was not
    trained on; for those of replay, where the run that made it is named, its folds'."""
    model = trainable.model
    add_codes([*others, *replay], frontend.codebook)
    cross_fitted = CrossFitted(Path(config.folds_of), model) if config.folds_of else None
    has_projector = model.extension is not None and model.extension.projector is not None
    known = [(example, None) for example in others]
    for example, speaker in [*known, *((e, e.cached.speaker) for e in replay)]:
        add_ctc_log_probs(
            example,
            cross_fitted.ctc_head(speaker) if cross_fitted and speaker else frontend.ctc_head,
        )
        if cross_fitted and has_projector and example.words:
            guesses = cross_fitted.guesses(example.chunk_features(), speaker)
            example.guesses = guesses.astype(np.float16)
