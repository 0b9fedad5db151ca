"""One thread that owns the models and works on the segments of all requests together.

A batch takes one segment of each recording in turn, so that a short recording does not wait for the
end of a long one, and whoever comes during a batch is in the next.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Thread
from time import monotonic
from typing import Any

from relisten.apps.serve.upload import SegmentAudio
from relisten.core.biasing import Phrase
from relisten.core.types import NBest, UsageError
from relisten.tasks.second_pass import SecondPass
from relisten.tasks.streams import Result, in_chunks
from relisten.tasks.transcribe import CHUNK_SIZE
from relisten.tasks.transcript import Segment

GATHER_S = 0.005
"""An idle engine waits so long for requests that come together. A batch takes 100 times as long."""
HEARTBEAT_S = 15.0
"""Proxies close a connection that says nothing for longer, commonly after 30 to 60 s."""


def transcribe_pieces(pieces: Sequence[SegmentAudio], second_pass: SecondPass) -> list[Segment]:
    """The segment of each piece, in order."""
    ranked = second_pass.run([NBest(one.id) for one in pieces], [one.samples for one in pieces])
    return [
        Segment(one.start_s, one.end_s, nbest) for one, nbest in zip(pieces, ranked, strict=True)
    ]


@dataclass(eq=False)
class _Job:
    """A recording on its way. pieces: those that wait. deliver: told of each segment, or of the
    error that ends it."""

    pieces: deque[SegmentAudio]
    phrases: tuple[Phrase, ...]
    deliver: Callable[[Segment | Exception], None]
    is_cancelled: bool = False


@dataclass(frozen=True)
class _Pieces:
    """Further pieces of a recording."""

    job: _Job
    pieces: Sequence[SegmentAudio]


@dataclass(eq=False)
class _Call:
    """Other work for the models."""

    function: Callable[[], Any]
    result: Future[Any] = field(default_factory=Future)


class Engine:
    """Runs the second pass for many callers of an event loop; see the top of the file.

    batch_size: segments worked on together. observe: told, after each batch, the number of its
    segments, the seconds of speech in them and the seconds it took.
    """

    def __init__(
        self,
        second_pass: SecondPass,
        batch_size: int = CHUNK_SIZE,
        observe: Callable[[int, float, float], None] = lambda *_: None,
    ) -> None:
        self._second_pass, self._batch_size, self._observe = second_pass, batch_size, observe
        self._pending_s = 0.0
        self._work_per_s = 0.2  # seconds of work for one of speech: a guess, then a moving average
        self._inbox: queue.SimpleQueue[_Pieces | _Call | None] = queue.SimpleQueue()
        self._jobs: deque[_Job] = deque()
        self._is_closing = False
        self._thread = Thread(target=self._work, name="relisten-models", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it takes work."""
        return self._thread.is_alive() and not self._is_closing

    @property
    def backlog_s(self) -> float:
        """About how long the work on what was taken will last, s."""
        return self._pending_s * self._work_per_s

    async def segments(
        self,
        pieces: Iterable[SegmentAudio],
        phrases: tuple[Phrase, ...] = (),
        stated_s: float = 0.0,
    ) -> AsyncGenerator[Segment | None]:
        """The segments of a recording, each as soon as its second pass is done; None as a sign of
        life after every `HEARTBEAT_S` without one.

        pieces: taken a batch at a time, in a thread, no more than two batches ahead. phrases:
        expected in this recording, besides those of the server. stated_s: how long it may be. Left
        early (closed, or its task cancelled), it drops the segments that are still waiting. Raises
        what the pieces or the second pass raise.
        """
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Segment | Exception | int]()

        def deliver(item: Segment | Exception) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        job, room = _Job(deque(), phrases, deliver), asyncio.Semaphore(2)
        feeding = asyncio.create_task(self._feed(job, pieces, room, arrived))
        n_all: int | None = None
        n_done, left_s = 0, stated_s
        self._pending_s += left_s
        try:
            while n_done != n_all:
                try:
                    item = await asyncio.wait_for(arrived.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield None
                    continue
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, int):
                    n_all = item
                    continue
                n_done += 1
                if n_done % self._batch_size == 0:
                    room.release()
                now_left_s = max(0.0, min(left_s, stated_s - item.end_s))
                self._pending_s -= left_s - now_left_s
                left_s = now_left_s
                yield item
        finally:
            job.is_cancelled = True
            self._pending_s -= left_s
            room.release()
            await feeding  # whoever closes the recording may not do so while it is read

    async def _feed(
        self,
        job: _Job,
        pieces: Iterable[SegmentAudio],
        room: asyncio.Semaphore,
        arrived: asyncio.Queue[Segment | Exception | int],
    ) -> None:
        """Hand the pieces on; at the end tell how many there were, or what went wrong."""
        batches, n_pieces = in_chunks(pieces, self._batch_size), 0
        try:
            while True:
                await room.acquire()
                if job.is_cancelled:
                    return
                batch = await asyncio.to_thread(next, batches, None)
                if batch is None:
                    break
                self._put(_Pieces(job, batch))
                n_pieces += len(batch)
            arrived.put_nowait(n_pieces)
        except Exception as error:
            arrived.put_nowait(error)

    async def call(self, function: Callable[[], Result]) -> Result:
        """What a function gives that uses the models; their thread calls it between two batches."""
        call = _Call(function)
        self._put(call)
        return await asyncio.wrap_future(call.result)

    def close(self) -> None:
        """Take no more work, finish what was taken, and wait for it."""
        self._is_closing = True
        self._inbox.put(None)
        self._thread.join()

    def _put(self, item: _Pieces | _Call) -> None:
        if not self.is_ready:
            raise UsageError("the server is shutting down; ask again when it is back")
        self._inbox.put(item)

    def _work(self) -> None:
        while self._jobs or not self._is_closing or not self._inbox.empty():
            self._receive()
            if batch := self._next_batch():
                self._run(batch)

    def _receive(self) -> None:
        """Take in what has come; an idle engine waits for it, and then `GATHER_S` for company."""
        is_idle = not self._jobs
        wait_s = None if is_idle else 0.0
        with suppress(queue.Empty):
            while len(self._jobs) < self._batch_size or not is_idle:
                item = self._inbox.get(timeout=wait_s)
                wait_s = GATHER_S if is_idle and item is not None else 0.0
                if isinstance(item, _Pieces):
                    item.job.pieces.extend(item.pieces)
                    if item.job not in self._jobs:
                        self._jobs.append(item.job)
                elif isinstance(item, _Call):
                    _answer(item)

    def _next_batch(self) -> list[tuple[_Job, SegmentAudio]]:
        """A piece of each recording in turn; those that took part are last in the next round."""
        jobs = [job for job in self._jobs if not job.is_cancelled]
        batch: list[tuple[_Job, SegmentAudio]] = []
        while len(batch) < self._batch_size:
            alike = [job for job in jobs if job.pieces and job.phrases == jobs[0].phrases]
            if not alike:
                break
            batch += [(job, job.pieces.popleft()) for job in alike[: self._batch_size - len(batch)]]
        took_part = {id(job) for job, _ in batch}
        jobs.sort(key=lambda job: id(job) in took_part)
        self._jobs = deque(job for job in jobs if job.pieces)
        return batch

    def _run(self, batch: list[tuple[_Job, SegmentAudio]]) -> None:
        """Work on a batch and deliver it. Where it fails, each recording alone: the fault of one is
        not the others'."""
        started = monotonic()
        try:
            segments = transcribe_pieces([piece for _, piece in batch], self._with(batch[0][0]))
        except Exception as error:
            jobs = {id(job): job for job, _ in batch}
            if len(jobs) > 1:
                for job in jobs.values():
                    self._run([(owner, piece) for owner, piece in batch if owner is job])
                return
            [job] = jobs.values()
            job.pieces.clear()
            job.deliver(error)
            return
        took_s = monotonic() - started
        speech_s = sum(piece.end_s - piece.start_s for _, piece in batch)
        self._work_per_s += 0.2 * (took_s / speech_s - self._work_per_s)
        self._observe(len(batch), speech_s, took_s)
        for (job, _), segment in zip(batch, segments, strict=True):
            job.deliver(segment)

    def _with(self, job: _Job) -> SecondPass:
        """The second pass, with the phrases that a recording expects."""
        options = self._second_pass.options
        if not job.phrases:
            return self._second_pass
        phrases = (*options.phrases, *job.phrases)
        return replace(self._second_pass, options=replace(options, phrases=phrases))


def _answer(call: _Call) -> None:
    if call.result.set_running_or_notify_cancel():
        try:
            call.result.set_result(call.function())
        except Exception as error:
            call.result.set_exception(error)
