"""Development utterances with stored scores in, weights out."""

from __future__ import annotations

from relisten.core.tune import TuningResult, tune_weights
from relisten.core.types import NBest, UsageError
from relisten.io.nbest import read_nbest
from relisten.tasks.streams import Refusal, no_hypotheses


def tune(
    scored: str,
    normaliser: str = "english",
    components: tuple[str, ...] = (),
    folds: int = 5,
    seed: int = 0,
    by: str | None = None,
    input_format: str = "auto",
    manifest: str | None = None,
) -> tuple[TuningResult, tuple[Refusal, ...]]:
    """The weights found on the file `scored`, and the utterances left out: unreadable, or
    without a reference.

    components: the scores to weigh; empty: all that every hypothesis has, and length. by: a key of
    the utterances whose values get weights of their own.
    Raises UsageError where no utterance has a reference, or none has hypotheses.
    """
    known: list[NBest] = []
    refused: list[Refusal] = []
    for utterance in read_nbest(scored, input_format, manifest, refused.append):
        if utterance.reference is None:
            refused.append(Refusal(utterance.id, "it has no reference"))
        else:
            known.append(utterance)
    if not known:
        raise UsageError(f"{scored}: no utterance has a reference; tuning needs what was said")
    if not any(utterance.hypotheses for utterance in known):
        raise no_hypotheses(scored)
    result = tune_weights(
        known,
        normaliser=normaliser,
        components=components or None,
        folds=folds,
        seed=seed,
        by=by,
    )
    return result, tuple(refused)
