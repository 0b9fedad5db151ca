"""Stored scores in, ranked N-best lists out."""

from __future__ import annotations

from collections.abc import Iterator

from relisten.core.combine import Weights
from relisten.core.decide import Decision
from relisten.core.types import FormatError, NBest, Refusal
from relisten.tasks.ranking import rank
from relisten.tasks.streams import Outcome, Say, Tick, no_tick, say_nothing, walk
from relisten.tasks.weights import OwnWeights


def rescore(
    scored: str,
    output: str,
    weights: Weights | None = None,
    decision: Decision = "map",
    confidence: bool = True,
    input_format: str = "auto",
    manifest: str | None = None,
    resume: bool = False,
    tick: Tick = no_tick,
    say: Say = say_nothing,
) -> Outcome:
    """What became of the utterances of the file `scored`, written best first to `output`.

    weights: what each score counts for; None: the weights of the model that scored the utterance,
    or the first pass alone where no model's belong (`tasks.weights.OwnWeights`; `say` is told).
    Hypotheses whose texts are equal to the normaliser of the weights become one, as when tuning;
    ties keep first-pass order, and every hypothesis carries its `first_pass_rank`. See `rank`.
    A list that lacks a score which `weights` weighs is refused, and the others are ranked. Raises
    UsageError where all lack it.
    """
    own = OwnWeights(say)

    def ranked(chunk: list[NBest]) -> Iterator[NBest | Refusal]:
        for one in chunk:
            try:
                yield rank(one, weights or own(one), decision, confidence)
            except FormatError as error:
                yield Refusal(one.id, str(error))

    return walk(
        scored,
        output,
        ranked,
        {
            "command": "rescore",
            "weights": weights and weights.to_json(),
            "decision": decision,
            "confidence": confidence,
        },
        input_format=input_format,
        manifest=manifest,
        resume=resume,
        tick=tick,
        needs_hypotheses=True,
        needs_one=True,
    )
