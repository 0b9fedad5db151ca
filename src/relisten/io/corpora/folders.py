"""Folders of recordings with their texts beside them, also as LibriSpeech keeps them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath

from relisten.core.types import FormatError, NBest, Refusal
from relisten.io.audio import is_recording
from relisten.io.corpora.common import Tell, natural_order, recording_ids
from relisten.io.readers.common import read_text
from relisten.io.readers.tables import lines_of

TEXT_ENDINGS = (".txt", ".lab", ".normalized.txt")
"""Of the text of a recording, in place of the recording's own; the last is LibriTTS's."""
TRANSCRIPTS = ".trans.txt"
"""How LibriSpeech's files of transcripts end: lines ID TEXT for the recordings beside them."""

_PART = re.compile(r"(train|dev|test|valid|val|eval)([^a-z].*|ation)?", re.IGNORECASE)
"""Folders of this name are parts of a set, not speakers."""


def read_recordings_folder(
    folder: Path, files: Sequence[str], tell: Tell
) -> Iterator[NBest | Refusal]:
    """The recordings among the files of a folder, each with the text beside it, where there is one.

    files: paths relative to the folder, in order. The speakers are the folders that recordings lie
    in where these are several, those of LibriSpeech its first numbers.
    """
    recordings = [name for name in files if is_recording(name)]
    transcripts, refused = _transcripts(folder, files, {_bare(name) for name in recordings})
    texts = {name for name in files if not is_recording(name) and not name.endswith(TRANSCRIPTS)}
    unread = set(texts)
    speakers = _speakers(recordings)
    utterances: list[NBest | Refusal] = []
    ids = recording_ids([(name, 0.0) for name in recordings])
    for name, utterance_id in zip(recordings, ids, strict=True):
        text, speaker = transcripts.get(_bare(name)), speakers.get(name)
        if text is not None:
            speaker = PurePosixPath(name).name.split("-")[0]
        beside = next((f for end in TEXT_ENDINGS if (f := _bare(name) + end) in texts), None)
        try:
            if text is None and beside is not None:
                unread.discard(beside)
                text = " ".join(read_text(folder / beside).split())
            extra = {"speaker": speaker} if speaker else {}
            utterances.append(NBest(utterance_id, (), name, reference=text, extra=extra))
        except FormatError as error:
            utterances.append(Refusal(utterance_id, str(error)))
    tell(_decisions(folder, utterances, bool(transcripts), sorted(unread)))
    yield from utterances
    yield from refused


def _bare(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _transcripts(
    folder: Path, files: Sequence[str], recordings: Set[str]
) -> tuple[Mapping[str, str], Sequence[Refusal]]:
    """Recording without its ending → text, of all files of transcripts; those of no recording."""
    texts: dict[str, str] = {}
    refused = []
    for file in files:
        for n, line in lines_of(folder / file) if file.endswith(TRANSCRIPTS) else ():
            key, _, text = line.partition(" ")
            name = str(PurePosixPath(file).parent / key)
            texts[name] = text.strip()
            if name not in recordings:
                where = f"{folder / file}:{n} '{key}'"
                refused.append(Refusal(key, f"{where}: its recording is not beside it"))
    return texts, refused


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


def _decisions(
    folder: Path,
    utterances: Sequence[NBest | Refusal],
    is_librispeech: bool,
    unread: Sequence[str],
) -> str:
    """Where texts and speakers come from, and what was left aside, as a sentence."""
    read = [one for one in utterances if isinstance(one, NBest)]
    speakers = sorted({one.speaker for one in read if one.speaker}, key=natural_order)
    source = f"*{TRANSCRIPTS}" if is_librispeech else "the files"
    has_texts = any(one.reference is not None for one in read)
    parts = [f"texts from {source} beside them" if has_texts else "no texts beside them"]
    if speakers:
        whose = "LibriSpeech's numbers" if is_librispeech else "the folders"
        parts.append(f"{len(speakers):,} speakers from {whose} {_some(speakers)}")
    if unread:
        parts.append(f"not read: {_some(unread)} (name a file to read it as a list of recordings)")
    return f"{folder}: recordings with {', '.join(parts)}"


def _some(names: Sequence[str]) -> str:
    """The first three names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
