"""Whisper through CTranslate2: N-best lists, samples and word ends, quick on a CPU."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from relisten.core.types import ASR, Hypothesis, ModelError, UsageError
from relisten.speech.alignment import word_ends
from relisten.speech.encoders import WHISPER_WINDOW_S, WhisperEncoder, batches, n_frames
from relisten.speech.first_pass import (
    FRAME_S,
    MAX_ALIGNED_TOKENS,
    WHISPER_START,
    DecodingOptions,
    FirstPassResult,
    aligned_form,
    check_durations,
)
from relisten.speech.whisper.features import RATE_HZ

if TYPE_CHECKING:
    from relisten.speech.whisper.decoder import CrossKV, ForcedScorer, WhisperDecoder

MAX_TOKENS = 224  # of a transcript, as CTranslate2 and Whisper cut it
MARGIN_FRAMES = 25  # silence left behind the speech for alignment: half a second


class CTranslate2Whisper:
    """Whisper in CTranslate2 form, on CPU (int8) or CUDA (float16).

    `asr`: CTranslate2 returns the mean log-probability per token with EOS in the sum but not in the
    count, so the sum is that times the number of tokens (checked in float32 against a
    teacher-forced pass of transformers to 1e-3). It is the probability under Whisper's own
    suppression lists: suppressed tokens (and, first, blank and EOS) are taken out and the rest
    renormalised; samples are rated at temperature 1. A hypothesis cut at the length limit (224
    tokens) has no EOS in its sum.

    CTranslate2 seeds its sampler once, when a loaded model first draws: equal calls in equal order
    on freshly loaded models give equal samples; later seeds change nothing.
    """

    max_duration_s = float(WHISPER_WINDOW_S)

    def __init__(
        self,
        folder: Path | str,
        device: str = "auto",
        dtype: str = "auto",
        language: str = "en",
        name: str | None = None,
    ) -> None:
        """Load the model.

        language: ISO code for a multilingual Whisper, "auto" to detect it for each recording.
        Raises ModelError if the folder lacks a part, UsageError for a language it does not know.
        """
        from tokenizers import Tokenizer

        folder = Path(folder)
        self.name = name or folder.name
        self.encoder = WhisperEncoder(folder, device, dtype)
        self.model = self.encoder.model
        if not (folder / "tokenizer.json").is_file():
            raise ModelError(
                f"{folder}: tokenizer.json is missing; copy it from the original model"
            )
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.end = self._token("<|endoftext|>")
        self.text_only = self._token("<|notimestamps|>")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.suppressed = list(config.get("suppress_ids") or ())
        self.suppressed_first = list(config.get("suppress_ids_begin") or ())
        self._cross_kv: tuple[np.ndarray, CrossKV] | None = (
            None  # the last window, kept for more texts
        )
        self._scorers: dict[tuple[tuple[int, ...], int | None], ForcedScorer] = {}  # of that window
        self.language = language
        if self.model.is_multilingual and language != "auto":
            self._token(f"<|{language}|>")

    def decode(
        self,
        audio: Sequence[np.ndarray],
        options: DecodingOptions = DecodingOptions(),
        *,
        timed: bool = True,
    ) -> list[FirstPassResult]:
        """The N-best list of each recording; see `FirstPass.decode`."""
        import ctranslate2

        check_durations(audio, self.max_duration_s)
        ctranslate2.set_random_seed(options.seed)
        searches: list[dict[str, Any]] = [
            {"beam_size": options.beam, "num_hypotheses": options.n_best}
        ]
        if options.samples:
            sampling = {"sampling_topk": 0, "sampling_temperature": options.temperature}
            searches.append({"beam_size": 1, "num_hypotheses": options.samples, **sampling})
        decoded = []
        for batch in batches(audio):
            encoded = self.encoder.encode_window(batch, WHISPER_WINDOW_S)
            prompts = self._prompts(encoded, len(batch))
            full = [[*prompt, self.text_only] for prompt in prompts]
            results = [
                self.model.generate(encoded, full, return_scores=True, **search)
                for search in searches
            ]
            outputs = self.encoder.to_numpy(encoded)
            for i, (recording, prompt) in enumerate(zip(batch, prompts, strict=True)):
                summed = self._summed(outputs[i], full[i], [result[i] for result in results])
                scored = [(self._decode(ids).strip(), ids, sum_) for ids, sum_ in summed.items()]
                hypotheses = self._hypotheses(outputs[i], prompt, scored, recording, timed)
                frames = outputs[i, : n_frames(recording)].copy()
                decoded.append(FirstPassResult(hypotheses, frames, outputs[i]))
        return decoded

    def align(
        self,
        audio: Sequence[np.ndarray],
        texts: Sequence[Sequence[str]],
        frames: Sequence[np.ndarray] | None = None,
    ) -> list[list[tuple[float, ...]]]:
        """When the words of given texts end, s; see `FirstPass.align`."""
        frames = self.encoder.encode(audio) if frames is None else frames
        ends = []
        for recording, recording_frames, its_texts in zip(audio, frames, texts, strict=True):
            tokens = [self.tokens(aligned_form(text)) for text in its_texts]
            prompt = []
            if len(recording_frames):
                prompt = self._prompts(_view(recording_frames[None]), 1)[0]
            ends.append(self._ends(recording_frames, prompt, tokens, recording))
        return ends

    def score(
        self,
        audio: Sequence[np.ndarray],
        texts: Sequence[Sequence[str]],
        windows: Sequence[np.ndarray] | None = None,
        timed: bool = True,
        context: int | None = None,
    ) -> list[tuple[Hypothesis, ...]]:
        """Given texts as hypotheses; see `FirstPass.score`.

        In float32 within 1e-3 nats of what the search itself says of the same tokens; int8 rounds
        a beam otherwise than a single path: there 0.1 of a nat, seldom up to 1.
        """
        if windows is None:
            windows = [
                self.encoder.to_numpy(self.encoder.encode_window([recording], WHISPER_WINDOW_S))[0]
                for recording in audio
            ]
        scored = []
        for recording, output, its_texts in zip(audio, windows, texts, strict=True):
            prompt = self._prompts(_view(output[None]), 1)[0]
            sequences = [self.tokens(text) for text in its_texts]
            forced = self._forced(output, [*prompt, self.text_only], sequences, context)
            rated = list(zip(its_texts, sequences, forced, strict=True))
            scored.append(self._hypotheses(output, prompt, rated, recording, timed))
        return scored

    def tokens(self, text: str) -> tuple[int, ...]:
        """A text's tokens as Whisper begins a transcript; see `FirstPass.tokens`."""
        if not text.strip():
            return ()
        return tuple(self.tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids)

    def _token(self, text: str) -> int:
        token = self.tokenizer.token_to_id(text)
        if token is None:
            raise UsageError(f"{self.name}: its tokenizer has no {text}; check the language")
        return int(token)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))

    def _prompts(self, encoded: Any, n_recordings: int) -> list[list[int]]:
        """Start of transcript, and language and task where the model is multilingual."""
        start = self._token(WHISPER_START)
        if not self.model.is_multilingual:
            return [[start]] * n_recordings
        task = self._token("<|transcribe|>")
        if self.language == "auto":
            languages = [found[0][0] for found in self.model.detect_language(encoded)]
        else:
            languages = [f"<|{self.language}|>"] * n_recordings
        return [[start, self._token(language), task] for language in languages]

    def _summed(
        self, output: np.ndarray, prompt: list[int], results: Iterable[Any]
    ) -> dict[tuple[int, ...], float]:
        """Token sequences and their summed log-probability, in order, none twice."""
        scored: dict[tuple[int, ...], float] = {}
        for result in results:
            for ids, mean_logprob in zip(result.sequences_ids, result.scores, strict=True):
                if tuple(ids) not in scored:
                    # A mean over no tokens is undefined.
                    scored[tuple(ids)] = (
                        mean_logprob * len(ids) if ids else self._forced(output, prompt, [()])[0]
                    )
        return scored

    def _forced(
        self,
        output: np.ndarray,
        prompt: list[int],
        sequences: Sequence[tuple[int, ...]],
        context: int | None = None,
    ) -> list[float]:
        """Summed log-probability of token sequences over the window's frames [1500, dim]."""
        kept = [ids[:MAX_ALIGNED_TOKENS] for ids in sequences]
        ended = [ids if len(ids) >= MAX_TOKENS else (*ids, self.end) for ids in kept]
        if self._cross_kv is None or self._cross_kv[0] is not output:
            self._cross_kv, self._scorers = (output, self._decoder.cross_kv(output)), {}
        key = (tuple(prompt), context)
        if key not in self._scorers:
            self._scorers[key] = self._decoder.forced_scorer(self._cross_kv[1], prompt, context)
        return self._scorers[key].logprobs(ended)

    @cached_property
    def _decoder(self) -> WhisperDecoder:
        from relisten.speech.whisper.decoder import WhisperDecoder

        return WhisperDecoder(
            self.encoder.folder, self.model.device, self.suppressed, self.suppressed_first
        )

    def _hypotheses(
        self,
        output: np.ndarray,
        prompt: list[int],
        scored: Sequence[tuple[str, tuple[int, ...], float]],
        recording: np.ndarray,
        timed: bool,
    ) -> tuple[Hypothesis, ...]:
        """Hypotheses of texts, their tokens and scores over the window's frames [1500, dim]."""
        if not timed:
            return tuple(Hypothesis(text, {ASR: score}) for text, _, score in scored)
        # Attention over the padding costs ten times the speech: keep the speech and a margin.
        spoken = output[: n_frames(recording) + MARGIN_FRAMES]
        ends = self._ends(spoken, prompt, [ids for _, ids, _ in scored], recording)
        return tuple(
            Hypothesis(text, {ASR: score}, word_ends_s=ends_s)
            for (text, _, score), ends_s in zip(scored, ends, strict=True)
        )

    def _ends(
        self,
        frames: np.ndarray,
        prompt: list[int],
        sequences: Sequence[Sequence[int]],
        recording: np.ndarray,
    ) -> list[tuple[float, ...]]:
        """Word ends of token sequences over a recording's frames [T, dim], in one batched call."""
        token_ends_s = [np.zeros(len(ids)) for ids in sequences]
        rows = [i for i, ids in enumerate(sequences) if len(ids)]
        n_spoken, duration_s = n_frames(recording), len(recording) / RATE_HZ
        if rows and n_spoken:
            alignments = self.model.align(
                _view(np.repeat(frames[None], len(rows), axis=0)),
                prompt,
                [list(sequences[i][:MAX_ALIGNED_TOKENS]) for i in rows],
                [2 * n_spoken] * len(rows),  # counted in mel frames, 10 ms each
            )
            for i, alignment in zip(rows, alignments, strict=True):
                tokens, columns = np.array(alignment.alignments).T
                order = np.arange(1, len(sequences[i]) + 1)  # a token ends where the next starts
                starts = np.searchsorted(tokens, np.minimum(order, tokens[-1]))
                token_ends_s[i] = columns[starts] * FRAME_S
        return [
            word_ends([self._decode(ids[: k + 1]) for k in range(len(ids))], e, duration_s)
            for ids, e in zip(sequences, token_ends_s, strict=True)
        ]


def _view(values: np.ndarray) -> Any:
    import ctranslate2

    return ctranslate2.StorageView.from_array(np.ascontiguousarray(values, np.float32))
