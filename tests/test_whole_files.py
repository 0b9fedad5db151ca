"""Parquet and safetensors files: what was written is read, and a file is whole or not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from relisten.apps.cli import main
from relisten.core.types import FormatError, UsageError
from relisten.io.files import check_writable
from relisten.io.parquet import read_column, read_flat_lists, read_rows, write_table
from relisten.io.tensors import save_tensors

COLUMNS = {
    "id": ("string", ["a", "b"]),
    "units": ("list<list<int32>>", [[[1, 2], [3, 4]], None]),
    "tokens": ("list<int32>", [[], [5, 6]]),
}


def test_a_table_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, COLUMNS)
    assert read_rows(path) == [
        {"id": "a", "units": [[1, 2], [3, 4]], "tokens": []},
        {"id": "b", "units": None, "tokens": [5, 6]},
    ]
    assert read_column(path, "id") == ["a", "b"]
    values, lengths = read_flat_lists(path, "tokens")
    assert (values.tolist(), lengths.tolist()) == ([5, 6], [0, 2])
    assert (values.dtype, lengths.dtype) == (np.int32, np.int64)
    path.write_bytes(b"nonsense")
    with pytest.raises(FormatError, match=r"t\.parquet: cannot be read as Parquet"):
        read_rows(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    table, tensors = tmp_path / "t.parquet", tmp_path / "t.safetensors"
    write_table(table, COLUMNS)
    save_tensors({"x": torch.ones(2, 3).T}, tensors, {"made": "here"})
    before = table.read_bytes(), tensors.read_bytes()

    def torn(_, path, *rest):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("pyarrow.parquet.write_table", torn)
    monkeypatch.setattr("safetensors.torch.save_file", torn)
    with pytest.raises(UsageError, match=r"t\.\w+: cannot be written \(disk full\)"):
        write_table(table, COLUMNS)
    with pytest.raises(UsageError, match=r"t\.\w+: cannot be written \(disk full\)"):
        save_tensors({"x": torch.zeros(1)}, tensors)
    assert (table.read_bytes(), tensors.read_bytes()) == before
    torch.testing.assert_close(load_file(tensors)["x"], torch.ones(3, 2))


def test_an_output_is_checked_before_the_work(tmp_path):
    """`transcribe` found out behind all its work that there was no such folder. An older file and
    the folder are left as they are."""
    old, blocked = tmp_path / "old.srt", tmp_path / "a.txt"
    old.write_text("old")
    blocked.write_text("")
    for path in ("-", "/dev/null", old, tmp_path / "new.srt"):
        check_writable(path)
    for path in (tmp_path, tmp_path / "no" / "x", blocked / "x", tmp_path / ("a" * 300) / "x"):
        with pytest.raises(UsageError, match="cannot be written"):
            check_writable(path)
    assert old.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [blocked, old]


def test_transcribe_loads_nothing_for_an_output_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("relisten.tasks.transcribe.load_both_passes", None)  # fails when called
    done = CliRunner().invoke(main, ["transcribe", "a.wav", "-o", str(tmp_path / "no" / "a.txt")])
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
