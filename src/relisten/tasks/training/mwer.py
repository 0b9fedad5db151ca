"""Training a bundle's LM, and the weights of its scores, for fewer word errors on N-best lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relisten.core.combine import posteriors
from relisten.lm.model import SpeechTextLM
from relisten.lm.mwer import Combination, hypothesis_scores, mwer_loss
from relisten.lm.scorer import Component, Scorer, score_sequences
from relisten.lm.sequences import Order, Speech, speech_inputs
from relisten.lm.training import sequence_losses
from relisten.lm.tree import build_tree
from relisten.tasks.training.cross_fit import CrossFitted
from relisten.tasks.training.lists import TrainingList

SCORED_TOGETHER = 64
"""Development lists whose trees are batched."""


@dataclass(frozen=True)
class Objective:
    """What is minimised, and what is watched.

    combination: weights to be learnt. ce_weight: of the cross-entropy on the reference, nats per
    token, beside the expected word errors. cross_fitted: what guesses the chunks in training; None:
    the model's own projector.
    """

    scorer: Scorer
    combination: Combination
    components: Sequence[Component]
    ce_weight: float = 0.0
    cross_fitted: CrossFitted | None = None

    @property
    def model(self) -> SpeechTextLM:
        return self.scorer.model

    def loss(self, lists: Sequence[TrainingList]) -> tuple[Tensor, int]:
        """The mean over lists, and the tokens read for it."""
        columns: list[dict[str, Tensor]] = [self._stored(one) for one in lists]
        entropies, n_tokens = [], 0
        for component in self.components:
            trees = [build_tree(self.scorer.sequences(one.hypotheses, component)) for one in lists]
            n_tokens += sum(map(len, trees))
            speeches = self._speeches(lists, component)
            guesses = None
            if self.cross_fitted and self._order(component) == "chunked":
                pairs = zip(trees, lists, strict=True)
                guesses = [self._guesses(tree.ids, tree.spans, one) for tree, one in pairs]
            scores = hypothesis_scores(self.model, trees, speeches, guesses)
            for column, one_scores in zip(columns, scores, strict=True):
                column[component] = one_scores
            if self.ce_weight:
                entropies.append(self._cross_entropy(lists, component))
        losses = [
            mwer_loss(self.combination(column), torch.from_numpy(one.errors).to(self.model.device))
            for column, one in zip(columns, lists, strict=True)
        ]
        loss = torch.stack(losses).mean()
        if entropies:
            loss = loss + self.ce_weight * torch.stack(entropies).mean()
        return loss, n_tokens

    def _guesses(self, ids: np.ndarray, spans: np.ndarray, one: TrainingList) -> np.ndarray:
        """float32 [n_chunks, E] for the chunks among positions ids [L], spans [L, 2], in order."""
        assert self.cross_fitted is not None
        assert one.speech is not None
        _, chunks = speech_inputs(self.model.vocabulary, ids, spans, one.speech)
        return self.cross_fitted.guesses(chunks, one.speaker)

    def _stored(self, one: TrainingList) -> dict[str, Tensor]:
        device = self.model.device
        return {name: torch.from_numpy(column).to(device) for name, column in one.stored.items()}

    def _order(self, component: Component) -> Order:
        return self.scorer.order_of(component)

    def _speeches(self, lists: Sequence[TrainingList], component: Component) -> list[Speech | None]:
        return [None if self._order(component) == "text" else one.speech for one in lists]

    def _cross_entropy(self, lists: Sequence[TrainingList], component: Component) -> Tensor:
        """Nats per token of the references."""
        sequences = [self.scorer.sequences(one.reference, component)[0] for one in lists]
        guesses = None
        if self.cross_fitted and self._order(component) == "chunked":
            pairs = zip(sequences, lists, strict=True)
            guesses = [self._guesses(s.ids[:-1], s.spans[:-1], one) for s, one in pairs]
        speeches = self._speeches(lists, component)
        return sequence_losses(self.model, sequences, speeches, guesses).mean()

    def dev_metrics(self, lists: Sequence[TrainingList]) -> dict[str, float]:
        """Word error rates in %: of the hypotheses ranked best, and expected by the posterior."""
        self.model.eval()
        errors, expected = 0.0, 0.0
        for i in range(0, len(lists), SCORED_TOGETHER):
            some = lists[i : i + SCORED_TOGETHER]
            for one, combined in zip(some, self._combined(some), strict=True):
                errors += float(one.errors[np.argmax(combined)])
                expected += float(posteriors(combined) @ one.errors)
        n_words = max(1, sum(one.n_reference for one in lists))
        return {"WER": 100 * errors / n_words, "expected WER": 100 * expected / n_words}

    @torch.inference_mode()
    def _combined(self, lists: Sequence[TrainingList]) -> list[np.ndarray]:
        columns = [self._stored(one) for one in lists]
        for component in self.components:
            sequences = [self.scorer.sequences(one.hypotheses, component) for one in lists]
            speeches = self._speeches(lists, component)
            scores = score_sequences(self.model, sequences, speeches, self.scorer.batch_tokens)
            for column, one_scores in zip(columns, scores, strict=True):
                column[component] = torch.from_numpy(one_scores).to(self.model.device)
        return [self.combination(column).cpu().numpy() for column in columns]
