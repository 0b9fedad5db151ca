"""Losses of a speech-text LM, and the projector's schooling.

A batch holds sequences of one order; they are padded on the right, where plain causal attention
needs no mask. Logits exist only at scored positions, over the part of the vocabulary that can
follow there.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor, nn

from relisten.lm.model import ChunkProjector, SpeechTextLM
from relisten.lm.sequences import (
    AS_SPEECH,
    AS_TEXT,
    CHUNK_BITS,
    Speech,
    TokenSequence,
    speech_chunks,
    speech_inputs,
)


def chunk_rows(speech: Speech, word_ends_s: Seq[float]) -> np.ndarray:
    """Rows (see `TokenSequence`) of an utterance's chunks, int64 [n_words + 1]."""
    chunks = speech_chunks(word_ends_s, speech.unit_s, len(speech))
    return np.array([start << CHUNK_BITS | stop - start for start, stop in chunks], np.int64)


def sequence_losses(
    model: SpeechTextLM,
    sequences: Seq[TokenSequence],
    speeches: Seq[Speech | None],
    guesses: Seq[np.ndarray] | None = None,
) -> Tensor:
    """Negative log-probability (nats) of each scored token of a batch, float32 [K], in order.

    guesses: for each sequence float32 [n_chunks, E], what the projector is to guess for its chunks.
    """
    length = max(map(len, sequences)) - 1
    ids = np.full((len(sequences), length), model.vocabulary.eos_id, np.int64)
    codes, chunks, places, targets, kinds = [], [], [], [], []
    for b, (sequence, speech) in enumerate(zip(sequences, speeches, strict=True)):
        fed = sequence.ids[:-1]
        ids[b, : len(fed)] = fed
        at = np.flatnonzero(sequence.scored)
        places.append(b * length + at - 1)
        targets.append(sequence.ids[at])
        kinds.append(sequence.scored[at])
        if speech is not None:
            units, features = speech_inputs(model.vocabulary, fed, sequence.rows[:-1], speech)
            codes.append(units)
            chunks.append(features)
    device = model.device
    embedded = model.embed(
        torch.from_numpy(ids).to(device).reshape(-1),
        _joined(codes, device),
        _joined(chunks, device),
        _joined(guesses or [], device),
    )
    positions = torch.arange(length, device=device).expand(len(sequences), -1)
    hidden = model.hidden(embedded.view(*ids.shape, -1), None, positions)
    hidden = hidden.reshape(-1, hidden.shape[-1])
    place, target, kind = (np.concatenate(parts) for parts in (places, targets, kinds))
    losses = torch.zeros(len(place), device=device)
    for k in (AS_TEXT, AS_SPEECH):
        where = np.flatnonzero(kind == k)
        if not len(where):
            continue
        log_probs = model.log_probs(
            hidden[torch.from_numpy(place[where]).to(device)],
            np.arange(len(where)),
            target[where],
            as_text=k == AS_TEXT,
        )
        losses = losses.index_copy(0, torch.from_numpy(where).to(device), -log_probs)
    return losses


def _joined(parts: Seq[np.ndarray], device: torch.device) -> Tensor | None:
    some = [part for part in parts if len(part)]
    return torch.from_numpy(np.concatenate(some)).to(device) if some else None


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
    """Teach the projector to guess words from chunks, in place, without the LM.

    table: the LM's input embeddings [V, E], not changed. chunks: features [n, F], float16 or
    float32; words: int64 [n], places in `projector.word_tokens`. Cross-entropy with label smoothing
    0.05, one-cycle AdamW.
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
    """What a projector guesses for chunks [n, F]: expected embeddings, float32 [n, E]."""
    projector.eval()
    blocks = torch.from_numpy(chunks).split(1024)  # float16 or float32
    return torch.cat([projector.guess(projector.wide(b.float()), table) for b in blocks]).numpy()
