"""Recordings as a speech-text LM reads them: frames, and where each word of a transcript ends.

Encoding is expensive and training reads the same speech many times, so it is kept: Parquet shards of
pooled encoder frames (float16) and word ends (the first pass's own, forced to the reference). The
frames may be another encoder's, HuBERT's say; the first pass then only tells where words end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from relisten.core.types import NBest
from relisten.io.audio import RATE_HZ
from relisten.io.nbest import read_nbest
from relisten.io.parquet import read_rows, write_table
from relisten.lm.sequences import Speech
from relisten.speech.codebook import pool_frames
from relisten.speech.ctc.head import CTCHead
from relisten.speech.first_pass import FirstPass
from relisten.speech.frames import SpeechEncoder
from relisten.tasks.frontend import SpeechFrontend
from relisten.tasks.streams import Refusal, Tick, in_chunks, load_recording, no_tick

SHARD = 256
"""Utterances of a shard: half a minute of listening on two cores, so little is lost by a stop."""


@dataclass(frozen=True, slots=True)
class CachedUtterance:
    """One utterance; without a transcript, text and word ends are empty.

    frames: float16 [U, D], pooled; unit_s: seconds of each. below: float16 [T, E], 50 a second, of
    an encoder's lower layers, where a CTC head has upper layers of its own.
    """

    id: str
    speaker: str
    text: str
    word_ends_s: tuple[float, ...]
    frames: np.ndarray
    unit_s: float
    lower_layers: np.ndarray | None = None

    @property
    def speech(self) -> Speech:
        """Its speech without codes, for the orders that need none; the same frames, not a copy."""
        return Speech(np.zeros((len(self.frames), 1), np.int32), self.unit_s, self.frames)


@dataclass(frozen=True)
class FeatureSpec:
    """How recordings are heard: the first pass tells word ends, the encoder makes the frames (its
    own need no second listening), `pool` of them a unit. speed: of playing, pitch and all; other
    speeds make other voices. below: the lower layers that a CTC head's own stand on, if it has any."""

    first_pass: FirstPass
    encoder: SpeechEncoder
    pool: int
    speed: float = 1.0
    lower_layers: SpeechEncoder | None = None

    @property
    def key(self) -> str:
        """What tells it from any other."""
        ctc_heads = "+".join(dict.fromkeys((self.first_pass.encoder.id, self.encoder.id)))
        key = f"{ctc_heads}|{self.pool}" + (f"|{self.speed:g}" if self.speed != 1 else "")
        return f"{key}|{self.lower_layers.id}" if self.lower_layers else key


def feature_spec_of(frontend: SpeechFrontend, first_pass: FirstPass) -> FeatureSpec:
    """How recordings are encoded for training: through the first pass's own encoder where it is
    the codebook's, so that no second one is loaded."""
    is_own = first_pass.encoder.id == frontend.codebook.encoder_id
    encoder = first_pass.encoder if is_own else frontend.encoder
    return FeatureSpec(
        first_pass, encoder, frontend.codebook.pool, lower_layers=frontend.lower_layers
    )


def frames_for(ctc_head: CTCHead, cached: CachedUtterance) -> np.ndarray:
    """The frames that a CTC head takes: of the layers below its own, where it has any."""
    if ctc_head.layers is None:
        return cached.frames
    assert cached.lower_layers is not None, "heard for a CTC head that has layers of its own"
    return cached.lower_layers


def cache_manifest(
    manifest: str, feature_spec: FeatureSpec, cache: Path, tick: Tick = no_tick
) -> list[CachedUtterance]:
    """The utterances of a manifest that have a reference and can be read, heard once and kept.

    Shards that `cache` holds already, heard the same way, are read, not heard again.
    """
    with_reference = (u for u in read_nbest(manifest) if u.reference)
    return _cached_once(manifest, with_reference, feature_spec.key, feature_spec, cache, tick)


def cache_untranscribed(
    manifest: str, feature_spec: FeatureSpec, cache: Path, tick: Tick = no_tick
) -> list[CachedUtterance]:
    """The utterances of a manifest that have no reference and can be read; see `cache_manifest`."""
    without = (u for u in read_nbest(manifest) if not u.reference)
    return _cached_once(
        manifest, without, f"{feature_spec.key}|untranscribed", feature_spec, cache, tick
    )


def _cached_once(
    manifest: str,
    utterances: Iterable[NBest],
    how: str,
    feature_spec: FeatureSpec,
    cache: Path,
    tick: Tick,
) -> list[CachedUtterance]:
    key = f"{Path(manifest).resolve()}|{how}"
    folder = cache / f"{Path(manifest).stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    cached: list[CachedUtterance] = []
    for number, chunk in enumerate(in_chunks(utterances, SHARD)):
        folder.mkdir(parents=True, exist_ok=True)
        shard = folder / f"{number:05d}.parquet"
        if not shard.exists():
            _write_shard(shard, list(_encoded(chunk, manifest, feature_spec)))
        cached += _read_shard(shard)
        tick(len(chunk))
    return cached


def _encoded(
    utterances: list[NBest], manifest: str, feature_spec: FeatureSpec
) -> Iterator[CachedUtterance]:
    first_pass, encoder, pool = feature_spec.first_pass, feature_spec.encoder, feature_spec.pool
    unit_s = pool / encoder.frame_rate_hz
    longest = int(first_pass.max_duration_s * RATE_HZ)
    for chunk in in_chunks(utterances, 8):
        loaded = [(u, load_recording(u, manifest)) for u in chunk]
        kept = [
            (u, _at_speed(audio, feature_spec.speed))
            for u, audio in loaded
            if not isinstance(audio, Refusal) and 0 < len(audio) <= longest
        ]
        if not kept:
            continue
        audio = [samples for _, samples in kept]
        texts = [u.reference or "" for u, _ in kept]
        frames = encoder.encode(audio)
        own = frames if encoder.id == first_pass.encoder.id else None
        lower_layers = (
            feature_spec.lower_layers.encode(audio)
            if feature_spec.lower_layers
            else [None] * len(kept)
        )
        ends = [((),)] * len(kept)
        if any(texts):
            ends = first_pass.align(audio, [[text] for text in texts], own)
        for (u, _), text, one, under, (word_ends_s,) in zip(
            kept, texts, frames, lower_layers, ends, strict=True
        ):
            pooled = pool_frames(one, pool).astype(np.float16)
            under = None if under is None else under.astype(np.float16)
            speaker = u.speaker or u.id
            yield CachedUtterance(u.id, speaker, text, word_ends_s, pooled, unit_s, under)


def _at_speed(audio: np.ndarray, speed: float) -> np.ndarray:
    """Samples float32 [T / speed]: the recording as a tape played at that speed sounds."""
    if speed == 1:
        return audio
    from scipy.signal import resample_poly

    ratio = Fraction(speed).limit_denominator(100)
    return resample_poly(audio, ratio.denominator, ratio.numerator).astype(np.float32)


def _write_shard(path: Path, cached: list[CachedUtterance]) -> None:
    lower_layers = [h.lower_layers for h in cached]
    write_table(
        path,
        {
            "id": ("string", [h.id for h in cached]),
            "speaker": ("string", [h.speaker for h in cached]),
            "text": ("string", [h.text for h in cached]),
            "word_ends_s": ("list<float32>", [list(h.word_ends_s) for h in cached]),
            "frames": ("binary", [h.frames.tobytes() for h in cached]),
            "n_units": ("int64", [len(h.frames) for h in cached]),
            "unit_s": ("float64", [h.unit_s for h in cached]),
            "below": ("binary", [None if one is None else one.tobytes() for one in lower_layers]),
            "n_lower_frames": ("int64", [0 if one is None else len(one) for one in lower_layers]),
        },
    )


def _read_shard(path: Path) -> list[CachedUtterance]:
    return [
        CachedUtterance(
            row["id"],
            row["speaker"],
            row["text"],
            tuple(row["word_ends_s"]),
            _floats(row["frames"], row["n_units"]),
            row["unit_s"],
            _floats(row["below"], row["n_lower_frames"]) if row.get("below") else None,
        )
        for row in read_rows(path)
    ]


def _floats(values: bytes, n_rows: int) -> np.ndarray:
    return np.frombuffer(values, np.float16).reshape(n_rows, -1)
