"""The server's engine: pieces are cut as they are needed, and a fault ends one recording alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from relisten.apps.serve.engine import Engine
from relisten.apps.serve.upload import SegmentAudio, Upload
from relisten.core.combine import Weights
from relisten.core.types import AudioError, Hypothesis, NBest
from tiny_server import ScriptedPass
from tiny_world import take_noise_for_speech, write_noise


class Gated(ScriptedPass):
    """Says the id of each piece, once it may."""

    def __init__(self) -> None:
        super().__init__([], Weights({"asr": 1.0}))
        self.gate, self.batches = threading.Event(), list[list[str]]()

    def run(
        self, utterances: Sequence[NBest], recordings: Sequence[np.ndarray], clock: object = None
    ) -> list[NBest]:
        assert self.gate.wait(20)
        self.batches.append([one.id for one in utterances])
        return [NBest(one.id, (Hypothesis(one.id, {"asr": -1.0}),)) for one in utterances]


@contextmanager
def engine(batch_size: int) -> Iterator[tuple[Engine, Gated]]:
    gated = Gated()
    engine = Engine(gated, batch_size)  # type: ignore[arg-type]
    try:
        yield engine, gated
    finally:
        gated.gate.set()
        engine.close()


def pieces(name: str, n: int, taken: list[int]) -> Iterator[SegmentAudio]:
    for number in range(n):
        taken.append(number)
        yield SegmentAudio(f"{name}{number}", number, number + 1.0, np.zeros(1, np.float32))
    taken.append(-1)  # asked for more, so those before have been handed on


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that within 20 s")


async def texts(segments: AsyncGenerator[object]) -> list[str]:
    return [one.text async for one in segments if one is not None]  # type: ignore[attr-defined]


def test_pieces_are_taken_two_batches_ahead_at_most() -> None:
    """Of hours of audio some minutes are in memory, and the batches are those of the command."""
    taken: list[int] = []

    async def run(engine: Engine, gated: Gated) -> None:
        asking = asyncio.create_task(texts(engine.segments(pieces("p", 11, taken), (), 11.0)))
        await until(lambda: len(taken) == 4)
        await asyncio.sleep(0.1)
        assert len(taken) == 4
        assert engine.backlog_s == pytest.approx(11.0 * 0.2)
        gated.gate.set()
        assert await asking == [f"p{number}" for number in range(11)]
        assert engine.backlog_s == pytest.approx(0.0)

    with engine(2) as (one, gated):
        asyncio.run(run(one, gated))
    assert [len(batch) for batch in gated.batches] == [2, 2, 2, 2, 2, 1]


def test_recordings_that_come_together_are_worked_on_together() -> None:
    async def run(engine: Engine, gated: Gated) -> None:
        taken: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        asking = [
            asyncio.create_task(texts(engine.segments(pieces(name, 3, its))))
            for name, its in taken.items()
        ]
        await until(lambda: all(its[-1:] == [-1] for its in taken.values()))
        gated.gate.set()
        assert await asyncio.gather(*asking) == [[f"{n}{k}" for k in range(3)] for n in "abc"]

    with engine(3) as (one, gated):
        asyncio.run(run(one, gated))
    assert any(len({name[0] for name in batch}) > 1 for batch in gated.batches)


def test_who_leaves_early_has_nothing_more_cut() -> None:
    taken: list[int] = []

    async def run(engine: Engine, gated: Gated) -> None:
        gated.gate.set()
        segments = engine.segments(pieces("p", 1_000, taken), (), 1_000.0)
        assert (await anext(segments)).text == "p0"
        await segments.aclose()
        assert engine.backlog_s == 0.0

    with engine(2) as (one, gated):
        asyncio.run(run(one, gated))
    assert len(taken) <= 8


def test_what_goes_wrong_while_it_is_cut_is_raised() -> None:
    def broken() -> Iterator[SegmentAudio]:
        yield from pieces("p", 3, [])
        raise AudioError("the recording: breaks off")

    async def run(engine: Engine, gated: Gated) -> None:
        gated.gate.set()
        with pytest.raises(AudioError, match="breaks off"):
            await texts(engine.segments(broken()))
        assert await texts(engine.segments(pieces("q", 1, []))) == ["q0"]

    with engine(2) as (one, gated):
        asyncio.run(run(one, gated))


def test_a_recording_longer_than_its_head_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is read first; what it hides is found while the pieces are cut."""
    take_noise_for_speech(monkeypatch)
    path = tmp_path / "a.wav"
    write_noise(path, 1, 5.0)
    with path.open("rb") as file:
        upload = Upload("a", file, 10.0, 2.0)
        assert (upload.stated_s, upload.duration_s, upload.likely_s) == (5.0, 0.0, 5.0)
        assert [one.start_s for one in upload] == pytest.approx([0.0, 1.984, 3.968])
        assert upload.duration_s == 5.0
    with path.open("rb") as file, pytest.raises(AudioError, match="lasts more than 4 s"):
        Upload("a", file, 4.0, 2.0)
    monkeypatch.setattr(
        "relisten.apps.serve.upload.probe_audio", lambda file: type("", (), {"duration_s": None})
    )
    with path.open("rb") as file:
        upload = Upload("a", file, 4.0, 2.0)
        assert upload.likely_s == 0.0
        with pytest.raises(AudioError, match="lasts more than 4 s"):
            list(upload)
