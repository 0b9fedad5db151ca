"""Lists: scores added to them, and the best hypothesis put first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from relisten.core.combine import (
    Weights,
    fingerprint,
    in_first_pass_order,
    merge_hypotheses,
    with_context,
)
from relisten.core.decide import Decision, decide
from relisten.core.length_bounds import has_speech_score, within_length_bounds
from relisten.core.rules import NO_RULES, Rules
from relisten.core.text import cached_normaliser
from relisten.core.types import (
    OF_TAUGHT,
    NBest,
)
from relisten.tasks.streams import Refusal, work_on_accepted

if TYPE_CHECKING:
    from relisten.lm.sequences import Speech
    from relisten.tasks.loading import LoadedRescorer

FAMILIARITY_KEY, STRANGE = "familiarity", "strange"
"""Key and value of an utterance whose speech is not that which an adapted recogniser was taught; a
bundle has other weights for it."""
TUNED_ON = "tuned_on"
"""Key of a ranked utterance that the weights were tuned on; `evaluate` refuses it."""
MOST_SCORED_WORDS = 2_000
"""A quarter of an hour of speech. An LM's memory grows with the square of a text: 20,000 words
would take 39 GB."""


def add_scores(
    rescorer: LoadedRescorer,
    utterances: Sequence[NBest],
    speeches: Sequence[Speech | Refusal | None],
    components: Sequence[str],
) -> list[NBest | Refusal]:
    """The utterances with `components` added, nats. One is refused whose speech is, or that lacks
    what a component needs."""
    items: list[tuple[NBest, Speech | None] | Refusal] = []
    for utterance, speech in zip(utterances, speeches, strict=True):
        if isinstance(speech, Refusal):
            items.append(speech)
        elif reason := _too_long(utterance) or rescorer.lacks(
            utterance, components, speech is not None
        ):
            items.append(Refusal(utterance.id, reason))
        else:
            items.append((utterance, speech))
    return work_on_accepted(items, lambda some: _scored(rescorer, some, components))


def _scored(
    rescorer: LoadedRescorer,
    items: Sequence[tuple[NBest, Speech | None]],
    components: Sequence[str],
) -> list[NBest]:
    from relisten.lm.scorer import ScoringInput

    inputs = [
        ScoringInput(
            tuple(hypothesis.text for hypothesis in utterance.hypotheses),
            tuple(hypothesis.word_ends_s for hypothesis in utterance.hypotheses),
            speech,
        )
        for utterance, speech in items
    ]
    columns = {component: rescorer.score(inputs, component) for component in components}
    scored = []
    for u, (utterance, speech) in enumerate(items):
        hypotheses = tuple(
            replace(h, scores={**h.scores, **{c: float(columns[c][u][n]) for c in components}})
            for n, h in enumerate(utterance.hypotheses)
        )
        utterance = replace(utterance, hypotheses=hypotheses)
        if speech is not None and {*OF_TAUGHT} & {*components}:
            utterance = marked_strange(utterance, speech.is_strange)
        scored.append(utterance)
    return scored


def marked_strange(utterance: NBest, is_strange: bool) -> NBest:
    """The utterance with or without the mark by which weights choose a domain."""
    extra = {key: value for key, value in utterance.extra.items() if key != FAMILIARITY_KEY}
    return replace(utterance, extra={**extra, FAMILIARITY_KEY: STRANGE} if is_strange else extra)


def rank(
    utterance: NBest, weights: Weights, decision: Decision = "map", confidence: bool = True
) -> NBest:
    """The utterance, equal texts merged, what `decision` chooses first, with posteriors and,
    where asked for, word confidence (`core.decide`); marked where `weights` were tuned on it.

    Of equal texts the one that the first pass liked best stays, with its surface form, word ends
    and scores; `asr` alone becomes the log-sum-exp of all of theirs, since the first pass shared
    the probability of the words out among them. A bonus for phrases, `context`, counts fully where
    the weights do not name it. Where no score of the speech counts, hypotheses far shorter or
    longer than the list's others stand last, whatever their scores (`core.length_bounds`).
    Raises FormatError where a score that is weighed is missing.
    """
    extra = {key: value for key, value in utterance.extra.items() if key != TUNED_ON}
    if weights.tuned_on and fingerprint(utterance) in weights.tuned_on:
        extra[TUNED_ON] = True
    merged, implausible = merge_equal(utterance, weights.normaliser, weights.rules), []
    if not has_speech_score(weights.values_for(utterance)):
        is_within = within_length_bounds(merged)
        pairs = [*zip(merged.hypotheses, is_within, strict=True)]
        merged = replace(merged, hypotheses=tuple(h for h, stays in pairs if stays))
        implausible = [replace(h, posterior=0.0) for h, stays in pairs if not stays]
    ranked = decide(merged, with_context(weights), decision, confidence)
    return replace(ranked, hypotheses=(*ranked.hypotheses, *implausible), extra=extra)


def merge_equal(utterance: NBest, normaliser: str, rules: Rules = NO_RULES) -> NBest:
    """The utterance in first-pass order, texts that are equal to the normaliser merged."""
    return merge_hypotheses(in_first_pass_order(utterance), cached_normaliser(normaliser, rules))


def _too_long(utterance: NBest) -> str | None:
    """Which of its hypotheses is too long to be scored, as a sentence; None where none is."""
    for place, hypothesis in enumerate(utterance.hypotheses, 1):
        n_words = len(hypothesis.text.split())
        if n_words > MOST_SCORED_WORDS or len(hypothesis.text) > 10 * MOST_SCORED_WORDS:
            return (
                f"hypothesis {place} has {n_words:,} words in {len(hypothesis.text):,} "
                f"characters, and at most {MOST_SCORED_WORDS:,} words and "
                f"{10 * MOST_SCORED_WORDS:,} characters are scored at once; score segments of "
                "the recording"
            )
    return None
