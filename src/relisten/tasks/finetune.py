"""Minimum word error rate training (MWER, arXiv:1712.01818) of a bundle on N-best lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from accelerate import PartialState
from torch import Tensor, nn

from relisten.core.combine import Weights
from relisten.core.types import LENGTH, LM_COMPONENTS, ModelError, UsageError
from relisten.lm.mwer import Combination
from relisten.lm.scorer import Component, Scorer, SpeechOrder
from relisten.tasks.defaults import MODEL
from relisten.tasks.frontend import bundle_frontend
from relisten.tasks.training.config import STATE, keep_config
from relisten.tasks.training.cross_fit import CrossFitted
from relisten.tasks.training.examples import Report
from relisten.tasks.training.lists import NORMALISER, ListReader, TrainingList, draw_lists
from relisten.tasks.training.loop import CHECKPOINT, Schedule, check_schedule, products_dtype, train
from relisten.tasks.training.mwer import Objective
from relisten.tasks.training.trainable import Trainable, open_for_training, trained_parameters

Corpus = list[tuple[list[TrainingList], float]]


@dataclass(frozen=True)
class FinetuneConfig:
    """What `relisten finetune` does; unknown keys are refused.

    output: the new bundle's folder; the run's state is kept in its folder `state`. nbest: path of
    N-best lists with references → how often a list of it is drawn; dev_nbest: what the gauge is
    read from, dev_utterances of each. model: the bundle to start from. components: scores of the LM
    to train and weigh; all that the bundle gives, where none is named. cache: where what was heard
    is kept. folds_of: the folder `state` of the run that made the bundle; its speakers' chunks then
    enter as projectors guess them that never heard those speakers. lora_rank: of a bundle without
    an adapter; 0 trains all of its LM's layers. batch: lists of a micro-step. ce_weight: of the
    reference's cross-entropy, nats a token, beside the expected word errors. add_reference: to
    lists that lack it, with the first-pass score of their last hypothesis. max_hypotheses: of a
    list, the first pass's best. weights_rate: how many times the learning rate the weights of the
    scores move by. schedule: how the learning rate falls; accumulate: batches whose mean gradient
    makes a step; patience: stop where the development WER got no lower for so many evaluations, and
    keep the best (0: never). dtype: as in `pretrain`. seed: of everything drawn.
    """

    output: str
    nbest: Mapping[str, float]
    dev_nbest: tuple[str, ...] = ()
    dev_utterances: int = 400
    model: str = MODEL
    components: tuple[str, ...] = ()
    cache: str = "runs/cache"
    folds_of: str = ""
    lora_rank: int = 16
    steps: int = 400
    batch: int = 8
    ce_weight: float = 0.0
    add_reference: bool = False
    max_hypotheses: int = 10
    learning_rate: float = 1e-4
    weights_rate: float = 30.0
    warmup_steps: int = 20
    eval_every: int = 50
    schedule: Literal["cosine", "linear"] = "cosine"
    accumulate: int = 1
    patience: int = 0
    dtype: str = "auto"
    seed: int = 0

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
        check_schedule(self, "dev_nbest")


def finetune(config: FinetuneConfig, report: Report = print) -> dict[str, float]:
    """Development word error rates, in %, of the bundle written to `config.output`."""
    output = Path(config.output)
    processes = PartialState()
    start = open_for_training(
        config.model,
        products_dtype(config.dtype),
        config.lora_rank,
        processes.device,
        config.seed,
    )
    if start.folder.resolve() == output.resolve():
        raise UsageError(f"{config.output}: is the bundle to start from; name another output")
    state = output / STATE
    state.mkdir(parents=True, exist_ok=True)
    scorer = _scorer(config, start)
    with processes.main_process_first():  # the others find what it heard
        keep_config(state, config)
        cross_fitted = CrossFitted(Path(config.folds_of), start.model) if config.folds_of else None
        corpus, dev = _lists(config, start, scorer, cross_fitted, report)
    weights = _first_weights(start, scorer)
    combination = Combination(weights).to(processes.device)
    objective = Objective(scorer, combination, scorer.components, config.ce_weight, cross_fitted)
    dev_metrics = _train(config, start, objective, corpus, dev, state, report)
    if processes.is_main_process:
        tuned_on = frozenset(one.fingerprint for lists, _ in corpus for one in lists)
        start.save(output, Weights(combination.weights, NORMALISER, tuned_on))
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
    """The bundle's, of what is trained, of `length`, and of what the lists are to bring: scores
    that are not the LM's (`asr`, say) and count. 0 of what it did not weigh."""
    bundles = start.config.weights.values
    brought = [name for name, weight in bundles.items() if weight and name not in LM_COMPONENTS]
    names = dict.fromkeys((*brought, *scorer.components, LENGTH))
    return {name: bundles.get(name, 0.0) for name in names}


def _lists(
    config: FinetuneConfig,
    start: Trainable,
    scorer: Scorer,
    cross_fitted: CrossFitted | None,
    report: Report,
) -> tuple[Corpus, list[TrainingList]]:
    """Training lists that there is something to learn from, with their weights; development
    lists."""
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
        report(f"{path}: {len(lists)} lists{_reasons(left_out)}")
        return lists

    corpus = [(read(path, True), weight) for path, weight in config.nbest.items()]
    if not any(lists and weight for lists, weight in corpus):
        raise UsageError("no list to learn from; see what was left out above")
    dev: list[TrainingList] = []
    for path in config.dev_nbest:
        lists = read(path, False)
        dev += lists[:: max(1, len(lists) // config.dev_utterances)][: config.dev_utterances]
    return corpus, dev


def _reasons(left_out: Counter[str]) -> str:
    reasons = [f"{reason}: {n}" for reason, n in sorted(left_out.items()) if n]
    return f" (left out, {', '.join(reasons)})" if reasons else ""


def _train(
    config: FinetuneConfig,
    start: Trainable,
    objective: Objective,
    corpus: Corpus,
    dev: Sequence[TrainingList],
    state: Path,
    report: Report,
) -> dict[str, float]:
    model = start.model
    weights = {f"weights.{name}": p for name, p in objective.combination.named_parameters()}
    trained: dict[str, nn.Parameter] = {**trained_parameters(model), **weights}

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        lists = draw_lists(corpus, config.batch, config.seed, step, micro)
        model.train()
        is_narrower = start.dtype.itemsize < model.dtype.itemsize
        with torch.autocast(model.device.type, start.dtype, enabled=is_narrower):
            loss, n_tokens = objective.loss(lists)
        return "mwer", loss, n_tokens

    def dev_metrics() -> dict[str, float]:
        return objective.dev_metrics(dev) if dev else {}

    if dev and PartialState().is_main_process and not (state / CHECKPOINT).exists():
        before = objective.dev_metrics(dev)
        report(f"before: {' · '.join(f'{name} {figure:.2f}' for name, figure in before.items())} %")
    rates = dict.fromkeys(weights, config.weights_rate)
    return train(trained, Schedule.of(config), micro_step, dev_metrics, state, report, rates)
