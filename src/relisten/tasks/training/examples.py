"""Training examples: transcribed speech ready for any order, speech or text alone; batches."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from relisten.core.quarters import N_QUARTERS
from relisten.core.text import lower_if_capitals
from relisten.core.types import UsageError
from relisten.io.tensors import save_tensors
from relisten.lm.model import ChunkProjector, SpeechTextLM
from relisten.lm.sequences import Order, Speech, build_sequence, chunk_features
from relisten.lm.texts import TextEncoder
from relisten.lm.training import projector_guesses, sequence_losses, train_projector
from relisten.speech.codebook import Codebook
from relisten.tasks.training.cache import CachedUtterance

Report = Callable[[str], None]
_TOKENS_A_DRAW = 3  # for so many of a batch's an example is drawn; neighbours make the batch


@dataclass
class Example:
    """One utterance. words: text tokens of each word; chunks: features [n_words + 1, F] of its
    speech, that of what follows the last word included; guesses: [n_words + 1, E], what a projector
    that never heard its speaker guesses. Floats are held as float16: an hour of words with Whisper
    tiny.en's frames, twice pooled, takes 140 MB."""

    cached: CachedUtterance
    words: list[list[int]]
    speech: Speech
    chunks: np.ndarray
    guesses: np.ndarray | None = None

    def set_ctc_log_probs(self, ctc_log_probs: np.ndarray) -> None:
        """Give its speech the letters a CTC head heard in it, and its chunks with them."""
        self.speech = replace(self.speech, ctc_log_probs=ctc_log_probs.astype(np.float16))
        self.describe_chunks()

    def describe_chunks(self) -> None:
        """Set the features of its chunks from its speech."""
        if not self.words:
            return
        spans = self.speech.chunks(self.cached.word_ends_s)
        self.chunks = chunk_features(self.speech, spans).astype(np.float16)

    def serves(self, order: Order) -> bool:
        """Whether it has what a sequence of that order is made of."""
        has_text, has_speech = bool(self.words), len(self.speech) > 0
        return (has_text or order == "speech") and (has_speech or order == "text")


Corpus = Sequence[tuple[Sequence[Example], float]]
"""Sets of examples that serve the same orders, each with how often one of its examples is drawn."""


def make_example(cached: CachedUtterance, texts: TextEncoder) -> Example | None:
    """None where words and word ends do not match, or nothing is said."""
    words = texts.words(lower_if_capitals(cached.text))
    if not any(words) or len(words) != len(cached.word_ends_s):
        return None
    example = Example(cached, words, cached.speech, np.empty((0, 0), np.float16))
    example.describe_chunks()
    return example


def untranscribed_example(cached: CachedUtterance) -> Example:
    """It serves the order `speech` alone."""
    return Example(cached, [], cached.speech, np.empty((0, 0), np.float16))


def check_served(corpus: Corpus, tasks: Mapping[Order, float]) -> None:
    """Raises UsageError where no set can serve one of the tasks."""
    for order, share in tasks.items():
        if share and not _serving(corpus, order):
            needed = {"text": "text or transcripts", "speech": "recordings"}
            raise UsageError(
                f"no source can serve the task {order}: it is made of "
                f"{needed.get(order, 'transcribed recordings')}; name some, or leave it out"
            )


def _serving(corpus: Corpus, order: Order) -> Corpus:
    return [
        (examples, weight)
        for examples, weight in corpus
        if weight and examples and examples[0].serves(order)
    ]


def add_codes(examples: Sequence[Example], codebook: Codebook) -> None:
    """Give each example's speech its units; its frames are pooled already."""
    of_pooled = replace(codebook, pool=1)
    for example in examples:
        assert example.speech.frames is not None
        codes = of_pooled.units(example.speech.frames)
        example.speech = replace(example.speech, codes=codes)


def cross_fit_projectors(
    folder: Path,
    examples: Sequence[Example],
    table: Tensor,
    eos_id: int,
    folds: int,
    epochs: int,
    seed: int,
    report: Report,
) -> ChunkProjector:
    """The projector schooled on all examples, kept in `folder` with those of the folds.

    What it guesses among are the first tokens of words, and eos_id for what follows the last.
    Each example gets the guesses of a projector that heard none of its speaker. Raises UsageError
    where a fold has no speaker.
    """
    first = [np.array([*(w[0] if w else -1 for w in e.words), eos_id]) for e in examples]
    known = np.unique(np.concatenate(first))
    known = known[known >= 0]

    def fitted(path: Path, of: Sequence[int]) -> ChunkProjector:
        torch.manual_seed(seed)
        frame_dim = (examples[0].chunks.shape[1] - 1) // N_QUARTERS
        projector = ChunkProjector(frame_dim, table.shape[1], len(known))
        projector.word_tokens[:] = torch.from_numpy(known)
        if path.exists():
            from safetensors.torch import load_file

            projector.load_state_dict(load_file(path))
            return projector.eval()
        chunks = np.concatenate([examples[i].chunks[first[i] >= 0] for i in of])
        words = np.searchsorted(known, np.concatenate([first[i][first[i] >= 0] for i in of]))
        started = time.monotonic()
        train_projector(projector, table, chunks, words, epochs, seed=seed)
        report(f"{path.stem}: {len(words)} words, {time.monotonic() - started:.0f} s")
        save_tensors(dict(projector.state_dict()), path)
        return projector

    fold = [fold_of(e.cached.speaker, folds) for e in examples]
    for k in range(folds):
        inside = [i for i in range(len(examples)) if fold[i] != k]
        held_out = [i for i in range(len(examples)) if fold[i] == k]
        if not inside or not held_out:
            raise UsageError(f"no speaker in fold {k}: cross-fitting needs more speakers or data")
        projector = fitted(folder / f"projector-fold{k}.safetensors", inside)
        chunks = [examples[i].chunks for i in held_out]
        guesses = projector_guesses(projector, table, np.concatenate(chunks)).astype(np.float16)
        ends = np.cumsum([len(some) for some in chunks])
        for i, own in zip(held_out, np.split(guesses, ends[:-1]), strict=True):
            examples[i].guesses = own
    return fitted(folder / "projector.safetensors", range(len(examples)))


def fold_of(speaker: str, folds: int) -> int:
    """The fold that a speaker is held out in."""
    return int(hashlib.sha256(speaker.encode()).hexdigest(), 16) % folds


def draw_batch(
    corpus: Corpus,
    tasks: Mapping[Order, float],
    batch_tokens: int,
    seed: int,
    step: int,
    micro: int = 0,
) -> tuple[Order, list[Example]]:
    """The order of a micro-step and its batch; the same for the same (seed, step, micro).

    The order is drawn first, then examples of the sets that can serve it, by weight; neighbours in
    length of those make the batch, so that little of `batch_tokens` is padding: 11 % over 200 steps
    of the speechocean recipe (768 tokens; 12 % of 2,048; 5 % in the orders of whole speech).
    """
    rng = np.random.default_rng([seed, step, micro])
    orders = list(tasks)
    shares = np.array([tasks[o] for o in orders], float)
    order = orders[rng.choice(len(orders), p=shares / shares.sum())]
    serving = _serving(corpus, order)
    return order, draw_alike(serving, lambda e: n_positions(order, e), batch_tokens, rng)


def draw_alike(
    corpus: Corpus, size: Callable[[Example], int], budget: int, rng: np.random.Generator
) -> list[Example]:
    """Examples drawn by weight and of like size: padded to the longest they fit the budget."""
    mass = np.array([len(examples) * weight for examples, weight in corpus])
    drawn = []
    n_drawn = max(64, budget // _TOKENS_A_DRAW)
    for s in rng.choice(len(corpus), n_drawn, p=mass / mass.sum()):
        examples = corpus[s][0]
        drawn.append(examples[rng.integers(len(examples))])
    drawn.sort(key=size)
    start = int(rng.integers(len(drawn)))
    batch: list[Example] = []
    longest = 0
    for example in drawn[start:] + drawn[:start][::-1]:
        longest = max(longest, size(example))
        if batch and longest * (len(batch) + 1) > budget:
            break
        batch.append(example)
    return batch


def n_positions(order: Order, example: Example) -> int:
    """Tokens of an example's sequence, about."""
    n_tokens, n_words = sum(map(len, example.words)), len(example.words)
    if order == "text":
        return n_tokens + 3
    if order == "chunked":
        return n_tokens + n_words + 2
    if order == "speech":
        return len(example.speech) + 3
    return n_tokens + len(example.speech) + 2 * n_words + 4


def example_losses(
    model: SpeechTextLM, order: Order, batch: Sequence[Example], is_cross_fitted: bool
) -> Tensor:
    """Nats of every scored token of a batch, float32 [K]. is_cross_fitted: chunks enter as held-out
    guesses, not as the model's own."""
    guesses = None
    if order == "chunked" and is_cross_fitted:
        guesses = [e.guesses.astype(np.float32) for e in batch if e.guesses is not None]
    speeches = [None if order == "text" else e.speech for e in batch]
    sequences = [
        build_sequence(order, model.vocabulary, e.words, e.speech, e.cached.word_ends_s)
        for e in batch
    ]
    return sequence_losses(model, sequences, speeches, guesses)


@torch.inference_mode()
def nats_a_word(
    model: SpeechTextLM, order: Order, examples: Sequence[Example], wrong_speech: bool = False
) -> float:
    """What a reference word costs the model, nats; the gauge of whether it listens.

    wrong_speech: each reference is read with another recording's speech, cut at the same places.
    """
    model.eval()
    if wrong_speech:
        half = len(examples) // 2
        others = [*examples[half:], *examples[:half]]
        examples = [
            replace(e, speech=other.speech.stretched(len(e.speech)))
            for e, other in zip(examples, others, strict=True)
        ]
    total = 0.0
    for i in range(0, len(examples), 8):
        total += float(example_losses(model, order, examples[i : i + 8], False).sum())
    return total / sum(len(e.words) for e in examples)
