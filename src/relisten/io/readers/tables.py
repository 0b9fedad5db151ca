"""Tables of hypotheses (TSV, CSV), the lists of NeMo's beam search, and NeMo's manifests."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, groupby, islice, tee
from pathlib import Path, PurePosixPath
from typing import Any

from relisten.core.types import ASR, FormatError, Hypothesis, NBest, Refusal
from relisten.io.files import opened
from relisten.io.readers.common import attempt, get, json_items, number, optional_list

_NEMO_WIDTH = re.compile(r"(?:width|size)(\d+)")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line without its line break) of a text file, blank lines left out."""
    try:
        with opened(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")
            for n, line in enumerate(text, 1):
                if line.strip():
                    yield n, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not UTF-8 ({error.reason}); convert the file") from error


def read_tsv(path: Path) -> Iterator[NBest | Refusal]:
    """Lines `id <tab> text <tab> score`: one hypothesis each, those of an utterance together.

    A first line `id`, `text`, … names the columns in any order, with tabs or, as in CSV, commas
    between; `score` (or `asr`) may be missing, a column `reference` is the utterance's, other
    columns are kept with the hypothesis. An utterance with a bad line is refused.
    Score: natural log, higher is better, taken as `asr` unchanged.
    """
    for utterance_id, group in groupby(_rows(path), key=_id_of_row):
        yield attempt(
            utterance_id, path, partial(_table_utterance, utterance_id, list(group), path)
        )


Row = tuple[int, Mapping[str, str] | FormatError]
"""Line number, and its columns by name or why it has none."""


def _id_of_row(row: Row) -> str:
    n, columns = row
    return f"line {n}" if isinstance(columns, FormatError) else columns["id"]


def _table_utterance(utterance_id: str, rows: Sequence[Row], path: Path) -> NBest:
    hypotheses, reference = [], None
    for n, columns in rows:
        if isinstance(columns, FormatError):
            raise columns
        extra = dict(columns)
        where = f"{path}:{n} '{extra.pop('id')}'"
        reference = extra.pop("reference", reference)
        given = [(name, extra.pop(name)) for name in ("score", "asr") if name in extra]
        if len(given) > 1:
            raise FormatError(f"{where}: has both a score and an asr; they are one, drop either")
        scores = {ASR: number(given[0][1], given[0][0], where)} if given else {}
        hypotheses.append(Hypothesis(extra.pop("text"), scores, extra=extra))
    return NBest(utterance_id, tuple(hypotheses), reference=reference)


def is_table_header(line: str) -> bool:
    """Whether the first line of a file names the columns of a table, with tabs or commas."""
    return {"id", "text"} <= set(_header(line))


def _header(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else next(csv.reader([line]), [])


def _rows(path: Path) -> Iterator[Row]:
    columns: Sequence[str] = ("id", "text", "score")
    lines = lines_of(path)
    first = next(lines, None)
    if first is None:
        return
    if is_table_header(first[1]):
        columns = _header(first[1])
        if len(set(columns)) < len(columns):
            raise FormatError(f"{path}:{first[0]}: two columns have one name; rename one")
    else:
        lines = chain([first], lines)
    yield from table_rows(path, lines, columns, "\t" if "\t" in first[1] else ",")


_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}


def table_rows(
    path: Path, lines: Iterable[tuple[int, str]], columns: Sequence[str], separator: str
) -> Iterator[Row]:
    """The rows of a table below its header. With commas or semicolons as `separator`, as in CSV, a
    field in quotes may hold separators and line breaks; with tabs or bars, none can."""
    fields_of: Iterable[tuple[int, list[str]]]
    if separator in ",;":
        fields_of = _csv_fields(path, lines, separator)
    else:
        fields_of = ((n, line.split(separator)) for n, line in lines)
    for n, fields in fields_of:
        if len(fields) == len(columns):
            yield n, dict(zip(columns, fields, strict=True))
        else:
            error = (
                f"{path}:{n}: has {len(fields)} columns; it must have {len(columns)}: "
                f"{', '.join(columns)}, with {_SEPARATORS[separator]} between"
            )
            yield n, FormatError(error)


def _csv_fields(
    path: Path, lines: Iterable[tuple[int, str]], separator: str
) -> Iterator[tuple[int, list[str]]]:
    """(last line number, fields) of CSV."""
    numbers, texts = tee(lines)
    n = n_read = 0
    records = csv.reader((line + "\n" for _, line in texts), delimiter=separator)
    try:
        for fields in records:
            *_, (n, _) = islice(numbers, records.line_num - n_read)
            n_read = records.line_num
            yield n, fields
    except csv.Error as error:
        raise FormatError(
            f"{path}: cannot be read as CSV after line {n} ({error}); is a quote not closed there?"
        ) from error


def read_nemo(path: Path, manifest: Sequence[NBest] | None = None) -> Iterator[NBest | Refusal]:
    """NeMo's `preds_out_width…tsv`: lines `text <tab> score`, one per hypothesis, without ids.

    The utterances are those of the manifest, in its order; without one they are numbered, and the
    beam width is taken from the file's name. Score: natural log of the beam search (acoustic model
    and n-gram model together), higher is better, taken as `asr` unchanged.
    Raises FormatError if the lines cannot be shared out evenly.
    """
    n_lines = sum(1 for _ in _nemo_lines(path))
    if manifest is not None:
        width, rest = divmod(n_lines, max(len(manifest), 1))
        share = f"{len(manifest)} utterances of the manifest"
    elif match := _NEMO_WIDTH.search(path.name):
        width = max(int(match[1]), 1)
        rest, share = n_lines % width, f"the beam width {width} of the file's name"
    else:
        raise FormatError(
            f"{path}: does not say which lines belong to one utterance; name the manifest it was "
            "decoded from, or put the beam width into its name (preds_out_width10.tsv)"
        )
    if rest:
        raise FormatError(
            f"{path}: {n_lines} lines do not fit {share}; some lists are shorter than the beam, "
            "so decode again with a smaller one"
        )
    lines = _nemo_lines(path)
    for u in range(n_lines // width if width else 0):
        utterance_id = manifest[u].id if manifest else f"{path.stem}-{u + 1:06d}"
        make = partial(_nemo_utterance, utterance_id, list(islice(lines, width)), path)
        yield attempt(utterance_id, path, make)


def _nemo_utterance(utterance_id: str, lines: Sequence[tuple[int, str]], path: Path) -> NBest:
    hypotheses = []
    for n, line in lines:
        text, _, score = line.rpartition("\t")
        where = f"{path}:{n}: hypothesis {text!r}"
        hypotheses.append(Hypothesis(text, {ASR: number(score, "score", where)}))
    return NBest(utterance_id, tuple(hypotheses))


def _nemo_lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((n, line) for n, line in lines_of(path) if "\t" in line)


def read_nemo_manifest(path: Path) -> Iterator[NBest | Refusal]:
    """NeMo's manifest: JSON lines with `audio_filepath`, `duration`, `text`, maybe `offset`.

    The id is the recording's name without its ending, with the offset where one is given; where
    two recordings have one name, their paths. `pred_text` is a hypothesis and `beams` are several,
    each with its score, natural log, taken as `asr`: NeMo and the Open ASR Leaderboard write them.
    Where none names a recording, entries are numbered.
    """
    records = list(json_items(path))
    names = Counter(name for name, _ in {_names(record) for record in records})
    are_named = any(name for name, _ in map(_names, records))
    for n, record in enumerate(records, 1):
        name, long_name = _names(record)
        utterance_id = name if names[name] < 2 else long_name
        if not are_named:
            utterance_id = f"{path.stem}-{n:06d}"
        where = f"{path}: entry {n}"
        make = partial(_manifest_utterance, utterance_id, record, where, are_named)
        yield attempt(utterance_id or f"entry {n}", path, make)


def _names(record: Any) -> tuple[str, str]:
    """What the recording of an entry is called without its folders, and with them."""
    audio = record.get("audio_filepath") if isinstance(record, dict) else None
    if not isinstance(audio, str):
        return "", ""
    offset = record.get("offset")
    suffix = "" if offset is None else f"-{offset}"
    file = PurePosixPath(audio)
    return file.stem + suffix, str(file.with_suffix("") if file.name else file) + suffix


def _manifest_utterance(utterance_id: str, record: Any, where: str, is_named: bool) -> NBest:
    known = ("audio_filepath", "duration", "text", "offset", "pred_text", "beams")
    duration = record.get("duration")
    beams = [_beam(beam, where) for beam in optional_list(record, "beams", where)]
    if not beams and record.get("pred_text") is not None:
        beams = [Hypothesis(get(record, "pred_text", str, where))]
    return NBest(
        id=utterance_id,
        hypotheses=tuple(beams),
        audio=get(record, "audio_filepath", str, where) if is_named else None,
        start_s=number(record.get("offset") or 0.0, "offset", where),
        duration_s=None if duration is None else number(duration, "duration", where),
        reference=get(record, "text", str, where) if "text" in record else None,
        extra={key: value for key, value in record.items() if key not in known},
    )


def _beam(beam: Any, where: str) -> Hypothesis:
    """A hypothesis of `[score, text]`, in this order or the other."""
    texts = [part for part in beam if isinstance(part, str)]
    scores = [part for part in beam if not isinstance(part, str)]
    if len(texts) != 1 or len(scores) != 1:
        raise FormatError(f"{where}: a beam is not a text with a score: {str(beam)[:40]}")
    return Hypothesis(texts[0], {ASR: number(scores[0], "score", where)})
