"""Speech as people and toolkits keep it, with or without texts: each form becomes utterances.

N-best lists of other recognisers are read by `relisten.io.readers`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from relisten.core.types import FormatError, NBest, Refusal
from relisten.io.audio import is_recording
from relisten.io.corpora.common import Tell, json_lines, natural_order
from relisten.io.corpora.folders import TEXT_ENDINGS, read_recordings_folder
from relisten.io.corpora.kaldi import read_kaldi_data
from relisten.io.corpora.lhotse import (
    Kind,
    lhotse_kind,
    partner,
    read_cuts,
    read_recordings,
    read_supervisions,
)
from relisten.io.corpora.tables import read_json_table, read_table, roles_of
from relisten.io.files import is_stream, opened
from relisten.io.native import attempt_lines
from relisten.io.nbest import read_nbest
from relisten.io.readers import checked, is_native_record
from relisten.io.readers.tables import lines_of

Read = Callable[[Tell], Iterator[NBest | Refusal]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Speech that lies in one place.

    file: what relative audio paths of its utterances are beside of. read: gives the utterances, and
    tells what was decided.
    """

    name: str
    file: Path
    read: Read


def corpora_at(source: str | Path) -> list[Corpus]:
    """The corpora that a file, a folder or a stream ("-") holds; a folder may hold several.

    Raises FormatError where there is none.
    """
    path = Path(source)
    if is_stream(source):
        return [Corpus("speech", path, partial(_read_listed, path))]
    if not path.exists():
        raise FormatError(f"{path}: no such file or folder")
    if is_recording(path.name) and path.is_file():
        beside = [path.with_suffix(ending).name for ending in TEXT_ENDINGS]
        files = [path.name, *(name for name in beside if (path.parent / name).is_file())]
        return [Corpus(path.stem, path, partial(read_recordings_folder, path.parent, files))]
    if not path.is_dir():
        return [_of_file(path, path.name.split(".")[0])]
    found = [*_in_folder(path)]
    if not found:
        raise FormatError(f"{path}: holds no recordings and no list of any; name another folder")
    return found


MARKS = (
    *("wav.scp", "cuts.jsonl", "cuts.jsonl.gz"),
    *("metadata.jsonl", "metadata.csv", "metadata.tsv", "validated.tsv"),
)
"""Files that tell what a folder holds, the first that is there: Kaldi's, lhotse's, those of an
audio folder (Hugging Face) and of LJ Speech, and Common Voice's list of all that was confirmed."""


def _in_folder(root: Path) -> Iterator[Corpus]:
    """The corpora of a folder and of those below it; recordings of no other are one more."""
    others: list[str] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        folder = Path(place)
        marked = _marked(folder, files)
        if marked or os.path.realpath(folder) in seen:  # a link to a folder above it has no end
            folders.clear()
            yield from (_of_file(file, folder.resolve().name) for file in marked)
            continue
        seen.add(os.path.realpath(folder))
        folders[:] = sorted((f for f in folders if f[0] not in "._"), key=natural_order)
        shown = sorted((f for f in files if f[0] not in "._"), key=natural_order)
        others += [(folder.relative_to(root) / file).as_posix() for file in shown]
    if any(map(is_recording, others)):
        read = partial(read_recordings_folder, root, others)
        yield Corpus(root.resolve().name, root / "*", read)


def _marked(folder: Path, files: Sequence[str]) -> list[Path]:
    """The files that tell what a folder holds; lhotse's supervisions may be several."""
    if mark := next((mark for mark in MARKS if mark in files), None):
        return [folder / mark]
    supervisions = [f for f in files if "supervisions" in f and f.endswith((".jsonl", ".jsonl.gz"))]
    return [folder / file for file in sorted(supervisions)]


def _of_file(path: Path, name: str) -> Corpus:
    """The corpus of a file that is recognised by its first line, or its first JSON object."""
    _, line = next(lines_of(path), (0, ""))
    read: Read = partial(_read_listed, path)
    if path.name == "wav.scp":
        read = partial(read_kaldi_data, path)
    elif not line.lstrip().startswith(("{", "[")):
        read = partial(read_table, path)
    elif record := next((r for _, r in json_lines(path) if isinstance(r, dict)), None):
        kind = lhotse_kind(record)
        if kind is not None:
            return _lhotse(path, name, kind)
        roles = roles_of([*record])
        if is_native_record(record) and roles.get("text", "reference") == "reference":
            read = partial(_read_native, path)
        elif "audio" in roles:
            read = partial(read_json_table, path)
    return Corpus(name, path, read)


def _lhotse(path: Path, name: str, kind: Kind) -> Corpus:
    if kind == "cuts":
        return Corpus(name, path, partial(read_cuts, path))
    if kind == "recordings":
        supervisions = partner(path, kind)
        if supervisions is None:
            return Corpus(name, path, partial(read_recordings, path))
        path = supervisions
    return Corpus(name, path, partial(read_supervisions, path))


def _read_native(path: Path, tell: Tell) -> Iterator[NBest | Refusal]:
    """Of a manifest, line by line: one that does not fit leaves the others."""
    with opened(path) as file:
        yield from attempt_lines(file, str(path))


def _read_listed(path: Path, tell: Tell) -> Iterator[NBest | Refusal]:
    """What other commands read, too: lists that name recordings, a manifest from a pipe."""
    refused: list[Refusal] = []
    yield from read_nbest(path, refuse=refused.append)
    yield from refused


def read_corpus(corpus: Corpus, tell: Tell) -> Iterator[NBest | Refusal]:
    """The utterances of a corpus, each id once, and what cannot be read.

    Raises FormatError for a corpus that does not have the layout it seems to have.
    """
    return checked(corpus.read(tell), corpus.file, "source")
