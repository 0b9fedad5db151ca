"""What all readers of speech corpora need: where recordings lie, what they are called."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from relisten.core.types import FormatError
from relisten.io.audio import AUDIO_ENDINGS, is_recording
from relisten.io.native import unique_keys
from relisten.io.readers.tables import lines_of

Tell = Callable[[str], None]
"""Is told in a sentence what a reader decided."""


def natural_order(name: str) -> list[str | int]:
    """A key to sort names by, in which a2 stands before a10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def recording_ids(recordings: Sequence[tuple[str, float]]) -> list[str]:
    """An id for each recording or segment, given as (path, start in s).

    It is the file's name without its ending; where several files have that, the path without it;
    else the path. Where a file has several segments, the start stands behind it.
    """
    different = [*dict.fromkeys(recordings)]
    n_segments = Counter(path for path, _ in different)
    names = {one: _names(*one, n_segments[one[0]] > 1) for one in different}
    counts = [Counter(level) for level in zip(*names.values(), strict=True)]
    ids = {
        one: next((name for name, n in zip(own, counts, strict=True) if n[name] == 1), own[-1])
        for one, own in names.items()
    }
    return [ids[one] for one in recordings]


def _names(path: str, start_s: float, is_segment: bool) -> tuple[str, str, str]:
    """What a recording may be called, the shortest first."""
    file = PurePosixPath(path)
    bare = str(file.with_suffix("")) if file.name else path
    suffix = f"-{start_s:g}" if is_segment else ""
    return (file.stem or path) + suffix, bare + suffix, path + suffix


class RecordingFinder:
    """Finds the recordings that a file names: in its folder, or in places that are usual.

    folder: of the file. places: further folders, relative to it.
    """

    def __init__(self, folder: Path, places: Sequence[str]) -> None:
        self._folder = folder
        self._guesses = [*product(("", *places), ("", *AUDIO_ENDINGS))]

    def find(self, name: str) -> str | None:
        """The path of a recording, relative to the folder; None where there is none."""
        endings = ("",) if is_recording(name) else ("", *AUDIO_ENDINGS)
        for guess in self._guesses:
            path = os.path.normpath(os.path.join(guess[0], name + guess[1]))
            if guess[1] in endings and os.path.isfile(self._folder / path):
                self._guesses.remove(guess)  # the next one probably lies there, too
                self._guesses.insert(0, guess)
                return path
        return None


def toolkit_places(folder: Path) -> tuple[str, ...]:
    """Where the paths of a toolkit's data folder count from: its scripts run in the folder of the
    recipe, two above `data/train`, or in the working folder."""
    return ("..", os.path.join("..", ".."), os.path.relpath(Path.cwd(), folder.resolve()))


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | FormatError]]:
    """(line number, JSON object or why there is none) of JSON lines."""
    for n, line in lines_of(path):
        try:
            record = json.loads(line, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            yield n, FormatError(f"{path}:{n}: is not one JSON object ({error}); truncated?")
        else:
            is_object = isinstance(record, dict)
            yield n, record if is_object else FormatError(f"{path}:{n}: is not one JSON object")
