"""Readers of the N-best lists that other recognisers and toolkits write.

Each reader turns one layout into `NBest`, states which sign and which logarithm it assumes, and
puts the score of the recogniser under `asr`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from relisten.core.types import FormatError, NBest, Refusal, UsageError
from relisten.io.files import opened
from relisten.io.native import (
    CONTENT,
    HYPOTHESIS_KEYS,
    UTTERANCE_KEYS,
    attempt_lines,
    nbest_to_line,
)
from relisten.io.readers.common import json_items, json_values
from relisten.io.readers.folders import is_espnet, is_kaldi, read_espnet, read_kaldi
from relisten.io.readers.google import read_google
from relisten.io.readers.offline import read_sherpa, read_vosk
from relisten.io.readers.research import read_hyporadise, read_mlm_scoring
from relisten.io.readers.sclite import read_ctm, read_stm, read_trn, recognise_sclite
from relisten.io.readers.services import (
    read_amazon,
    read_assemblyai,
    read_azure,
    read_deepgram,
)
from relisten.io.readers.tables import (
    is_table_header,
    lines_of,
    read_nemo,
    read_nemo_manifest,
    read_tsv,
)
from relisten.io.readers.whisper import read_whisper, read_whisper_cpp


def read_native(path: Path) -> Iterator[NBest | Refusal]:
    """Our own lines, one at a time; also as one JSON array, or each over several lines."""
    with opened(path) as file:
        first = next(filter(None, map(bytes.strip, file)), b"").removeprefix(b"\xef\xbb\xbf")
    if first.startswith(b"[") or first == b"{":
        items = (json.dumps(item).encode() for item in json_items(path))
        yield from attempt_lines(items, f"{path}, entry")
    else:
        with opened(path) as file:
            yield from attempt_lines(file, str(path))


READERS: dict[str, Callable[[Path], Iterator[NBest | Refusal]]] = {
    "native": read_native,
    "tsv": read_tsv,
    "nemo": read_nemo,
    "nemo-manifest": read_nemo_manifest,
    "espnet": read_espnet,
    "kaldi": read_kaldi,
    "mlm-scoring": read_mlm_scoring,
    "hyporadise": read_hyporadise,
    "whisper": read_whisper,
    "whisper-cpp": read_whisper_cpp,
    "vosk": read_vosk,
    "sherpa": read_sherpa,
    "amazon": read_amazon,
    "google": read_google,
    "azure": read_azure,
    "deepgram": read_deepgram,
    "assemblyai": read_assemblyai,
    "trn": read_trn,
    "ctm": read_ctm,
    "stm": read_stm,
}

FORMATS = tuple(READERS)
WHISPER_TSV = "start\tend\ttext"
"""First line of the tables that openai-whisper and WhisperX write beside their JSON."""


def read_foreign(
    path: Path, format: str, known: Mapping[str, NBest] | None = None
) -> Iterator[NBest | Refusal]:
    """The utterances of a file in one of FORMATS, each id once; see `relisten.io.nbest.read_nbest`.

    known: id → utterance of the manifest. Refused is also what could not be written in the native
    format. Raises FormatError for a file that does not fit, UsageError for an unknown format.
    """
    if format not in READERS:
        raise UsageError(f"format {format!r} is not known; one of: {', '.join(FORMATS)}")
    read = READERS[format]
    if format == "nemo" and known is not None:
        read = partial(read_nemo, manifest=list(known.values()))
    yield from checked(read(path), path, format, known)


def checked(
    utterances: Iterator[NBest | Refusal],
    path: Path,
    format: str,
    known: Mapping[str, NBest] | None = None,
) -> Iterator[NBest | Refusal]:
    """What a reader of `path` gives, each id once, and keys of ours only where they mean the same.

    format: what keys of theirs that have the name of one of ours are called after.
    """
    seen: set[str] = set()
    for utterance in _guarded(utterances, path, format):
        if isinstance(utterance, Refusal):
            yield utterance
            continue
        try:
            if utterance.id in seen:
                raise FormatError(
                    f"{path}: '{utterance.id}': this id occurs twice, or its lines do not stand "
                    "together; give each utterance its own id, in one place"
                )
            seen.add(utterance.id)
            renamed = _without_our_names(utterance, format)
            completed = renamed if known is None else _completed(renamed, known, path)
            _check(completed, path)
        except FormatError as error:
            yield Refusal(utterance.id or str(path), str(error))
        else:
            yield completed


def _check(utterance: NBest, path: Path) -> None:
    """Raises FormatError for what the native format cannot hold: an empty id, a negative start."""
    try:
        nbest_to_line(utterance)
    except FormatError as error:
        reason = str(error).removeprefix("cannot be written: ")
        raise FormatError(f"{path}: {reason}") from error


def _without_our_names(utterance: NBest, format: str) -> NBest:
    """The utterance with `context` of a Whisper segment, say, kept as `whisper.context`: with us
    the name means something else."""

    def renamed(extra: Mapping[str, Any], ours: Sequence[str]) -> dict[str, Any]:
        return {f"{format}.{key}" if key in ours else key: value for key, value in extra.items()}

    hypotheses = tuple(
        replace(hypothesis, extra=renamed(hypothesis.extra, HYPOTHESIS_KEYS))
        for hypothesis in utterance.hypotheses
    )
    return replace(utterance, hypotheses=hypotheses, extra=renamed(utterance.extra, UTTERANCE_KEYS))


def _guarded(
    utterances: Iterator[NBest | Refusal], path: Path, format: str
) -> Iterator[NBest | Refusal]:
    try:
        yield from utterances
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: does not have the layout of {format} ({error!r}); name its format"
        ) from error


def _completed(utterance: NBest, manifest: Mapping[str, NBest], path: Path) -> NBest:
    """The utterance with the manifest's recording, reference and further keys. Its own times stay,
    where it has any and the manifest does not name a later part of the recording."""
    entry = manifest.get(utterance.id)
    if entry is None:
        raise FormatError(f"{path}: '{utterance.id}': is not in the manifest; add it or drop it")
    if utterance.duration_s is not None and not entry.start_s:
        entry = replace(entry, start_s=utterance.start_s, duration_s=utterance.duration_s)
    return replace(
        entry,
        hypotheses=utterance.hypotheses,
        reference=utterance.reference if entry.reference is None else entry.reference,
        extra={**utterance.extra, **entry.extra},
    )


def is_native_line(line: bytes) -> bool:
    """Whether a file whose first line that is not blank is this one is in the native format."""
    try:
        return is_native_record(json.loads(line.decode("utf-8-sig")))
    except (ValueError, RecursionError):
        return False


def is_native_record(record: Any) -> bool:
    """Whether a file whose first JSON value is this one is in the native format."""
    return _recognise_json(record) == "native"


def recognise(path: Path) -> str:
    """Which of FORMATS a file or folder has, recognised by its content.

    Raises FormatError if it has none of them.
    """
    if path.is_dir():
        if is_espnet(path):
            return "espnet"
        if is_kaldi(path):
            return "kaldi"
        raise FormatError(f"{path}: is a folder without 1best_recog/text, words_text or text")
    _, line = next(lines_of(path), (0, ""))
    if name := recognise_sclite(path):
        return name
    if not line.lstrip().startswith(("{", "[")):
        return _recognise_table(path, line)
    try:
        value = json.loads(line)  # JSON lines: one is enough
    except (ValueError, RecursionError):
        value = next(json_values(path), None)
    if value == {"text": ""}:  # Vosk's answer to silence: one behind it tells more
        value = next((later for later in json_values(path) if later != value), value)
    return _recognise_json(value[0] if isinstance(value, list) and value else value) or _unknown(
        path
    )


def _recognise_table(path: Path, line: str) -> str:
    fields = line.split("\t")
    if not line:
        return "native"  # an empty file holds no utterances in any format
    if line == WHISPER_TSV:
        return _unknown(path, line)
    if len(fields) > 2 or is_table_header(line):
        return "tsv"
    if len(fields) == 2:
        return "nemo"
    return _unknown(path, line)


def _recognise_json(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    keys = value.keys()
    results = value.get("results", value.get("response"))
    for format, is_it in (
        ("native", "hypotheses" in keys or ("id" in keys and keys & set(CONTENT))),
        ("azure", keys & {"NBest", "recognizedPhrases", "combinedPhrases", "RecognitionStatus"}),
        ("deepgram", isinstance(results, dict) and "channels" in results),
        ("deepgram", isinstance(value.get("channel"), dict)),
        ("amazon", isinstance(results, dict) and results.keys() & {"segments", "transcripts"}),
        ("google", results is not None),
        ("nemo-manifest", keys & {"audio_filepath", "pred_text"}),
        ("vosk", keys & {"alternatives", "partial"} or {"result", "text"} <= keys),
        ("hyporadise", "input" in keys),
        ("assemblyai", "audio_url" in keys or {"status", "words", "text"} <= keys),
        ("assemblyai", "text" in keys and _has_milliseconds(value.get("words"))),
        ("sherpa", {"tokens", "timestamps", "text"} <= keys and "start" not in keys),
        ("whisper-cpp", isinstance(value.get("transcription"), list)),
        ("whisper", keys & {"segments", "chunks"} or {"start", "text"} <= keys),
        ("native", "id" in keys),  # a line of ours with nothing but keys of the user's
        ("whisper", "text" in keys),
        ("mlm-scoring", any(isinstance(one, dict) and "hyp_1" in one for one in value.values())),
    ):
        if is_it:
            return format
    return None


def _has_milliseconds(words: Any) -> bool:
    """Whether timed words are AssemblyAI's: texts, with whole numbers."""
    first = words[0] if isinstance(words, list) and words else None
    return (
        isinstance(first, dict)
        and "text" in first
        and all(type(first.get(key)) is int for key in ("start", "end"))
    )


def _unknown(path: Path, line: str = "") -> str:
    if "-->" in line or line.startswith("WEBVTT") or line.isdigit() or line == WHISPER_TSV:
        raise FormatError(
            f"{path}: holds the text that was chosen and no list; take the recogniser's JSON "
            "instead (of Whisper's programs with --output_format json)"
        )
    raise FormatError(
        f"{path}: is in no format that can be told by its content; name one of: "
        f"{', '.join(FORMATS)}"
    )
