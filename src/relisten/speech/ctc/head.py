"""The CTC head: log-probabilities of letters from encoder frames, and the score `ctc` of a text.

The encoder of a recogniser is trained on all kinds of speech, not on the speakers of one domain.
Two convolutions over its frames, trained in minutes on the transcripts of the domain, adapt to them
(CTC: Graves et al., 2006); adapted upper layers of the encoder add to that. The score of a text
sums over all its alignments, so no word times are needed, and there are no unknown words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from relisten.core.recombination import Change, Words
from relisten.core.text import spoken
from relisten.core.types import ModelError
from relisten.io.tensors import save_tensors
from relisten.speech.alignment import ctc_token_ends
from relisten.speech.ctc.likelihood import ctc_scores
from relisten.speech.whisper.layers import UpperLayers, read_encoder_weights

BLANK = 0
STEPS = 2
"""Outputs per frame: at 25 frames per second, fast speech has nearly one letter per frame, and CTC
needs a blank between two equal letters."""
KERNEL = 5
NEAR_WORDS = 2
"""Words on either side of a change that are scored together with it."""


class CTCHead(nn.Module):
    """Log-probabilities of letters over pooled encoder frames.

    alphabet: the letters it knows, including the space between words; other letters of a text are
    left out. encoder_id, pool: of the frames it was trained on. layers: adapted upper layers of the
    encoder; it then takes the frames of the lower layers, at 50 Hz, and pools after the upper ones.
    """

    def __init__(
        self,
        frame_dim: int,
        alphabet: str,
        encoder_id: str = "",
        pool: int = 1,
        width: int = 512,
        layers: UpperLayers | None = None,
    ) -> None:
        super().__init__()
        self.alphabet, self.encoder_id, self.pool = alphabet, encoder_id, pool
        self.layers = layers
        self._label = {letter: 1 + i for i, letter in enumerate(alphabet)}
        self.norm = nn.LayerNorm(frame_dim)
        self.first = nn.Conv1d(frame_dim, width, KERNEL, padding=KERNEL // 2)
        self.second = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2)
        self.second_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, STEPS * (1 + len(alphabet)))
        self.dropout = nn.Dropout(0.3)

    def labels(self, text: str) -> list[int]:
        """The letters of the text in spoken form: int [n], 1 and up; 0 is the CTC blank."""
        return [self._label[c] for c in spoken(text) if c in self._label]

    def forward(self, frames: Tensor, n_frames: Tensor) -> Tensor:
        """Log-probabilities [B, STEPS * T, 1 + letters] of frames [B, T, D], of which n_frames [B]
        are speech; padding does not influence the speech.

        With upper layers of its own, frames are [B, pool * T, D], and n_frames counts these; T is
        rounded up.
        """
        is_speech = torch.arange(frames.shape[1], device=frames.device) < n_frames[:, None]
        if self.layers is not None:
            frames = self._pooled(self.layers(frames, is_speech[:, None, None]), is_speech)
            is_speech = is_speech[:, :: self.pool]
        mask = is_speech[..., None].to(frames.dtype)
        hidden = self.dropout(self.norm(frames)) * mask
        hidden = nn.functional.gelu(self.first(hidden.mT)).mT
        hidden = self.dropout(hidden) * mask
        hidden = hidden + nn.functional.gelu(self.second(hidden.mT)).mT
        logits = self.out(self.dropout(self.second_norm(hidden))).float()
        return logits.unflatten(-1, (STEPS, -1)).flatten(1, 2).log_softmax(-1)

    def _pooled(self, frames: Tensor, is_speech: Tensor) -> Tensor:
        """Means over each `pool` frames, padding left out: [B, ceil(T / pool), D]."""
        missing = -frames.shape[1] % self.pool
        share = nn.functional.pad(is_speech.to(frames.dtype), (0, missing))[..., None]
        padded = nn.functional.pad(frames, (0, 0, 0, missing)) * share
        sums, counts = (part.unflatten(1, (-1, self.pool)).sum(2) for part in (padded, share))
        return sums / counts.clamp(min=1)

    def n_pooled(self, n_frames: int) -> int:
        """How many pooled frames it makes of n_frames that it takes."""
        return n_frames if self.layers is None else -(-n_frames // self.pool)

    @torch.inference_mode()
    def log_probs(self, frames: np.ndarray) -> np.ndarray:
        """Log-probabilities of letters, float32 [T, STEPS, 1 + letters], from frames [T, D] (with
        upper layers of its own, from frames of the lower layers, [pool * T, D])."""
        if not len(frames):
            return np.zeros((0, STEPS, 1 + len(self.alphabet)), np.float32)
        frames = frames.astype(np.float32, copy=False)
        log_probs = self(torch.from_numpy(frames)[None], torch.tensor([len(frames)]))
        return log_probs[0].unflatten(0, (-1, STEPS)).numpy()

    def score(self, log_probs: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """log P(letters of the text | speech), nats, float64 [N], always finite.

        log_probs: what the method of that name returns.
        """
        spelled = [self.labels(text) for text in texts]
        steps = torch.from_numpy(log_probs.astype(np.float32, copy=False)).flatten(0, 1)
        n_steps = [len(steps)] * len(texts)
        return ctc_scores(steps.expand(len(texts), -1, -1), n_steps, spelled)

    def label_ends(self, log_probs: np.ndarray, words: Words) -> np.ndarray:
        """The step after the last one of each letter of a text, int [n]."""
        log_probs = log_probs.reshape(-1, log_probs.shape[-1])
        return ctc_token_ends(log_probs, self.labels(" ".join(words)), BLANK)

    def score_changes(
        self, log_probs: np.ndarray, base: Words, ends: np.ndarray, changes: Sequence[Change]
    ) -> np.ndarray:
        """What each change adds to the score of a text, nats, float64 [n].

        ends: `label_ends` of the text. Only the words around a change are scored, over the frames
        that they are aligned with: a tenth of the work where texts are long, and the same to within
        about a nat (NEAR_WORDS).
        """
        if not changes:
            return np.zeros(0)
        log_probs = log_probs.astype(np.float32, copy=False).reshape(-1, log_probs.shape[-1])
        n_space = " " in self._label
        first = np.cumsum([0, *(len(self.labels(word)) + n_space for word in base)])
        pieces, spelled = [], []
        for change in changes:
            left = max(0, change.start - NEAR_WORDS)
            right = min(len(base), change.stop + NEAR_WORDS)
            start = ends[first[left] - 1] if first[left] else 0
            is_last = right == len(base)
            stop = len(log_probs) if is_last else ends[max(first[right] - n_space - 1, 0)]
            after = base[change.stop : right]
            for words in (base[left:right], (*base[left : change.start], *change.words, *after)):
                pieces.append(torch.from_numpy(log_probs[start : max(stop, start + 1)]))
                spelled.append(self.labels(" ".join(words)))
        padded = nn.utils.rnn.pad_sequence(pieces, batch_first=True)
        scores = ctc_scores(padded, [*map(len, pieces)], spelled)
        return scores[1::2] - scores[::2]

    def save(self, path: Path) -> None:
        """Write the weights, in half precision, and what they are for, as safetensors."""
        metadata = {
            "alphabet": self.alphabet,
            "encoder_id": self.encoder_id,
            "pool": str(self.pool),
        }
        if self.layers is not None:
            metadata["layers"] = str(len(self.layers.layers))
        tensors = {name: value.half() for name, value in self.state_dict().items()}
        save_tensors(tensors, path, metadata)

    @classmethod
    def load(cls, path: Path, find_encoder: Callable[[], Path] | None = None) -> CTCHead:
        """What `save` wrote, ready to score. Raises ModelError where it is something else.

        find_encoder: returns the folder of the Whisper whose upper layers were adapted; called only
        if there are such layers.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            width, frame_dim, _ = tensors["first.weight"].shape
            layers = None
            if n_layers := int(metadata.get("layers", 0)):
                if find_encoder is None:
                    raise ModelError(
                        f"{path}: has upper layers of its own; name the encoder that they belong to"
                    )
                rank = len(tensors["layers.layers.0.feed_up.down"])
                layers = UpperLayers(read_encoder_weights(find_encoder()), n_layers, rank)
            pool = int(metadata["pool"])
            ctc_head = cls(
                frame_dim, metadata["alphabet"], metadata["encoder_id"], pool, width, layers
            )
            ctc_head.load_state_dict(tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{path}: not a CTC head: {error}") from error
        return ctc_head.eval()


def alphabet_of(texts: Iterable[str], fewest: int = 1) -> str:
    """The letters, digits and marks of the texts in spoken form, the space between words first.

    fewest: how often one must stand in them to count.
    """
    counts = Counter(letter for text in texts for letter in spoken(text))
    found = {letter for letter, n in counts.items() if n >= fewest}
    return "".join([" ", *sorted(found - {" "})])
