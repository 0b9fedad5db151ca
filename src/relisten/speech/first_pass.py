"""The first pass: the role of a recogniser that proposes hypotheses, and what goes in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from relisten.core.types import Hypothesis, UsageError
from relisten.io.audio import RATE_HZ
from relisten.speech.frames import SpeechEncoder


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How a first pass searches for hypotheses. Raises UsageError if the options contradict."""

    beam: int = 10
    """Width of the beam search."""
    n_best: int = 10
    """Hypotheses of the beam that are kept, 1 to `beam`."""
    samples: int = 0
    """Hypotheses that are sampled from the model in addition to the beam."""
    temperature: float = 1.0
    """Of the sampling. `asr` is always the score at temperature 1, so all can be merged."""
    seed: int = 0
    """Of the sampling."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_best <= self.beam:
            raise UsageError(
                f"n_best {self.n_best}: a beam of {self.beam} gives 1 to {self.beam} hypotheses; "
                "ask for fewer, or widen the beam"
            )
        if self.samples < 0:
            raise UsageError(f"samples {self.samples}: give 0 or more")
        if not self.temperature > 0:
            raise UsageError(f"temperature {self.temperature}: give a number above 0")


@dataclass(frozen=True, slots=True)
class FirstPassResult:
    """What a first pass made of one recording.

    is_speech: whether there is speech at all; see `no_speech.holds_speech`. Where there is none the
        one hypothesis is the empty text.
    hypotheses: those of the beam in the decoder's own order, then samples that are not in the beam;
        no token sequence twice, but texts may repeat. Scores hold `asr`, the summed log-probability
        in nats, EOS counted; word_ends_s is set where it was asked for.
    frames: the encoder's, float32 [T, dim], T = ceil(duration_s * 50).
    window: all that the decoder attended to, float32 [T', dim]; for Whisper this includes frames of
        the padding up to 30 s. `FirstPass.scorer` takes it and then does not encode again.
    """

    hypotheses: tuple[Hypothesis, ...]
    frames: np.ndarray
    window: np.ndarray
    is_speech: bool = True


class TextScorer(Protocol):
    """Scores given texts of one recording, and keeps what it computed for the next texts.

    It belongs to one caller: it must not be used by two threads at once.
    """

    def score(self, texts: Sequence[str], *, timed: bool = True) -> tuple[Hypothesis, ...]:
        """The texts as if the recogniser had proposed them, one hypothesis each, in order.

        timed: whether word ends are wanted; they are set as `decode` sets them.
        `asr` is what `decode` would give `tokens(text)`, by teacher forcing, and always finite: a
        token that the decoder would suppress is allowed at its position. Texts are taken as they
        are written, capitals included.
        """
        ...


class FirstPass(Protocol):
    """A recogniser that proposes hypotheses, scores given texts, and tells when words end.

    max_duration_s: the longest recording that it decodes at once; cut longer ones with
        `speech_segments`.
    encoder: what makes its frames, usable on its own; `encoder.id` ties codebooks to it.
    """

    @property
    def name(self) -> str: ...
    @property
    def max_duration_s(self) -> float: ...
    @property
    def encoder(self) -> SpeechEncoder: ...

    def decode(
        self,
        audio: Sequence[np.ndarray],
        options: DecodingOptions = DecodingOptions(),
        *,
        timed: bool = True,
    ) -> list[FirstPassResult]:
        """The N-best list of each recording.

        audio: 16 kHz mono float [samples] each. timed: whether word ends are wanted; to find them
        costs up to a fifth of the search. Raises UsageError for a recording past max_duration_s.
        """
        ...

    def align(
        self,
        audio: Sequence[np.ndarray],
        texts: Sequence[Sequence[str]],
        frames: Sequence[np.ndarray] | None = None,
    ) -> list[list[tuple[float, ...]]]:
        """When the words of given texts end, s: for each recording, for each of its texts.

        One entry per whitespace-separated word, as in `Hypothesis.word_ends_s`. frames: those of
        the encoder for the same recordings, if at hand; nothing is encoded again. A text all in
        capitals is aligned in lower case, which recognisers know better.
        """
        ...

    def scorer(
        self, recording: np.ndarray, window: np.ndarray | None = None, context: int | None = None
    ) -> TextScorer:
        """A scorer of given texts of one recording, 16 kHz mono float [samples].

        window: `FirstPassResult.window` of the recording, if at hand; nothing is encoded again.
        context: None scores every token exactly. A number lets a recogniser whose scores are
        expensive reuse, for the rest of a text, what it computed for another text, from the token
        on where both have agreed for so many tokens and agree to the end (history clustering: Liu
        et al., ICASSP 2014).
        """
        ...

    def tokens(self, text: str) -> tuple[int, ...]:
        """The tokens it writes a text with; to it, two texts with the same tokens are one."""
        ...


def check_durations(audio: Sequence[np.ndarray], max_duration_s: float) -> None:
    """Raises UsageError if a recording is longer than a first pass can decode at once."""
    for i, samples in enumerate(audio):
        if len(samples) > max_duration_s * RATE_HZ:
            raise UsageError(
                f"recording {i} lasts {len(samples) / RATE_HZ:.1f} s; at most {max_duration_s:g} s "
                "are decoded at once; cut it with speech_segments"
            )
