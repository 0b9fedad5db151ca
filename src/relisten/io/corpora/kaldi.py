"""Kaldi's data folders: wav.scp, and beside it text, segments and utt2spk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from relisten.core.types import FormatError, NBest, Refusal
from relisten.io.corpora.common import RecordingFinder, Tell, toolkit_places
from relisten.io.readers.common import attempt, number
from relisten.io.readers.tables import lines_of

_IN_ARCHIVE = re.compile(r".*\.ark(\.gz)?:\d+")

Entries = dict[str, tuple[int, str]]
"""Key → number of its line and what stands behind it."""


def read_kaldi_data(path: Path, tell: Tell) -> Iterator[NBest | Refusal]:
    """The utterances of a data folder, given its `wav.scp`; without `segments`, one a recording.

    A recording that is a command (`sox … |`) or lies in an archive is refused: commands of a file
    are never run. Speakers are those of `utt2spk`, unless every utterance is its own. Relative
    paths count from the folder, from the recipe's, two above, or from the working folder.
    Raises FormatError where a key occurs twice.
    """
    data = _DataFolder(
        path.parent,
        *(_entries(path.parent / name) for name in ("wav.scp", "segments", "text", "utt2spk")),
    )
    finder = RecordingFinder(data.folder, toolkit_places(data.folder))
    utterances = data.segments or data.recordings
    cut = "the lines of segments" if data.segments else "whole recordings"
    tell(f"{data.folder}: a data folder of Kaldi; its utterances are {cut}")
    for utterance_id in utterances:
        yield attempt(utterance_id, path, partial(data.utterance, utterance_id, finder))
    for utterance_id, (n, _) in data.texts.items():
        if utterance_id not in utterances:
            where = f"{data.folder / 'text'}:{n} '{utterance_id}'"
            file = "segments" if data.segments else "wav.scp"
            yield Refusal(utterance_id, f"{where}: is not in {file}; add it there, or drop it here")


@dataclass(frozen=True)
class _DataFolder:
    folder: Path
    recordings: Entries
    segments: Entries
    texts: Entries
    speakers: Entries

    def utterance(self, utterance_id: str, finder: RecordingFinder) -> NBest:
        recording, start_s, duration_s = utterance_id, 0.0, None
        if self.segments:
            recording, start_s, duration_s = self._segment(utterance_id)
        if recording not in self.recordings:
            where = f"{self.folder / 'segments'} '{utterance_id}'"
            raise FormatError(f"{where}: recording '{recording}' is not in wav.scp; add it there")
        n, name = self.recordings[recording]
        where = f"{self.folder / 'wav.scp'}:{n} '{recording}'"
        if name.endswith("|"):
            raise FormatError(
                f"{where}: is a command ({name[:40]}…), and none is run; write what it gives into "
                "a file, and that file's path here"
            )
        if _IN_ARCHIVE.fullmatch(name):
            raise FormatError(f"{where}: lies in an archive; copy it into a file with wav-copy")
        _, text = self.texts.get(utterance_id, (0, None))
        _, speaker = self.speakers.get(utterance_id, (0, ""))
        has_speakers = any(speaker != key for key, (_, speaker) in self.speakers.items())
        extra = {"speaker": speaker} if speaker and has_speakers else {}
        audio = finder.find(name) or name
        return NBest(utterance_id, (), audio, start_s, duration_s, reference=text, extra=extra)

    def _segment(self, utterance_id: str) -> tuple[str, float, float | None]:
        """Recording, start and duration in s, None to its end."""
        n, line = self.segments[utterance_id]
        where = f"{self.folder / 'segments'}:{n} '{utterance_id}'"
        recording, *times = line.split()
        if len(times) < 2:
            raise FormatError(f"{where}: is not UTTERANCE RECORDING START END")
        start_s, end_s = (number(time, "time", where) for time in times[:2])
        if end_s == -1:  # Kaldi's word for the end
            return recording, start_s, None
        if not 0 <= start_s < end_s:
            raise FormatError(f"{where}: ends at {end_s} s and starts at {start_s} s; correct it")
        return recording, start_s, round(end_s - start_s, 6)


def _entries(path: Path) -> Entries:
    """The lines of a file of the folder by their first word; empty where there is no file."""
    found: Entries = {}
    for n, line in lines_of(path) if path.is_file() else ():
        key, *rest = line.split(None, 1)
        if key in found:
            raise FormatError(f"{path}:{n} '{key}': occurs twice; give each its own key")
        found[key] = n, rest[0].strip() if rest else ""
    return found
