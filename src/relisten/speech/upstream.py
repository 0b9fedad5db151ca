"""A recogniser behind another server: its text first, the hypotheses of a local recogniser beside
it, which rates and times them all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from relisten.io.audio_api import AudioAPI, RemoteTranscript
from relisten.speech.first_pass import DecodingOptions, FirstPass, FirstPassResult, TextScorer
from relisten.speech.frames import SpeechEncoder
from relisten.speech.no_speech import holds_speech

AT_ONCE = 8
"""Requests that wait for the server at one time."""


@dataclass(frozen=True)
class Upstream:
    """A first pass whose first hypothesis is another server's; all else is the local one's."""

    api: AudioAPI
    local: FirstPass

    @property
    def name(self) -> str:
        """The local recogniser's, whose scores these are."""
        return self.local.name

    @property
    def max_duration_s(self) -> float:
        """The longest recording that the local recogniser decodes at once."""
        return self.local.max_duration_s

    @property
    def encoder(self) -> SpeechEncoder:
        """The local recogniser's."""
        return self.local.encoder

    def decode(
        self,
        audio: Sequence[np.ndarray],
        options: DecodingOptions = DecodingOptions(),
        *,
        timed: bool = True,
    ) -> list[FirstPassResult]:
        """See `FirstPass.decode`. The server works while the local recogniser does.

        Raises UpstreamError where it gives no transcript.
        """
        with ThreadPoolExecutor(AT_ONCE, "relisten-upstream") as pool:
            remote = pool.map(self.api.transcribe, audio)
            local = self.local.decode(audio, options, timed=timed)
            return [
                self._joined(recording, result, said, timed)
                for recording, result, said in zip(audio, local, remote, strict=True)
            ]

    def _joined(
        self, recording: np.ndarray, result: FirstPassResult, said: RemoteTranscript, timed: bool
    ) -> FirstPassResult:
        """Where either of them finds no speech, there is no text of that one."""
        if not result.is_speech or not holds_speech(
            recording, said.text, said.no_speech_prob, said.mean_logprob
        ):
            return result
        tokens = self.tokens(said.text)
        same = [one for one in result.hypotheses if self.tokens(one.text) == tokens]
        others = [one for one in result.hypotheses if one not in same]
        if not same:
            same = [*self.scorer(recording, result.window).score([said.text], timed=timed)]
        return replace(result, hypotheses=(*same, *others))

    def scorer(
        self, recording: np.ndarray, window: np.ndarray | None = None, context: int | None = None
    ) -> TextScorer:
        """See `FirstPass.scorer`."""
        return self.local.scorer(recording, window, context)

    def align(
        self,
        audio: Sequence[np.ndarray],
        texts: Sequence[Sequence[str]],
        frames: Sequence[np.ndarray] | None = None,
    ) -> list[list[tuple[float, ...]]]:
        """See `FirstPass.align`."""
        return self.local.align(audio, texts, frames)

    def tokens(self, text: str) -> tuple[int, ...]:
        """See `FirstPass.tokens`."""
        return self.local.tokens(text)
