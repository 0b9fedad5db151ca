"""How far a text agrees with what a recogniser said, as a score that needs no probabilities.

    agreement.NAME(y) = max_k ( −edits(y, t_k) − ln k )

over the texts t_1, t_2, … of recogniser NAME, best first; edits counts the word substitutions,
deletions and insertions between two normalised texts. What it said first has 0, and a text that
differs from it in two words −2. A weighted sum of these is a vote in which each word that another
recogniser does not share costs its weight: minimum Bayes risk, with weights that can be tuned. A
recogniser without the utterance gives 0 to all: it does not vote.

Likeness of letters, the number of systems that agree, pairs of systems and counts over the whole
set were tried beside it; cross-validated, none had clearly fewer errors (`LOG.md`, 2026-11-28).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rapidfuzz.distance import Levenshtein

from relisten.core.text import Normaliser
from relisten.core.types import AGREEMENT, SYSTEMS, NBest, UsageError

DEFAULT_LEAD = 0.5
"""The first system's weight, in votes of all systems together, where nobody tuned. Of five it is
overruled where at least three of the four others agree, of two never. Docs: `combining.md`."""


def agreement_with(words: Sequence[str], said: Sequence[Sequence[str]]) -> float:
    """The agreement of a text with those of one recogniser, all as words, its best first."""
    return max(
        (-Levenshtein.distance(words, own) - math.log(k) for k, own in enumerate(said, 1)),
        default=0.0,
    )


def agreement_name(system: str) -> str:
    """The score that holds the agreement with a system."""
    return f"{AGREEMENT}.{system}"


def is_agreement(component: str) -> bool:
    """Whether it is the agreement with a system."""
    return component.startswith(f"{AGREEMENT}.")


def default_votes(components: Sequence[str]) -> dict[str, float]:
    """Weights of agreements that nobody tuned; that of the first system is `DEFAULT_LEAD` of all.

    components: `agreement.NAME` of each system, in the order they were combined in.
    """
    votes = dict.fromkeys(components, 1.0)
    if votes:
        first = next(iter(votes))
        votes[first] = max(1.0, DEFAULT_LEAD * len(votes))
    return votes


def texts_of_systems(utterance: NBest) -> Mapping[str, str]:
    """What each system said, system → its best text; empty where no lists were combined.

    Raises UsageError where the key of the file holds something else.
    """
    said = utterance.extra.get(SYSTEMS, {})
    if not isinstance(said, dict) or not all(isinstance(text, str) for text in said.values()):
        raise UsageError(
            f"{utterance.id!r}: the key {SYSTEMS!r} holds no texts by system; `relisten combine` "
            "writes it, so name yours otherwise"
        )
    return said


def errors_of_systems(utterances: Sequence[NBest], normalise: Normaliser) -> dict[str, list[int]]:
    """Word errors of each system that has every utterance, by utterance."""
    names = [set(texts_of_systems(one)) for one in utterances]
    complete = set.intersection(*names) if names else set()
    errors: dict[str, list[int]] = {name: [] for name in sorted(complete)}
    for one in utterances:
        words = normalise(one.reference or "").split()
        for name, text in texts_of_systems(one).items():
            if name in complete:
                errors[name].append(Levenshtein.distance(words, normalise(text).split()))
    return errors
