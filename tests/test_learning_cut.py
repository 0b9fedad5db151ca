"""Long recordings that nobody transcribed are cut at pauses, and can then be learnt from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relisten.core.types import NBest, UsageError
from relisten.io.nbest import save_nbest
from relisten.speech import segmentation
from relisten.speech.vad import VAD_FRAME
from relisten.tasks.learning.cut import cut_untranscribed
from relisten.tasks.learning.options import LearnOptions
from relisten.tasks.learning.prepare import prepare
from relisten.tasks.streams import no_tick
from tiny_world import write_wav


class Loudness:
    """In the place of the detector: what is loud is speech."""

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        frames = np.pad(samples, (0, -len(samples) % VAD_FRAME)).reshape(-1, VAD_FRAME)
        return (np.abs(frames).mean(1) > 0.01).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """long.wav: 40 s, of which 2 to 12 and 15 to 38 are loud; short.wav: 5 s."""
    monkeypatch.setattr(segmentation, "VoiceActivityDetector", Loudness)
    samples = np.random.default_rng(0).normal(0, 0.1, 40 * 16_000).astype(np.float32)
    for start_s, end_s in ((0, 2), (12, 15), (38, 40)):
        samples[start_s * 16_000 : end_s * 16_000] = 0
    write_wav(tmp_path / "long.wav", samples)
    write_wav(tmp_path / "short.wav", samples[5 * 16_000 : 10 * 16_000])
    return tmp_path


def test_they_are_cut_and_all_else_stays(folder: Path) -> None:
    utterances = [
        NBest("talk", audio="long.wav", extra={"speaker": "ann"}),
        NBest("from 14 s", audio="long.wav", start_s=14.0),
        NBest("transcribed", audio="long.wav", reference="yes"),
        NBest("short", audio="short.wav"),
        NBest("gone", audio="gone.wav"),
    ]
    said: list[str] = []
    first, second, *rest = cut_untranscribed(utterances, str(folder / "m.jsonl"), said.append)
    assert (first.id, first.speaker, first.audio) == ("talk-1.6", "ann", "long.wav")
    assert (first.start_s, first.duration_s) == pytest.approx((1.6, 10.8), abs=0.1)
    assert second.start_s == pytest.approx(14.6, abs=0.05)
    assert rest == utterances[1:]
    assert said == ["cut at pauses: 1 long without a text into 2 segments"]


def test_learning_is_told_what_was_cut(folder: Path) -> None:
    """Two hours in one file, without a transcript, were left out: longer than 30 s."""
    save_nbest([NBest("talk", audio="long.wav")], folder / "m.jsonl")
    for _ in range(2):  # the second time the recordings are there
        speech = prepare([str(folder / "m.jsonl")], (), folder / "s", 0, lambda _: None, no_tick)
        assert len(speech.untranscribed) == 2
        assert speech.refused == ()
        assert all(one.duration_s < 30 for one in speech.untranscribed)


def test_a_run_that_could_not_begin_leaves_its_place_to_more_speech(folder: Path) -> None:
    """What was missing was named in the error, and then refused: the run had begun without it."""
    one, two = (NBest(name, audio="short.wav", reference=name) for name in ("one", "two"))
    two = replace(two, audio="copy.wav")
    shutil.copy(folder / "short.wav", folder / "copy.wav")

    def prepared(*utterances: NBest) -> int:
        save_nbest(utterances, folder / "m.jsonl")
        speech = prepare([str(folder / "m.jsonl")], (), folder / "s", 0, lambda _: None, no_tick)
        return len(speech.learnt)

    with pytest.raises(UsageError, match="of 1 transcribed recording: it takes two"):
        prepared(one)
    assert prepared(one, two) == 1
    with pytest.raises(UsageError, match="other speech"):
        prepared(two)
    assert prepared(one, two) == 1


def test_no_steps_are_no_default() -> None:
    with pytest.raises(UsageError, match="steps 0: give 1 or more"):
        LearnOptions(steps=0)
