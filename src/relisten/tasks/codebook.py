"""Recordings in, a codebook of speech units out, and a word on how good it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from relisten.core.text import spoken_words
from relisten.core.types import NBest, UsageError
from relisten.io.nbest import read_nbest
from relisten.speech.codebook import Codebook, fit_codebook
from relisten.speech.first_pass import FirstPass
from relisten.speech.frames import SpeechEncoder
from relisten.speech.load import load_encoder, load_first_pass
from relisten.speech.probe import ProbeResult, ProbeUtterance, probe
from relisten.speech.whisper.encoder import WhisperEncoder
from relisten.tasks.defaults import FIRST_PASS
from relisten.tasks.frontend import save_codebook
from relisten.tasks.streams import (
    Refusal,
    Tick,
    in_chunks,
    load_recording,
    no_tick,
    work_on_accepted,
)

CHUNK_SIZE = 8
"""Utterances encoded at once."""

PROBE_S = 7200.0
"""Speech that the probe learns from: two hours of Whisper tiny's frames are 280 MB in float16."""

REFERENCE_WORD_ENDS = "reference_word_ends_s"
"""Key of a manifest line: when each whitespace-separated word of its reference ends, s."""


@dataclass(frozen=True, slots=True)
class CodebookReport:
    """A fitted codebook, what the probe says of it, and the recordings that were refused.

    frames, codes: nats a word that the continuous frames and the codes leave on unseen speakers;
        None where too few words have a reference and times.
    """

    codebook: Codebook
    n_done: int
    frames: ProbeResult | None
    codes: ProbeResult | None
    refused: tuple[Refusal, ...]


def make_codebook(
    manifests: Sequence[str],
    output: str,
    encoder: str = FIRST_PASS,
    units: int = 500,
    levels: int = 1,
    pool: int = 1,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    tick: Tick = no_tick,
) -> CodebookReport:
    """The codebook fitted on the recordings of `manifests`, written to the folder `output`.

    encoder: as `load_encoder` takes it. units: codes of each of `levels` residual levels. pool:
    encoder frames that a unit spans. Recordings that cannot be read are refused.
    The probe takes words and their times from the references: times stand under the key
    `reference_word_ends_s`, or the Whisper whose encoder it is aligns them.
    Raises UsageError for fewer frames than units.
    """
    speech_encoder = load_encoder(encoder, device, dtype)
    aligner = None
    if isinstance(speech_encoder, WhisperEncoder):
        aligner = load_first_pass(str(speech_encoder.folder), device, dtype)
    recordings_encoded = _EncodedRecordings(speech_encoder, aligner)
    codebook = fit_codebook(
        (frames for manifest in manifests for frames in recordings_encoded.frames(manifest, tick)),
        speech_encoder.id,
        units,
        levels,
        pool,
        seed,
        speech_encoder.frame_rate_hz,
    )
    save_codebook(codebook, encoder, output)
    return CodebookReport(
        codebook,
        recordings_encoded.n_done,
        _probe(recordings_encoded.probed, None, speech_encoder.frame_rate_hz, seed),
        _probe(recordings_encoded.probed, codebook, speech_encoder.frame_rate_hz, seed),
        tuple(recordings_encoded.refused),
    )


@dataclass
class _EncodedRecordings:
    """The recordings as frames, once, and what is kept of them for the probe."""

    encoder: SpeechEncoder
    aligner: FirstPass | None
    n_done: int = 0
    n_probed_frames: int = 0
    probed: list[ProbeUtterance] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def frames(self, manifest: str, tick: Tick) -> Iterator[np.ndarray]:
        """Frames [T, D] of each recording of a manifest that can be read."""
        for chunk in in_chunks(read_nbest(manifest), CHUNK_SIZE):
            recordings = [load_recording(utterance, manifest) for utterance in chunk]
            encoded = work_on_accepted(recordings, self.encoder.encode)
            for utterance, audio, frames in zip(chunk, recordings, encoded, strict=True):
                if isinstance(frames, Refusal) or isinstance(audio, Refusal):
                    self.refused.append(Refusal(utterance.id, f"{manifest}: {frames.reason}"))
                    continue
                self.n_done += 1
                self._keep_for_probe(utterance, audio, frames)
                yield frames
            tick(len(chunk))

    def _keep_for_probe(self, utterance: NBest, audio: np.ndarray, frames: np.ndarray) -> None:
        is_enough = self.n_probed_frames >= PROBE_S * self.encoder.frame_rate_hz
        if is_enough or not utterance.reference:
            return
        words = spoken_words(utterance.reference)
        ends = utterance.extra.get(REFERENCE_WORD_ENDS)
        if ends is None and self.aligner is not None and len(frames):
            ends = self.aligner.align([audio], [[utterance.reference]], [frames])[0][0]
        if not isinstance(ends, list | tuple) or len(ends) != len(words):
            return
        self.n_probed_frames += len(frames)
        speaker = utterance.speaker or utterance.id
        half = frames.astype(np.float16)
        self.probed.append(ProbeUtterance(half, tuple(words), tuple(map(float, ends)), speaker))


def _probe(
    utterances: Sequence[ProbeUtterance], codebook: Codebook | None, frame_rate_hz: float, seed: int
) -> ProbeResult | None:
    try:
        return probe(utterances, codebook, frame_rate_hz=frame_rate_hz, seed=seed)
    except UsageError:  # too few words
        return None
