"""Whisper through CTranslate2, fast on a CPU: N-best lists, samples, word ends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from relisten.core.text import lower_if_capitals
from relisten.core.types import ASR, Hypothesis, ModelError, UsageError
from relisten.io.audio import RATE_HZ
from relisten.speech.alignment import word_ends
from relisten.speech.first_pass import DecodingOptions, FirstPassResult, check_durations
from relisten.speech.frames import FRAME_S, n_frames
from relisten.speech.no_speech import holds_speech
from relisten.speech.whisper.encoder import WhisperEncoder
from relisten.speech.whisper.features import WINDOW_S
from relisten.speech.whisper.tokens import (
    END,
    MAX_ALIGNED_TOKENS,
    NO_TIMESTAMPS,
    START,
    TRANSCRIBE,
    language_token,
)

if TYPE_CHECKING:
    from relisten.speech.whisper.decoder import ForcedScorer, WhisperDecoder

MAX_TOKENS = 224
"""Of a transcript; CTranslate2 and Whisper cut it there."""
MARGIN_FRAMES = 25
"""Silence kept behind the speech for alignment: half a second."""


class CTranslate2Whisper:
    """Whisper in CTranslate2 form, on CPU (int8) or CUDA (float16).

    `asr`: CTranslate2 returns the mean log-probability per token with EOS in the sum but not in the
    count, so the sum is that times the number of tokens (checked in float32 against a
    teacher-forced pass of transformers to 1e-3). It is the probability under Whisper's own
    suppression lists (`whisper.suppression`); samples are scored at temperature 1. A hypothesis cut
    at the length limit (224 tokens) has no EOS in its sum.

    CTranslate2 seeds its sampler once, when a loaded model first draws: equal calls in equal order
    on freshly loaded models give equal samples; later seeds change nothing.
    """

    samples_follow_seed = False
    max_duration_s = float(WINDOW_S)

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
        self.end = self._token(END)
        self.text_only = self._token(NO_TIMESTAMPS)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._suppressed = (
            config.get("suppress_ids") or (),
            config.get("suppress_ids_begin") or (),
        )
        self.language = language
        if self.model.is_multilingual and language != "auto":
            self._token(language_token(language))

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
        beam = {"beam_size": options.beam, "num_hypotheses": options.n_best}
        searches: list[dict[str, Any]] = [{**beam, "return_no_speech_prob": True}]
        if options.samples:
            sampling = {"sampling_topk": 0, "sampling_temperature": options.temperature}
            searches.append({"beam_size": 1, "num_hypotheses": options.samples, **sampling})
        decoded: dict[int, FirstPassResult] = {}
        for rows, window_s in self.encoder.windows(audio):
            batch = [audio[row] for row in rows]
            encoded = self.encoder.encode_window(batch, window_s)
            prompts = self._prompts(encoded, len(batch))
            full = [[*prompt, self.text_only] for prompt in prompts]
            results = [
                self.model.generate(encoded, full, return_scores=True, **search)
                for search in searches
            ]
            outputs = self.encoder.to_numpy(encoded)
            for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
                found = [result[i] for result in results]
                decoded[row] = self._result(outputs[i], prompt, found, batch[i], timed)
        return [decoded[row] for row in range(len(audio))]

    def _result(
        self,
        output: np.ndarray,
        prompt: list[int],
        results: Sequence[Any],
        recording: np.ndarray,
        timed: bool,
    ) -> FirstPassResult:
        """What the searches' results say of a recording; output: its window [T, dim]."""
        full = [*prompt, self.text_only]
        summed = self._summed(output, full, results)
        best, sum_logprob = next(iter(summed.items()))
        is_speech = holds_speech(
            recording,
            self._decode(best),
            results[0].no_speech_prob,
            sum_logprob / max(1, len(best)),
        )
        if not is_speech:
            summed = {(): self._empty_logprob(output, full)}
        scored = [(self._decode(ids).strip(), ids, sum_) for ids, sum_ in summed.items()]
        hypotheses = self._hypotheses(output, prompt, scored, recording, timed)
        return FirstPassResult(hypotheses, output[: n_frames(recording)].copy(), output, is_speech)

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
            tokens = [self.tokens(lower_if_capitals(text)) for text in its_texts]
            prompt = []
            if len(recording_frames):
                prompt = self._prompts(_view(recording_frames[None]), 1)[0]
            ends.append(self._ends(recording_frames, prompt, tokens, recording))
        return ends

    def windows(self, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What the decoder attends to, float32 [T, dim], of each recording; `scorer` takes it."""
        check_durations(audio, self.max_duration_s)
        found: dict[int, np.ndarray] = {}
        for rows, window_s in self.encoder.windows(audio):
            encoded = self.encoder.encode_window([audio[row] for row in rows], window_s)
            found |= dict(zip(rows, self.encoder.to_numpy(encoded), strict=True))
        return [found[row] for row in range(len(audio))]

    def scorer(
        self, recording: np.ndarray, window: np.ndarray | None = None, context: int | None = None
    ) -> CTranslate2TextScorer:
        """A scorer of given texts of one recording; see `FirstPass.scorer`."""
        if window is None:
            [window] = self.windows([recording])
        return CTranslate2TextScorer(self, recording, window, context)

    def tokens(self, text: str) -> tuple[int, ...]:
        """A text's tokens as Whisper begins a transcript; see `FirstPass.tokens`."""
        if not text.strip():
            return ()
        return tuple(self.tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids)

    def prompt(self, language: str) -> list[int]:
        """The tokens that a transcript in a language starts behind, before that for no times."""
        start = self._token(START)
        if not self.model.is_multilingual:
            return [start]
        return [start, self._token(language_token(language)), self._token(TRANSCRIBE)]

    def _token(self, text: str) -> int:
        token = self.tokenizer.token_to_id(text)
        if token is None:
            raise UsageError(f"{self.name}: its tokenizer has no {text}; check the language")
        return int(token)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))

    def _prompts(self, encoded: Any, n_recordings: int) -> list[list[int]]:
        """Start of transcript, and language and task where the model is multilingual."""
        if not self.model.is_multilingual or self.language != "auto":
            return [self.prompt(self.language)] * n_recordings
        found = self.model.detect_language(encoded)
        return [self.prompt(best[0][0].strip("<|>")) for best in found]

    def _summed(
        self, output: np.ndarray, prompt: list[int], results: Iterable[Any]
    ) -> dict[tuple[int, ...], float]:
        """Token sequences and their summed log-probability, in order, none twice."""
        scored: dict[tuple[int, ...], float] = {}
        for result in results:
            for ids, mean_logprob in zip(result.sequences_ids, result.scores, strict=True):
                if tuple(ids) not in scored:
                    if ids:
                        scored[tuple(ids)] = mean_logprob * len(ids)
                    else:  # a mean over no tokens is undefined
                        scored[()] = self._empty_logprob(output, prompt)
        return scored

    def _empty_logprob(self, output: np.ndarray, prompt: Sequence[int]) -> float:
        """That of a transcript that ends at once, nats."""
        return self._forced_scorer(output, prompt).logprobs([(self.end,)])[0]

    def _forced_scorer(
        self, window: np.ndarray, prompt: Sequence[int], context: int | None = None
    ) -> ForcedScorer:
        """A scorer of token sequences behind a prompt, over the window's frames [1500, dim]."""
        decoder = self._decoder
        return decoder.forced_scorer(decoder.cross_kv(window), prompt, context)

    @cached_property
    def _decoder(self) -> WhisperDecoder:
        from relisten.speech.whisper.decoder import WhisperDecoder
        from relisten.speech.whisper.suppression import Suppression

        suppression = Suppression(*self._suppressed)
        return WhisperDecoder(self.encoder.folder, self.model.device, suppression)

    def _hypotheses(
        self,
        output: np.ndarray,
        prompt: list[int],
        scored: Sequence[tuple[str, tuple[int, ...], float]],
        recording: np.ndarray,
        timed: bool,
    ) -> tuple[Hypothesis, ...]:
        """Hypotheses made of texts, their tokens and scores; output: the window [1500, dim]."""
        if not timed:
            return tuple(Hypothesis(text, {ASR: score}) for text, _, score in scored)
        # Attention over the padding costs ten times the speech: keep the speech and a margin.
        kept = output[: n_frames(recording) + MARGIN_FRAMES]
        ends = self._ends(kept, prompt, [ids for _, ids, _ in scored], recording)
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


class CTranslate2TextScorer:
    """Given texts of one recording; see `TextScorer`. Made by `CTranslate2Whisper.scorer`.

    In float32 within 1e-3 nats of what the search itself gives the same tokens; int8 rounds a beam
    differently from a single path: there the difference is 0.1 nats, seldom up to 1.
    """

    def __init__(
        self,
        whisper: CTranslate2Whisper,
        recording: np.ndarray,
        window: np.ndarray,
        context: int | None,
    ) -> None:
        self._whisper, self._recording, self._window = whisper, recording, window
        self._context = context

    def score(self, texts: Sequence[str], *, timed: bool = True) -> tuple[Hypothesis, ...]:
        """The texts as hypotheses; see `TextScorer.score`."""
        if not texts:
            return ()
        whisper = self._whisper
        sequences = [whisper.tokens(text) for text in texts]
        kept = [ids[:MAX_ALIGNED_TOKENS] for ids in sequences]
        ended = [ids if len(ids) >= MAX_TOKENS else (*ids, whisper.end) for ids in kept]
        scores = self._forced.logprobs(ended)
        scored = list(zip(texts, sequences, scores, strict=True))
        return whisper._hypotheses(self._window, self._prompt, scored, self._recording, timed)

    @cached_property
    def _prompt(self) -> list[int]:
        return self._whisper._prompts(_view(self._window[None]), 1)[0]

    @cached_property
    def _forced(self) -> ForcedScorer:
        prompt = [*self._prompt, self._whisper.text_only]
        return self._whisper._forced_scorer(self._window, prompt, self._context)


def _view(values: np.ndarray) -> Any:
    import ctranslate2

    return ctranslate2.StorageView.from_array(np.ascontiguousarray(values, np.float32))
