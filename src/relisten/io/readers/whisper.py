"""Whisper: openai-whisper, faster-whisper, WhisperX, transformers, whisper.cpp."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from relisten.core.types import ASR, FormatError, Hypothesis, NBest, Refusal
from relisten.io.readers.common import (
    Piece,
    attempt,
    get,
    joined,
    json_items,
    json_values,
    log_confidence,
    number,
    numbered,
    optional_list,
    timed,
)

SLOWEST_WORD_S = 1.0
"""Chunks that start further apart than this are segments, though each holds one word only."""
SEGMENTS = ("segments", "sentences")
"""Keys of the segments: Whisper's, and those of parakeet-mlx."""
SENTENCE_ENDS = tuple(".?!。？！…।")


def read_whisper(path: Path) -> Iterator[NBest | Refusal]:
    """A result with `segments` (openai-whisper, faster-whisper, WhisperX), `sentences`
    (parakeet-mlx) or `chunks` (the pipeline of transformers), several of them, or a bare list of
    segments.

    One utterance per segment, with its one hypothesis; several results are numbered. A result
    without segments is one utterance. openai-whisper's `avg_logprob` is the mean natural-log
    probability over the tokens of the 30 s window and EOS; every segment of a window carries the
    same, so asr = avg_logprob · (tokens of the segment + 1). Without the tokens, and from
    transformers and parakeet-mlx, there is no score.
    """
    results = list(json_items(path))
    if results and all(isinstance(r, dict) and "text" in r and "start" in r for r in results):
        results = [{"segments": results}]
    for n, result in enumerate(results, 1):
        name = path.stem if len(results) == 1 else f"{path.stem}-{n:04d}"
        try:
            yield from _result(result, name, path)
        except FormatError as error:
            yield Refusal(name, str(error))


def _result(result: Any, name: str, path: Path) -> Iterator[NBest | Refusal]:
    where = f"{path}: '{name}'"
    if not isinstance(result, dict):
        raise FormatError(f"{where}: is not an object with 'segments' or 'chunks'")
    segments = [one for name in SEGMENTS for one in optional_list(result, name, where)]
    if segments:
        segments = _with_words(segments, optional_list(result, "words", where))
        for n, segment in enumerate(segments, 1):
            segment_id = f"{name}-{n:04d}"
            yield attempt(segment_id, path, partial(_segment, segment, segment_id, path))
    elif chunks := optional_list(result, "chunks", where):
        yield from _chunks(chunks, result.get("text"), name, path)
    elif "text" in result or not {"segments", "chunks"} & result.keys():
        text = get(result, "text", str, where).strip()
        pieces = _pieces(optional_list(result, "words", where), 0.0, where)
        yield NBest(name, (timed(text, {}, pieces),))


def _with_words(segments: list[Any], words: list[Any]) -> list[Any]:
    """The segments, with the words that OpenAI's API lists beside them: those that start in it."""
    if not words or any(not isinstance(s, dict) or s.get("words") for s in segments):
        return segments
    ends = [_time(segment.get("end")) or math.inf for segment in segments]
    with_words: list[dict[str, Any]] = [{**segment, "words": []} for segment in segments]
    for word in words:
        start_s = _time(word.get("start")) if isinstance(word, dict) else None
        if start_s is None:
            return segments
        with_words[min(bisect_right(ends, start_s), len(ends) - 1)]["words"].append(word)
    return with_words


def _segment(segment: Any, utterance_id: str, path: Path) -> NBest:
    where = f"{path}: '{utterance_id}'"
    text = get(segment, "text", str, where).strip()
    start_s = number(segment.get("start"), "start", where)
    end_s = None if segment.get("end") is None else number(segment["end"], "end", where)
    known = {"id", "start", "end", "text", "words"}
    scores = {}
    if segment.get("avg_logprob") is not None and isinstance(segment.get("tokens"), list):
        n_tokens = len(segment["tokens"])
        scores[ASR] = number(segment["avg_logprob"], "avg_logprob", where) * (n_tokens + 1)
        known |= {"tokens", "avg_logprob"}
    words = optional_list(segment, "words", where)
    if all(isinstance(token, dict) for token in segment.get("tokens") or [None]):
        words = segment["tokens"]  # timed, as parakeet-mlx has them in place of words
        known |= {"tokens"}
    pieces = _pieces(words, start_s, where)
    return NBest(
        utterance_id,
        (timed(text, scores, pieces),),
        start_s=start_s,
        duration_s=None if end_s is None else max(end_s - start_s, 0.0),
        extra={key: value for key, value in segment.items() if key not in known},
    )


def _pieces(words: list[Any], start_s: float, where: str) -> list[Piece]:
    """Words with their times from start_s on; WhisperX gives none to digits and symbols.

    faster-whisper's words are named tuples, which JSON makes lists: start, end, word, probability.
    """
    pieces = []
    for word in words:
        if isinstance(word, list) and len(word) >= 3:
            word = dict(zip(("start", "end", "word"), word, strict=False))
        if not isinstance(word, dict):
            raise FormatError(f"{where}: a word is {str(word)[:40]}; it must be an object")
        begin_s, end_s = (_time(word.get(key)) for key in ("start", "end"))
        pieces.append(
            Piece(
                str(word.get("word", word.get("text", ""))),
                None if end_s is None else end_s - start_s,
                None if begin_s is None else begin_s - start_s,
            )
        )
    return pieces


def _time(value: object) -> float | None:
    """A time of a word, s; None for what is none, such as NaN out of a table."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


Chunk = tuple[str, float, float | None]
"""Text as it stands, start and end, s; no end where the end of the file cut it off."""


def _chunks(items: list[Any], whole: object, name: str, path: Path) -> Iterator[NBest | Refusal]:
    where = f"{path}: '{name}'"
    chunks: list[Chunk] = []
    for item in items:
        start, end = get(item, "timestamp", list, where) if item.get("timestamp") else (None, None)
        before_s = (chunks[-1][2] or chunks[-1][1]) if chunks else 0.0
        start_s = before_s if start is None else number(start, "timestamp", where)
        end_s = None if end is None else number(end, "timestamp", where)
        chunks.append((get(item, "text", str, where), start_s, end_s))
    if _are_words(chunks):
        # The last word may have no end: it then ends where it starts, as late as is known.
        pieces = [
            Piece(text, start_s if end_s is None else end_s, start_s)
            for text, start_s, end_s in chunks
        ]
        text = whole.strip() if isinstance(whole, str) else joined(pieces)
        yield NBest(name, (timed(text, {}, pieces),))
        return
    for n, (text, start_s, end_s) in enumerate(chunks, 1):
        yield NBest(
            f"{name}-{n:04d}",
            (Hypothesis(text.strip()),),
            start_s=start_s,
            duration_s=None if end_s is None else max(end_s - start_s, 0.0),
        )


def _are_words(chunks: list[Chunk]) -> bool:
    """Whether chunks are timed words and not segments: several, no space within any, not each a
    sentence, and as dense as speech."""
    texts = [text.strip() for text, _, _ in chunks]
    if len(chunks) < 2 or any(len(text.split()) > 1 for text in texts):
        return False
    if all(text.endswith(SENTENCE_ENDS) for text in texts):
        return False
    return median(later[1] - earlier[1] for earlier, later in pairwise(chunks)) < SLOWEST_WORD_S


def read_whisper_cpp(path: Path) -> Iterator[NBest | Refusal]:
    """whisper.cpp's `--output-json`: `transcription[]` with `offsets` in milliseconds.

    With `--output-json-full` also the tokens: asr is the sum of the natural logs of their
    probabilities `p`, those of special tokens (`[_BEG_]`) left out, EOS not among them.
    """
    for document in json_values(path):
        segments = get(document, "transcription", list, str(path))
        yield from numbered(path, segments, _cpp_segment)


def _cpp_segment(segment: Any, utterance_id: str, where: str) -> NBest:
    text = get(segment, "text", str, where).strip()
    offsets = get(segment, "offsets", dict, where)
    start_s = number(offsets.get("from"), "offset", where) / 1000
    end_s = number(offsets.get("to"), "offset", where) / 1000
    tokens = [t for t in segment.get("tokens") or [] if not str(t.get("text")).startswith("[_")]
    scores = {}
    if tokens and all("p" in token for token in tokens):
        scores[ASR] = sum(log_confidence(token["p"], where) for token in tokens)
    pieces = []
    for token in tokens:
        times = token.get("offsets") or {}
        start_s_of, end_s_of = (
            None if times.get(key) is None else number(times[key], "offset", where) / 1000 - start_s
            for key in ("from", "to")
        )
        pieces.append(Piece(get(token, "text", str, where), end_s_of, start_s_of))
    return NBest(
        utterance_id,
        (timed(text, scores, pieces),),
        start_s=start_s,
        duration_s=max(end_s - start_s, 0.0),
    )
