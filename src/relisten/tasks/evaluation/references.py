"""Texts and the references that lie in another file, paired: by id, by time, or line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from relisten.core.types import FormatError, Hypothesis, NBest, Refusal, UsageError
from relisten.io.nbest import Refuse, read_nbest
from relisten.io.readers import recognise
from relisten.io.readers.common import read_text
from relisten.io.readers.sclite import StmSegment, stm_segments


def read_with_references(
    hypotheses: str, reference: str, format: str, manifest: str | None, refuse: Refuse
) -> Iterator[NBest]:
    """The utterances of the file `hypotheses` with the references of the other file.

    Each may be of any layout that is read, or plain text: lines `id text`, or a text a line, then
    both must have as many. A ctm is cut into the segments of an stm: a word belongs to the
    segment that holds its middle, else to the nearest one of its recording and channel.
    refuse: is told of references without a text; a text without a reference is given without.
    Raises UsageError where no reference can be paired, or plain files have unlike numbers of lines.
    """
    layout = _layout(hypotheses) if format == "auto" else format
    of_references = _layout(reference)
    if layout == "ctm" and of_references == "stm":
        yield from _cut(read_nbest(hypotheses, layout), stm_segments(Path(reference)))
        return
    if of_references is not None:
        texts = _texts_by_id(reference, of_references, refuse)
        utterances = _plain_with_ids(hypotheses) if layout is None else None
        named = utterances or read_nbest(hypotheses, layout or "auto", manifest, refuse)
        yield from _paired(named, texts, reference, refuse)
        return
    lines = _lines(reference)
    if layout is None:
        spoken = _lines(hypotheses)
        ours, theirs = _keyed(spoken), _keyed(lines)
        if ours and theirs and ours.keys() & theirs.keys():
            named = [NBest(key, (Hypothesis(text),)) for key, text in ours.items()]
            yield from _paired(named, theirs, reference, refuse)
            return
        named = [NBest(f"line {n}", (Hypothesis(text),)) for n, text in enumerate(spoken, 1)]
    else:
        named = list(read_nbest(hypotheses, layout, manifest, refuse))
        keyed = dict(line.partition(" ")[::2] for line in map(_one_space, lines))
        if len(keyed) == len(lines) and keyed.keys() & {one.id for one in named}:
            yield from _paired(named, keyed, reference, refuse)
            return
    if len(named) != len(lines):
        raise UsageError(
            f"{hypotheses} has {len(named):,} utterances and {reference} {len(lines):,} lines; "
            "give each line, or begin it with the id of its utterance"
        )
    for one, text in zip(named, lines, strict=True):
        yield replace(one, reference=text)


def _layout(path: str) -> str | None:
    """The layout of a file; None for plain lines of text."""
    try:
        name = recognise(Path(path))
    except FormatError:
        if Path(path).is_dir():
            raise
        return None
    if name == "nemo" and _keyed(_lines(path)):
        return None  # lines `id <tab> text`, not `text <tab> score`
    return name


def _lines(path: str) -> list[str]:
    return read_text(Path(path)).splitlines()


def _one_space(line: str) -> str:
    """The line, its first gap as one space."""
    key, *rest = line.split(maxsplit=1)[:2] or [""]
    return " ".join([key, *rest])


def _keyed(lines: Sequence[str]) -> dict[str, str]:
    """id → text of lines that begin with an id: all different, with a digit each; else empty."""
    keyed = dict(line.partition(" ")[::2] for line in map(_one_space, lines))
    are_ids = all(any(map(str.isdigit, key)) for key in keyed)
    are_texts = any(any(map(str.isalpha, text)) for text in keyed.values())
    return keyed if len(keyed) == len(lines) and are_ids and are_texts else {}


def _plain_with_ids(path: str) -> list[NBest]:
    keyed = _keyed(_lines(path))
    if not keyed:
        raise UsageError(
            f"{path}: has lines without ids, and the references have ids; begin each line with its "
            "id, or give the references as plain lines too"
        )
    return [NBest(key, (Hypothesis(text),)) for key, text in keyed.items()]


def _texts_by_id(path: str, layout: str, refuse: Refuse) -> dict[str, str]:
    """id → reference; of files that hold one text an utterance and no reference, that text."""
    texts = {}
    for one in read_nbest(path, layout, refuse=refuse):
        if one.reference is not None:
            texts[one.id] = one.reference
        elif len(one.hypotheses) == 1:
            texts[one.id] = one.hypotheses[0].text
    if not texts:
        raise UsageError(f"{path}: holds no references")
    return texts


def _paired(
    named: Sequence[NBest] | Iterator[NBest], texts: dict[str, str], path: str, refuse: Refuse
) -> Iterator[NBest]:
    left = dict(texts)
    for one in named:
        yield replace(one, reference=left.pop(one.id, None))
    if len(left) == len(texts):
        raise UsageError(
            f"{path}: none of its ids ({', '.join(list(texts)[:3])}, …) is that of an utterance; "
            "name them alike"
        )
    for key in left:
        refuse(Refusal(key, "has a reference, but no text of it was given"))


def _cut(recordings: Iterator[NBest], segments: Sequence[StmSegment]) -> Iterator[NBest]:
    """One utterance for each segment that counts, of the words that were spoken in it."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, segment in enumerate(segments):
        places.setdefault((segment.recording, segment.channel.casefold()), []).append(place)
    words: list[list[str]] = [[] for _ in segments]
    for one in recordings:
        own = places.get((one.extra["recording"], str(one.extra["channel"]).casefold()))
        if own is None:
            yield one  # without a reference: it is refused where errors are counted
            continue
        (hypothesis,) = one.hypotheses
        times = (hypothesis.word_starts_s or (), hypothesis.word_ends_s or ())
        for word, start_s, end_s in zip(hypothesis.text.split(), *times, strict=True):
            middle_s = (start_s + end_s) / 2
            words[min(own, key=lambda place: _distance_s(segments[place], middle_s))].append(word)
    for place, (segment, spoken) in enumerate(zip(segments, words, strict=True), 1):
        if not segment.is_ignored:
            yield NBest(
                f"{segment.recording}-{place:04d}",
                (Hypothesis(" ".join(spoken)),),
                start_s=segment.start_s,
                duration_s=max(segment.end_s - segment.start_s, 0.0),
                reference=segment.text,
                extra={"speaker": segment.speaker},
            )


def _distance_s(segment: StmSegment, at_s: float) -> float:
    return max(segment.start_s - at_s, at_s - segment.end_s, 0.0)
