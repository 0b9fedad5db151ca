"""What a run of `transcribe` has done so far, on disk: a killed run loses no finished segment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from relisten.core.types import FormatError, NBest, UsageError
from relisten.io.files import cannot_write, open_locked
from relisten.io.native import line_to_nbest, nbest_to_line
from relisten.io.provenance import Provenance, check_record, record_path, write_record
from relisten.tasks.transcript import Segment

END_S, SPEAKER, REFUSED = "end_s", "speaker", "refused"
"""Keys of lines: of a segment its end and who speaks, of a recording's end why it was not read
whole."""


@dataclass
class Logged:
    """What is known of one recording. duration_s: None as long as it is not finished."""

    segments: list[Segment] = field(default_factory=list)
    duration_s: float | None = None
    refused: tuple[str, ...] = ()


class SegmentLog:
    """The segments of recordings, in order, as lines of an N-best list; a line without hypotheses
    says that a recording has ended.

    path: the file, MADE.partial, where MADE is what the run makes; it is removed on a clean exit,
    its record MADE.run.json stays where keep_record. chunk_size: segments are added in chunks of
    so many; on resume (resume=True) those of a chunk that is not whole are forgotten, so that
    batches have the same members, and results the same bytes, as in a run that nobody interrupted.
    made_by: what else decides the results; raises UsageError where that has changed.
    """

    def __init__(
        self,
        made: Path,
        chunk_size: int,
        made_by: Provenance,
        resume: bool = False,
        keep_record: bool = False,
    ) -> None:
        self._made, self._chunk_size, self._made_by = made, chunk_size, made_by
        self._resume, self._keep_record = resume, keep_record
        self.path = made.with_name(f"{made.name}.partial")
        self.logged: dict[str, Logged] = {}
        self._file: BinaryIO | None = None

    def __enter__(self) -> SegmentLog:
        try:
            self._file = open_locked(self.path)
            self._file.truncate(self._kept(self._file) if self._resume else 0)
            write_record(self.path, self._made_by)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        except UsageError:
            if self._file is not None:
                self._file.close()
            raise
        return self

    def _kept(self, file: BinaryIO) -> int:
        """The bytes to go on behind. Raises UsageError where another run wrote them."""
        n_bytes = self._read(file)
        check_record(self.path if n_bytes else self._made, self._made_by)
        return n_bytes

    def _read(self, file: BinaryIO) -> int:
        """Take over what whole chunks hold; the number of their bytes."""
        file.seek(0)
        held: list[NBest] = []
        n_segments = n_bytes = n_whole = 0
        for line in chain(file, [b""]):
            one = _whole(line)
            if (one is None or one.hypotheses) and n_segments % self._chunk_size == 0:
                for each in held:
                    self._take(each)
                held, n_whole = [], n_bytes
            if one is None:
                break
            held.append(one)
            n_bytes += len(line)
            n_segments += bool(one.hypotheses)
        return n_whole

    def add(self, lines: Sequence[NBest]) -> list[Segment]:
        """Write what a chunk gave; its segments as they are read again, numbers rounded."""
        assert self._file is not None, "use SegmentLog in a with statement"
        written = [nbest_to_line(line) for line in lines]
        try:
            self._file.write(b"".join(written))
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        read = [line_to_nbest(line, str(self.path)) for line in written]
        return [_segment(one) for one in read if one.hypotheses]

    def _take(self, line: NBest) -> None:
        one = self.logged.setdefault(str(line.audio), Logged())
        if line.hypotheses:
            one.segments.append(_segment(line))
        else:
            one.duration_s = line.duration_s
            one.refused = tuple(line.extra.get(REFUSED, ()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # what could not be written was said
            self._file.close()
        if kind is None:
            record = record_path(self.path)
            if self._keep_record:
                os.replace(record, record_path(self._made))
            else:
                record.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)


def _whole(line: bytes) -> NBest | None:
    """A line of the log; None for one that a kill has torn, and for the end."""
    try:
        return line_to_nbest(line, "a log of segments") if line.endswith(b"\n") else None
    except FormatError:
        return None


def segment_line(label: str, segment: Segment) -> NBest:
    """A segment of a recording as a line of the log."""
    more = {END_S: segment.end_s} | ({SPEAKER: segment.speaker} if segment.speaker else {})
    return replace(
        segment.nbest,
        audio=label,
        start_s=segment.start_s,
        duration_s=segment.end_s - segment.start_s,
        extra={**segment.nbest.extra, **more},
    )


def end_line(label: str, duration_s: float, refused: Sequence[str]) -> NBest:
    """The end of a recording as a line of the log."""
    extra = {REFUSED: list(refused)} if refused else {}
    return NBest(label, audio=label, duration_s=duration_s, extra=extra)


def _segment(line: NBest) -> Segment:
    return Segment(line.start_s, line.extra[END_S], line, line.extra.get(SPEAKER))
