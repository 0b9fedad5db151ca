"""Readers of the N-best lists that other recognisers and toolkits write.

Each reader turns one layout into `NBest`, states which sign and which logarithm it assumes, and
puts the score of the recogniser under `asr`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from relisten.core.types import FormatError, NBest, UsageError
from relisten.io.native import read_native
from relisten.io.readers.common import json_values
from relisten.io.readers.folders import is_espnet, is_kaldi, read_espnet, read_kaldi
from relisten.io.readers.research import read_hyporadise, read_mlm_scoring
from relisten.io.readers.services import read_amazon, read_azure, read_google, read_vosk
from relisten.io.readers.tables import lines_of, read_nemo, read_nemo_manifest, read_tsv
from relisten.io.readers.whisper import read_whisper

READERS: Mapping[str, Callable[[Path], Iterator[NBest]]] = {
    "native": read_native,
    "tsv": read_tsv,
    "nemo": read_nemo,
    "nemo-manifest": read_nemo_manifest,
    "espnet": read_espnet,
    "kaldi": read_kaldi,
    "mlm-scoring": read_mlm_scoring,
    "hyporadise": read_hyporadise,
    "whisper": read_whisper,
    "vosk": read_vosk,
    "amazon": read_amazon,
    "google": read_google,
    "azure": read_azure,
}

FORMATS = tuple(READERS)


def read_foreign(
    path: Path, format: str, known: Mapping[str, NBest] | None = None
) -> Iterator[NBest]:
    """The utterances of a file in one of FORMATS, each id once; see `relisten.io.nbest.read_nbest`.

    known: id → utterance of the manifest. Raises FormatError for what does not fit, UsageError for
    an unknown format.
    """
    if format not in READERS:
        raise UsageError(f"format {format!r} is not known; one of: {', '.join(FORMATS)}")
    if format == "nemo":
        utterances = read_nemo(path, None if known is None else list(known.values()))
    else:
        utterances = READERS[format](path)
    seen: set[str] = set()
    for utterance in _guarded(utterances, path, format):
        if utterance.id in seen:
            raise FormatError(
                f"{path}: '{utterance.id}': this id occurs twice, or its lines do not stand "
                "together; give each utterance its own id, in one place"
            )
        seen.add(utterance.id)
        yield utterance if known is None else _completed(utterance, known, path)


def _guarded(utterances: Iterator[NBest], path: Path, format: str) -> Iterator[NBest]:
    try:
        yield from utterances
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: does not have the layout of {format} ({error!r}); name its format"
        ) from error


def _completed(utterance: NBest, manifest: Mapping[str, NBest], path: Path) -> NBest:
    """The utterance with the manifest's recording, reference and further keys."""
    entry = manifest.get(utterance.id)
    if entry is None:
        raise FormatError(f"{path}: '{utterance.id}': is not in the manifest; add it or drop it")
    return replace(
        entry,
        hypotheses=utterance.hypotheses,
        reference=utterance.reference if entry.reference is None else entry.reference,
        extra={**utterance.extra, **entry.extra},
    )


def is_native_line(line: bytes) -> bool:
    """Whether a file whose first line that is not blank is this one is in the native format."""
    try:
        return _recognise_json(json.loads(line.decode("utf-8-sig"))) == "native"
    except (ValueError, RecursionError):
        return False


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
    if not line.lstrip().startswith(("{", "[")):
        return _recognise_table(path, line)
    try:
        value = json.loads(line)  # JSON lines: one is enough
    except (ValueError, RecursionError):
        value = json_values(path)[0]
    return _recognise_json(value[0] if isinstance(value, list) and value else value) or _unknown(
        path
    )


def _recognise_table(path: Path, line: str) -> str:
    fields = line.split("\t")
    if not line:
        return "native"  # an empty file holds no utterances in any format
    if len(fields) > 2 or {"id", "text"} <= set(fields):
        return "tsv"
    if len(fields) == 2:
        return "nemo"
    return _unknown(path)


def _recognise_json(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    results = value.get("results", value.get("response"))
    if "NBest" in value or "recognizedPhrases" in value:
        return "azure"
    if isinstance(results, dict) and ("segments" in results or "transcripts" in results):
        return "amazon"
    if results is not None:
        return "google"
    if "audio_filepath" in value:
        return "nemo-manifest"
    if "alternatives" in value or "partial" in value:
        return "vosk"
    if "input" in value:
        return "hyporadise"
    if "id" in value or "hypotheses" in value:
        return "native"
    if "text" in value:
        return "whisper"
    if any(isinstance(record, dict) and "hyp_1" in record for record in value.values()):
        return "mlm-scoring"
    return None


def _unknown(path: Path) -> str:
    raise FormatError(
        f"{path}: is in no format that can be told by its content; name one of: "
        f"{', '.join(FORMATS)}"
    )
