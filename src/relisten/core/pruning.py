"""Which hypotheses can still win once the expensive scores are known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from relisten.core.combine import Weights, combined_scores
from relisten.core.types import NBest


def prune_by_margin(
    nbest: NBest, weights: Weights, margin: float, unknown: Collection[str]
) -> NBest:
    """The utterance without hypotheses more than `margin` nats below the best, except the first.

    Compared is the weighted sum of all scores except the unknown ones: a pruned hypothesis would
    win only if those made up for more than the margin. The first hypothesis stays, since it is the
    first pass's choice. Raises FormatError where another weighted score is missing.
    """

    def known(values: Mapping[str, float]) -> dict[str, float]:
        return {name: weight for name, weight in values.items() if name not in unknown}

    domains = {name: known(values) for name, values in weights.domains.items()}
    weights = replace(weights, values=known(weights.values), domains=domains)
    values = combined_scores(nbest, weights)
    if not len(values):
        return nbest
    stays = values >= values.max() - margin
    stays[0] = True
    kept = tuple(nbest.hypotheses[i] for i in np.flatnonzero(stays))
    return replace(nbest, hypotheses=kept)
