"""Minimum word error rate training on N-best lists (MWER, arXiv:1712.01818).

    P_n  = softmax over the list of  sharpness · (asr_n + Σ_c weight_c · score_c,n)
    loss = Σ_n P_n · (errors_n − mean errors)

The scores come from prefix trees, so that a step on a list of N costs one pass over its tree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor, nn

from relisten.core.types import ASR, UsageError
from relisten.lm.forward import tree_log_probs
from relisten.lm.model import SpeechTextLM
from relisten.lm.sequences import Speech
from relisten.lm.tree import PrefixTree


class Combination(nn.Module):
    """The log-linear combination of `core.combine`, with trainable weights; that of `asr` is fixed.

    weights: initial values; all are divided by that of `asr`, which is 1 from then on (or 0, where
    it has none). The divisor is the initial value of the sharpness, which changes no ranking but
    how peaked the posterior is. Raises UsageError where the weight of `asr` is negative.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        first = weights.get(ASR, 0.0)
        if first < 0:
            raise UsageError(f"the weight of asr is {first}; it must not be negative")
        self.asr = 1.0 if first else 0.0
        self.names = tuple(name for name in weights if name != ASR)
        self.learnt = nn.ParameterDict(
            {
                name: nn.Parameter(torch.tensor(weights[name] / (first or 1.0)))
                for name in self.names
            }
        )
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(first or 1.0)))

    @property
    def weights(self) -> dict[str, float]:
        """Component → weight; `asr` counts 1."""
        learnt = {name: float(self.learnt[name].detach()) for name in self.names}
        return {ASR: 1.0, **learnt} if self.asr else learnt

    def forward(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The logits of the posterior, float32 [N], from each component's scores [N]."""
        total = sum(self.learnt[name] * scores[name] for name in self.names)
        if self.asr:
            total = total + scores[ASR]
        return self.log_sharpness.exp() * total


def mwer_loss(combined: Tensor, errors: Tensor) -> Tensor:
    """Expected word errors of a list, minus their mean: a scalar. combined, errors: [N].

    The mean is a constant and changes no gradient; it makes the loss of a list zero whose
    hypotheses have equally many errors.
    """
    return (combined.softmax(-1) * (errors - errors.mean())).sum()


def hypothesis_scores(
    model: SpeechTextLM,
    trees: Seq[PrefixTree],
    speeches: Seq[Speech | None],
    guesses: Seq[np.ndarray] | None = None,
) -> list[Tensor]:
    """Scores of every hypothesis of each tree, nats, float32 [N]; differentiable.

    speeches, guesses: one per tree, as `tree_log_probs` takes them.
    """
    values = tree_log_probs(model, trees, speeches, guesses)
    return [
        torch.stack([value[torch.from_numpy(path).to(value.device)].sum() for path in tree.paths])
        for value, tree in zip(values, trees, strict=True)
    ]
