"""Runs that are interrupted, doubled or cannot write: no work is lost, mixed or taken for done."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from relisten.apps.cli import main
from relisten.apps.console import Commands, bound_memory
from relisten.core.types import NBest, UsageError
from relisten.io.files import file_hash, write_text, written_whole
from relisten.io.nbest import NBestWriter, save_nbest
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper
from relisten.tasks.nbest import make_nbest

TEXTS = {"a": ("one two", "one too"), "b": ("three", "free")}


def lines_of(texts: dict[str, tuple[str, ...]]) -> str:
    lists = {
        id: [{"text": text, "scores": {"asr": -n}} for n, text in enumerate(some)]
        for id, some in texts.items()
    }
    records = [{"id": id, "reference": texts[id][0], "hypotheses": h} for id, h in lists.items()]
    return "".join(json.dumps(record) + "\n" for record in records)


LINES = lines_of(TEXTS)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    path = tmp_path / "lists.jsonl"
    path.write_text(LINES)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda lists, _: lists.write_text(LINES.replace("free", "flee")), "input"),
        (lambda lists, _: lists.write_text(lines_of({"a": TEXTS["a"]})), "input"),
        (lambda _, weights: weights.write_text('{"values": {"asr": 2}}'), "weights"),
    ],
    ids=["changed input", "removed utterance", "other weights"],
)
@pytest.mark.parametrize("is_finished", [True, False])
def test_resume_refuses_what_another_run_made(tmp_path, lists, change, named, is_finished):
    """Old and new results stood in one file, with exit code 0."""
    weights, output = tmp_path / "w.json", tmp_path / "out.jsonl"
    weights.write_text('{"values": {"asr": 1}}')
    command = ["rescore", lists, "-o", output, "--weights", weights, "--resume"]
    assert run(*command).exit_code == 0
    whole = output.read_bytes()
    if not is_finished:
        first_line = whole.splitlines(keepends=True)[0]
        output.rename(f"{output}.partial").write_bytes(first_line + b'{"id": "b", "hy')
        Path(f"{output}.run.json").rename(f"{output}.partial.run.json")
    assert run(*command).exit_code == 0
    assert output.read_bytes() == whole
    assert not Path(f"{output}.partial").exists()

    change(lists, weights)
    result = run(*command)
    assert result.exit_code == 2
    assert f"was made with other {named}; run without --resume" in result.output
    assert output.read_bytes() == whole
    assert run(*command[:-1]).exit_code == 0


def test_samples_that_ignore_the_seed_are_not_resumed(monkeypatch):
    """The list of a resumed run was another one than that of an undisturbed run."""
    recogniser = SimpleNamespace(name="w", samples_follow_seed=False)
    monkeypatch.setattr("relisten.tasks.loading.load_first_pass", lambda *_: recogniser)
    assert not CTranslate2Whisper.samples_follow_seed
    with pytest.raises(UsageError, match="cannot be resumed"):
        make_nbest("in.jsonl", "out.jsonl", decoding=DecodingOptions(samples=2), resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_one_output_has_one_writer(tmp_path, resume):
    """Two processes wrote every utterance twice."""
    output = tmp_path / "out.jsonl"
    with NBestWriter(output) as first:
        first.write(NBest("a"))
        with pytest.raises(UsageError, match="another process is writing"):
            NBestWriter(output, resume).__enter__()
        first.write(NBest("b"))
    assert output.read_text().count("\n") == 2


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="symbolic links are POSIX")
def test_a_partial_file_that_is_a_link_is_not_followed(tmp_path):
    victim, output = tmp_path / "victim", tmp_path / "out.jsonl"
    victim.write_text("precious")
    Path(f"{output}.partial").symlink_to(victim)
    with pytest.raises(UsageError, match="cannot be written"):
        save_nbest([NBest("a")], output)
    assert victim.read_text() == "precious"


needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


@needs_full
@pytest.mark.parametrize("command", ["rescore", "evaluate", "tune"])
def test_a_device_is_written_into_and_a_full_disk_said(lists, command):
    """`-o` at a device replaced it by a file; a full disk was a traceback and exit code 1."""
    option = "--json" if command == "evaluate" else "-o"
    result = run(command, lists, option, "/dev/full")
    assert result.exit_code == 2, result.output
    assert "/dev/full: cannot be written (No space left on device)" in result.output
    assert Path("/dev/full").is_char_device()


def test_a_full_disk_leaves_the_old_file_and_no_remains(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"report.json: cannot be written .*; make room"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    """Scratch folders of 55 to 257 MB stayed for ever; those of a living process stay."""
    code = (
        "import os, sys; from relisten.io.files import written_whole\n"
        f"with written_whole({str(tmp_path / 'x')!r}) as made: made.mkdir(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with written_whole(tmp_path / "a") as first:
        first.write_text("a")
        write_text(tmp_path / "b", "b")
    assert {one.name for one in tmp_path.iterdir()} == {"a", "b"}


def test_a_file_hash_sees_a_change_in_the_middle(tmp_path):
    path = tmp_path / "model.safetensors"
    data = bytearray(3 << 20)
    path.write_bytes(data)
    before = file_hash(path)
    data[3 << 19] = 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    assert file_hash(path) != before


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("nothing usable"), 2, "nothing usable"),
        (KeyError("x"), 70, "a fault of relisten"),
        (RecursionError(), 70, "a fault of relisten"),
        (OSError(errno.EBADF, "bad"), 70, "a fault of relisten"),
        (OSError(errno.ENOSPC, "No space left"), 2, "no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "f.wav"), 2, "f.wav: permission"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (BrokenPipeError(), 141, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_end_has_its_exit_code(error, code, said, monkeypatch):
    """A crash, Ctrl-C and a closed pipe ended with 1, the code for "done, some refused"."""
    monkeypatch.setattr("relisten.apps.console._silence_stdout", lambda: None)

    @click.group(cls=Commands)
    def group() -> None: ...

    @group.command()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(group, ["fail"])
    assert (result.exit_code, said in result.output) == (code, True)


def test_onednn_keeps_few_primitives(monkeypatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    bound_memory()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "16"
