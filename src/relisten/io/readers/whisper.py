"""Results of openai-whisper and the transformers pipeline: one hypothesis per segment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relisten.core.types import ASR, FormatError, Hypothesis, NBest
from relisten.io.readers.common import fitting_word_ends, get, json_values, number


def read_whisper(path: Path) -> Iterator[NBest]:
    """A result of openai-whisper (`segments`) or of the transformers pipeline (`chunks`).

    One utterance per segment, with its one hypothesis; several results (a list) are numbered.
    openai-whisper's `avg_logprob` is the mean natural-log probability over the tokens of the
    30 s window and EOS; every segment of a window carries the same, so
    asr = avg_logprob · (tokens of the segment + 1). transformers gives no scores.
    """
    results = [
        result
        for value in json_values(path)
        for result in (value if isinstance(value, list) else [value])
    ]
    for n, result in enumerate(results, 1):
        name = path.stem if len(results) == 1 else f"{path.stem}-{n:04d}"
        where = f"{path}: result {n}"
        if not isinstance(result, dict):
            raise FormatError(f"{where}: is not an object with 'segments' or 'chunks'")
        if "segments" in result:
            for i, segment in enumerate(get(result, "segments", list, where), 1):
                yield _segment(segment, f"{name}-{i:04d}", path)
        elif "chunks" in result:
            yield from _chunks(result, name, path)
        else:
            yield NBest(name, (Hypothesis(get(result, "text", str, where).strip()),))


def _segment(segment: Any, utterance_id: str, path: Path) -> NBest:
    where = f"{path}: '{utterance_id}'"
    text = get(segment, "text", str, where).strip()
    start_s = number(segment.get("start"), "start", where)
    end_s = number(segment.get("end"), "end", where)
    scores = {}
    if "avg_logprob" in segment:
        n_tokens = len(get(segment, "tokens", list, where))
        scores[ASR] = number(segment["avg_logprob"], "avg_logprob", where) * (n_tokens + 1)
    words = segment.get("words") or []
    ends = [number(get(w, "end", object, where), "end", where) - start_s for w in words]
    known = ("id", "start", "end", "text", "words", "tokens", "avg_logprob")
    return NBest(
        utterance_id,
        (Hypothesis(text, scores, fitting_word_ends(text, ends) if words else None),),
        start_s=start_s,
        duration_s=max(end_s - start_s, 0.0),
        extra={key: value for key, value in segment.items() if key not in known},
    )


def _chunks(result: dict[str, Any], name: str, path: Path) -> Iterator[NBest]:
    chunks = []
    for chunk in get(result, "chunks", list, f"{path}: '{name}'"):
        where = f"{path}: '{name}'"
        text = get(chunk, "text", str, where).strip()
        start, end = get(chunk, "timestamp", list, where)
        # None where the end of the file cut it off.
        end_s = None if end is None else number(end, "timestamp", where)
        chunks.append((text, number(start, "timestamp", where), end_s))
    if len(chunks) > 1 and all(len(text.split()) <= 1 for text, _, _ in chunks):
        yield _timed_words([chunk for chunk in chunks if chunk[0]], name)
        return
    for i, (text, start_s, end_s) in enumerate(chunks, 1):
        yield NBest(
            f"{name}-{i:04d}",
            (Hypothesis(text),),
            start_s=start_s,
            duration_s=None if end_s is None else max(end_s - start_s, 0.0),
        )


def _timed_words(words: list[tuple[str, float, float | None]], name: str) -> NBest:
    text = " ".join(word for word, _, _ in words)
    ends = [start_s if end_s is None else end_s for _, start_s, end_s in words]
    return NBest(name, (Hypothesis(text, word_ends_s=fitting_word_ends(text, ends)),))
