"""Whisper through transformers.

What the beam search or the sampler proposed is given back to the model (teacher forcing): one pass
gives every hypothesis its score and its cross-attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relisten.core.text import lower_if_capitals
from relisten.core.types import ASR, Hypothesis, UsageError
from relisten.io.audio import RATE_HZ
from relisten.io.device import torch_placement
from relisten.io.extras import need_transformers
from relisten.io.pretrained import from_pretrained
from relisten.io.sources import weights_hash
from relisten.speech.alignment import attention_token_ends, word_ends
from relisten.speech.first_pass import DecodingOptions, FirstPassResult, check_durations
from relisten.speech.frames import FRAME_S, batches, n_frames
from relisten.speech.no_speech import holds_speech
from relisten.speech.whisper.encoder import TransformersWhisperEncoder
from relisten.speech.whisper.features import WINDOW_S
from relisten.speech.whisper.suppression import Suppression
from relisten.speech.whisper.tokens import (
    MAX_ALIGNED_TOKENS,
    NO_SPEECH,
    NO_TIMESTAMPS,
    START,
    TRANSCRIBE,
    language_token,
)


class TransformersWhisper:
    """Whisper through transformers, from a local folder.

    `asr` has the meaning it has in `CTranslate2Whisper`: suppressed tokens are taken out, the rest
    renormalised, EOS counted. Word ends come from the cross-attention of the alignment heads.
    """

    max_duration_s = float(WINDOW_S)

    def __init__(
        self,
        folder: Path | str,
        device: str = "auto",
        dtype: str = "auto",
        language: str = "en",
        name: str | None = None,
    ) -> None:
        """Load the model; options as in `CTranslate2Whisper`, dtype auto|float32|bfloat16."""
        need_transformers()
        from transformers import AutoTokenizer, WhisperForConditionalGeneration

        folder = Path(folder)
        self.name = name or folder.name
        place, torch_dtype = torch_placement(device, dtype)
        model = from_pretrained(
            WhisperForConditionalGeneration,
            folder,
            dtype=torch_dtype,
            attn_implementation="eager",
            use_safetensors=True,
        )
        self.model: Any = model.eval()
        self.model.to(place)
        self.tokenizer = from_pretrained(AutoTokenizer, folder)
        self.encoder = TransformersWhisperEncoder(self.model, f"whisper-hf-{weights_hash(folder)}")
        settings = self.model.generation_config
        self.max_tokens = self.model.config.max_target_positions // 2
        self.end = int(self.model.config.eos_token_id)
        self.suppression = Suppression(
            settings.suppress_tokens or (), settings.begin_suppress_tokens or ()
        )
        n_layers, n_heads = model.config.decoder_layers, model.config.decoder_attention_heads
        self.alignment_heads = getattr(settings, "alignment_heads", None) or [
            (layer, head) for layer in range(n_layers // 2, n_layers) for head in range(n_heads)
        ]
        self.is_multilingual = bool(getattr(settings, "is_multilingual", False))
        self.language = language
        if self.is_multilingual and language != "auto":
            self._token(language_token(language))

    def decode(
        self,
        audio: Sequence[np.ndarray],
        options: DecodingOptions = DecodingOptions(),
        *,
        timed: bool = True,
    ) -> list[FirstPassResult]:
        """The N-best list of each recording; see `FirstPass.decode`."""
        check_durations(audio, self.max_duration_s)
        torch.manual_seed(options.seed)
        decoded = []
        for batch in batches(audio):
            encoded = self.encoder.encode_window(batch)
            prompts = self._prompts(encoded)
            beams = self._generate(encoded, prompts, options.n_best, num_beams=options.beam)
            no_speech_probs = self._no_speech_probs(encoded)
            draws: list[list[tuple[int, ...]]] = [[] for _ in batch]
            if options.samples:
                sampling = {"do_sample": True, "temperature": options.temperature, "top_k": 0}
                draws = self._generate(encoded, prompts, options.samples, **sampling)
            for i, recording in enumerate(batch):
                sequences = list(dict.fromkeys([*beams[i], *draws[i]]))
                texts = [self._decode(ids).strip() for ids in sequences]
                hypotheses = self._hypotheses(
                    encoded[i], prompts[i], texts, sequences, recording, timed
                )
                is_speech = holds_speech(
                    recording,
                    texts[0],
                    no_speech_probs[i],
                    hypotheses[0].scores[ASR] / max(1, len(sequences[0])),
                )
                if not is_speech:
                    hypotheses = self._hypotheses(
                        encoded[i], prompts[i], [""], [()], recording, timed
                    )
                window = encoded[i].float().cpu().numpy()
                frames = window[: n_frames(recording)].copy()
                decoded.append(FirstPassResult(hypotheses, frames, window, is_speech))
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
            encoded = torch.from_numpy(recording_frames).to(self.model.device, self.model.dtype)
            sequences = [self.tokens(lower_if_capitals(text)) for text in its_texts]
            if not len(recording_frames):
                ends.append([tuple(0.0 for _ in text.split()) for text in its_texts])
                continue
            prompt = self._prompts(encoded[None])[0]
            forced = self._forced(encoded, prompt, sequences, recording)
            ends.append([ends_s for _, ends_s in forced])
        return ends

    def scorer(
        self, recording: np.ndarray, window: np.ndarray | None = None, context: int | None = None
    ) -> TransformersTextScorer:
        """A scorer of given texts of one recording; see `FirstPass.scorer`. Always exact."""
        if window is None:
            encoded = self.encoder.encode_window([recording])
        else:
            encoded = torch.from_numpy(window)[None].to(self.model.device, self.model.dtype)
        return TransformersTextScorer(self, recording, encoded)

    def tokens(self, text: str) -> tuple[int, ...]:
        """A text's tokens as Whisper begins a transcript; see `FirstPass.tokens`."""
        if not text.strip():
            return ()
        return tuple(self.tokenizer.encode(" " + text.strip(), add_special_tokens=False))

    def _token(self, text: str) -> int:
        token = self.tokenizer.get_vocab().get(text)
        if token is None:
            raise UsageError(f"{self.name}: its tokenizer has no {text}; check the language")
        return int(token)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _prompts(self, encoded: Any) -> list[list[int]]:
        """The decoder's first tokens for each recording of encoded [B, T, dim]."""
        start, text_only = self._token(START), self._token(NO_TIMESTAMPS)
        if not self.is_multilingual:
            return [[start, text_only]] * len(encoded)
        task = self._token(TRANSCRIBE)
        languages = [language_token(self.language)] * len(encoded)
        if self.language == "auto":
            known = list(self.model.generation_config.lang_to_id)
            logits = self._logits(encoded, [[start]] * len(encoded)).logits[:, 0]
            found = logits[:, [self._token(language) for language in known]].argmax(-1)
            languages = [known[int(i)] for i in found]
        return [[start, self._token(language), task, text_only] for language in languages]

    def _no_speech_probs(self, encoded: Any) -> list[float]:
        """Of encoded [B, T, dim]; 0 where the tokenizer has no token for it."""
        vocabulary = self.tokenizer.get_vocab()
        tokens = [vocabulary[name] for name in NO_SPEECH if name in vocabulary]
        if not tokens:
            return [0.0] * len(encoded)
        logits = self._logits(encoded, [[self._token(START)]] * len(encoded)).logits[:, 0]
        return logits.float().softmax(-1)[:, tokens[0]].tolist()

    def _logits(self, encoded: Any, inputs: Sequence[Sequence[int]], **options: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        with torch.inference_mode():
            return self.model(
                encoder_outputs=BaseModelOutput(encoded),
                decoder_input_ids=torch.tensor(inputs, device=encoded.device),
                use_cache=False,
                **options,
            )

    def _generate(
        self, encoded: Any, prompts: list[list[int]], n_returned: int, **search: Any
    ) -> list[list[tuple[int, ...]]]:
        """Token sequences for each recording, without prompt and EOS."""
        from transformers import GenerationConfig, GenerationMixin
        from transformers.modeling_outputs import BaseModelOutput

        settings = GenerationConfig(
            num_return_sequences=n_returned,
            max_new_tokens=self.max_tokens,
            eos_token_id=self.end,
            pad_token_id=self.end,
            suppress_tokens=list(self.suppression.everywhere) or None,
            begin_suppress_tokens=list(self.suppression.at_start) or None,
            renormalize_logits=True,
            **search,
        )
        # Whisper's own generate() is for long recordings and keeps one hypothesis.
        output: Any = GenerationMixin.generate(
            self.model,
            encoder_outputs=BaseModelOutput(encoded),
            decoder_input_ids=torch.tensor(prompts, device=encoded.device),
            generation_config=settings,
        )
        rows = [tuple(row[len(prompts[0]) :]) for row in output.tolist()]
        cut = [row[: row.index(self.end)] if self.end in row else row for row in rows]
        return [cut[i * n_returned : (i + 1) * n_returned] for i in range(len(prompts))]

    def _hypotheses(
        self,
        encoded: Any,
        prompt: list[int],
        texts: Sequence[str],
        sequences: Sequence[tuple[int, ...]],
        recording: np.ndarray,
        timed: bool,
    ) -> tuple[Hypothesis, ...]:
        """Hypotheses made of texts and their tokens, over encoded [T, dim]."""
        forced = self._forced(encoded, prompt, sequences, recording)
        return tuple(
            Hypothesis(text, {ASR: score}, word_ends_s=ends_s if timed else None)
            for text, (score, ends_s) in zip(texts, forced, strict=True)
        )

    def _forced(
        self,
        encoded: Any,
        prompt: list[int],
        sequences: Sequence[tuple[int, ...]],
        recording: np.ndarray,
    ) -> list[tuple[float, tuple[float, ...]]]:
        """Summed log-probability and word ends of each sequence over encoded [T, dim]."""
        if not sequences:
            return []
        limit = min(MAX_ALIGNED_TOKENS, self.model.config.max_target_positions - len(prompt))
        kept = [ids[:limit] for ids in sequences]
        length = max(map(len, kept))
        inputs = [[*prompt, *ids, *[self.end] * (length - len(ids))] for ids in kept]
        batch = encoded[None].expand(len(kept), -1, -1)
        output = self._logits(batch, inputs, output_attentions=True)
        logits = output.logits[:, len(prompt) - 1 :].float()
        n_spoken, duration_s = n_frames(recording), len(recording) / RATE_HZ
        heads = torch.stack([output.cross_attentions[a][:, b] for a, b in self.alignment_heads], 1)
        weights = heads[..., :n_spoken].float().cpu().numpy()
        results = []
        for i, (ids, all_ids) in enumerate(zip(kept, sequences, strict=True)):
            targets = ids if len(ids) >= self.max_tokens else [*ids, self.end]
            score = self.suppression.sum_logprob(logits[i, : len(targets)], targets)
            attention = weights[i, :, : len(prompt) + len(ids)]
            attention = attention / np.maximum(attention.sum(-1, keepdims=True), 1e-12)
            # The step that reads the last token of the prompt predicts the first of the text.
            token_ends = np.zeros(0)
            if ids and n_spoken:
                token_ends = attention_token_ends(attention, len(prompt) - 1) * FRAME_S
            padding = np.full(len(all_ids) - len(token_ends), duration_s)
            prefixes = [self._decode(all_ids[: k + 1]) for k in range(len(all_ids))]
            ends_s = word_ends(prefixes, [*token_ends, *padding], duration_s)
            results.append((score, ends_s))
        return results


class TransformersTextScorer:
    """Given texts of one recording; see `TextScorer`. Made by `TransformersWhisper.scorer`."""

    def __init__(self, whisper: TransformersWhisper, recording: np.ndarray, encoded: Any) -> None:
        self._whisper, self._recording, self._encoded = whisper, recording, encoded

    def score(self, texts: Sequence[str], *, timed: bool = True) -> tuple[Hypothesis, ...]:
        """The texts as hypotheses; see `TextScorer.score`."""
        if not texts:
            return ()
        whisper = self._whisper
        sequences = [whisper.tokens(text) for text in texts]
        return whisper._hypotheses(
            self._encoded[0], self._prompt, texts, sequences, self._recording, timed
        )

    @cached_property
    def _prompt(self) -> list[int]:
        return self._whisper._prompts(self._encoded)[0]
