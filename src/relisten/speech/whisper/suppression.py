"""Whisper's suppression lists, and log-probabilities under them.

Whisper takes some tokens out (music notes and the like everywhere; blank and end at the start) and
renormalises what is left. A given text may hold such a token all the same: there the token counts
among what is left, so that every text has a finite score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Suppression:
    """everywhere: tokens suppressed at every position; at_start: also as the first of a text."""

    everywhere: Sequence[int] = ()
    at_start: Sequence[int] = ()

    @torch.inference_mode()
    def log_z(self, logits: Tensor, start_row: int | None = None) -> Tensor:
        """Log of the summed exp of the logits [R, V] that are not suppressed: [R].

        start_row: the row that predicts the first token of a text, if any. Changes the logits.
        """
        logits[:, list(self.everywhere)] = -torch.inf
        if start_row is not None:
            logits[start_row, list(self.at_start)] = -torch.inf
        return logits.logsumexp(-1)

    def sum_logprob(self, logits: Tensor, tokens: Sequence[int]) -> float:
        """Summed log-probability, nats, of a text's tokens [K] from its logits [K, V].

        Changes the logits.
        """
        targets, is_start = np.array(tokens), np.arange(len(tokens)) == 0
        chosen = logits[torch.arange(len(tokens)), torch.from_numpy(targets)]
        return float(self.logprobs(chosen, self.log_z(logits, 0), targets, is_start).sum())

    def logprobs(
        self, logits: Tensor, log_z: Tensor, tokens: np.ndarray, is_start: np.ndarray
    ) -> np.ndarray:
        """Log-probabilities, nats, float64 [K], of tokens int [K].

        logits, log_z: [K], of each token and of its position. is_start: bool [K], whether it is
        the first of its text. A suppressed token counts among what its position allows.
        """
        is_suppressed = np.isin(tokens, self.everywhere)
        is_suppressed |= is_start & np.isin(tokens, self.at_start)
        lifted = torch.from_numpy(is_suppressed).to(logits.device)
        log_z = torch.where(lifted, torch.logaddexp(log_z, logits), log_z)
        return (logits - log_z).double().cpu().numpy()
