"""Recognisers that answer with alternatives: Vosk, Amazon Transcribe, Google, Azure.

Each segment of a recording becomes one utterance, numbered, with its start; word ends count from
there. A confidence p is not a score; `asr` is log p (0 counts as a millionth), and only where every
alternative of the segment has one, since a list must not compare a score with none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from relisten.core.types import ASR, FormatError, Hypothesis, NBest
from relisten.io.readers.common import fitting_word_ends, get, json_values, log_confidence, number

TICKS_PER_S = 10_000_000


def read_vosk(path: Path) -> Iterator[NBest]:
    """Vosk's answers with `SetMaxAlternatives`: one JSON value per segment, one after the other.

    Here `confidence` is −(graph cost + acoustic cost) of the lattice: a natural logarithm up to a
    constant, often above 0, higher is better; taken as `asr` unchanged.
    """
    answers = [
        answer
        for value in json_values(path)
        for answer in (value if isinstance(value, list) else [value])
    ]
    n = 0
    for answer in answers:
        if not isinstance(answer, dict) or "alternatives" not in answer:
            if isinstance(answer, dict) and not answer.get("text"):
                continue  # partial results, and the empty answer to silence
            raise FormatError(
                f"{path}: an answer has no alternatives; call SetMaxAlternatives before decoding"
            )
        n += 1
        where = f"{path}: '{path.stem}-{n:04d}'"
        alternatives = get(answer, "alternatives", list, where)
        starts = [
            number(w["start"], "start", where) for a in alternatives for w in a.get("result", [])
        ]
        start_s = min(starts, default=0.0)
        hypotheses = []
        for alternative in alternatives:
            text = get(alternative, "text", str, where).strip()
            words = alternative.get("result")
            ends = [number(w.get("end"), "end", where) - start_s for w in words or []]
            score = number(alternative.get("confidence"), "confidence", where)
            hypotheses.append(
                Hypothesis(text, {ASR: score}, fitting_word_ends(text, ends) if words else None)
            )
        extra = {key: value for key, value in answer.items() if key != "alternatives"}
        yield NBest(f"{path.stem}-{n:04d}", tuple(hypotheses), start_s=start_s, extra=extra)


def read_amazon(path: Path) -> Iterator[NBest]:
    """Amazon Transcribe's job output with alternatives: `results.segments[].alternatives[]`.

    There is one confidence per word: asr is the sum of their logarithms, without punctuation.
    """
    for document in json_values(path):
        results = get(document, "results", dict, str(path))
        if "segments" not in results:
            raise FormatError(
                f"{path}: has no results.segments; start the job with ShowAlternatives switched on"
            )
        for n, segment in enumerate(get(results, "segments", list, str(path)), 1):
            where = f"{path}: '{path.stem}-{n:04d}'"
            start_s = number(get(segment, "start_time", object, where), "start_time", where)
            end_s = number(get(segment, "end_time", object, where), "end_time", where)
            yield NBest(
                f"{path.stem}-{n:04d}",
                _comparable(
                    _amazon_hypothesis(alternative, start_s, where)
                    for alternative in get(segment, "alternatives", list, where)
                ),
                start_s=start_s,
                duration_s=max(end_s - start_s, 0.0),
            )


def _amazon_hypothesis(alternative: Any, start_s: float, where: str) -> Hypothesis:
    text = get(alternative, "transcript", str, where).strip()
    words = [w for w in alternative.get("items", []) if w.get("type") != "punctuation"]
    if not words:
        return Hypothesis(text)
    ends = [number(w.get("end_time"), "end_time", where) - start_s for w in words]
    scores = {}
    if all("confidence" in word for word in words):
        scores[ASR] = sum(log_confidence(word["confidence"], where) for word in words)
    return Hypothesis(text, scores, fitting_word_ends(text, ends))


def read_google(path: Path) -> Iterator[NBest]:
    """Google's recognize answer: `results[].alternatives[]` with `transcript` and `confidence`.

    Confidence is set for the best alternative only, unless the model gives more; 0 means not set.
    Times are written `"1.400s"`; both spellings of keys are read (`resultEndTime`,
    `result_end_time`). Results of one file follow each other: one starts where the last ended.
    """
    for document in json_values(path):
        if isinstance(document, dict) and isinstance(document.get("response"), dict):
            document = document["response"]  # the answer of a long-running operation
        start_s = 0.0
        for n, result in enumerate(get(document, "results", list, str(path)), 1):
            where = f"{path}: '{path.stem}-{n:04d}'"
            alternatives = get(result, "alternatives", list, where)
            end = _either(result, "resultEndTime", "resultEndOffset")
            end_s = None if end is None else _google_seconds(end, where)
            yield NBest(
                f"{path.stem}-{n:04d}",
                _comparable(_google_hypothesis(a, start_s, where) for a in alternatives),
                start_s=start_s,
                duration_s=None if end_s is None else max(end_s - start_s, 0.0),
            )
            start_s = start_s if end_s is None else end_s


def _google_hypothesis(alternative: Any, start_s: float, where: str) -> Hypothesis:
    text = get(alternative, "transcript", str, where).strip()
    confidence = alternative.get("confidence") or 0.0
    scores = {ASR: log_confidence(confidence, where)} if confidence else {}
    words = alternative.get("words") or []
    ends = [_google_seconds(_either(w, "endTime", "endOffset"), where) - start_s for w in words]
    return Hypothesis(text, scores, fitting_word_ends(text, ends) if words else None)


def _either(record: dict[str, Any], *keys: str) -> Any:
    """The value of the first key there is, in camelCase or snake_case."""
    for key in keys:
        snake = "".join("_" + c.lower() if c.isupper() else c for c in key)
        if (value := record.get(key, record.get(snake))) is not None:
            return value
    return None


def _google_seconds(value: object, where: str) -> float:
    return number(value.removesuffix("s") if isinstance(value, str) else value, "time", where)


def read_azure(path: Path) -> Iterator[NBest]:
    """Azure's detailed answers (`NBest`) or batch output (`recognizedPhrases[].nBest`).

    The text is `Display`, or `Lexical` where there is none. Times are ticks of 100 ns.
    """
    phrases: list[Any] = []
    for value in json_values(path):
        if isinstance(value, dict) and "recognizedPhrases" in value:
            phrases += get(value, "recognizedPhrases", list, str(path))
        else:
            phrases += value if isinstance(value, list) else [value]
    for n, phrase in enumerate(phrases, 1):
        where = f"{path}: '{path.stem}-{n:04d}'"
        phrase = _lower_keys(phrase, where)
        start_s = _azure_seconds(phrase, "offset", where)
        alternatives = phrase.get("nbest", [])  # none where nothing was recognised
        yield NBest(
            f"{path.stem}-{n:04d}",
            _comparable(_azure_hypothesis(a, start_s, where) for a in alternatives),
            start_s=start_s,
            duration_s=_azure_seconds(phrase, "duration", where),
        )


def _azure_hypothesis(alternative: Any, start_s: float, where: str) -> Hypothesis:
    alternative = _lower_keys(alternative, where)
    text = alternative.get("display") or get(alternative, "lexical", str, where)
    scores = {}
    if "confidence" in alternative:
        scores[ASR] = log_confidence(alternative["confidence"], where)
    words = [_lower_keys(w, where) for w in alternative.get("words") or []]
    ends = [
        _azure_seconds(w, "offset", where) + _azure_seconds(w, "duration", where) - start_s
        for w in words
    ]
    return Hypothesis(text, scores, fitting_word_ends(text, ends) if words else None)


def _azure_seconds(record: dict[str, Any], key: str, where: str) -> float:
    return number(record.get(f"{key}inticks", record.get(key)), key, where) / TICKS_PER_S


def _lower_keys(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise FormatError(f"{where}: is not an object")
    return {key.lower(): value for key, value in record.items()}


def _comparable(hypotheses: Iterator[Hypothesis]) -> tuple[Hypothesis, ...]:
    """The hypotheses, their scores only if all have one."""
    made = tuple(hypotheses)
    if all(hypothesis.scores for hypothesis in made):
        return made
    return tuple(replace(hypothesis, scores={}) for hypothesis in made)
