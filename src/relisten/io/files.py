"""Files that are whole or not there; locks; hashes; small JSON objects."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, BinaryIO

from relisten.core.types import FormatError, ModelError, UsageError

_SCRATCH, _LOCK = ".relisten-", "lock"


def is_stream(file: str | Path) -> bool:
    """Whether it can be read or written only once: "-" (standard input or output), a pipe, a
    device."""
    is_lasting = os.path.isfile(file) or os.path.isdir(file)
    return str(file) == "-" or (os.path.exists(file) and not is_lasting)


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """A file to read bytes from, unpacked if it is gzipped. Raises FormatError if it cannot be."""
    try:
        with open(path, "rb") as file:
            is_packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            with gzip.open(file) if is_packed else nullcontext(file) as content:
                yield content  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"{path}: cannot be read ({reason})") from error


_GZIP = b"\x1f\x8b"


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Where to write a file, or make a folder, that becomes `path` on a clean exit.

    It lies in a scratch folder beside `path`, which is removed; on an error what was at `path`
    before is unchanged. Where `path` is a symbolic link, what it points to is replaced. Scratch
    folders that a killed process left there are removed, too.
    Raises UsageError where it cannot be written, for example because the disk is full.
    """
    target = Path(os.path.realpath(path))
    try:
        _remove_leftovers(target.parent)
        with (
            TemporaryDirectory(
                prefix=_SCRATCH, dir=target.parent, ignore_cleanup_errors=True
            ) as scratch,
            open(Path(scratch) / _LOCK, "wb") as lock,
        ):
            try_lock(lock)
            made = Path(scratch) / "made"
            yield made
            os.replace(made, target)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8: a file as a whole, "-", a pipe or a device as they are.

    Raises UsageError where it cannot be written; an older file is then unchanged.
    """
    data = text.encode(errors="backslashreplace")  # half a surrogate pair has no bytes in UTF-8
    if str(path) == "-":
        sys.stdout.write(data.decode())
        sys.stdout.flush()
        return
    if not is_stream(path):
        with written_whole(path) as made:
            made.write_bytes(data)
        return
    try:
        with open(path, "wb") as stream:
            stream.write(data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def check_writable(path: str | Path) -> None:
    """Nothing. Raises UsageError where `write_text` would; to be asked before long work."""
    target = os.path.realpath(path)
    if str(path) == "-" or is_stream(path):
        return
    try:
        if os.path.isdir(target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with TemporaryDirectory(prefix=_SCRATCH, dir=os.path.dirname(target)):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: str | Path, error: OSError) -> UsageError:
    """The sentence for a file that cannot be written."""
    reason = error.strerror or str(error)
    remedy = "; make room, or name a file on another disk" if error.errno in _FULL else ""
    name = "standard output" if str(path) == "-" else path
    return UsageError(f"{name}: cannot be written ({reason}){remedy}")


_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file for this process until it is closed; False where another one holds it.

    True without a lock where the file system has none.
    """
    try:
        _lock(file)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def _lock(file: IO[Any]) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_leftovers(folder: Path) -> None:
    """Remove the scratch folders of `written_whole` whose process is no more: nobody locks them."""
    for lock in folder.glob(f"{_SCRATCH}*/{_LOCK}"):
        with suppress(OSError), open(lock, "r+b") as file:
            _lock(file)
            shutil.rmtree(lock.parent, ignore_errors=True)


def open_locked(path: Path) -> BinaryIO:
    """A file opened to be read and appended to by this process alone, made where it is missing.

    Symbolic links are not followed. Raises UsageError where another process has it open.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    for flag in ("O_NOFOLLOW", "O_BINARY", "O_CLOEXEC"):
        flags |= getattr(os, flag, 0)
    file = os.fdopen(os.open(path, flags, 0o666), "a+b")
    # The one who held it may have moved it to its place since it was opened.
    is_mine = try_lock(file) and path.exists()
    if is_mine and os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return file
    file.close()
    raise UsageError(
        f"{path}: another process is writing it; wait until it has finished, or name another output"
    )


_hashes: dict[tuple[str, int, int], str] = {}


def file_hash(path: Path) -> str:
    """The SHA-256 of a whole file, 64 hexadecimal digits.

    Computed once a process, unless size or time of modification change.
    """
    status = path.stat()
    key = (os.path.realpath(path), status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        with path.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object that a file of a model holds. what: what the file should be, for the error.

    Raises ModelError where there is no such file, or something else is in it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as {what} ({error})") from error
    if not isinstance(record, dict):
        raise ModelError(f"{path}: cannot be read as {what} (it holds no JSON object)")
    return record
