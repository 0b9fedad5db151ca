"""Stored scores in, ranked N-best lists out."""

from __future__ import annotations

from dataclasses import replace

from relisten.core.combine import (
    Weights,
    fingerprint,
    in_first_pass_order,
    merge_hypotheses,
    with_context,
)
from relisten.core.decide import Decision, decide
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import NBest
from relisten.tasks.streams import Outcome, Tick, no_tick, walk

TUNED_ON = "tuned_on"
"""Key of a ranked utterance that the weights were tuned on; `evaluate` refuses it."""


def rescore(
    scored: str,
    output: str,
    weights: Weights,
    decision: Decision = "map",
    input_format: str = "auto",
    manifest: str | None = None,
    resume: bool = False,
    tick: Tick = no_tick,
) -> Outcome:
    """What became of the utterances of the file `scored`, written best first to `output`.

    Hypotheses whose texts are equal to the normaliser of `weights` become one, as when tuning; ties
    keep first-pass order, and every hypothesis carries its `first_pass_rank`. See `rank`. A bonus
    for phrases, `context`, counts fully where `weights` do not name it.
    Raises FormatError where a hypothesis lacks a score that `weights` weighs.
    """
    weights = with_context(weights)
    return walk(
        scored,
        output,
        lambda chunk: [rank(utterance, weights, decision) for utterance in chunk],
        input_format=input_format,
        manifest=manifest,
        resume=resume,
        tick=tick,
    )


def rank(utterance: NBest, weights: Weights, decision: Decision = "map") -> NBest:
    """The utterance, equal texts merged, what `decision` chooses first, marked where `weights`
    were tuned on it; with posteriors and word confidence (`core.decide`).

    Of equal texts the one that the first pass liked best stays, with its surface form, word ends
    and scores; `asr` alone becomes the log-sum-exp of all of theirs, since the first pass shared
    the probability of the words out among them.
    """
    extra = {key: value for key, value in utterance.extra.items() if key != TUNED_ON}
    if weights.tuned_on and fingerprint(utterance) in weights.tuned_on:
        extra[TUNED_ON] = True
    merged = merge_equal(utterance, weights.normaliser)
    return replace(decide(merged, weights, decision), extra=extra)


def merge_equal(utterance: NBest, normaliser: str) -> NBest:
    """The utterance in first-pass order, texts that are equal to the normaliser merged."""
    return merge_hypotheses(in_first_pass_order(utterance), normaliser_named(normaliser))
