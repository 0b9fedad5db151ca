"""A transcript in the forms of OpenAI's audio API."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from relisten.core.combine import Weights, component_scores, with_context, without_voted_text
from relisten.core.types import ASR
from relisten.tasks.transcript import Segment, Transcript


def to_json(transcript: Transcript, include: Sequence[str], weights: Weights) -> dict[str, Any]:
    """The answer for `response_format` json.

    include: logprobs; nbest, which adds `duration` and `segments` as `to_list` gives them.
    """
    answer: dict[str, Any] = {"text": transcript.text, "usage": usage(transcript.duration_s)}
    if "logprobs" in include:
        answer["logprobs"] = [
            one for segment in transcript.segments for one in to_logprobs(segment)
        ]
    if "nbest" in include:
        answer["duration"] = round(transcript.duration_s, 3)
        answer["segments"] = [to_list(segment, weights) for segment in transcript.segments]
    return answer


def to_delta(
    delta: str, segment: Segment, duration_s: float, include: Sequence[str], weights: Weights
) -> dict[str, Any]:
    """The event of a segment that is finished. delta: its text, behind a space but for the first.

    duration_s: of the whole recording, so that progress can be told from `segment.end_s`.
    """
    event: dict[str, Any] = {"type": "transcript.text.delta", "delta": delta}
    if "logprobs" in include:
        event["logprobs"] = to_logprobs(segment)
    if "nbest" in include:
        event |= {"duration": round(duration_s, 3), "segment": to_list(segment, weights)}
    return event


def language_name(code: str, asked: str | None) -> str:
    """The English name of a language by its ISO code, as Whisper's API gives it; "unknown" where
    the server detects it and the client did not say."""
    code = (asked or "unknown").lower() if code == "auto" else code
    try:
        from transformers.models.whisper.tokenization_whisper import LANGUAGES
    except ImportError:  # it comes with relisten[models]
        return "english" if code == "en" else code
    return str(LANGUAGES.get(code, code))


def to_verbose_json(
    transcript: Transcript,
    granularities: Sequence[str],
    language: str,
    tokens: Callable[[str], Sequence[int]],
) -> dict[str, Any]:
    """The answer for `response_format` verbose_json; without granularities, with segments.

    tokens: how the recogniser writes a text.
    """
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": language,
        "duration": round(transcript.duration_s, 3),
        "text": transcript.text,
        "usage": usage(transcript.duration_s),
    }
    spoken = [segment for segment in transcript.segments if segment.text]
    if "word" in granularities:
        answer["words"] = [word for segment in spoken for word in to_words(segment)]
    if "segment" in granularities or not granularities:
        answer["segments"] = [
            _segment(number, segment, tokens) for number, segment in enumerate(spoken)
        ]
    return answer


def usage(duration_s: float) -> dict[str, Any]:
    """What the request used: seconds of audio."""
    return {"type": "duration", "seconds": math.ceil(duration_s)}


def to_words(segment: Segment) -> list[dict[str, Any]]:
    """The chosen words with their times, s from the recording's start."""
    words, last_s = [], segment.start_s
    for word in segment.to_json()["words"]:  # type: ignore[attr-defined]
        end_s = word.get("end_s", segment.end_s)
        start_s = min(word.get("start_s", last_s), end_s)
        words.append({"word": word["text"], "start": round(start_s, 3), "end": round(end_s, 3)})
        last_s = end_s
    return words


def to_logprobs(segment: Segment) -> list[dict[str, Any]]:
    """The log of the confidence in each chosen word, in place of a token's log-probability."""
    chosen = next(iter(segment.nbest.hypotheses), None)
    if chosen is None or chosen.word_confidence is None:
        return []
    return [
        {
            "token": word,
            "bytes": list(word.encode(errors="replace")),
            "logprob": math.log(max(confidence, 1e-9)),
        }
        for word, confidence in zip(chosen.text.split(), chosen.word_confidence, strict=True)
    ]


def to_list(segment: Segment, weights: Weights) -> dict[str, Any]:
    """A segment with its words, its hypotheses and all that ranks them; relisten's own addition.

    `components` names what is summed, with its weight; each hypothesis has its score for each. The
    sums, divided by the `temperature`, give the posteriors.
    """
    nbest = without_voted_text(segment.nbest)
    values = {c: weight for c, weight in with_context(weights).values_for(nbest).items() if weight}
    columns = {component: component_scores(nbest, component) for component in values}
    answer: dict[str, Any] = segment.to_json()
    times = [{"start_s": word["start"], "end_s": word["end"]} for word in to_words(segment)]
    return {
        **answer,
        "words": [word | its for word, its in zip(answer["words"], times, strict=True)],
        "cues": [asdict(cue) for cue in segment.cues()],
        "temperature": weights.temperature,
        "components": values,
        "hypotheses": [
            {
                "text": hypothesis.text,
                "first_pass_rank": hypothesis.first_pass_rank,
                "posterior": hypothesis.posterior,
                "scores": {name: round(float(columns[name][n]), 4) for name in columns},
            }
            for n, hypothesis in enumerate(nbest.hypotheses)
        ],
    }


def to_event(event: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


def _segment(
    number: int, segment: Segment, tokens: Callable[[str], Sequence[int]]
) -> dict[str, Any]:
    chosen = segment.nbest.hypotheses[0]
    ids = list(tokens(segment.text))
    data = segment.text.encode(errors="replace")
    return {
        "id": number,
        "seek": round(segment.start_s * 100),
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": ids,
        "temperature": 0.0,
        "avg_logprob": chosen.scores.get(ASR, 0.0) / (len(ids) + 1),
        "compression_ratio": len(data) / len(zlib.compress(data)),
        "no_speech_prob": 0.0,
    }
