"""Lhotse's manifests, as JSON lines: cuts, or supervisions with recordings beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from relisten.core.types import FormatError, NBest, Refusal
from relisten.io.corpora.common import RecordingFinder, Tell, json_lines, toolkit_places
from relisten.io.readers.common import attempt, get, number, optional_list

Kind = Literal["cuts", "supervisions", "recordings"]


def lhotse_kind(record: Mapping[str, Any]) -> Kind | None:
    """What a line of a manifest is; None if it is none of lhotse's."""
    keys = record.keys()
    if {"sources", "sampling_rate"} <= keys:
        return "recordings"
    if {"recording_id", "start", "duration"} <= keys:
        return "supervisions"
    if str(record.get("type")).endswith("Cut") or {"start", "recording"} <= keys:
        return "cuts"
    return None


def partner(path: Path, kind: Kind) -> Path | None:
    """The supervisions that belong to recordings, or the other way round, by the file's name."""
    swapped = {"recordings": "supervisions", "supervisions": "recordings"}
    other = path.with_name(path.name.replace(kind, swapped.get(kind, kind)))
    for candidate in (other, other.with_suffix(""), other.with_name(f"{other.name}.gz")):
        if other != path and candidate.is_file():
            return candidate
    return None


def read_cuts(path: Path, tell: Tell) -> Iterator[NBest | Refusal]:
    """The supervisions of cuts: utterances named after the cut where it has one, else after
    themselves. A cut without any is an utterance without a reference."""
    finder = RecordingFinder(path.parent, toolkit_places(path.parent))
    tell(f"{path}: cuts of lhotse; an utterance is a supervision, or a cut without any")
    for n, cut in json_lines(path):
        if isinstance(cut, FormatError):
            yield Refusal(f"{path}:{n}", str(cut))
            continue
        cut_id = str(cut.get("id", n))
        supervisions = cut.get("supervisions") or [{}]
        if not isinstance(supervisions, list) or not all(isinstance(s, dict) for s in supervisions):
            yield Refusal(cut_id, f"{path}:{n} '{cut_id}': supervisions is no list of objects")
            continue
        for supervision in supervisions:
            own_id = cut_id if len(supervisions) == 1 else str(supervision.get("id", cut_id))
            make = partial(_of_cut, own_id, cut, supervision, finder, f"{path}:{n} '{own_id}'")
            yield attempt(own_id, path, make)


def read_supervisions(path: Path, tell: Tell) -> Iterator[NBest | Refusal]:
    """The supervisions of a file `…supervisions….jsonl`; `…recordings….jsonl` lies beside it.

    Raises FormatError where it does not, or a line of it cannot be read.
    """
    recordings_file = partner(path, "supervisions")
    if recordings_file is None:
        raise FormatError(
            f"{path}: supervisions of lhotse whose recordings are not beside them; put the "
            f"recordings there, as {path.name.replace('supervisions', 'recordings')}"
        )
    recordings = {}
    for _, recording in json_lines(recordings_file):
        if isinstance(recording, FormatError):
            raise recording
        recordings[recording.get("id")] = recording
    finder = RecordingFinder(path.parent, toolkit_places(path.parent))
    tell(f"{path}: supervisions of lhotse, their recordings in {recordings_file.name}")
    for n, supervision in json_lines(path):
        if isinstance(supervision, FormatError):
            yield Refusal(f"{path}:{n}", str(supervision))
            continue
        own_id, recording_id = str(supervision.get("id", n)), supervision.get("recording_id")
        where = f"{path}:{n} '{own_id}'"
        if recording_id not in recordings:
            reason = f"{where}: recording {recording_id!r} is not in {recordings_file.name}"
            yield Refusal(own_id, reason)
            continue
        cut = {"recording": recordings[recording_id], "start": 0}
        yield attempt(own_id, path, partial(_of_cut, own_id, cut, supervision, finder, where))


def read_recordings(path: Path, tell: Tell) -> Iterator[NBest | Refusal]:
    """The recordings of a file without supervisions: utterances without a reference."""
    finder = RecordingFinder(path.parent, toolkit_places(path.parent))
    tell(f"{path}: recordings of lhotse without supervisions, so without texts")
    for n, recording in json_lines(path):
        if isinstance(recording, FormatError):
            yield Refusal(f"{path}:{n}", str(recording))
            continue
        own_id = str(recording.get("id", n))
        cut = {"recording": recording, "start": 0, "duration": recording.get("duration")}
        yield attempt(own_id, path, partial(_of_cut, own_id, cut, {}, finder, f"{path}:{n}"))


def _of_cut(
    utterance_id: str,
    cut: Mapping[str, Any],
    supervision: Mapping[str, Any],
    finder: RecordingFinder,
    where: str,
) -> NBest:
    """A supervision in its recording, also where it reaches out of the cut; else the whole cut."""
    if "tracks" in cut:
        raise FormatError(f"{where}: is mixed of several tracks; save its audio and name the file")
    recording = get(cut, "recording", dict, where)
    start_s = number(cut.get("start", 0), "start", where)
    start_s += number(supervision.get("start", 0), "start of the supervision", where)
    duration_s = number(supervision.get("duration", cut.get("duration")), "duration", where)
    if start_s < 0 or duration_s <= 0:
        raise FormatError(f"{where}: lasts {duration_s} s from {start_s} s on; it has no sound")
    text, speaker = supervision.get("text"), supervision.get("speaker")
    if text is not None and not isinstance(text, str):
        raise FormatError(f"{where}: text is {text!r}; it must be a text")
    extra = {"speaker": str(speaker)} if speaker else {}
    if language := supervision.get("language"):
        extra["language"] = language
    audio = _file(recording, supervision.get("channel", cut.get("channel")), where)
    return NBest(
        utterance_id,
        (),
        finder.find(audio) or audio,
        round(start_s, 6),
        round(duration_s, 6),
        reference=text,
        extra=extra,
    )


def _file(recording: Mapping[str, Any], channel: object, where: str) -> str:
    """The path of a recording that is one file, heard as it is, all channels together."""
    sources = optional_list(recording, "sources", where)
    if len(sources) != 1 or get(sources[0], "type", str, where) != "file":
        kinds = ", ".join(sorted({str(source.get("type")) for source in sources})) or "nothing"
        raise FormatError(f"{where}: its recording is {kinds}; only one of one file can be read")
    names = {str(change.get("name")) for change in recording.get("transforms") or ()}
    if changes := sorted(names - {"Resample"}):
        raise FormatError(
            f"{where}: its recording is changed by {', '.join(changes)}; save it as it then is"
        )
    n_channels = len(optional_list(sources[0], "channels", where))
    n_wanted = len(channel) if isinstance(channel, list) else 1
    if channel is not None and n_wanted < n_channels:
        raise FormatError(
            f"{where}: is channel {channel} of {n_channels}, and recordings are read with all "
            "channels together; save the channel into a file of its own"
        )
    path: str = get(sources[0], "source", str, where)
    return path
