"""Minimum word error rate training (MWER, arXiv:1712.01818) of a bundle on N-best lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import cast

import torch
from accelerate import PartialState
from torch import Tensor, nn

from relisten.core.combine import Weights
from relisten.core.leakage import TrainedOn
from relisten.core.types import LENGTH, LM_COMPONENTS, ModelError, UsageError
from relisten.lm.mwer import Combination
from relisten.lm.scorer import Component, Scorer, SpeechOrder
from relisten.tasks.defaults import MODEL
from relisten.tasks.frontend import bundle_frontend
from relisten.tasks.streams import Say
from relisten.tasks.training.config import STATE, keep_config
from relisten.tasks.training.cross_fit import CrossFitted
from relisten.tasks.training.examples import WeightedSets, all_of
from relisten.tasks.training.keys import FilePath, ModelReference, key, section
from relisten.tasks.training.lists import NORMALISER, ListReader, TrainingList, draw_lists
from relisten.tasks.training.loop import CHECKPOINT, products_dtype, train
from relisten.tasks.training.mwer import Objective
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.training.trainable import Trainable, open_for_training, trained_parameters


@dataclass(frozen=True)
class FinetuneConfig:
    """What `relisten finetune` does; unknown keys are refused."""

    output: FilePath = key(
        MISSING,
        "Folder of the new bundle; the run keeps its state in the folder `state` of it.",
        affects_training=False,
    )
    nbest: Mapping[FilePath, float] = key(
        MISSING, "N-best file with references → how often a list of it is drawn."
    )
    dev_nbest: tuple[FilePath, ...] = key(
        (), "N-best files of development speech, for evaluation.", affects_training=False
    )
    dev_utterances: int = key(
        400, "Lists of each development file to evaluate on.", affects_training=False
    )
    model: ModelReference = key(MODEL, "Bundle to start from.")
    components: tuple[str, ...] = key(
        (), "Scores of the LM to train and weigh; all that the bundle gives, where none is named."
    )
    cache: FilePath = key("runs/cache", "Folder for encoded speech.", affects_training=False)
    folds_of: FilePath = key(
        "",
        "Folder `state` of the run that made the bundle: the speech of its speakers then enters by "
        "CTC heads and projectors that were not trained on them.",
    )
    lora_rank: int = key(
        16, "Rank of the LoRA adapter of a bundle that has none; 0: train all layers of its LM."
    )
    batch: int = key(8, "N-best lists of a batch.")
    ce_weight: float = key(
        0.0,
        "Weight of the reference's cross-entropy, nats per token, beside the expected word errors.",
    )
    add_reference: bool = key(
        False,
        "Add the reference to lists that lack it, with the first-pass score of their last "
        "hypothesis.",
    )
    max_hypotheses: int = key(10, "Hypotheses of a list to train on, the first pass's best.")
    weights_rate: float = key(30.0, "Factor of the learning rate for the weights of the scores.")
    schedule: Schedule = section(
        Schedule, steps=400, learning_rate=1e-4, warmup_steps=20, eval_every=50
    )
    dtype: str = key(
        "auto",
        "Precision of the LM's products: bfloat16, float32, or auto: float32 on a CPU that is slow "
        "in bfloat16.",
    )
    seed: int = key(0, "Seed for all random draws.")

    def __post_init__(self) -> None:
        if not self.nbest:
            raise UsageError("finetune needs at least one file of N-best lists")
        if unknown := sorted(set(self.components) - set(LM_COMPONENTS)):
            raise UsageError(f"components {unknown}: give some of {', '.join(LM_COMPONENTS)}")
        for name in ("batch", "max_hypotheses", "dev_utterances"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.ce_weight < 0:
            raise UsageError(f"ce_weight is {self.ce_weight}; it must not be negative")
        self.schedule.check_watched(self.dev_nbest, "dev_nbest")


def finetune(config: FinetuneConfig, say: Say = print) -> dict[str, float]:
    """Development word error rates, in %, of the bundle written to `config.output`."""
    output = Path(config.output)
    run = Run(output / STATE, config.seed, say)
    processes, dtype = PartialState(), products_dtype(config.dtype)
    start = open_for_training(config.model, dtype, config.lora_rank, processes.device, config.seed)
    if start.folder.resolve() == output.resolve():
        raise UsageError(f"{config.output}: is the bundle to start from; name another output")
    run.state.mkdir(parents=True, exist_ok=True)
    scorer = _scorer(config, start)
    with processes.main_process_first():  # the others find what it encoded
        keep_config(run.state, config)
        cross_fitted = CrossFitted(Path(config.folds_of), start.model) if config.folds_of else None
        sets, dev = _lists(config, start, scorer, cross_fitted, say)
    combination = Combination(_first_weights(start, scorer)).to(processes.device)
    objective = Objective(scorer, combination, scorer.components, config.ce_weight, cross_fitted)
    dev_metrics = _train(config, start, objective, sets, dev, run)
    if processes.is_main_process:
        seen = TrainedOn.of(one.utterance for one in all_of(sets))
        if config.schedule.patience:  # then the development lists choose what is kept
            seen |= TrainedOn(TrainedOn.of(one.utterance for one in dev).utterances)
        tuned_on = start.config.weights.tuned_on
        start.save(output, Weights(combination.weights, NORMALISER, tuned_on), seen)
    return dev_metrics


def _scorer(config: FinetuneConfig, start: Trainable) -> Scorer:
    """Raises ModelError where the bundle does not give one of the components."""
    components = config.components or start.config.components
    if unknown := sorted(set(components) - set(start.config.components)):
        raise ModelError(
            f"{config.model} was not trained for {', '.join(unknown)}; "
            f"it scores {', '.join(start.config.components)}"
        )
    order = cast(SpeechOrder, start.config.speech_order)
    return Scorer(start.model, start.texts, order, components=components)


def _first_weights(start: Trainable, scorer: Scorer) -> dict[str, float]:
    """The bundle's weights: of the scores that are trained, of `length`, and of those that the
    lists must hold: not the LM's (`asr`, for example) and of a weight. 0 where it has none."""
    bundles = start.config.weights.values
    stored = [name for name, weight in bundles.items() if weight and name not in LM_COMPONENTS]
    names = dict.fromkeys((*stored, *scorer.components, LENGTH))
    return {name: bundles.get(name, 0.0) for name in names}


def _lists(
    config: FinetuneConfig,
    start: Trainable,
    scorer: Scorer,
    cross_fitted: CrossFitted | None,
    say: Say,
) -> tuple[WeightedSets[TrainingList], list[TrainingList]]:
    """Training lists that something can be learnt from, with their weights; development lists."""
    reader = ListReader(
        scorer,
        cast(Sequence[Component], scorer.components),
        [name for name in _first_weights(start, scorer) if name not in scorer.components],
        config.max_hypotheses,
        bundle_frontend(start.folder, start.config) if start.config.has_speech else None,
        start.config.first_pass,
        Path(config.cache),
    )

    def read(path: str, is_training: bool) -> list[TrainingList]:
        adds = is_training and config.add_reference
        needs_reference = is_training and config.ce_weight > 0
        made, left_out = reader.read(
            path, needs_reference, adds, cross_fitted if is_training else None
        )
        lists = made
        if is_training and not config.ce_weight:
            lists = [one for one in made if one.errors.min() < one.errors.max()]
            left_out["no better or worse hypothesis"] = len(made) - len(lists)
        say(f"{path}: {len(lists)} lists{_reasons(left_out)}")
        return lists

    sets = [(read(path, True), weight) for path, weight in config.nbest.items()]
    if not any(lists and weight for lists, weight in sets):
        raise UsageError("no list to learn from; see what was left out above")
    dev: list[TrainingList] = []
    for path in config.dev_nbest:
        lists = read(path, False)
        dev += lists[:: max(1, len(lists) // config.dev_utterances)][: config.dev_utterances]
    return sets, dev


def _reasons(left_out: Counter[str]) -> str:
    reasons = [f"{reason}: {n}" for reason, n in sorted(left_out.items()) if n]
    return f" (left out, {', '.join(reasons)})" if reasons else ""


def _train(
    config: FinetuneConfig,
    start: Trainable,
    objective: Objective,
    sets: WeightedSets[TrainingList],
    dev: Sequence[TrainingList],
    run: Run,
) -> dict[str, float]:
    model = start.model
    weights = {f"weights.{name}": p for name, p in objective.combination.named_parameters()}
    trained: dict[str, nn.Parameter] = {**trained_parameters(model), **weights}

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        lists = draw_lists(sets, config.batch, config.seed, step, micro)
        model.train()
        is_narrower = start.dtype.itemsize < model.dtype.itemsize
        with torch.autocast(model.device.type, start.dtype, enabled=is_narrower):
            loss, n_tokens = objective.loss(lists)
        return "mwer", loss, n_tokens

    def dev_metrics() -> dict[str, float]:
        return objective.dev_metrics(dev) if dev else {}

    if dev and PartialState().is_main_process and not (run.state / CHECKPOINT).exists():
        before = objective.dev_metrics(dev)
        told = " · ".join(f"{name} {figure:.2f}" for name, figure in before.items())
        run.say(f"before: {told} %")
    rates = dict.fromkeys(weights, config.weights_rate)
    return train(trained, config.schedule, micro_step, dev_metrics, run, rates)
