"""Which hypotheses may still win once a language model has read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from relisten.core.combine import Weights, combined_scores
from relisten.core.types import LM_COMPONENTS, NBest


def contenders(nbest: NBest, weights: Weights, margin: float) -> NBest:
    """The utterance without hypotheses more than `margin` nats below the best, and the first one.

    Compared is the weighted sum of all scores but the language model's: what is left out wins
    only where that would make up for more than the margin. The first hypothesis stays, since it is
    the first pass's choice. Raises FormatError where a score that counts is missing.
    """
    known = replace(
        weights,
        values=_without_lm(weights.values),
        domains={name: _without_lm(values) for name, values in weights.domains.items()},
    )
    values = combined_scores(nbest, known)
    if not len(values):
        return nbest
    stays = values >= values.max() - margin
    stays[0] = True
    kept = tuple(nbest.hypotheses[i] for i in np.flatnonzero(stays))
    return replace(nbest, hypotheses=kept)


def _without_lm(values: Mapping[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in values.items() if name not in LM_COMPONENTS}
