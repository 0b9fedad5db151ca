"""Folders of recordings with their texts beside them, also as LibriSpeech keeps them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from relisten.core.types import FormatError, NBest, Refusal
from relisten.io.corpora.common import Tell, recording_ids
from relisten.io.readers.common import read_text
from relisten.io.readers.tables import lines_of

TEXT_ENDINGS = (".txt", ".lab", ".normalized.txt")
"""Of the text of a recording, in place of the recording's own; the last is LibriTTS's."""
TRANSCRIPTS = ".trans.txt"
"""How LibriSpeech's files of transcripts end: lines ID TEXT for the recordings beside them."""

_PART = re.compile(r"(train|dev|test|valid|val|eval)([^a-z].*|ation)?", re.IGNORECASE)
"""Folders of this name are parts of a set, not speakers."""


def read_recordings_folder(
    folder: Path, recordings: Sequence[str], transcripts: Sequence[str], tell: Tell
) -> Iterator[NBest | Refusal]:
    """The recordings of a folder, each with the text beside it, where there is one.

    recordings, transcripts: paths relative to the folder, in order. The speakers are the folders
    that recordings lie in where these are several, those of LibriSpeech its first numbers.
    """
    spoken: dict[str, str] = {}
    refused = []
    present = {str(PurePosixPath(name).with_suffix("")) for name in recordings}
    for file in transcripts:
        for n, line in lines_of(folder / file):
            key, _, words = line.partition(" ")
            name = str(PurePosixPath(file).parent / key)
            spoken[name] = words.strip()
            if name not in present:
                where = f"{folder / file}:{n} '{key}'"
                refused.append(Refusal(key, f"{where}: its recording is not beside it"))
    speakers = _speakers(recordings)
    utterances: list[NBest | Refusal] = []
    ids = recording_ids([(name, 0.0) for name in recordings])
    for name, utterance_id in zip(recordings, ids, strict=True):
        bare = str(PurePosixPath(name).with_suffix(""))
        speaker = speakers.get(name)
        if bare in spoken:
            speaker = PurePosixPath(bare).name.split("-")[0]
        extra = {"speaker": speaker} if speaker else {}
        try:
            text = spoken[bare] if bare in spoken else _text_beside(folder / name)
            utterances.append(NBest(utterance_id, (), name, reference=text, extra=extra))
        except FormatError as error:
            utterances.append(Refusal(utterance_id, str(error)))
    tell(_decisions(folder, utterances, bool(transcripts)))
    yield from utterances
    yield from refused


def _text_beside(recording: Path) -> str | None:
    """The text of a recording: in the file of its name that ends in one of TEXT_ENDINGS."""
    for ending in TEXT_ENDINGS:
        beside = recording.with_suffix(ending)
        if beside.is_file():
            return " ".join(read_text(beside).split())
    return None


def _speakers(recordings: Sequence[str]) -> Mapping[str, str]:
    """Recording → name of its speaker: of the first folder on the way to it that others do not lie
    in, too, and that is not a part of the set, such as train."""
    folders = {name: PurePosixPath(name).parent.parts for name in recordings}
    for level in range(max((len(parts) for parts in folders.values()), default=0)):
        found = {name: parts[level] for name, parts in folders.items() if level < len(parts)}
        names = set(found.values())
        if len(names) > 1 and not all(map(_PART.fullmatch, names)):
            return found
    return {}


def _decisions(folder: Path, utterances: Sequence[NBest | Refusal], is_librispeech: bool) -> str:
    read = [one for one in utterances if isinstance(one, NBest)]
    n_texts = sum(one.reference is not None for one in read)
    speakers = sorted({one.speaker for one in read if one.speaker})
    beside = f"their {TRANSCRIPTS} files" if is_librispeech else "files beside them"
    parts = [f"{len(utterances):,} recordings", f"{n_texts:,} texts from {beside}"]
    if speakers:
        whose = "LibriSpeech's numbers" if is_librispeech else "the folders"
        shown = ", ".join(speakers[:3]) + (", …" if len(speakers) > 3 else "")
        parts.append(f"{len(speakers):,} speakers from {whose} {shown}")
    return f"{folder}: {', '.join(parts)}"
