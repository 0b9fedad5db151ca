"""Services that answer as Google's does: Google, IBM Watson, NVIDIA Riva."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from relisten.core.types import ASR, Hypothesis, NBest, Refusal
from relisten.io.readers.common import (
    Piece,
    comparable,
    get,
    json_items,
    log_confidence,
    numbered,
    optional_list,
    refuse_other_text,
    seconds,
    timed,
)


def read_google(path: Path) -> Iterator[NBest | Refusal]:
    """Google's recognize answer: `results[].alternatives[]` with `transcript` and `confidence`; so
    answer IBM Watson and NVIDIA Riva.

    Confidence is set for the best alternative only, unless the model gives more; 0 means not set.
    Both spellings of keys are read (`resultEndTime`, `result_end_time`), and batches of version 2,
    whose recordings' `uri` is kept. The results of a channel follow each other: one starts where
    the last one of its channel ended. Protobuf leaves out what is empty: a result without
    alternatives, an alternative without transcript. Of a stream the final results count. Watson's
    `timestamps` are lists of word, start and end; Riva's whole numbers are milliseconds.
    """
    return numbered(path, _google_results(path), partial(_google_utterance, {}))


def _google_results(path: Path) -> Iterator[Any]:
    for document in json_items(path):
        if isinstance(document, dict) and isinstance(document.get("response"), dict):
            document = document["response"]  # the answer of a long-running operation
        if isinstance(document, dict) and isinstance(document.get("results"), dict):
            for uri, answer in document["results"].items():  # a batch of version 2
                transcript = _either(answer, "inlineResult") or answer
                for result in get(transcript.get("transcript"), "results", list, str(path)):
                    yield {**result, "uri": uri}
            continue
        results = get(document, "results", list, str(path))
        yield from (one for one in results if not _is_interim(one))


def _is_interim(result: Any) -> bool:
    return isinstance(result, dict) and False in (result.get("final"), _either(result, "isFinal"))


def _google_utterance(
    ended_s: dict[Any, float], result: Any, utterance_id: str, where: str
) -> NBest:
    """ended_s: when the last result of each channel ended; this one's end is put there."""
    alternatives = optional_list(result, "alternatives", where)
    refuse_other_text(result, where)
    for alternative in alternatives:
        if _either(alternative, "transcript") is None:
            refuse_other_text(alternative, where)
    channel = _either(result, "channelTag")
    end = _either(result, "resultEndTime", "resultEndOffset")
    uri = {"uri": result["uri"]} if "uri" in result else {}
    place = (result.get("uri"), channel)
    start_s = ended_s.get(place, 0.0)
    is_riva = "audioProcessed" in result or "audio_processed" in result
    per_s = 1000 if is_riva else 1
    end_s = None if end is None else seconds(end, "time", where)
    ended_s[place] = start_s if end_s is None else end_s
    return NBest(
        utterance_id,
        comparable(
            _google_hypothesis(alternative, start_s, per_s, where)
            for alternative in alternatives
            if _either(alternative, "transcript") is not None
        ),
        start_s=start_s,
        duration_s=None if end_s is None else max(end_s - start_s, 0.0),
        extra={**({} if channel is None else {"channel": channel}), **uri},
    )


def _google_hypothesis(alternative: Any, start_s: float, per_s: int, where: str) -> Hypothesis:
    """per_s: what the times of words are counted in, parts of a second."""
    text = get(alternative, "transcript", str, where).strip()
    confidence = alternative.get("confidence") or 0.0
    scores = {ASR: log_confidence(confidence, where)} if confidence else {}
    words = [
        (
            word.get("word"),
            _either(word, "startTime", "startOffset"),
            _either(word, "endTime", "endOffset"),
        )
        for word in optional_list(alternative, "words", where)
    ] or optional_list(alternative, "timestamps", where)
    pieces = []
    for word, *times in words:
        begin_s, end_s = (
            None if t is None else seconds(t, "time", where) / per_s - start_s for t in times
        )
        pieces.append(Piece(str(word), end_s, begin_s))
    return timed(text, scores, pieces)


def _either(record: dict[str, Any], *keys: str) -> Any:
    """The value of the first key there is, in camelCase or snake_case."""
    for key in keys:
        snake = "".join("_" + c.lower() if c.isupper() else c for c in key)
        if (value := record.get(key, record.get(snake))) is not None:
            return value
    return None
