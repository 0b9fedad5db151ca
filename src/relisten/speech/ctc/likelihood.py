"""The CTC likelihood of given labels (CTC: Graves et al., 2006), all alignments summed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

UNSAYABLE = -20.0
"""Nats per label, and once more, of a text with more labels than the frames can hold."""


def ctc_nats(
    log_probs: Tensor, n_steps: Sequence[int], labels: Sequence[Sequence[int]], blank: int = 0
) -> Tensor:
    """-log P of each text's labels, nats [B]; infinite where they are more than the steps hold.

    log_probs: [B, S, V], of which n_steps [B] are speech. Differentiable.
    """
    return torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1),
        torch.tensor([label for one in labels for label in one], dtype=torch.long),
        torch.tensor(n_steps),
        torch.tensor([len(one) for one in labels]),
        blank,
        reduction="none",
    )


def ctc_scores(
    log_probs: Tensor, n_steps: Sequence[int], labels: Sequence[Sequence[int]], blank: int = 0
) -> np.ndarray:
    """log P of each text's labels, nats, float64 [B]; arguments as for `ctc_nats`.

    Always finite: labels that the steps cannot hold cost `UNSAYABLE` each, and once more.
    """
    n_labels = np.array([len(one) for one in labels], np.float64)
    if not log_probs.shape[1]:
        return np.where(n_labels == 0, 0.0, UNSAYABLE * (1 + n_labels))
    scores = -ctc_nats(log_probs, n_steps, labels, blank).double().cpu().numpy()
    return np.where(np.isfinite(scores), scores, UNSAYABLE * (1 + n_labels))
