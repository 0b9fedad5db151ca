"""The published JSON schemas describe what is written, and refuse what the readers refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema_rs
import pytest

from relisten.core.combine import Weights
from relisten.core.types import FormatError
from relisten.io.bundle import SHIPPED
from relisten.io.native import HYPOTHESIS_KEYS, UTTERANCE_KEYS, line_to_nbest
from relisten.io.nbest import load_nbest, save_nbest
from relisten.tasks.defaults import MODEL
from relisten.tasks.rescore import rescore
from relisten.tasks.tune import tune
from relisten.tasks.weights import save_weights

DOCS = Path(__file__).parents[1] / "docs" / "schema"
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "data" / "nbest.jsonl"
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in DOCS.glob("*.json")}


def is_valid(name: str, record: object) -> bool:
    return jsonschema_rs.validator_for(SCHEMAS[name]).is_valid(record)


def test_what_is_written_is_valid(tmp_path: Path) -> None:
    """Lists as they were made, scored, ranked with confidence; tuned weights, shared and by key."""
    lists = [
        replace(
            one,
            hypotheses=tuple(
                replace(h, scores={"asr": -float(n), "text": -0.5 * len(h.text)})
                for n, h in enumerate(one.hypotheses)
            ),
            extra={"speaker": f"s{row % 5}", "domain": "ab"[row % 2]},
        )
        for row, one in enumerate(load_nbest(BENCHMARK)[:20])
    ]
    scored, ranked, weights = (tmp_path / name for name in ("scored", "ranked", "weights.json"))
    save_nbest(lists, scored)
    for by in (None, "domain"):
        result, _ = tune(str(scored), folds=2, by=by)
        save_weights(result.weights, str(weights))
        assert is_valid("weights", json.loads(weights.read_text()))
    rescore(str(scored), str(ranked), result.weights)
    for path in (BENCHMARK, scored, ranked):
        for line in path.read_text().splitlines():
            assert is_valid("utterance", json.loads(line))
    assert "word_confidence" in ranked.read_text()
    bundle = json.loads((SHIPPED / MODEL / "relisten.json").read_text())
    assert is_valid("weights", bundle["weights"])


def test_every_key_is_described() -> None:
    described = SCHEMAS["utterance"]["properties"]
    assert set(described) >= {*UTTERANCE_KEYS}
    assert set(described["hypotheses"]["items"]["properties"]) == {*HYPOTHESIS_KEYS}
    assert set(SCHEMAS["weights"]["properties"]) == {*Weights({}, by="x").to_json()}


def with_hypothesis(**keys: object) -> dict[str, object]:
    return {"id": "a", "hypotheses": [{"text": "x y", **keys}]}


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"id": "", "audio": "a.wav"},
        {"id": 3, "audio": "a.wav"},
        {"id": "a", "audio": 3},
        {"id": "a", "audio": "a.wav", "start_s": -1},
        {"id": "a", "audio": "a.wav", "duration_s": "3"},
        {"id": "a", "reference": ["x"]},
        {"id": "a", "hypotheses": {"text": "x"}},
        {"id": "a", "hypotheses": ["x"]},
        {"id": "a", "hypotheses": [{}]},
        with_hypothesis(scores={"asr": "low"}),
        with_hypothesis(scores=[1.0]),
        with_hypothesis(first_pass_rank=-1),
        with_hypothesis(posterior=1.5),
        with_hypothesis(word_confidence=[2.0, 0.5]),
        with_hypothesis(word_ends_s=[-1.0, 2.0]),
    ],
)
def test_what_the_reader_refuses_is_invalid(record: dict[str, object]) -> None:
    assert not is_valid("utterance", record)
    with pytest.raises(FormatError):
        line_to_nbest(json.dumps(record).encode(), "here:1")


@pytest.mark.parametrize(
    "record",
    [
        {"id": "a", "reference": ""},
        {"id": "a", "audio": "a.wav", "start_s": None, "yours": [1, {"b": None}]},
        {"id": "a", "hypotheses": []},
        with_hypothesis(scores={"asr": -1, "mine": 2.5}, word_ends_s=[0.5, 0.5], more="kept"),
    ],
)
def test_what_the_reader_takes_is_valid(record: dict[str, object]) -> None:
    assert is_valid("utterance", record)
    line_to_nbest(json.dumps(record).encode(), "here:1")


@pytest.mark.parametrize("bad", [{"values": {"asr": "1"}}, {}, {"values": {}, "more": 1}])
def test_weights_that_are_refused_are_invalid(bad: dict[str, object]) -> None:
    assert not is_valid("weights", bad)
    with pytest.raises(FormatError):
        Weights.from_json(bad)
