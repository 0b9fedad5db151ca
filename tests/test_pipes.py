"""What can be read but once, a pipe or standard input, is read like a file."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relisten.core.types import FormatError, NBest
from relisten.io.nbest import load_nbest, read_nbest, resolve_audio


@contextmanager
def piped(folder: Path, data: bytes) -> Iterator[Path]:
    """A named pipe that someone writes `data` to, once."""
    pipe = folder / "width2.pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    try:
        yield pipe
    finally:
        writer.join(timeout=5)
        pipe.unlink()


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@needs_pipes
@pytest.mark.parametrize(
    "data",
    [
        b'\n{"id": "a", "hypotheses": [{"text": "x"}]}\n',
        b"id\ttext\na\tx\n",
        b'[{"input": ["x"], "output": "x"}]',
        b"x\t-1\ny\t-2\n",
    ],
    ids=["native", "tsv", "hyporadise", "nemo, which counts its lines first"],
)
def test_a_pipe_is_read_like_a_file(tmp_path: Path, data: bytes) -> None:
    """It can be read but once, and telling its format took the first line, so all was lost."""
    file = tmp_path / "width2.file"
    file.write_bytes(data)
    expected = [nbest.hypotheses for nbest in load_nbest(file)]
    assert len(expected) == 1
    with piped(tmp_path, data) as pipe:
        assert [nbest.hypotheses for nbest in load_nbest(pipe)] == expected


@needs_pipes
def test_native_lines_of_a_pipe_come_one_by_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR)  # both ends, so that opening waits for nobody
    try:
        os.write(end, b'{"id": "a"}\n')
        utterances = read_nbest(pipe)
        assert next(utterances).id == "a"
        os.write(end, b'{"id": "b"}\n')
        assert next(utterances).id == "b"
    finally:
        os.close(end)


@needs_pipes
def test_errors_of_a_pipe_name_the_pipe(tmp_path: Path) -> None:
    for data in (b"no format\n", b"id\ttext\na\n", b'{"id": "a", "hypoth'):
        with piped(tmp_path, data) as pipe, pytest.raises(FormatError, match=f"^{pipe}"):
            load_nbest(pipe)


@needs_pipes
def test_a_manifest_may_be_a_pipe(tmp_path: Path) -> None:
    tsv = tmp_path / "lists.tsv"
    tsv.write_text("id\ttext\na\tx\n")
    with piped(tmp_path, b'{"id": "a", "audio": "a.wav"}\n') as pipe:
        [nbest] = load_nbest(tsv, manifest=pipe)
    assert nbest.hypotheses[0].text == "x"
    # What a stream names lies in the working folder.
    assert resolve_audio(nbest, tsv).resolve() == Path("a.wav").resolve()


def test_standard_input_is_told_by_its_content_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        buffer = io.BytesIO(b"id\ttext\na\tx\n")

    monkeypatch.setattr("sys.stdin", Stream)
    [nbest] = load_nbest("-")
    assert (nbest.id, nbest.hypotheses[0].text) == ("a", "x")


def test_recordings_of_a_stream_lie_in_the_working_folder(tmp_path: Path) -> None:
    assert resolve_audio(NBest("a", audio="a.wav"), "-") == Path("a.wav")
    assert resolve_audio(NBest("a", audio="a.wav"), os.devnull) == Path("a.wav")
    assert resolve_audio(NBest("a", audio="a.wav"), tmp_path / "x") == tmp_path / "a.wav"
