"""Adapting a bundle to a domain of which there are recordings and no transcripts.

Two ways to learn from a recording: go on predicting its units, one after the other (speech
continuation, arXiv:2409.16654), or take what the bundle itself is sure was said for its transcript
(pseudo-references). Either way, replay of transcribed speech keeps what the bundle knew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from accelerate import PartialState

from relisten.core.types import UsageError
from relisten.io.bundle import BundleConfig, read_bundle, resolve_bundle
from relisten.lm.sequences import Order
from relisten.speech.load import load_first_pass
from relisten.tasks.frontend import SpeechFrontend, bundle_frontend
from relisten.tasks.training.cache import FeatureSpec, feature_spec_of
from relisten.tasks.training.config import STATE, keep_config
from relisten.tasks.training.cross_fit import CrossFitted, add_ctc_log_probs
from relisten.tasks.training.examples import (
    Example,
    Report,
    add_codes,
    check_served,
    make_example,
    untranscribed_example,
)
from relisten.tasks.training.lm import Training, train_lm
from relisten.tasks.training.loop import Schedule, check_schedule, products_dtype
from relisten.tasks.training.pseudo import PseudoReference, pseudo_references, without_references
from relisten.tasks.training.sources import Sources
from relisten.tasks.training.trainable import Trainable, open_for_training

Sets = list[tuple[Sequence[Example], float]]


@dataclass(frozen=True)
class AdaptConfig:
    """What `relisten adapt` does; unknown keys are refused.

    model: the bundle to start from; output: the adapted one's folder, the run's state in its folder
    `state`. manifests: path → how often a recording of the new domain is drawn; references in them
    are never read. learn_from: what the recordings give: their units, for the task `speech` alone,
    or pseudo-references, for every task: the winners of the bundle's own lists whose posterior is
    at least min_confidence. replay: path → how often an utterance with a reference is drawn.
    tasks: order → weight in the mixture, drawn before the source. dev_manifests: what the gauge is
    read from. folds_of: the folder `state` of the run that made the bundle; replay's speakers are
    then heard by CTC heads and projectors that never heard them. cache: where what was heard is kept.
    lora_rank: of a bundle without an adapter; 0 trains all of the LM's layers. accumulate,
    schedule, patience, dtype, seed: as in `pretrain`.
    """

    model: str
    output: str
    manifests: Mapping[str, float]
    learn_from: Literal["units", "pseudo_references"] = "units"
    min_confidence: float = 0.8
    replay: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[Order, float] = field(
        default_factory=lambda: {"speech": 0.5, "chunked": 0.375, "text": 0.125}
    )
    dev_manifests: tuple[str, ...] = ()
    cache: str = "runs/cache"
    folds_of: str = ""
    lora_rank: int = 16
    steps: int = 200
    batch_tokens: int = 1024
    learning_rate: float = 2e-4
    warmup_steps: int = 10
    eval_every: int = 50
    schedule: Literal["cosine", "linear"] = "cosine"
    accumulate: int = 1
    patience: int = 0
    dtype: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.manifests:
            raise UsageError("adapt needs at least one manifest of the new domain")
        if self.learn_from == "units" and not self.tasks.get("speech"):
            raise UsageError(
                "units serve the task speech alone, and tasks gives it no weight; "
                "name it, or learn_from: pseudo_references"
            )
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence is {self.min_confidence:g}; it is a probability")
        check_schedule(self, "dev_manifests")


def adapt(config: AdaptConfig, report: Report = print) -> dict[str, float]:
    """Nats a development word, in each order, of the bundle written to `config.output`."""
    output = Path(config.output)
    state = output / STATE
    state.mkdir(parents=True, exist_ok=True)
    dtype = products_dtype(config.dtype)
    bundle = read_bundle(resolve_bundle(config.model))
    _check_tasks(config, bundle)
    processes = PartialState()
    with processes.main_process_first():  # the others find what it heard and schooled
        keep_config(state, config)
        bare = {
            without_references(manifest, Path(config.cache)): weight
            for manifest, weight in config.manifests.items()
        }
        sure = {
            manifest: pseudo_references(
                manifest,
                config.model,
                bundle,
                Path(config.cache),
                state,
                config.min_confidence,
                report,
            )
            for manifest in (bare if config.learn_from == "pseudo_references" else ())
        }
        trainable = open_for_training(
            config.model, dtype, config.lora_rank, processes.device, config.seed
        )
        frontend = None
        if trainable.config.has_speech:
            frontend = bundle_frontend(trainable.folder, trainable.config)
        sources = _sources(config, trainable, frontend, report)
        domain = _domain(config, trainable, sources, bare, sure)
        replay: Sets = [(sources.transcribed(path), w) for path, w in config.replay.items()]
        dev = sources.development(config.dev_manifests)
        if not any(examples for examples, _ in domain):
            raise UsageError(
                "of the new domain there is nothing to learn from: no recording that can be read, "
                "or none whose pseudo-reference is sure enough; lower min_confidence"
            )
        check_served([*domain, *replay], config.tasks)
        if frontend:
            add_codes([*_all(domain), *_all(replay), *dev], frontend.codebook)
            _add_features(config, trainable, frontend, [*_all(domain), *dev], _all(replay))
    training = Training(config.tasks, config.batch_tokens, Schedule.of(config), dtype)
    dev_metrics = train_lm(trainable.model, training, [*domain, *replay], dev, state, report)
    if processes.is_main_process:
        trainable.save(output, trainable.config.weights)
    return dev_metrics


def _check_tasks(config: AdaptConfig, bundle: BundleConfig) -> None:
    """Raises UsageError for a task that the bundle is never asked in."""
    known = {"text", "text_first", "speech", bundle.speech_order} if bundle.has_speech else {"text"}
    if others := sorted(set(config.tasks) - known):
        raise UsageError(
            f"tasks names {', '.join(others)}; of {config.model} give some of "
            f"{', '.join(sorted(known))}"
        )


def _sources(
    config: AdaptConfig, trainable: Trainable, frontend: SpeechFrontend | None, report: Report
) -> Sources:
    first_pass = load_first_pass(trainable.config.first_pass)
    feature_spec = FeatureSpec(first_pass, first_pass.encoder, 2)
    if frontend:
        feature_spec = feature_spec_of(frontend, first_pass)
    return Sources(feature_spec, trainable.texts, Path(config.cache), report)


def _domain(
    config: AdaptConfig,
    trainable: Trainable,
    sources: Sources,
    manifests: Mapping[str, float],
    sure: Mapping[str, Mapping[str, PseudoReference]],
) -> Sets:
    """The recordings of the new domain, as examples of what is learnt from them.

    sure: manifest → id → pseudo-reference, of the manifests that are not learnt from by units.
    """
    extension = trainable.model.extension
    if config.learn_from == "units" and extension is not None and not extension.unit_head.any():
        raise UsageError(
            f"{config.model} never predicted units; adapt it with learn_from: pseudo_references"
        )
    sets: Sets = []
    for manifest, weight in manifests.items():
        cached = sources.untranscribed(manifest)
        if manifest in sure:
            told = [
                replace(h, text=reference.text, word_ends_s=reference.word_ends_s)
                for h in cached
                if (reference := sure[manifest].get(h.id)) is not None
            ]
            made = [make_example(h, trainable.texts) for h in told]
            sets.append(([example for example in made if example is not None], weight))
        else:
            sets.append(([untranscribed_example(h) for h in cached], weight))
    return sets


def _add_features(
    config: AdaptConfig,
    trainable: Trainable,
    frontend: SpeechFrontend,
    others: Sequence[Example],
    replay: Sequence[Example],
) -> None:
    """Letters and guesses: the bundle's own for speakers it never heard, for those of replay those
    of the folds, where they are named."""
    model = trainable.model
    cross_fitted = CrossFitted(Path(config.folds_of), model) if config.folds_of else None
    known = [(example, None) for example in others]
    for example, speaker in [*known, *((e, e.cached.speaker) for e in replay)]:
        add_ctc_log_probs(
            example,
            cross_fitted.ctc_head(speaker) if cross_fitted and speaker else frontend.ctc_head,
        )
        if cross_fitted and example.words:
            guesses = cross_fitted.guesses(example.chunks, speaker)
            example.guesses = guesses.astype(np.float16)


def _all(sets: Sets) -> list[Example]:
    return [example for examples, _ in sets for example in examples]
