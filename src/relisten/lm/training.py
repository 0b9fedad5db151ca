"""Losses of a speech-text LM, and the training of its projector."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor, nn

from relisten.lm.forward import tree_log_probs
from relisten.lm.model import ChunkProjector, SpeechTextLM
from relisten.lm.sequences import Speech, TokenSequence
from relisten.lm.tree import path_tree


def sequence_losses(
    model: SpeechTextLM,
    sequences: Seq[TokenSequence],
    speeches: Seq[Speech | None],
    guesses: Seq[np.ndarray] | None = None,
) -> Tensor:
    """Negative log-probability (nats) of each scored token of a batch, float32 [K], in order.

    speeches, guesses: one per sequence, as `tree_log_probs` takes them.
    """
    trees = [path_tree(sequence) for sequence in sequences]
    return -torch.cat(tree_log_probs(model, trees, speeches, guesses))


def train_projector(
    projector: ChunkProjector,
    table: Tensor,
    chunks: np.ndarray,
    words: np.ndarray,
    epochs: int = 8,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> None:
    """Train the projector to guess words from chunks, in place, without the LM.

    table: the LM's input embeddings [V, E], not changed. chunks: `chunk_features` [n, F], float16
    or float32; words: int64 [n], indices into `projector.word_tokens`. Cross-entropy with label
    smoothing 0.05, one-cycle AdamW.
    """
    torch.manual_seed(seed)
    counts = np.bincount(words, minlength=len(projector.prior)) + 0.5
    projector.prior.data = torch.from_numpy(np.log(counts / counts.sum())).float()
    features, targets = torch.from_numpy(chunks), torch.from_numpy(words)
    optimiser = torch.optim.AdamW(projector.parameters(), learning_rate, weight_decay=0.05)
    steps = epochs * max(1, len(words) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps + 1)
    projector.train()
    for _ in range(epochs):
        order = torch.randperm(len(words))
        for batch in order.split(batch_size)[: max(1, len(words) // batch_size)]:
            with torch.autocast("cpu", torch.bfloat16):  # 3 times as fast, the loss the same
                logits = projector.word_logits(projector.wide(features[batch].float()), table)
            loss = nn.functional.cross_entropy(logits.float(), targets[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    projector.eval()


@torch.inference_mode()
def projector_guesses(projector: ChunkProjector, table: Tensor, chunks: np.ndarray) -> np.ndarray:
    """The embeddings that a projector expects for chunks: float32 [n, E].

    table, chunks: as `train_projector` takes them.
    """
    projector.eval()
    blocks = torch.from_numpy(chunks).split(1024)
    return torch.cat([projector.guess(projector.wide(b.float()), table) for b in blocks]).numpy()
