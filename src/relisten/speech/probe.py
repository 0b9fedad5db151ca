"""How much of the words a codebook keeps: measured in a minute, before any LM is trained.

A classifier with one hidden layer predicts each word from its own segment of speech: the mean frame
of each of its four quarters. Its nats per word on unseen speakers rank encoders, layers, rates and
codebooks. The classifier knows where each word lies in time, so its nats compare with each other
(and with those of the wrong recording), not with the nats of a language model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from relisten.core.quarters import quarter_means
from relisten.core.types import UsageError
from relisten.speech.codebook import Codebook

MAX_WORDS = 5_000
HIDDEN = 512
BATCH = 256
MAX_EPOCHS = 20
MIN_TRAIN_WORDS = 200


@dataclass(frozen=True, eq=False)
class ProbeUtterance:
    """frames: [T, D] of any float type; words and word_ends_s (s): W each; speaker: any label."""

    frames: np.ndarray
    words: tuple[str, ...]
    word_ends_s: tuple[float, ...]
    speaker: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Nats per held-out word: with its own recording, with another one, with none (unigram).

    accuracy: share of held-out words predicted correctly. n_train_words, n_words: words trained on
    and held out; n_unseen held-out words that do not occur in training are left out.
    """

    right: float
    wrong: float
    unigram: float
    accuracy: float
    n_train_words: int
    n_words: int
    n_unseen: int


def probe(
    utterances: Sequence[ProbeUtterance],
    codebook: Codebook | None = None,
    held_out: float = 0.16,
    frame_rate_hz: float = 50.0,
    seed: int = 0,
) -> ProbeResult:
    """How many nats the words cost given the frames, or given the centroids of their codes.

    The last speakers, at least the share `held_out` of the utterances, are never trained on; the
    speakers before them (a tenth) pick the epoch. Raises UsageError if what is left for training
    has fewer than 200 words.
    """
    train, develop, test = _split_by_speaker(utterances, held_out)
    counts = Counter(word for u in train for word in u.words)
    if sum(counts.values()) < MIN_TRAIN_WORDS:
        raise UsageError(
            f"the probe has {sum(counts.values())} words of {len({u.speaker for u in train})} "
            f"speakers to train on and needs {MIN_TRAIN_WORDS}: give it more referenced speech"
        )
    labels = {word: i for i, (word, _) in enumerate(counts.most_common(MAX_WORDS))}
    rate_hz = frame_rate_hz if codebook is None else 1.0 / codebook.unit_s

    def vectors(frames: np.ndarray) -> np.ndarray:
        if codebook is None:
            return np.asarray(frames, np.float32)
        return codebook.vectors(codebook.units(np.asarray(frames, np.float32)))

    def chunks(part: Sequence[ProbeUtterance]) -> tuple[np.ndarray, np.ndarray]:
        return _known_chunks(part, part, vectors, labels, rate_hz)

    (x, y), (x_right, y_right) = chunks(train), chunks(test)
    log_probs = _train_classifier(x, y, *chunks(develop), n_classes=len(labels), seed=seed)
    # Half the list away: seldom the same speaker, hardly ever the same sentence.
    others = [test[(i + len(test) // 2) % len(test)] for i in range(len(test))]
    x_wrong, _ = _known_chunks(test, others, vectors, labels, rate_hz)
    right, wrong = log_probs(x_right), log_probs(x_wrong)
    rows = np.arange(len(y_right))
    unigram = np.log(np.bincount(y, minlength=len(labels)) / len(y))
    return ProbeResult(
        right=-float(right[rows, y_right].mean()),
        wrong=-float(wrong[rows, y_right].mean()),
        unigram=-float(unigram[y_right].mean()),
        accuracy=float((right.argmax(1) == y_right).mean()),
        n_train_words=len(y),
        n_words=len(y_right),
        n_unseen=sum(len(u.words) for u in test) - len(y_right),
    )


def chunk_quarters(
    vectors: np.ndarray, word_ends_s: Sequence[float] | np.ndarray, rate_hz: float
) -> np.ndarray:
    """Mean of the vectors [T, D] in each quarter of each word's segment, float32 [W, 4 * D].

    A word lasts from the end of the one before it to its own. A quarter counts every vector it
    touches, so that short words have all four; past the end, the last vector.
    """
    ends = np.asarray(word_ends_s, np.float64) * rate_hz
    starts = np.concatenate([[0.0], ends[:-1]]) if len(ends) else ends
    return quarter_means(vectors, starts, ends)


def _split_by_speaker(
    utterances: Sequence[ProbeUtterance], held_out: float
) -> tuple[list[ProbeUtterance], list[ProbeUtterance], list[ProbeUtterance]]:
    """Training, development and held-out utterances, no speaker in two of them."""
    sizes = Counter(u.speaker for u in utterances)  # in order of first occurrence
    parts: dict[str, int] = {}
    n_later = 0
    for speaker, size in reversed(sizes.items()):
        share = n_later / max(1, len(utterances))
        parts[speaker] = 2 if share < held_out else 1 if share < held_out + 0.1 else 0
        n_later += size
    train, develop, test = ([u for u in utterances if parts[u.speaker] == p] for p in range(3))
    return train, develop, test


def _known_chunks(
    texts: Sequence[ProbeUtterance],
    recordings: Sequence[ProbeUtterance],
    vectors: Callable[[np.ndarray], np.ndarray],
    labels: dict[str, int],
    rate_hz: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Features [W, 4 * D] and labels [W] of the known words of texts, taken from recordings.

    Word ends are scaled from the duration of the text's own recording to that of the given one.
    """
    features, targets = [], []
    for text, recording in zip(texts, recordings, strict=True):
        known = [i for i, word in enumerate(text.words) if word in labels]
        if not known or not len(recording.frames):
            continue
        ends_s = np.asarray(text.word_ends_s) * len(recording.frames) / max(1, len(text.frames))
        features.append(chunk_quarters(vectors(recording.frames), ends_s, rate_hz)[known])
        targets += [labels[text.words[i]] for i in known]
    return np.concatenate(features), np.array(targets)


def _train_classifier(
    x: np.ndarray,
    y: np.ndarray,
    x_develop: np.ndarray,
    y_develop: np.ndarray,
    n_classes: int,
    seed: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from features [W, F] to log-probabilities [W, n_classes], best on development."""
    import torch
    from torch import nn

    mean, scale = x.mean(0), x.std(0) + 1e-4

    def tensor(features: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((features - mean) / scale)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(x.shape[1], HIDDEN),
            nn.GELU(),
            nn.Dropout(0.4),
            nn.Linear(HIDDEN, n_classes),
        )
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
        inputs, targets = tensor(x), torch.from_numpy(y)
        inputs_develop, targets_develop = tensor(x_develop), torch.from_numpy(y_develop)
        best, best_state, n_worse = np.inf, model.state_dict(), 0
        for _ in range(MAX_EPOCHS):
            model.train()
            for rows in torch.randperm(len(inputs)).split(BATCH):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
                optimiser.step()
            model.eval()
            with torch.inference_mode():
                loss = float(nn.functional.cross_entropy(model(inputs_develop), targets_develop))
            if loss < best:
                best, n_worse = loss, 0
                best_state = {k: v.clone() for k, v in model.state_dict().items()}
            elif (n_worse := n_worse + 1) == 2:
                break
    model.load_state_dict(best_state)

    def log_probs(features: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(tensor(features)).log_softmax(-1).numpy()

    return log_probs
