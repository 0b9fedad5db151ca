"""Development utterances with stored scores in, weights out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from relisten.core.leakage import Seen
from relisten.core.tune import TuningResult, fit_weights
from relisten.core.types import NBest, UsageError
from relisten.io.nbest import read_nbest
from relisten.io.rules import read_rules
from relisten.tasks.leakage import SeenByModels
from relisten.tasks.streams import Refusal, no_hypotheses


def tune(
    scored: str,
    normaliser: str = "english",
    components: tuple[str, ...] = (),
    folds: int = 5,
    seed: int = 0,
    by: str | None = None,
    rules: str | None = None,
    input_format: str = "auto",
    manifest: str | None = None,
) -> tuple[TuningResult, tuple[Refusal, ...]]:
    """The weights found on the file `scored`, and the utterances left out: unreadable, without a
    reference, or such that a model which scored them was trained on them.

    components: the scores to weigh; empty: all that every hypothesis has, and length. by: a key of
    the utterances whose values get weights of their own. rules: a file of the user's own rules of
    what is the same text, which the weights then hold.
    Raises UsageError where no such utterance is left, or none has hypotheses.
    """
    own = read_rules(rules)
    known: list[NBest] = []
    has_seen: list[Seen | None] = []
    refused: list[Refusal] = []
    seen_by, n_learnt_from = SeenByModels(), 0
    for utterance in read_nbest(scored, input_format, manifest, refused.append):
        if utterance.reference is None:
            refused.append(Refusal(utterance.id, "it has no reference"))
        elif (seen := seen_by.of(utterance)) == "utterance":
            refused.append(seen_by.refusal(utterance))
            n_learnt_from += 1
        else:
            known.append(utterance)
            has_seen.append(seen)
    if n_learnt_from and not known:
        names = " and ".join(seen_by.overlap().models)
        raise UsageError(
            f"{scored}: {names} was trained on every utterance with a reference; tune on others"
        )
    if not known:
        raise UsageError(f"{scored}: no utterance has a reference; tuning needs what was said")
    if not any(utterance.hypotheses for utterance in known):
        raise no_hypotheses(scored)
    result = fit_weights(known, normaliser, components or None, folds, seed, by, rules=own)
    return _told_of_training(result, seen_by, has_seen, seed), tuple(refused)


def tune_weights(
    nbests: Sequence[NBest],
    normaliser: str = "english",
    components: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    by: str | None = None,
    n_resamples: int = 100,
    rules: str | None = None,
) -> TuningResult:
    """Weights with few word errors on `nbests`, whose references are known.

    They are found as `core.tune.fit_weights` says. `result.training` says what the models that
    scored the lists have seen of them, and `result.new_references` what to expect without the
    references that they have seen.
    Raises UsageError where a model was trained on one of the utterances, and as `fit_weights` does.
    """
    seen_by = SeenByModels()
    has_seen = [seen_by.of(one) for one in nbests]
    if trained_on := [
        one.id for one, seen in zip(nbests, has_seen, strict=True) if seen == "utterance"
    ]:
        names = " and ".join(seen_by.overlap().models)
        raise UsageError(
            f"{names} was trained on {len(trained_on)} of the {len(nbests)} utterances, the first "
            f"is {trained_on[0]!r}; leave them out, so that weights fit speech that is new to it"
        )
    own = read_rules(rules)
    result = fit_weights(nbests, normaliser, components, folds, seed, by, n_resamples, own)
    return _told_of_training(result, seen_by, has_seen, seed)


def _told_of_training(
    result: TuningResult, seen_by: SeenByModels, has_seen: Sequence[Seen | None], seed: int
) -> TuningResult:
    is_new = np.array([seen is None for seen in has_seen])
    some_seen = 0 < is_new.sum() < len(is_new)
    new = result.rates_on(is_new, seed) if some_seen else None
    return replace(result, training=seen_by.overlap(), new_references=new)
