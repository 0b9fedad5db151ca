"""Services that answer with alternatives: Amazon Transcribe, Azure, Deepgram, AssemblyAI.

Each segment of a recording becomes one utterance, numbered, with its start, and with its channel
where there are several; word ends count from the start. A confidence p is not a score; `asr` is
log p (0 counts as a millionth), and only where every alternative of the segment has one. A segment
in which nothing was recognised is an utterance without hypotheses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relisten.core.text import join_unspaced
from relisten.core.types import ASR, FormatError, Hypothesis, NBest, Refusal
from relisten.io.readers.common import (
    Piece,
    comparable,
    get,
    json_items,
    json_values,
    log_confidence,
    number,
    numbered,
    optional_list,
    seconds,
    timed,
)

TICKS_PER_S = 10_000_000


def read_amazon(path: Path) -> Iterator[NBest | Refusal]:
    """Amazon Transcribe's job output: `results.segments[].alternatives[]`.

    There is one confidence per word: asr is the sum of their logarithms, without punctuation.
    A job without alternatives gives one text, `results.transcripts`, which is then one utterance;
    where it names channels, each of them is one.
    """
    return numbered(path, _amazon_segments(path), _amazon_utterance)


def _amazon_segments(path: Path) -> Iterator[Any]:
    for document in json_values(path):
        results = get(document, "results", dict, str(path))
        if segments := optional_list(results, "segments", str(path)):
            yield from segments
            continue
        labels = results.get("channel_labels") or {}
        channels = optional_list(labels, "channels", str(path))
        if any(channel.get("items") for channel in channels):
            yield from map(_amazon_channel, channels)
            continue
        transcripts = optional_list(results, "transcripts", str(path))
        if not transcripts and "segments" not in results:
            raise FormatError(
                f"{path}: has no results.segments; start the job with ShowAlternatives switched on"
            )
        words = _amazon_words(results)
        for transcript in transcripts:
            yield {
                "alternatives": [{"items": words if len(transcripts) == 1 else [], **transcript}]
            }


def _amazon_channel(channel: Any) -> dict[str, Any]:
    """The words of one channel, which the one text mixes with those of the others."""
    words = _amazon_words(channel)
    text = "".join(
        f"{'' if word.get('type') == 'punctuation' else ' '}{word.get('content', '')}"
        for word in words
    )
    alternative = {"transcript": join_unspaced(text), "items": words}
    return {"alternatives": [alternative], "channel_label": channel.get("channel_label")}


def _amazon_words(record: Any) -> list[dict[str, Any]]:
    items = optional_list(record, "items", "items")
    return [{**item, **(item.get("alternatives") or [{}])[0]} for item in items]


def _amazon_utterance(segment: Any, utterance_id: str, where: str) -> NBest:
    alternatives = optional_list(segment, "alternatives", where)
    is_timed = "start_time" in segment or "end_time" in segment
    start_s = number(segment.get("start_time"), "start_time", where) if is_timed else 0.0
    end_s = number(segment.get("end_time"), "end_time", where) if is_timed else None
    return NBest(
        utterance_id,
        comparable(_amazon_hypothesis(a, start_s, where) for a in alternatives),
        start_s=start_s,
        duration_s=_duration(start_s, end_s),
        extra=_channel(segment.get("channel_label")),
    )


def _amazon_hypothesis(alternative: Any, start_s: float, where: str) -> Hypothesis:
    text = get(alternative, "transcript", str, where).strip()
    items = optional_list(alternative, "items", where)
    words = [word for word in items if word.get("type") != "punctuation"]
    scores = {}
    if words and all("confidence" in word for word in words):
        scores[ASR] = sum(log_confidence(word["confidence"], where) for word in words)
    pieces = [
        Piece(
            str(word.get("content")),
            _since(start_s, word.get("end_time"), where),
            _since(start_s, word.get("start_time"), where),
        )
        for word in words
    ]
    return timed(text, scores, pieces)


def read_azure(path: Path) -> Iterator[NBest | Refusal]:
    """Azure's detailed answers (`NBest`), batch output (`recognizedPhrases[].nBest`) or fast
    transcription (`phrases[]`).

    The text is `Display`, or `Lexical` where there is none; a simple answer has one, its
    `DisplayText`. Times are ticks of 100 ns; those of fast transcription milliseconds.
    """
    return numbered(path, _azure_phrases(path), _azure_utterance)


def _azure_phrases(path: Path) -> Iterator[Any]:
    for item in json_items(path):
        for key in ("recognizedPhrases", "phrases"):
            if isinstance(item, dict) and key in item:
                yield from get(item, key, list, str(path))
                break
        else:
            yield item


def _azure_utterance(phrase: Any, utterance_id: str, where: str) -> NBest:
    phrase = _lower_keys(phrase, where)
    start_s = _azure_seconds(phrase, "offset", where)
    alternatives = optional_list(phrase, "nbest", where)
    if not alternatives and phrase.get("displaytext"):
        alternatives = [{"display": phrase["displaytext"]}]
    if "offsetmilliseconds" in phrase:
        alternatives = [{**phrase, "display": phrase.get("text")}]
    return NBest(
        utterance_id,
        comparable(_azure_hypothesis(a, start_s, where) for a in alternatives),
        start_s=start_s,
        duration_s=_azure_seconds(phrase, "duration", where),
        extra=_channel(phrase.get("channel")),
    )


def _azure_hypothesis(alternative: Any, start_s: float, where: str) -> Hypothesis:
    alternative = _lower_keys(alternative, where)
    text = alternative.get("display") or get(alternative, "lexical", str, where)
    scores = {}
    if "confidence" in alternative:
        scores[ASR] = log_confidence(alternative["confidence"], where)
    pieces = []
    for word in optional_list(alternative, "words", where):
        word = _lower_keys(word, where)
        begin_s = _azure_seconds(word, "offset", where) - start_s
        end_s = begin_s + _azure_seconds(word, "duration", where)
        pieces.append(Piece(str(word.get("word", word.get("text"))), end_s, begin_s))
    return timed(text, scores, pieces)


def _azure_seconds(record: dict[str, Any], key: str, where: str) -> float:
    if f"{key}milliseconds" in record:
        return number(record[f"{key}milliseconds"], key, where) / 1000
    value = record.get(f"{key}inticks", record.get(key))
    if isinstance(value, str) and value.startswith("PT"):  # batch output without ticks
        return seconds(value, key, where)
    return number(value, key, where) / TICKS_PER_S


def _lower_keys(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise FormatError(f"{where}: is not an object")
    return {key.lower(): value for key, value in record.items()}


def read_deepgram(path: Path) -> Iterator[NBest | Refusal]:
    """Deepgram's answers: `results.channels[].alternatives[]`, or the lines of a stream.

    A channel is one utterance, unless there is one alternative only and the answer holds
    `utterances`: then each of those. Of a stream the final results count.
    """
    return numbered(path, _deepgram_parts(path), _deepgram_utterance)


def _deepgram_parts(path: Path) -> Iterator[Any]:
    for answer in json_items(path):
        where = str(path)
        if isinstance(answer, dict) and isinstance(answer.get("channel"), dict):
            if answer.get("is_final", True):
                channel = optional_list(answer, "channel_index", where)[:1]
                yield {**answer, **answer["channel"], "channel": channel[0] if channel else None}
            continue
        if isinstance(answer, dict) and "results" not in answer:
            continue  # what a stream says of itself: Metadata, SpeechStarted, UtteranceEnd
        results = get(answer, "results", dict, where)
        channels = get(results, "channels", list, where)
        utterances = optional_list(results, "utterances", where)
        if utterances and all(len(c.get("alternatives") or []) < 2 for c in channels):
            yield from ({**one, "alternatives": [one]} for one in utterances)
        else:
            yield from ({**channel, "channel": n} for n, channel in enumerate(channels))


def _deepgram_utterance(part: Any, utterance_id: str, where: str) -> NBest:
    start_s = seconds(part.get("start", 0.0), "start", where)
    end_s = None if part.get("end") is None else seconds(part["end"], "end", where)
    if part.get("duration") is not None:
        end_s = start_s + seconds(part["duration"], "duration", where)
    speaker = {} if part.get("speaker") is None else {"speaker": part["speaker"]}
    return NBest(
        utterance_id,
        comparable(
            _deepgram_hypothesis(alternative, start_s, where)
            for alternative in optional_list(part, "alternatives", where)
        ),
        start_s=start_s,
        duration_s=_duration(start_s, end_s),
        extra={**_channel(part.get("channel")), **speaker},
    )


def _deepgram_hypothesis(alternative: Any, start_s: float, where: str) -> Hypothesis:
    text = get(alternative, "transcript", str, where).strip()
    words = optional_list(alternative, "words", where)
    pieces = [
        Piece(
            str(word.get("word")),
            _since(start_s, word.get("end"), where),
            _since(start_s, word.get("start"), where),
        )
        for word in words
    ]
    return timed(text, _log_score(alternative, where), pieces)


def read_assemblyai(path: Path) -> Iterator[NBest | Refusal]:
    """AssemblyAI's transcripts: `text`, or one utterance for each of `utterances` (speakers or
    channels). Times are milliseconds."""
    return numbered(path, _assemblyai_parts(path), _assemblyai_utterance)


def _assemblyai_parts(path: Path) -> Iterator[Any]:
    for transcript in json_items(path):
        yield from optional_list(transcript, "utterances", str(path)) or [transcript]


def _assemblyai_utterance(part: Any, utterance_id: str, where: str) -> NBest:
    if part.get("error"):
        raise FormatError(f"{where}: holds no transcript but an error: {part['error']}")
    if part.get("status") in ("queued", "processing"):
        raise FormatError(f"{where}: is {part['status']}; fetch the transcript when it is done")
    text = get(part, "text", str, where).strip()
    start_s = _milliseconds(part.get("start", 0), 0.0, where) or 0.0
    end_s = _milliseconds(part.get("end"), 0.0, where)
    pieces = [
        Piece(
            str(word.get("text")),
            _milliseconds(word.get("end"), start_s, where),
            _milliseconds(word.get("start"), start_s, where),
        )
        for word in optional_list(part, "words", where)
    ]
    speaker = {} if part.get("speaker") is None else {"speaker": part["speaker"]}
    return NBest(
        utterance_id,
        (timed(text, _log_score(part, where), pieces),),
        start_s=start_s,
        duration_s=_duration(start_s, end_s),
        extra={**_channel(part.get("channel")), **speaker},
    )


def _log_score(record: Any, where: str) -> dict[str, float]:
    if record.get("confidence") is None:
        return {}
    return {ASR: log_confidence(record["confidence"], where)}


def _since(start_s: float, end: object, where: str) -> float | None:
    return None if end is None else seconds(end, "time", where) - start_s


def _milliseconds(value: object, start_s: float, where: str) -> float | None:
    return None if value is None else number(value, "time", where) / 1000 - start_s


def _duration(start_s: float, end_s: float | None) -> float | None:
    return None if end_s is None else max(end_s - start_s, 0.0)


def _channel(channel: object) -> dict[str, Any]:
    return {} if channel is None else {"channel": channel}
