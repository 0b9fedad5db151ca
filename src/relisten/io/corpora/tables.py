"""Tables of recordings and their texts: CSV, TSV, Common Voice, LJ Speech, JSON lines, and what
Hugging Face calls an audio folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from relisten.core.types import FormatError, NBest, Refusal
from relisten.io.audio import is_recording
from relisten.io.corpora.common import (
    RecordingFinder,
    Tell,
    json_lines,
    recording_ids,
)
from relisten.io.readers.common import attempt, seconds
from relisten.io.readers.tables import lines_of, table_rows

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "audio": (
        *("audio", "path", "file", "file_name", "filename", "audio_path", "audio_file"),
        *("audio_filepath", "wav", "wav_filename", "wav_path", "recording"),
    ),
    "text": ("reference", "sentence", "text", "transcript", "transcription", "wrd"),
    "id": ("id", "utterance_id", "utt_id", "utt"),
    "speaker": ("speaker", "speaker_id", "client_id", "spk_id", "spk"),
    "start": ("start_s", "start", "offset"),
    "end": ("end_s", "end"),
    "duration": ("duration_s", "duration"),
}
"""What a column holds → how it is usually called, in any case; the first that is there is taken."""

PLACES = ("clips", "wavs", "wav", "audio")
"""Folders beside a table in which its recordings may lie: Common Voice's, LJ Speech's, others'."""

_SEPARATORS = "\t|;,"  # a comma stands in texts, too
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')

Roles = Mapping[str, str]
"""What a column holds → its name in this table."""
Record = Mapping[str, Any] | FormatError
"""A row, or why there is none."""


def roles_of(names: Sequence[str]) -> Roles:
    """Which of the columns holds what."""
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    found = {
        role: next((by_lower[name] for name in usual if name in by_lower), None)
        for role, usual in COLUMNS.items()
    }
    return {role: name for role, name in found.items() if name is not None}


def read_table(path: Path, tell: Tell) -> Iterator[NBest | Refusal]:
    """The utterances of a table with commas, tabs, semicolons or bars between its columns.

    A header names the columns (COLUMNS). Without one, a first column of files is followed by their
    texts; with bars, the columns are those of LJ Speech: id, text as printed, text as spoken.
    Raises FormatError where the columns cannot be told.
    """
    lines = lines_of(path)
    n, first = next(lines, (0, ""))
    separator, columns, has_header = _layout(path, n, first)
    rows = table_rows(path, lines if has_header else chain([(n, first)], lines), columns, separator)
    if separator == "\t":
        rows = ((n, row if isinstance(row, FormatError) else _unquoted(row)) for n, row in rows)
    yield from _utterances(path, [*rows], roles_of(columns), tell)


def read_json_table(path: Path, tell: Tell) -> Iterator[NBest | Refusal]:
    """The utterances of JSON lines whose keys are named as the columns of a table are."""
    rows = [*json_lines(path)]
    keys = dict.fromkeys(key for _, row in rows if isinstance(row, dict) for key in row)
    yield from _utterances(path, rows, roles_of([*keys]), tell)


def _layout(path: Path, n: int, first: str) -> tuple[str, Sequence[str], bool]:
    """What stands between the columns, their names, and whether the first line is a header."""
    if not first:
        raise FormatError(f"{path}: is empty; name a file or a folder with recordings")
    for separator in _SEPARATORS:
        names = [name.strip().strip('"') for name in first.split(separator)]
        if "audio" in roles_of(names):
            if len(set(names)) < len(names):
                raise FormatError(f"{path}:{n}: two columns have one name; rename one")
            return separator, names, True
    for separator in _SEPARATORS:
        fields = first.split(separator)
        if len(fields) > 1 and is_recording(fields[0].strip('"')):
            if separator in "\t|" and len(fields) > 2:
                break
            return separator, ("audio", "text"), False
        if separator == "|" and len(fields) in (2, 3):
            is_header = "text" in roles_of(fields)
            columns = ("id", "text") if len(fields) == 2 else ("id", "as_printed", "text")
            return separator, fields if is_header else columns, is_header
    raise FormatError(
        f"{path}:{n}: names no column of recordings; begin the file with a line of column names, "
        f"such as path and sentence (read are {', '.join(COLUMNS['audio'])} for the recording and "
        f"{', '.join(COLUMNS['text'])} for the text)"
    )


def _unquoted(row: Mapping[str, str]) -> dict[str, str]:
    """Tabs need no quotes, but many programs write some: the fields without them."""
    return {
        name: match[1].replace('""', '"') if (match := _QUOTED.fullmatch(field)) else field
        for name, field in row.items()
    }


def _utterances(
    path: Path, rows: Sequence[tuple[int, Record]], roles: Roles, tell: Tell
) -> Iterator[NBest | Refusal]:
    """The utterances of rows. Recordings are found beside the file, or in PLACES."""
    audio = roles.get("audio", roles.get("id", ""))
    finder = RecordingFinder(path.parent, PLACES)
    named = [(n, row, _recording(row, audio, finder)) for n, row in rows]
    segments = [(file, _start_s(row, roles)) for _, row, file in named]
    ids = recording_ids(segments)
    tell(_decisions(path, roles, audio, [file for _, _, file in named]))
    for (n, row, file), utterance_id in zip(named, ids, strict=True):
        if isinstance(row, FormatError):
            yield Refusal(f"{path}:{n}", str(row))
            continue
        own = _cell(row, roles, "id")
        utterance_id = utterance_id if own is None else str(own)
        make = partial(_utterance, utterance_id, file, row, roles, f"{path}:{n} '{utterance_id}'")
        yield attempt(utterance_id, path, make)


def _recording(row: Record, column: str, finder: RecordingFinder) -> str:
    """The path of a row's recording, "" where it names none."""
    name = None if isinstance(row, FormatError) else row.get(column)
    if not isinstance(name, str) or not name.strip():
        return ""
    return finder.find(name.strip()) or name.strip()


def _start_s(row: Record, roles: Roles) -> float:
    try:
        return 0.0 if isinstance(row, FormatError) else _time(row, roles, "start", "") or 0.0
    except FormatError:  # said where the utterance is made
        return 0.0


def _decisions(path: Path, roles: Roles, audio: str, files: Sequence[str]) -> str:
    """What was taken for what, as a sentence."""
    taken = [f"{role} from {name!r}" for role, name in roles.items() if role not in ("audio", "id")]
    folders = {str(Path(file).parent) for file in files if file} - {"."}
    place = f" in {min(folders)}" if len(folders) == 1 else ""
    text = "" if "text" in roles else "; no column of texts"
    return f"{path}: recordings from {audio!r}{place}, {', '.join(taken) or 'nothing else'}{text}"


def _utterance(
    utterance_id: str, file: str, row: Mapping[str, Any], roles: Roles, where: str
) -> NBest:
    if not file:
        raise FormatError(f"{where}: names no recording; give it one, or drop the row")
    text, speaker = _cell(row, roles, "text"), _cell(row, roles, "speaker")
    if text is not None and not isinstance(text, str):
        raise FormatError(f"{where}: {roles['text']} is {text!r}; it must be a text")
    start_s = _time(row, roles, "start", where) or 0.0
    duration_s = _time(row, roles, "duration", where)
    if duration_s is None and (end_s := _time(row, roles, "end", where)) is not None:
        duration_s = end_s - start_s
    if start_s < 0 or (duration_s is not None and duration_s <= 0):
        raise FormatError(f"{where}: lasts {duration_s} s from {start_s} s on; it has no sound")
    taken = {*roles.values(), "", None}
    extra = {
        key: value for key, value in row.items() if key not in taken and value not in ("", None)
    }
    if speaker is not None:
        extra["speaker"] = str(speaker)
    reference = text.strip() if text else None
    return NBest(utterance_id, (), file, start_s, duration_s, reference or None, extra=extra)


def _time(row: Mapping[str, Any], roles: Roles, role: str, where: str) -> float | None:
    """Seconds; None where the row does not say."""
    value = _cell(row, roles, role)
    return None if value is None else seconds(value, roles[role], where)


def _cell(row: Mapping[str, Any], roles: Roles, role: str) -> Any:
    """What a row holds; None where it has no such column, or nothing in it."""
    value = row.get(roles[role]) if role in roles else None
    return None if value == "" else value
