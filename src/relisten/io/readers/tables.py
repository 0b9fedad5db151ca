"""Tab-separated lists: a plain one, and the one of NeMo's beam search."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path

from relisten.core.types import ASR, FormatError, Hypothesis, NBest
from relisten.io.readers.common import get, json_values, number

_NEMO_WIDTH = re.compile(r"(?:width|size)(\d+)")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line without its line break) of a text file, blank lines left out."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for n, line in enumerate(file, 1):
                if line.strip():
                    yield n, line.rstrip("\r\n")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not UTF-8 ({error.reason}); convert the file") from error


def read_tsv(path: Path) -> Iterator[NBest]:
    """Lines `id <tab> text <tab> score`: one hypothesis each, those of an utterance together.

    A first line `id`, `text`, … names the columns in any order; `score` may be missing, a column
    `reference` is the utterance's, other columns are kept with the hypothesis.
    Score: natural log, higher is better, taken as `asr` unchanged.
    """
    rows = _rows(path)
    for utterance_id, group in groupby(rows, key=lambda row: row[1]["id"]):
        hypotheses, reference = [], None
        for n, row in group:
            where = f"{path}:{n} '{utterance_id}'"
            reference = row.pop("reference", reference)
            score = row.pop("score", None)
            scores = {} if score is None else {ASR: number(score, "score", where)}
            del row["id"]
            hypotheses.append(Hypothesis(row.pop("text"), scores, extra=row))
        yield NBest(utterance_id, tuple(hypotheses), reference=reference)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    columns: Sequence[str] = ("id", "text", "score")
    for n, line in lines_of(path):
        fields = line.split("\t")
        if n == 1 and {"id", "text"} <= set(fields):
            columns = fields
            continue
        if len(fields) != len(columns):
            raise FormatError(
                f"{path}:{n}: has {len(fields)} columns; it must have {len(columns)}: "
                f"{', '.join(columns)}, with tabs between"
            )
        yield n, dict(zip(columns, fields, strict=True))


def read_nemo(path: Path, manifest: Sequence[NBest] | None = None) -> Iterator[NBest]:
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
        hypotheses = []
        for n, line in islice(lines, width):
            text, _, score = line.rpartition("\t")
            where = f"{path}:{n}: hypothesis {text!r}"
            hypotheses.append(Hypothesis(text, {ASR: number(score, "score", where)}))
        yield NBest(manifest[u].id if manifest else f"{path.stem}-{u + 1:06d}", tuple(hypotheses))


def _nemo_lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((n, line) for n, line in lines_of(path) if "\t" in line)


def read_nemo_manifest(path: Path) -> Iterator[NBest]:
    """NeMo's manifest: JSON lines with `audio_filepath`, `duration`, `text`, maybe `offset`.

    The id is the recording's name without its ending, with the offset where one is given.
    """
    for n, record in enumerate(json_values(path), 1):
        where = f"{path}: entry {n}"
        audio = get(record, "audio_filepath", str, where)
        offset = record.get("offset")
        known = ("audio_filepath", "duration", "text", "offset")
        yield NBest(
            id=Path(audio).stem + ("" if offset is None else f"-{offset}"),
            audio=audio,
            start_s=number(offset or 0.0, "offset", where),
            duration_s=number(record["duration"], "duration", where)
            if "duration" in record
            else None,
            reference=get(record, "text", str, where) if "text" in record else None,
            extra={key: value for key, value in record.items() if key not in known},
        )
