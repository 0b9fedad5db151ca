"""`transcribe` on real speech: what is found, written, told apart, and kept when a run is killed.

The recogniser is one that says how long its segments are: everything around it is real.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import wave
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from real_speech import joined, sounds
from relisten.core.combine import Weights
from relisten.core.types import AudioError, Hypothesis, UsageError
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.load import load_first_pass
from relisten.tasks import transcribe as task
from relisten.tasks.inputs import find_inputs, seconds_named
from relisten.tasks.second_pass import SecondPassOptions
from relisten.tasks.transcribe import transcribe, transcribe_stream
from relisten.tasks.transcript import Segment
from tiny_speech import tiny_ct2_whisper, tiny_whisper


class Fake:
    """A second pass whose texts say which part of the run they are of. most: batches, then it is
    killed."""

    max_duration_s = 30.0
    first_passes = ()
    decoding = DecodingOptions()
    options = SecondPassOptions()
    weights = Weights({"asr": 1.0})

    def __init__(self, most: int = 1_000) -> None:
        self.batches: list[int] = []
        self._most = most

    def run(self, utterances, recordings, clock=None):
        if len(self.batches) == self._most:
            raise KeyboardInterrupt
        self.batches.append(len(utterances))
        texts = [f"heard {len(r)} of {len(recordings)}." for r in recordings]
        ends_s = (0.1234567, 0.2, 0.3, 0.4)
        return [
            replace(one, hypotheses=(Hypothesis(text, {"asr": -1 / 3}, ends_s, 0),))
            for one, text in zip(utterances, texts, strict=True)
        ]


@pytest.fixture
def fake(monkeypatch) -> Fake:
    return use(monkeypatch, Fake())


def use(monkeypatch, fake: Fake) -> Fake:
    monkeypatch.setattr(task, "load_both_passes", lambda *_: fake)
    return fake


def write(path: Path, *channels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), 2, 16_000, 0, "NONE", ""))
        pcm = (np.stack(channels, axis=1).clip(-1, 1) * 32_767).astype("<i2")
        file.writeframes(pcm.tobytes())
    return str(path)


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """A long recording between two short ones, one of them in a folder below; and noise."""
    speech = joined("ljspeech", 8, 1.5, noise=0.001)
    folder = tmp_path / "talks"
    write(folder / "a.wav", speech[: 16_000 * 9])
    write(folder / "b" / "long.wav", np.concatenate([speech, speech]))
    write(folder / "c.wav", speech[16_000 * 20 : 16_000 * 30])
    write(folder / "noise.wav", sounds()["hiss 3.0 s"])
    (folder / "notes.md").write_text("no recording")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_folder_becomes_a_folder_and_a_killed_run_the_same_bytes(talks, tmp_path, monkeypatch):
    use(monkeypatch, Fake())
    given = {"format": "json", "resume": True}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert transcribe([str(talks)], output_dir=str(whole), **given).n_done == 4
    assert [*files_of(whole)] == [
        "a.json",
        "b/long.json",
        "c.json",
        "noise.json",
        "relisten.run.json",
    ]
    assert json.loads((whole / "noise.json").read_text())["text"] == ""
    n_batches = 0
    for most in (1, 1, 1_000):
        one = use(monkeypatch, Fake(most))
        try:
            transcribe([str(talks)], output_dir=str(killed), **given)
        except KeyboardInterrupt:
            assert (killed / "relisten.partial").is_file()
        n_batches += len(one.batches)
    assert files_of(killed) == files_of(whole)
    full = use(monkeypatch, Fake())
    transcribe([str(talks)], output_dir=str(killed), format="json")
    assert n_batches == len(full.batches), "nothing was done twice"
    before = use(monkeypatch, Fake())
    transcribe([str(talks)], output_dir=str(killed), **given)
    assert before.batches == [], "all files were there"


def test_one_long_recording_goes_on_where_it_was_killed_even_within_a_line(
    talks, tmp_path, monkeypatch
):
    long = [str(talks / "b" / "long.wav")]
    use(monkeypatch, Fake())
    transcribe(long, str(tmp_path / "whole.srt"), format="srt")
    use(monkeypatch, Fake(1))
    output = tmp_path / "killed.srt"
    with pytest.raises(KeyboardInterrupt):
        transcribe(long, str(output), format="srt")
    assert not output.exists()
    partial = tmp_path / "killed.srt.partial"
    with partial.open("ab") as file:
        file.write(b'{"id": "torn')
    rest = use(monkeypatch, Fake())
    transcribe(long, str(output), format="srt", resume=True)
    assert output.read_bytes() == (tmp_path / "whole.srt").read_bytes()
    assert rest.batches
    assert not partial.exists()


def test_another_run_is_not_resumed(talks, tmp_path, monkeypatch):
    use(monkeypatch, Fake(1))
    given = {"output_dir": str(tmp_path / "out"), "resume": True}
    with pytest.raises(KeyboardInterrupt):
        transcribe([str(talks)], **given)
    use(monkeypatch, Fake())
    with pytest.raises(UsageError, match="was made with other channels"):
        transcribe([str(talks)], channels="left", **given)


def test_outputs_are_checked_before_any_work(talks, tmp_path, monkeypatch):
    monkeypatch.setattr(task, "load_both_passes", None)  # fails when called
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        transcribe([str(talks)], output_dir=str(tmp_path / "file" / "out"))
    with pytest.raises(UsageError, match="there are 4; name a folder"):
        transcribe([str(talks)], format="srt")
    with pytest.raises(UsageError, match="a stream cannot be resumed"):
        transcribe([str(talks)], resume=True)
    with pytest.raises(UsageError, match="holds no recordings"):
        transcribe([str(_empty(tmp_path))])
    with pytest.raises(UsageError, match="fits no file"):
        transcribe([str(talks / "*.mp3")])


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_each_line_of_text_names_its_recording(talks, capsys, fake):
    transcribe([str(talks / "*.wav")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        str(talks / name) for name in ("a.wav", "c.wav", "noise.wav")
    ]
    transcribe([str(talks / "a.wav")])
    assert capsys.readouterr().out.startswith("heard ")


def test_standard_input(talks, capsys, fake, monkeypatch):
    data = (talks / "a.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    transcribe(["-"], format="json")
    written = json.loads(capsys.readouterr().out)
    assert written["audio"] == "standard input"
    assert written["duration_s"] == 9.0
    assert seconds_named(["-"], "mix") is None


def test_channels_are_told_apart(talks, tmp_path, fake):
    speech = joined("ljspeech", 8, 1.5, noise=0.001)
    left, right = speech[: 16_000 * 9], np.zeros(16_000 * 9, np.float32)
    right[16_000:64_000] = speech[16_000 * 21 : 16_000 * 24]
    path = write(tmp_path / "call.wav", left, right)
    out = tmp_path / "out"
    assert transcribe([path], output_dir=str(out), channels="split", format="srt").n_done == 2
    assert {*files_of(out)} == {"call.left.srt", "call.right.srt", "relisten.run.json"}
    lines = tmp_path / "a.json"
    transcribe([path], str(lines), channels="split", format="json")
    both = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [one["channel"] for one in both] == ["left", "right"]
    spans = [[(s["start_s"], s["end_s"]) for s in one["segments"]] for one in both]
    assert spans[0] != spans[1]
    transcribe([path], str(lines), channels="right", format="json")
    alone = json.loads(lines.read_text())["segments"]
    assert [(s["start_s"], s["end_s"]) for s in alone] == spans[1]
    with pytest.raises(AudioError, match="has 1 channel and no channel 2"):
        transcribe([str(talks / "a.wav")], str(lines), channels="right")


def test_turns_keep_their_speakers(talks, tmp_path, fake):
    turns = [(0.0, 8.0, "Ann"), (8.0, 8.0, "Ben & Co"), (20.0, 9.0, "Ann")]
    listed = talks / "turns.jsonl"
    keys = ("start_s", "duration_s", "speaker")
    listed.write_text(
        "".join(
            json.dumps({"id": str(n), "audio": "b/long.wav", **dict(zip(keys, t, strict=True))})
            + "\n"
            for n, t in enumerate(turns)
        )
    )
    outputs = {}
    for format in ("json", "text", "srt", "vtt"):
        output = tmp_path / f"a.{format}"
        assert transcribe([str(listed)], str(output), format=format).n_done == 1
        outputs[format] = output.read_text()
    segments = json.loads(outputs["json"])["segments"]
    assert [*dict.fromkeys(one["speaker"] for one in segments)] == ["Ann", "Ben & Co"]
    for one in segments:
        assert any(
            a <= one["start_s"] < one["end_s"] <= a + d + 1e-6 and who == one["speaker"]
            for a, d, who in turns
        )
    names = [line.split(":")[0] for line in outputs["text"].splitlines()]
    assert names == ["Ann", "Ben & Co", "Ann"]
    assert "\nBen & Co: heard" in outputs["srt"]
    assert "<v Ben &amp; Co>heard" in outputs["vtt"]


def test_what_breaks_off_is_kept_and_said(talks, tmp_path, monkeypatch, fake):
    from relisten.tasks import inputs

    read = inputs.stream_audio

    def torn(*rest, **more):
        for n, block in enumerate(read(*rest, **more)):
            if n * len(block) > 16_000 * 30:
                raise AudioError("long.wav: cannot be decoded")
            yield block

    monkeypatch.setattr(inputs, "stream_audio", torn)
    output = tmp_path / "a.json"
    done = transcribe([str(talks / "b" / "long.wav")], str(output), format="json")
    assert done.n_done == 1
    [refusal] = done.refused
    assert "cannot be decoded; its transcript ends at 30" in refusal.reason
    assert json.loads(output.read_text())["segments"]


@pytest.mark.parametrize("name", sounds())
def test_no_sound_has_words(name, fake):
    inputs = [task.input_of(sounds()[name], 0, 16_000)]
    [transcript] = transcribe_stream(inputs, fake)
    assert (transcript.text, fake.batches) == ("", [])


def test_segments_come_before_the_recording_is_read(talks, fake):
    stream = transcribe_stream(find_inputs([str(talks / "b" / "long.wav")]), fake, chunk_size=1)
    assert isinstance(next(stream), Segment)
    assert len(fake.batches) == 1


def test_a_language_that_a_recogniser_does_not_know(tmp_path):
    folder = tiny_ct2_whisper(tiny_whisper(tmp_path / "hf"), tmp_path / "ct2")
    for place in (tmp_path / "hf", folder):
        with pytest.raises(UsageError, match="knows English alone, not 'de'"):
            load_first_pass(str(place), "cpu", "float32", "de")
        load_first_pass(str(place), "cpu", "float32", "auto")


def test_a_file_newer_than_its_transcript_is_done_again(talks, tmp_path, monkeypatch):
    out = tmp_path / "out"
    use(monkeypatch, Fake())
    transcribe([str(talks)], output_dir=str(out))
    later = time.time() + 60
    os.utime(talks / "a.wav", (later, later))
    again = use(monkeypatch, Fake())
    transcribe([str(talks)], output_dir=str(out), resume=True)
    assert len(again.batches) == 1
