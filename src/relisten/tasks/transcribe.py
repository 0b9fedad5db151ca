"""Recordings in, the better transcripts out: first pass and second pass, segment by segment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field

from relisten.core.types import AudioError, NBest, UsageError
from relisten.io.bundle import resolve_bundle, scoring_hash
from relisten.io.provenance import Provenance
from relisten.speech.first_pass import DecodingOptions
from relisten.tasks.both_passes import load_both_passes
from relisten.tasks.cues import CueOptions
from relisten.tasks.defaults import MODEL
from relisten.tasks.inputs import (
    Audio,
    AudioInput,
    Channels,
    EndOfInput,
    SpeechPiece,
    find_inputs,
    input_of,
    pieces_of,
    total_seconds,
)
from relisten.tasks.second_pass import Clock, SecondPass, SecondPassOptions
from relisten.tasks.segment_log import SegmentLog, end_line, segment_line
from relisten.tasks.streams import Outcome, Refusal, Tick, no_tick
from relisten.tasks.transcript import Segment, Transcript
from relisten.tasks.transcript_files import TranscriptWriter

CHUNK_SIZE = 8
"""Segments decoded and rescored together, of one recording or of several."""


def transcribe(
    audio: Sequence[str],
    output: str = "-",
    output_dir: str | None = None,
    format: str = "text",
    model: str = MODEL,
    first_pass: tuple[str, ...] = (),
    language: str | None = None,
    channels: Channels = "mix",
    decoding: DecodingOptions = DecodingOptions(),
    options: SecondPassOptions = SecondPassOptions(),
    cues: CueOptions = CueOptions(),
    device: str = "auto",
    dtype: str = "auto",
    upstream: str | None = None,
    upstream_model: str | None = None,
    resume: bool = False,
    tick: Tick = no_tick,
) -> Outcome:
    """What became of recordings, whose transcripts are written to `output`, or a file each into
    the folder `output_dir` as soon as a recording has ended.

    audio: as `find_inputs` takes it. format: text, json, srt, vtt. model to upstream_model: as
    `load_both_passes` takes them. resume: what an interrupted run has finished is kept: whole
    files that are newer than their recordings, and the finished segments of the others. tick:
    told of seconds of audio.
    Raises AudioError where none can be read, UsageError before any work where an output cannot be
    written, or a language is not known.
    """
    inputs = find_inputs(audio, channels)
    writer = TranscriptWriter(inputs, output, output_dir, format, cues)
    if resume and writer.made is None:
        raise UsageError("a stream cannot be resumed; name a file with -o, or --output-dir")
    second_pass = load_both_passes(
        model, first_pass, language, decoding, options, device, dtype, upstream, upstream_model
    )
    made_by = {
        **_made_by(second_pass),
        "model": scoring_hash(resolve_bundle(model)),
        "language": language,
        "channels": channels,
        "dtype": dtype,
        "upstream": [upstream, upstream_model],
    }
    log: SegmentLog | None = None
    if writer.made is not None:
        log = SegmentLog(writer.made, CHUNK_SIZE, made_by, resume, bool(output_dir))
    refused: list[Refusal] = []
    with log or nullcontext(), writer:
        finished = writer.finished(set(log.logged)) if log and resume else []
        tick(total_seconds(finished) or 0)
        left = [one for one in inputs if one not in finished]
        n_done = len(finished)
        for one in transcribe_stream(left, second_pass, log, tick):
            if isinstance(one, Refusal):
                refused.append(one)
            elif isinstance(one, Transcript):
                writer.write(one)
                n_done += 1
    if not n_done and refused:
        raise AudioError(refused[0].reason)
    return Outcome(n_done, tuple(refused))


def _made_by(second_pass: SecondPass) -> Provenance:
    options = second_pass.options
    return {
        "command": "transcribe",
        "first pass": [[one.name, one.encoder.id] for one in second_pass.first_passes],
        "decoding": asdict(second_pass.decoding),
        "weights": repr(second_pass.weights),
        "phrases": [[one.text, one.weight] for one in options.phrase_list],
        "options": [options.propose, options.words, options.decision, options.confidence],
    }


def transcribe_each(
    audio: Iterable[Audio], second_pass: SecondPass, rate_hz: int | None = None
) -> Iterator[Transcript | Refusal]:
    """The transcript of each recording, of any length, in order, or why it cannot be read.

    rate_hz: of recordings that are arrays.
    """
    inputs = (input_of(source, number, rate_hz) for number, source in enumerate(audio))
    for one in transcribe_stream(inputs, second_pass):
        if not isinstance(one, Segment):
            yield one


def transcribe_stream(
    inputs: Iterable[AudioInput | Refusal],
    second_pass: SecondPass,
    log: SegmentLog | None = None,
    tick: Tick = no_tick,
    chunk_size: int = CHUNK_SIZE,
) -> Iterator[Segment | Transcript | Refusal]:
    """The segments of each recording as they are finished, then its transcript, in order.

    Only what holds speech is transcribed, in segments that are cut at pauses; chunk_size of them,
    of one recording or of several, are worked on together. A recording that cannot be read is
    refused; one that breaks off has a transcript, too. Memory does not grow with its length but by
    the transcript. log: takes every chunk; what it holds of recordings is not done again.
    tick: told of seconds of audio.
    """
    waiting: list[_Event | Refusal] = []
    n_pieces = 0
    for one in _in_order_of_log(inputs, log):
        if isinstance(one, Refusal):
            waiting.append(one)
            continue
        work = _Work(one)
        known = log.logged.pop(one.label, None) if log else None
        if known is not None:
            work.segments = known.segments
            yield from known.segments
            if known.duration_s is not None:
                tick(known.duration_s)
                yield work.transcript(known.duration_s)
                yield from (Refusal(one.label, reason) for reason in known.refused)
                continue
        n_known = len(work.segments)
        for part in work.parts(second_pass.max_duration_s):
            if isinstance(part, SpeechPiece) and n_known:
                n_known -= 1
                continue
            waiting.append(_Event(work, part))
            n_pieces += isinstance(part, SpeechPiece)
            if n_pieces == chunk_size:
                yield from _done(waiting, second_pass, log, tick)
                waiting, n_pieces = [], 0
    yield from _done(waiting, second_pass, log, tick)


def _in_order_of_log(
    inputs: Iterable[AudioInput | Refusal], log: SegmentLog | None
) -> Iterable[AudioInput | Refusal]:
    """Those first that the log has finished, then the one that it has begun."""
    if log is None or not log.logged:
        return inputs
    logged = log.logged

    def place(one: AudioInput | Refusal) -> int:
        known = logged.get(one.label) if isinstance(one, AudioInput) else None
        return 2 if known is None else int(known.duration_s is None)

    return sorted(inputs, key=place)


@dataclass
class _Work:
    """A recording on its way."""

    input: AudioInput
    segments: list[Segment] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    ticked_s: float = 0.0

    def parts(self, max_s: float) -> Iterator[SpeechPiece | EndOfInput]:
        """What `pieces_of` gives, timed."""
        parts = pieces_of(self.input, max_s)
        while True:
            with self.clock("audio"):
                part = next(parts, None)
            if part is None:
                return
            yield part

    def transcript(self, duration_s: float) -> Transcript:
        one = self.input
        return Transcript(
            one.name, duration_s, tuple(self.segments), self.clock.seconds, channel=one.side
        )


@dataclass(frozen=True)
class _Event:
    work: _Work
    part: SpeechPiece | EndOfInput


def _done(
    waiting: Sequence[_Event | Refusal],
    second_pass: SecondPass,
    log: SegmentLog | None,
    tick: Tick,
) -> Iterator[Segment | Transcript | Refusal]:
    """What a chunk gives, in order. What it took is shared out by the segments' lengths."""
    segments = iter(_segments(waiting, second_pass, log))
    for one in waiting:
        if isinstance(one, Refusal):
            yield one
            continue
        work, part = one.work, one.part
        reached_s = part.duration_s if isinstance(part, EndOfInput) else part.end_s
        tick(max(0.0, reached_s - work.ticked_s))
        work.ticked_s = max(reached_s, work.ticked_s)
        if not isinstance(part, EndOfInput):
            segment = next(segments)
            work.segments.append(segment)
            yield segment
            continue
        if part.duration_s or not part.refused:
            yield work.transcript(part.duration_s)
        yield from part.refused


def _segments(
    waiting: Sequence[_Event | Refusal], second_pass: SecondPass, log: SegmentLog | None
) -> list[Segment]:
    """The segments of a chunk, as the log has them."""
    events = [one for one in waiting if isinstance(one, _Event)]
    pieces = [(e.work, e.part) for e in events if isinstance(e.part, SpeechPiece)]
    ranked: Sequence[NBest] = ()
    if pieces:
        utterances = [
            NBest(f"{work.input.label}:{part.start_s:.3f}", duration_s=part.end_s - part.start_s)
            for work, part in pieces
        ]
        clock = Clock()
        ranked = second_pass.run(utterances, [part.samples for _, part in pieces], clock)
        total_s = sum(part.end_s - part.start_s for _, part in pieces)
        for work, part in pieces:
            work.clock.add(clock.seconds, (part.end_s - part.start_s) / total_s)
    made = iter(
        Segment(part.start_s, part.end_s, nbest, part.speaker)
        for (_, part), nbest in zip(pieces, ranked, strict=True)
    )
    if log is None:
        return list(made)
    return log.add([_line(event, made) for event in events])


def _line(event: _Event, made: Iterator[Segment]) -> NBest:
    label, part = event.work.input.label, event.part
    if isinstance(part, SpeechPiece):
        return segment_line(label, next(made))
    return end_line(label, part.duration_s, [one.reason for one in part.refused])
