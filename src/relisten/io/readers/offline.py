"""Recognisers that run on one's own machine: Vosk and sherpa-onnx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relisten.core.types import ASR, FormatError, NBest, Refusal
from relisten.io.readers.common import (
    Piece,
    get,
    joined,
    json_items,
    number,
    numbered,
    optional_list,
    timed,
)


def read_vosk(path: Path) -> Iterator[NBest | Refusal]:
    """Vosk's answers with `SetMaxAlternatives`: one JSON value per segment, one after the other.

    Here `confidence` is −(graph cost + acoustic cost) of the lattice: a natural logarithm up to a
    constant, often above 0, higher is better; taken as `asr` unchanged. Partial results, and the
    empty answer to silence, are no utterances. An answer without alternatives, but with the words
    of its one text (`result`), has no score.
    """
    answers = (
        answer
        for answer in json_items(path)
        if not isinstance(answer, dict) or "alternatives" in answer or answer.get("text")
    )
    return numbered(path, answers, _vosk_answer)


def _vosk_answer(answer: Any, utterance_id: str, where: str) -> NBest:
    if isinstance(answer, dict) and "result" in answer:
        alternatives = [answer]
    elif isinstance(answer, dict) and "alternatives" in answer:
        alternatives = get(answer, "alternatives", list, where)
    else:
        raise FormatError(
            f"{where}: an answer has no alternatives; call SetMaxAlternatives before decoding"
        )
    words = [word for a in alternatives for word in optional_list(a, "result", where)]
    start_s = min((number(w["start"], "start", where) for w in words if "start" in w), default=0.0)
    hypotheses = []
    for alternative in alternatives:
        text = get(alternative, "text", str, where).strip()
        scores = {}
        if alternative is not answer:
            scores[ASR] = number(alternative.get("confidence"), "confidence", where)
        pieces = [
            Piece(
                w["word"],
                number(w["end"], "end", where) - start_s if "end" in w else None,
                number(w["start"], "start", where) - start_s if "start" in w else None,
            )
            for w in optional_list(alternative, "result", where)
        ]
        hypotheses.append(timed(text, scores, pieces))
    known = ("alternatives", "result", "text")
    extra = {key: value for key, value in answer.items() if key not in known}
    return NBest(utterance_id, tuple(hypotheses), start_s=start_s, extra=extra)


def read_sherpa(path: Path) -> Iterator[NBest | Refusal]:
    """Results of sherpa-onnx, one JSON value each: `text`, `tokens`, `timestamps`.

    asr is the sum of `ys_log_probs`, of streaming recognisers `ys_probs`: natural-log probabilities
    of the tokens, where they are given.
    `timestamps` are when tokens start; only with `durations` is it known when words end.
    """
    return numbered(path, json_items(path), _sherpa_result)


def _sherpa_result(result: Any, utterance_id: str, where: str) -> NBest:
    tokens = [token.replace("▁", " ") for token in get(result, "tokens", list, where)]
    starts = [number(one, "timestamp", where) for one in optional_list(result, "timestamps", where)]
    lasts = [number(one, "duration", where) for one in optional_list(result, "durations", where)]
    pieces = [Piece(token) for token in tokens]
    if len(starts) == len(lasts) == len(tokens):
        times = zip(tokens, starts, lasts, strict=True)
        pieces = [Piece(token, start + last, start) for token, start, last in times]
    text = get(result, "text", str, where).strip() or joined(pieces)
    names = ("ys_log_probs", "ys_probs")
    log_probabilities = [one for name in names for one in optional_list(result, name, where)]
    scores = {}
    if log_probabilities:
        scores[ASR] = sum(number(one, names[0], where) for one in log_probabilities)
    known = ("text", "tokens", "timestamps", "durations", *names, "start_time")
    return NBest(
        utterance_id,
        (timed(text, scores, pieces),),
        start_s=number(result.get("start_time", 0.0), "start_time", where),
        extra={key: value for key, value in result.items() if key not in known},
    )
