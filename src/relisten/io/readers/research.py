"""JSON files of research on rescoring: mlm-scoring and HyPoradise."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from relisten.core.types import ASR, FormatError, Hypothesis, NBest, Refusal
from relisten.io.readers.common import attempt, get, json_items, json_values, number, numbered

_EMPTY = "<UNK>"
"""What HyPoradise writes where a hypothesis or a reference is empty."""


def read_mlm_scoring(path: Path) -> Iterator[NBest | Refusal]:
    """`{"utt": {"ref": …, "hyp_1": {"score": …, "text": …}, "hyp_2": …}}`, as mlm-scoring has it.

    Score: natural log, higher is better, taken as `asr` unchanged. Spaces around texts are not
    part of them. The list is ordered by the number of the hypothesis.
    """
    for document in json_values(path):
        if not isinstance(document, dict):
            raise FormatError(f"{path}: is not an object of utterances")
        for utterance_id, record in document.items():
            yield attempt(
                utterance_id, path, partial(_mlm_scoring_utterance, utterance_id, record, path)
            )


def _mlm_scoring_utterance(utterance_id: str, record: Any, path: Path) -> NBest:
    where = f"{path}: '{utterance_id}'"
    if not isinstance(record, dict):
        raise FormatError(f"{where}: is not an object with hyp_1, hyp_2, …")
    ranked = []
    for key, value in record.items():
        rank = key.removeprefix("hyp_")
        if rank == key or not rank.isdecimal():
            continue
        here = f"{where}: {key}"
        text = get(value, "text", str, here).strip()
        scores = {ASR: number(value["score"], "score", here)} if "score" in value else {}
        extra = {k: v for k, v in value.items() if k not in ("text", "score")}
        ranked.append((int(rank), key, Hypothesis(text, scores, extra=extra)))
    ranked.sort(key=lambda item: item[0])
    known = {"ref", *(key for _, key, _ in ranked)}
    return NBest(
        utterance_id,
        tuple(hypothesis for _, _, hypothesis in ranked),
        reference=get(record, "ref", str, where).strip() if "ref" in record else None,
        extra={key: value for key, value in record.items() if key not in known},
    )


def read_hyporadise(path: Path) -> Iterator[NBest | Refusal]:
    """`[{"input": [hypotheses, best first], "output": reference}, …]`, without ids.

    Utterances are numbered. `<UNK>` alone stands for an empty text. Lists that were filled up with
    copies stay as they are; `relisten` merges equal texts. Score: `am_score`, one natural log for
    each hypothesis, where it is given.
    """
    return numbered(path, json_items(path), _hyporadise_utterance, digits=6)


def _hyporadise_utterance(record: Any, utterance_id: str, where: str) -> NBest:
    texts = get(record, "input", list, where)
    if not all(isinstance(text, str) for text in texts):
        raise FormatError(f"{where}: input holds something else than texts")
    scores: list[dict[str, float]] = [{} for _ in texts]
    if record.get("am_score") is not None:
        given = get(record, "am_score", list, where)
        if len(given) != len(texts):
            raise FormatError(
                f"{where}: {len(given)} numbers in am_score for {len(texts)} hypotheses; "
                "give one for each, or leave it out"
            )
        scores = [{ASR: number(one, "am_score", where)} for one in given]
    known = ("input", "output", "am_score")
    return NBest(
        utterance_id,
        tuple(Hypothesis(_unfilled(text), s) for text, s in zip(texts, scores, strict=True)),
        reference=_unfilled(get(record, "output", str, where)) if "output" in record else None,
        extra={k: v for k, v in record.items() if k not in known},
    )


def _unfilled(text: str) -> str:
    return "" if text.strip() == _EMPTY else text
