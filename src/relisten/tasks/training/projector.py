"""Third stage: the projector, which guesses a word from its chunk of speech, cross-fitted by
speaker. Its artefacts are projector.safetensors and one projector-foldK.safetensors a fold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from relisten.core.quarters import N_QUARTERS
from relisten.core.types import UsageError
from relisten.io.tensors import save_tensors
from relisten.lm.model import ChunkProjector
from relisten.lm.training import projector_guesses, train_projector
from relisten.tasks.training.cross_fit import fold_of
from relisten.tasks.training.examples import Example
from relisten.tasks.training.keys import key
from relisten.tasks.training.run import Run


@dataclass(frozen=True)
class ProjectorConfig:
    """Projector of chunks."""

    epochs: int = key(
        8, "Passes over the training words; the projector serves the task chunked alone."
    )


def cross_fit_projectors(
    config: ProjectorConfig,
    folds: int,
    examples: Sequence[Example],
    table: Tensor,
    eos_id: int,
    run: Run,
) -> ChunkProjector:
    """The projector trained on all examples, kept in `run.state` with those of the folds.

    It guesses among the first tokens of words, and eos_id for what follows the last word. table:
    the LM's input embeddings, float32 [V, E]. Each example gets the guesses of a projector that was
    not trained on its speaker. Raises UsageError where a fold has no speaker.
    """
    chunks = [example.chunk_features() for example in examples]
    first = [np.array([*(w[0] if w else -1 for w in e.words), eos_id]) for e in examples]
    known = np.unique(np.concatenate(first))
    known = known[known >= 0]

    def fitted(path: Path, of: Sequence[int]) -> ChunkProjector:
        torch.manual_seed(run.seed)
        frame_dim = (chunks[0].shape[1] - 1) // N_QUARTERS
        projector = ChunkProjector(frame_dim, table.shape[1], len(known))
        projector.word_tokens[:] = torch.from_numpy(known)
        if path.exists():
            projector.load_state_dict(load_file(path))
            return projector.eval()
        features = np.concatenate([chunks[i][first[i] >= 0] for i in of])
        words = np.searchsorted(known, np.concatenate([first[i][first[i] >= 0] for i in of]))
        started = time.monotonic()
        train_projector(projector, table, features, words, config.epochs, seed=run.seed)
        run.say(f"{path.stem}: {len(words)} words, {time.monotonic() - started:.0f} s")
        save_tensors(dict(projector.state_dict()), path)
        return projector

    fold = [fold_of(e.cached.speaker, folds) for e in examples]
    for k in range(folds):
        others = [i for i in range(len(examples)) if fold[i] != k]
        held_out = [i for i in range(len(examples)) if fold[i] == k]
        if not others or not held_out:
            raise UsageError(f"no speaker in fold {k}: cross-fitting needs more speakers or data")
        projector = fitted(run.state / f"projector-fold{k}.safetensors", others)
        features = np.concatenate([chunks[i] for i in held_out])
        guesses = projector_guesses(projector, table, features).astype(np.float16)
        ends = np.cumsum([len(chunks[i]) for i in held_out])
        for i, own in zip(held_out, np.split(guesses, ends[:-1]), strict=True):
            examples[i].guesses = own
    return fitted(run.state / "projector.safetensors", range(len(examples)))
