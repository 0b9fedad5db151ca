"""First stage: recordings as frames, and where each word of a transcript ends.

Encoding is expensive and training reads the same speech many times, so the result is kept: Parquet
shards of pooled encoder frames (float16) and word ends (the first pass's own, aligned to the
reference). The frames may come from another encoder, such as HuBERT; the first pass then only tells
where words end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relisten.core.types import NBest, UsageError
from relisten.io.audio import RATE_HZ
from relisten.io.nbest import read_nbest, resolve_audio
from relisten.io.parquet import ColumnType, read_rows, write_table
from relisten.lm.sequences import Speech
from relisten.speech.codebook import pool_frames
from relisten.speech.ctc.head import CTCHead
from relisten.speech.first_pass import FirstPass
from relisten.speech.frames import SpeechEncoder
from relisten.speech.load import load_encoder, load_first_pass
from relisten.speech.whisper.encoder import WhisperEncoder
from relisten.speech.whisper.layers import LowerLayers
from relisten.tasks.defaults import FIRST_PASS
from relisten.tasks.frontend import SpeechFrontend
from relisten.tasks.streams import Refusal, in_chunks, load_recording
from relisten.tasks.training.keys import ModelReference, key

UTTERANCES_PER_SHARD = 256
"""Utterances of a shard: half a minute of encoding on two cores, so little is lost by a stop."""
ENCODED_TOGETHER = 8


@dataclass(frozen=True)
class FeaturesConfig:
    """Speech features."""

    first_pass: ModelReference = key(
        FIRST_PASS, "Recogniser that tells where words end, and whose N-best lists are rescored."
    )
    encoder: ModelReference = key(
        "",
        "Speech encoder whose frames are used, as hubert:FOLDER_OR_ID@LAYER or another Whisper; "
        "the first pass's own where none is named.",
    )
    pool: int = key(2, "Frames, 50 a second, whose mean makes one unit.")


@dataclass(frozen=True, slots=True)
class CachedUtterance:
    """One utterance; without a transcript, text and word ends are empty.

    frames: float16 [U, D], pooled; unit_s: seconds of each. lower_layers: float16 [T, E], 50 a
    second, of an encoder's lower layers, where a CTC head has upper layers of its own.
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
    """How recordings are encoded.

    first_pass: tells where words end. encoder: makes the frames, `pool` of which are one unit;
    where it is the first pass's own, a recording is encoded once for both. lower_layers: the layers
    under those that a CTC head has made its own, if any.
    """

    first_pass: FirstPass
    encoder: SpeechEncoder
    pool: int
    lower_layers: SpeechEncoder | None = None

    @property
    def key(self) -> str:
        """What tells it from any other."""
        encoders = "+".join(dict.fromkeys((self.first_pass.encoder.id, self.encoder.id)))
        key = f"{encoders}|{self.pool}"
        return f"{key}|{self.lower_layers.id}" if self.lower_layers else key


@dataclass(frozen=True)
class CachedManifest:
    """The utterances of a manifest that were encoded, and those that could not be."""

    utterances: list[CachedUtterance]
    refused: list[Refusal]


def feature_spec(config: FeaturesConfig, n_ctc_layers: int = 0) -> FeatureSpec:
    """The models that a section names, loaded.

    n_ctc_layers: how many of the encoder's last layers a CTC head is to make its own. Raises
    UsageError where the encoder has no such layers.
    """
    first_pass = load_first_pass(config.first_pass)
    encoder = load_encoder(config.encoder) if config.encoder else first_pass.encoder
    if not n_ctc_layers:
        return FeatureSpec(first_pass, encoder, config.pool)
    if not isinstance(encoder, WhisperEncoder):
        raise UsageError(
            f"ctc.layers is {n_ctc_layers}, and only layers of a Whisper in CTranslate2 form "
            f"can be a CTC head's own; {encoder.id} is another encoder: leave ctc.layers out"
        )
    return FeatureSpec(first_pass, encoder, config.pool, LowerLayers(encoder.folder, n_ctc_layers))


def feature_spec_of(frontend: SpeechFrontend, first_pass: FirstPass) -> FeatureSpec:
    """How recordings are encoded for further training of a bundle: by the first pass's own encoder
    where it is the codebook's, so that no second one is loaded."""
    is_own = first_pass.encoder.id == frontend.codebook.encoder_id
    encoder = first_pass.encoder if is_own else frontend.encoder
    return FeatureSpec(first_pass, encoder, frontend.codebook.pool, frontend.lower_layers)


def frames_for(ctc_head: CTCHead, cached: CachedUtterance) -> np.ndarray:
    """The frames that a CTC head takes: of the layers below its own, where it has any."""
    if ctc_head.layers is None:
        return cached.frames
    assert cached.lower_layers is not None, "encoded for a CTC head that has layers of its own"
    return cached.lower_layers


def cache_manifest(manifest: str, spec: FeatureSpec, cache: Path) -> CachedManifest:
    """The utterances of a manifest that have a reference, encoded once and kept in `cache`."""
    return _cached_once(manifest, (u for u in read_nbest(manifest) if u.reference), spec, cache)


def cache_untranscribed(manifest: str, spec: FeatureSpec, cache: Path) -> CachedManifest:
    """The utterances of a manifest that have no reference, encoded once and kept in `cache`."""
    return _cached_once(manifest, (u for u in read_nbest(manifest) if not u.reference), spec, cache)


def _cached_once(
    manifest: str, utterances: Iterable[NBest], spec: FeatureSpec, cache: Path
) -> CachedManifest:
    found = CachedManifest([], [])
    for chunk in in_chunks(utterances, UTTERANCES_PER_SHARD):
        content = json.dumps([spec.key, *(_content(u, manifest) for u in chunk)])
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        shard = cache / f"{Path(manifest).stem}-{digest}.parquet"
        if not shard.exists():
            cache.mkdir(parents=True, exist_ok=True)
            _write_shard(shard, list(_encoded(chunk, manifest, spec)))
        for one in _read_shard(shard):
            if isinstance(one, Refusal):
                found.refused.append(one)
            else:
                found.utterances.append(one)
    return found


def _content(utterance: NBest, manifest: str) -> list[str | float | None]:
    """What decides what is kept of an utterance. The recording counts by path and size: one that
    was missing, or that was replaced, is encoded anew."""
    path, size = None, None
    if utterance.audio is not None:
        path = os.path.realpath(resolve_audio(utterance, manifest))
        size = os.path.getsize(path) if os.path.isfile(path) else None
    speaker, text = utterance.speaker or utterance.id, utterance.reference or ""
    return [utterance.id, speaker, text, path, size, utterance.start_s, utterance.duration_s]


def _encoded(
    utterances: Sequence[NBest], manifest: str, spec: FeatureSpec
) -> Iterator[CachedUtterance | Refusal]:
    max_s = spec.first_pass.max_duration_s
    for chunk in in_chunks(utterances, ENCODED_TOGETHER):
        kept: list[tuple[NBest, np.ndarray]] = []
        for utterance in chunk:
            audio = load_recording(utterance, manifest)
            if isinstance(audio, Refusal):
                yield audio
            elif not 0 < len(audio) <= int(max_s * RATE_HZ):
                lasts = f"it lasts {len(audio) / RATE_HZ:.1f} s"
                yield Refusal(utterance.id, f"{lasts}; the first pass takes at most {max_s:g} s")
            else:
                kept.append((utterance, audio))
        if kept:
            yield from _encoded_together(kept, spec)


def _encoded_together(
    loaded: Sequence[tuple[NBest, np.ndarray]], spec: FeatureSpec
) -> Iterator[CachedUtterance]:
    audio = [samples for _, samples in loaded]
    texts = [u.reference or "" for u, _ in loaded]
    frames = spec.encoder.encode(audio)
    lower: Sequence[np.ndarray | None] = [None] * len(loaded)
    if spec.lower_layers:
        lower = [one.astype(np.float16) for one in spec.lower_layers.encode(audio)]
    ends: Sequence[Sequence[tuple[float, ...]]] = [((),)] * len(loaded)
    if any(texts):
        own = frames if spec.encoder.id == spec.first_pass.encoder.id else None
        ends = spec.first_pass.align(audio, [[text] for text in texts], own)
    unit_s = spec.pool / spec.encoder.frame_rate_hz
    rows = zip(loaded, texts, frames, lower, ends, strict=True)
    for (u, _), text, one, lower_layers, (word_ends_s,) in rows:
        pooled = pool_frames(one, spec.pool).astype(np.float16)
        yield CachedUtterance(
            u.id, u.speaker or u.id, text, word_ends_s, pooled, unit_s, lower_layers
        )


def _write_shard(path: Path, found: Sequence[CachedUtterance | Refusal]) -> None:
    """What was encoded, and after it what was refused, with the reason in `refused`."""
    kept = [one for one in found if isinstance(one, CachedUtterance)]
    refused = [one for one in found if isinstance(one, Refusal)]
    absent: list[None] = [None] * len(refused)
    lower = [one.lower_layers for one in kept]
    columns: dict[str, tuple[ColumnType, Sequence[Any]]] = {
        "speaker": ("string", [one.speaker for one in kept]),
        "text": ("string", [one.text for one in kept]),
        "word_ends_s": ("list<float32>", [list(one.word_ends_s) for one in kept]),
        "frames": ("binary", [one.frames.tobytes() for one in kept]),
        "n_units": ("int64", [len(one.frames) for one in kept]),
        "unit_s": ("float64", [one.unit_s for one in kept]),
        "lower_layers": ("binary", [None if one is None else one.tobytes() for one in lower]),
        "n_lower_frames": ("int64", [0 if one is None else len(one) for one in lower]),
    }
    table = {name: (kind, [*values, *absent]) for name, (kind, values) in columns.items()}
    table["id"] = ("string", [one.id for one in (*kept, *refused)])
    table["refused"] = ("string", [*([None] * len(kept)), *(one.reason for one in refused)])
    write_table(path, table)


def _read_shard(path: Path) -> Iterator[CachedUtterance | Refusal]:
    for row in read_rows(path):
        if row["refused"] is not None:
            yield Refusal(row["id"], row["refused"])
            continue
        lower = row["lower_layers"]
        yield CachedUtterance(
            row["id"],
            row["speaker"],
            row["text"],
            tuple(row["word_ends_s"]),
            _floats(row["frames"], row["n_units"]),
            row["unit_s"],
            None if lower is None else _floats(lower, row["n_lower_frames"]),
        )


def _floats(values: bytes, n_rows: int) -> np.ndarray:
    return np.frombuffer(values, np.float16).reshape(n_rows, -1)
