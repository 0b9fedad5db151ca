"""Whether a recording holds speech at all: recognisers write a text for hiss and silence, too."""

from __future__ import annotations

import numpy as np

from relisten.core.text import has_words
from relisten.io.audio import RATE_HZ

MAX_NO_SPEECH_PROB = 0.45
"""Of Whisper's token for no speech. With whisper-tiny.en 400 utterances of ljspeech, speechocean
and steelsky dev (read, accented and acted; children, shouts) have at most 0.27, half of them below
0.02. Of 137 pieces of silence, hiss, hum, tones, chords, clicks and sweeps of 0.02 to 20 s, four
have less than 0.45: three of these have no words, and one is a click track, 0.32."""
MAX_MEAN_LOGPROB = -0.8
"""Nats a token, of the best text: one that Whisper is surer of stays whatever that token says. The
same 137 have -0.85 or less."""
SILENCE_DBFS = -80.0
"""RMS of the loudest 20 ms; the quietest of the 400 utterances has -28."""


def holds_speech(
    recording: np.ndarray, text: str, no_speech_prob: float = 0.0, mean_logprob: float = 0.0
) -> bool:
    """Whether what a recogniser made of a recording is to be taken as speech.

    recording: 16 kHz float [samples].
    text: the recogniser's best. Punctuation alone is no speech; an empty text is not judged by
        this, and leaves the choice to the second pass.
    no_speech_prob: of Whisper's token for it, as the first one of a transcript; 0 where a
        recogniser has none.
    mean_logprob: nats a token of the text.
    """
    is_denied = no_speech_prob > MAX_NO_SPEECH_PROB and mean_logprob < MAX_MEAN_LOGPROB
    is_punctuation = bool(text.strip()) and not has_words(text)
    return not (is_denied or is_punctuation or loudest_dbfs(recording) < SILENCE_DBFS)


def loudest_dbfs(recording: np.ndarray) -> float:
    """The RMS of the loudest 20 ms, dB below full scale; -inf for digital silence."""
    if not len(recording):
        return -np.inf
    hop = RATE_HZ // 50
    starts = np.arange(0, len(recording), hop)
    energy = np.add.reduceat(np.square(recording, dtype=np.float64), starts) / hop
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(energy.max()))
