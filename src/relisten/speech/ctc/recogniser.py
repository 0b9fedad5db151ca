"""CTC recognisers through transformers: wav2vec 2.0, HuBERT, WavLM with a CTC head.

What the beam search or the sampler proposed is scored by the CTC forward sum, so all hypotheses are
on one scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from relisten.core.types import ASR, Hypothesis
from relisten.io.audio import RATE_HZ
from relisten.io.device import torch_placement
from relisten.io.extras import need_transformers
from relisten.io.pretrained import from_pretrained
from relisten.speech.alignment import ctc_token_ends, word_ends
from relisten.speech.ctc.beam import ctc_beam
from relisten.speech.ctc.likelihood import ctc_scores
from relisten.speech.first_pass import DecodingOptions, FirstPassResult, check_durations
from relisten.speech.frames import FRAME_S
from relisten.speech.hubert import HFEncoder
from relisten.speech.no_speech import holds_speech


class TransformersCTC:
    """A CTC model through transformers, from a local folder.

    `asr` is the CTC log-probability of the label sequence, all paths summed (there is no EOS).
    Frames are the model's last hidden layer; words are aligned by forced alignment of letters.
    """

    max_duration_s = 30.0

    def __init__(
        self,
        folder: Path | str,
        device: str = "auto",
        dtype: str = "auto",
        name: str | None = None,
    ) -> None:
        """Load the model; dtype auto|float32|bfloat16. The blank is the tokenizer's pad token."""
        need_transformers()
        from transformers import AutoModelForCTC, AutoTokenizer

        self.name = name or Path(folder).name
        place, torch_dtype = torch_placement(device, dtype)
        model = from_pretrained(AutoModelForCTC, folder, dtype=torch_dtype, use_safetensors=True)
        self.head = model.lm_head.to(place)
        self.encoder = HFEncoder(folder, -1, device, dtype, model=model.base_model)
        self.tokenizer = from_pretrained(AutoTokenizer, folder)
        self.blank = int(self.tokenizer.pad_token_id)
        self.forbidden = sorted(set(self.tokenizer.all_special_ids) - {self.blank})

    def decode(
        self,
        audio: Sequence[np.ndarray],
        options: DecodingOptions = DecodingOptions(),
        *,
        timed: bool = True,
    ) -> list[FirstPassResult]:
        """The N-best list of each recording; see `FirstPass.decode`."""
        check_durations(audio, self.max_duration_s)
        generator = np.random.default_rng(options.seed)
        decoded = []
        for recording, frames in zip(audio, self.encoder.encode(audio), strict=True):
            log_probs = self._log_probs(frames)
            sequences = ctc_beam(log_probs, options.beam, self.blank)[: options.n_best]
            for _ in range(options.samples):
                noise = generator.gumbel(size=log_probs.shape) * options.temperature
                sequences.append(ctc_collapse((log_probs + noise).argmax(1), self.blank))
            sequences = list(dict.fromkeys(sequences))
            is_speech = holds_speech(recording, self._decode(sequences[0]))
            if not is_speech:
                sequences = [()]
            duration_s = len(recording) / RATE_HZ if timed else None
            hypotheses = tuple(
                self._hypothesis(log_probs, ids, score, duration_s)
                for ids, score in zip(sequences, self._scores(log_probs, sequences), strict=True)
            )
            decoded.append(FirstPassResult(hypotheses, frames, frames, is_speech))
        return decoded

    def align(
        self,
        audio: Sequence[np.ndarray],
        texts: Sequence[Sequence[str]],
        frames: Sequence[np.ndarray] | None = None,
    ) -> list[list[tuple[float, ...]]]:
        """When the words of given texts end, s; see `FirstPass.align`.

        Letters are looked up in either case; a character that the model lacks takes no time.
        """
        frames = self.encoder.encode(audio) if frames is None else frames
        return [
            [self._text_ends(log_probs, text, len(recording) / RATE_HZ) for text in its_texts]
            for recording, log_probs, its_texts in zip(
                audio, map(self._log_probs, frames), texts, strict=True
            )
        ]

    def tokens(self, text: str) -> tuple[int, ...]:
        """The labels of a text's letters, looked up in either case; see `FirstPass.tokens`."""
        return self._spell(text)[0]

    def scorer(
        self, recording: np.ndarray, window: np.ndarray | None = None, context: int | None = None
    ) -> CTCTextScorer:
        """A scorer of given texts of one recording; see `FirstPass.scorer`. Always exact."""
        frames = self.encoder.encode([recording])[0] if window is None else window
        return CTCTextScorer(self, recording, self._log_probs(frames))

    def _log_probs(self, frames: np.ndarray) -> np.ndarray:
        """log P(label | frame), float64 [T, V]; special tokens but the blank are impossible."""
        with torch.inference_mode():
            weight = self.head.weight
            logits = self.head(torch.from_numpy(frames).to(weight.device, weight.dtype)).double()
            logits[:, self.forbidden] = -math.inf
            return logits.log_softmax(-1).cpu().numpy()

    def _decode(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                list(ids),
                group_tokens=False,
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
        )

    def _scores(self, log_probs: np.ndarray, sequences: Sequence[Sequence[int]]) -> list[float]:
        """log P of label sequences, nats, from log_probs [T, V]."""
        one = torch.from_numpy(log_probs)[None]
        return [float(ctc_scores(one, [len(log_probs)], [ids], self.blank)[0]) for ids in sequences]

    def _hypothesis(
        self, log_probs: np.ndarray, ids: tuple[int, ...], score: float, duration_s: float | None
    ) -> Hypothesis:
        text = self._decode(ids).strip()
        if duration_s is None:
            return Hypothesis(text, {ASR: score})
        prefixes = [self._decode(ids[: k + 1]) for k in range(len(ids))]
        token_ends_s = ctc_token_ends(log_probs, ids, self.blank) * FRAME_S if ids else np.zeros(0)
        ends_s = word_ends(prefixes, token_ends_s, duration_s)
        return Hypothesis(text, {ASR: score}, word_ends_s=ends_s)

    def _spell(self, text: str) -> tuple[tuple[int, ...], list[int]]:
        """The labels of a text, and how many of them its first 1, 2, … words take."""
        vocabulary = self.tokenizer.get_vocab()
        space = vocabulary.get(getattr(self.tokenizer, "word_delimiter_token", None) or " ")
        tokens: list[int] = []
        n_tokens = []
        for word in text.split():
            known = [
                next((vocabulary[form] for form in forms if form in vocabulary), None)
                for forms in ((letter, letter.upper(), letter.lower()) for letter in word)
            ]
            letters = [token for token in known if token is not None]
            if letters and tokens and space is not None:
                tokens.append(space)
            tokens += letters
            n_tokens.append(len(tokens))
        return tuple(tokens), n_tokens

    def _text_ends(self, log_probs: np.ndarray, text: str, duration_s: float) -> tuple[float, ...]:
        tokens, n_tokens = self._spell(text)
        ends_s = np.zeros(len(tokens) + 1)
        if tokens and len(log_probs):
            ends_s[1:] = ctc_token_ends(log_probs, tokens, self.blank) * FRAME_S
        return tuple(round(min(float(ends_s[n]), duration_s), 3) for n in n_tokens)


class CTCTextScorer:
    """Given texts of one recording; see `TextScorer`. Made by `TransformersCTC.scorer`.

    log_probs: of the labels, float64 [T, V].
    """

    def __init__(
        self, recogniser: TransformersCTC, recording: np.ndarray, log_probs: np.ndarray
    ) -> None:
        self._recogniser, self._log_probs = recogniser, log_probs
        self._duration_s = len(recording) / RATE_HZ

    def score(self, texts: Sequence[str], *, timed: bool = True) -> tuple[Hypothesis, ...]:
        """The texts as hypotheses; see `TextScorer.score`.

        A text with more letters than the frames can hold costs 20 nats per letter.
        """
        recogniser, log_probs = self._recogniser, self._log_probs
        scores = recogniser._scores(log_probs, [recogniser.tokens(text) for text in texts])
        return tuple(
            Hypothesis(
                text,
                {ASR: score},
                recogniser._text_ends(log_probs, text, self._duration_s) if timed else None,
            )
            for text, score in zip(texts, scores, strict=True)
        )


def ctc_collapse(path: Sequence[int] | np.ndarray, blank: int) -> tuple[int, ...]:
    """The labels of a CTC path: repeats merged, blanks dropped."""
    before = [None, *path[:-1]]
    return tuple(
        int(token) for token, last in zip(path, before, strict=True) if token not in (last, blank)
    )
