"""LibriSpeech's own layout as manifests: SET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt and FLAC."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from relisten.core.types import NBest, UsageError


def utterances(sets: tuple[str, ...], corpus: Path, manifests: Path) -> Iterator[NBest]:
    """The utterances of `sets`, their recordings relative to the folder `manifests`.

    Raises UsageError where a set is not in the corpus, or holds no transcripts.
    """
    for name in sets:
        transcripts = sorted((corpus / name).glob("*/*/*.trans.txt"))
        if not transcripts:
            raise UsageError(f"{corpus / name}: no SPEAKER/CHAPTER/*.trans.txt; unpack it there")
        for transcript in transcripts:
            for line in transcript.read_text(encoding="utf-8").splitlines():
                id, _, text = line.partition(" ")
                recording = transcript.parent / f"{id}.flac"
                yield NBest(
                    id,
                    audio=os.path.relpath(recording, manifests),
                    duration_s=duration_s(recording),
                    reference=text,
                    extra={"speaker": id.split("-")[0]},
                )


def duration_s(recording: Path) -> float:
    """What the head of a recording says."""
    import av

    try:
        with av.open(str(recording)) as container:
            return (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError) as error:
        raise UsageError(f"{recording}: cannot be read ({error})") from error


MANIFESTS = {
    "train-clean-100": partial(utterances, ("train-clean-100",)),
    "train-clean-360": partial(utterances, ("train-clean-360",)),
    "train-other-500": partial(utterances, ("train-other-500",)),
    "mwer": partial(utterances, ("train-clean-100",)),
    "dev": partial(utterances, ("dev-clean", "dev-other")),
    "test-clean": partial(utterances, ("test-clean",)),
    "test-other": partial(utterances, ("test-other",)),
}
"""mwer: whose N-best lists the model is fine-tuned on."""
