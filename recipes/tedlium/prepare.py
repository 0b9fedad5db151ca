"""TED-LIUM 3's own layout as manifests: legacy/SET/stm/TALK.stm and legacy/SET/sph/TALK.sph."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from relisten.core.types import NBest, UsageError

UNSCORED = "ignore_time_segment_in_scoring"
_MARK = re.compile(r"<[^>]*>|\{[^}]*\}|\[[^\]]*\]|\(\d+\)")
"""<unk>, {NOISE}, [breath], the number of a pronunciation: not words that were said."""
_CLITIC = re.compile(r" '(?=(?:s|m|d|t|re|ve|ll)\b)")


def utterances(name: str, corpus: Path, manifests: Path, every: int = 1) -> Iterator[NBest]:
    """The segments of the set `name`, their recordings relative to the folder `manifests`.

    every: take one talk in so many. Segments that say nothing, or are not to be scored, are left
    out, as in every evaluation on this corpus. Raises UsageError where the set is not there.
    """
    folder = corpus / "legacy" / name
    talks = sorted((folder / "stm").glob("*.stm"))[::every]
    if not talks:
        raise UsageError(f"{folder / 'stm'}: no *.stm; name the folder that holds legacy/")
    for talk in talks:
        recording = os.path.relpath(folder / "sph" / f"{talk.stem}.sph", manifests)
        for line in talk.read_text(encoding="utf-8").splitlines():
            if line.startswith(";;") or not line.strip():
                continue
            _, _, speaker, start, end, *rest = line.split()
            text = reference_of(rest)
            if not text:
                continue
            yield NBest(
                f"{talk.stem}-{round(float(start) * 100):07d}-{round(float(end) * 100):07d}",
                audio=recording,
                start_s=float(start),
                duration_s=round(float(end) - float(start), 3),
                reference=text,
                extra={"speaker": speaker},
            )


def reference_of(fields: list[str]) -> str:
    """The words behind the times of an STM line, marks taken out, "it 's" made one word; empty
    where nothing is to be scored."""
    words = fields[1:] if fields and fields[0].startswith("<") else fields
    text = " ".join(_MARK.sub(" ", " ".join(words)).split())
    return "" if UNSCORED in text else _CLITIC.sub("'", text)


MANIFESTS = {
    "train": partial(utterances, "train"),
    "mwer": partial(utterances, "train", every=10),
    "dev": partial(utterances, "dev"),
    "test": partial(utterances, "test"),
}
"""mwer: whose N-best lists the model is fine-tuned on, a tenth of the talks."""
