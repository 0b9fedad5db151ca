"""Files that are no recordings, through the command and through the server: a sentence each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from broken_audio import BROKEN
from relisten.apps.cli import main
from relisten.core.combine import Weights
from relisten.core.types import Hypothesis, NBest
from tiny_server import ScriptedPass, served
from tiny_world import take_noise_for_speech, write_noise

SCRIPT = [NBest("x", (Hypothesis("words", {"asr": -1.0}),))]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.wav"
    write_noise(path, 1, 1.0)
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        take_noise_for_speech(patch)
        with served(ScriptedPass(SCRIPT, Weights({"asr": 1.0}))) as address:
            yield address


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, good: Path) -> Result:
    """The command on all of them, and on a good one."""
    folder = tmp_path_factory.mktemp("broken")
    for name, content in BROKEN.items():
        (folder / f"{name}.wav").write_bytes(content)
    (folder / "good.wav").write_bytes(good.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        take_noise_for_speech(patch)
        scripted = ScriptedPass(SCRIPT, Weights({"asr": 1.0}))
        patch.setattr("relisten.tasks.transcribe.load_both_passes", lambda *_: scripted)
        return CliRunner().invoke(main, ["transcribe", str(folder), "--quiet"])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused(name: str, run: Result, server: str) -> None:
    """Exit code 1 and a line with its name, the others are transcribed; 400 and a message without a
    path or a traceback."""
    assert (run.exit_code, run.stdout.split("\t")[-1]) == (1, "words\n"), run.output
    [line] = re.findall(rf"^.*/{re.escape(name)}\.wav: .*$", run.stderr, re.M)
    assert "Traceback" not in run.stderr
    assert len(line) < 400
    answer = send(server, f"../../{name}.wav", BROKEN[name])
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert re.fullmatch(r"the recording: [^\n]+", error["message"]), error


def send(server: str, name: str, content: bytes) -> httpx.Response:
    return httpx.post(
        f"{server}/v1/audio/transcriptions",
        files={"file": (name, content)},
        data={"model": "whisper-1"},
    )


def test_the_server_stays(server: str, good: Path) -> None:
    """Behind forty kinds and more."""
    assert len(BROKEN) >= 40
    assert send(server, "good.wav", good.read_bytes()).json()["text"] == "words"
