"""Files of N-best lists and manifests, read as a stream; a killed run loses no finished line."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import BinaryIO

from relisten.core.types import FormatError, NBest, Refusal
from relisten.io.audio import is_recording
from relisten.io.files import cannot_write, is_stream, open_locked
from relisten.io.native import attempt_lines, nbest_to_line, read_lines
from relisten.io.provenance import Provenance, check_record, record_path, write_record
from relisten.io.readers import is_native_line, read_foreign, read_native, recognise

Refuse = Callable[[Refusal], None]
"""Is told of each utterance that cannot be read; the others go on."""


def raise_refusal(refusal: Refusal) -> None:
    """Raises FormatError: the `Refuse` of those who want all or nothing."""
    raise FormatError(refusal.reason)


def read_nbest(
    path: str | Path,
    format: str = "auto",
    manifest: str | Path | None = None,
    refuse: Refuse = raise_refusal,
) -> Iterator[NBest]:
    """The utterances of a file, one at a time; of the native format only the ids are kept.

    path: a file (a folder for `kaldi` and `espnet`), a pipe, or "-" for standard input. Native
        lines of a pipe are read as they come; other formats look twice, so it is copied first.
    format: one of `relisten.io.readers.FORMATS`, or "auto" to tell by the content.
    manifest: native or NeMo manifest that gives the utterances the audio, reference and context
        that their format has no place for: by id, or in order where the format has no ids (NeMo);
        or the recording that all of them are parts of.
    refuse: is told of each utterance that does not fit, with file, line and id; by default raises.
    Raises FormatError, one sentence, for a file that does not fit, or of which nothing does.
    """
    n_read, first = 0, None
    records = _read_stream if is_stream(path) else _read_path
    for one in records(path, format, manifest):
        if isinstance(one, NBest):
            n_read += 1
            yield one
        else:
            first = first or one
            refuse(one)
    if first is not None and not n_read:
        raise_refusal(first)


def _read_path(
    path: str | Path, format: str, manifest: str | Path | None, read_from: str | Path | None = None
) -> Iterator[NBest | Refusal]:
    """read_from: what `path` is a copy of; recordings are named relative to it."""
    path, read_from = Path(path), read_from or path
    name = recognise(path) if format == "auto" else format
    if name == "native" and manifest is None:
        yield from read_native(path)
    elif manifest is not None and is_recording(str(manifest)):
        audio = os.path.relpath(manifest, _folder(read_from))
        for one in read_foreign(path, name):
            yield replace(one, audio=audio) if isinstance(one, NBest) else one
    else:
        known = None
        if manifest is not None:
            entries = read_nbest(manifest)
            known = {one.id: rebase_audio(one, manifest, read_from) for one in entries}
        yield from read_foreign(path, name, known)


def _read_stream(
    path: str | Path, format: str, manifest: str | Path | None
) -> Iterator[NBest | Refusal]:
    is_stdin = str(path) == "-"
    name = "standard input" if is_stdin else str(path)
    with nullcontext(sys.stdin.buffer) if is_stdin else open(path, "rb") as file:
        head: list[bytes] = []  # up to the first line that tells the format
        while (not head or not head[-1].strip()) and (line := file.readline()):
            head.append(line)
        is_native = format == "native" or (
            format == "auto" and (not head or is_native_line(head[-1]))
        )
        if is_native and manifest is None:
            yield from attempt_lines(chain(head, file), name)
            return
        with TemporaryDirectory() as folder:
            copy = Path(folder) / ("stdin" if is_stdin else Path(path).name)
            with open(copy, "wb") as target:
                target.writelines(head)
                shutil.copyfileobj(file, target)
            try:
                for one in _read_path(copy, format, manifest, path):
                    if isinstance(one, Refusal):
                        one = Refusal(one.id, one.reason.replace(str(copy), name))
                    yield one
            except FormatError as error:
                raise FormatError(str(error).replace(str(copy), name)) from error


def load_nbest(
    path: str | Path,
    format: str = "auto",
    manifest: str | Path | None = None,
    refuse: Refuse = raise_refusal,
) -> list[NBest]:
    """All utterances of a file at once; see `read_nbest`."""
    return list(read_nbest(path, format, manifest, refuse))


def save_nbest(nbests: Iterable[NBest], path: str | Path) -> None:
    """Writes all utterances, or, if one fails, nothing but PATH.partial."""
    with NBestWriter(path) as writer:
        for nbest in nbests:
            writer.write(nbest)


class NBestWriter:
    """Writes utterances line by line to PATH.partial, which becomes PATH on a clean exit.

    path: the file to write; "-" for standard output. A pipe or a device is written into.
    resume: keep the whole lines of an earlier run's PATH.partial (or of a finished PATH) and append
        to them; a last line that a kill left incomplete is cut off. `done` holds their ids: skip
        those, and the file becomes the same bytes as that of a run that was never killed.
    provenance: what makes the file, recorded in PATH.run.json; a file that another run made is not
        resumed.
    Entering raises UsageError where PATH cannot be written, where another process is writing it,
    and where another run made it.
    """

    def __init__(
        self, path: str | Path, resume: bool = False, provenance: Provenance | None = None
    ) -> None:
        self.path = Path(os.path.realpath(path) if os.path.islink(path) else path)
        self.done: set[str] = set()
        self._is_stdout = str(path) == "-"
        self._is_stream = is_stream(path)
        self._resume = resume and not self._is_stream
        self._provenance = provenance
        self._is_finished = False  # nothing was added to a PATH that was there
        self._file: BinaryIO | None = None

    @property
    def partial_path(self) -> Path:
        return self.path.with_name(self.path.name + ".partial")

    def __enter__(self) -> NBestWriter:
        try:
            if self._is_stream:
                self._file = sys.stdout.buffer if self._is_stdout else open(self.path, "wb")
            else:
                self._file = self._opened()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return self

    def _opened(self) -> BinaryIO:
        before, partial = self.path, self.partial_path
        if not self._resume or partial.exists() or not before.exists():
            before = partial
        file = open_locked(partial)
        try:
            if not self._resume:
                file.truncate(0)
            elif before != partial:
                with open(before, "rb") as finished:
                    shutil.copyfileobj(finished, file)
                self._is_finished = True
            self._keep_whole_lines(file)
            if self._provenance is not None:
                if self.done:
                    check_record(before, self._provenance)
                write_record(partial, self._provenance)
        except BaseException:
            file.close()
            if before != partial:  # what was copied is not worth keeping
                partial.unlink(missing_ok=True)
            raise
        return file

    def _keep_whole_lines(self, file: BinaryIO) -> None:
        whole = 0
        file.seek(0)
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
        file.truncate(whole)
        file.seek(0)
        self.done = {nbest.id for nbest in read_lines(file, str(self.partial_path))}

    def write(self, nbest: NBest) -> None:
        """Appends one line and flushes it.

        Raises FormatError if a score is not finite, UsageError if the disk is full.
        """
        assert self._file is not None, "use NBestWriter in a with statement"
        line = nbest_to_line(nbest)
        self._is_finished = False
        try:
            self._file.write(line)
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_stdout or self._file is None:
            return
        with suppress(OSError):  # what could not be written was said
            self._file.close()
        if self._is_stream:
            return
        partial = self.partial_path
        if self._is_finished:
            partial.unlink()
            record_path(partial).unlink(missing_ok=True)
        elif kind is None:
            if self._provenance is None:
                record_path(self.path).unlink(missing_ok=True)  # of a file that is no more
            else:
                os.replace(record_path(partial), record_path(self.path))
            os.replace(partial, self.path)


def resolve_audio(nbest: NBest, file: str | Path) -> Path:
    """Where the recording of an utterance lies that was read from `file`.

    Relative paths count from the file's folder; from the working folder where it is a stream.
    Raises FormatError if the utterance names none.
    """
    if nbest.audio is None:
        raise FormatError(f"{file}: '{nbest.id}': has no audio; add the key 'audio'")
    return _folder(file) / nbest.audio


def rebase_audio(nbest: NBest, read_from: str | Path, write_to: str | Path) -> NBest:
    """The utterance with its relative audio path made to fit the file it is written to next."""
    if nbest.audio is None or os.path.isabs(nbest.audio):
        return nbest
    source, target = _folder(read_from), _folder(write_to)
    if source.resolve() == target.resolve():
        return nbest
    return replace(nbest, audio=os.path.relpath((source / nbest.audio).resolve(), target.resolve()))


def _folder(file: str | Path) -> Path:
    return Path() if is_stream(file) else Path(file).parent
