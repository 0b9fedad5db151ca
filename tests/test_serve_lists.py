"""`POST /v1/rescore` and `/v1/combine`, and the OpenAPI schema of all paths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import relisten
from relisten.io.native import nbest_to_line
from relisten.tasks.second_pass import SecondPass
from tiny_server import served, tiny_second_pass
from tiny_world import fill_cache

LIST = {
    "id": "utt-1",
    "audio": "/etc/hostname",
    "speaker": "s1",
    "hypotheses": [
        {"text": "a cat", "scores": {"asr": -3.0}},
        {"text": "a bat", "scores": {"asr": -3.5}},
        {"text": "A cat.", "scores": {"asr": -4.0}},
    ],
}


@pytest.fixture(scope="module")
def second_pass(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondPass]:
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, tmp_path_factory.mktemp("cache"))
        yield tiny_second_pass()


@pytest.fixture(scope="module")
def server(second_pass: SecondPass) -> Iterator[str]:
    with served(second_pass) as address:
        yield address


def test_rescore_does_what_python_does(server: str, tmp_path: Path) -> None:
    """Missing scores are added, keys are kept, and no path in a list is ever opened."""
    answer = httpx.post(f"{server}/v1/rescore", json={"utterances": [LIST]})
    assert answer.status_code == 200, answer.text
    [ranked] = answer.json()["utterances"]
    path = tmp_path / "nbest.jsonl"
    path.write_text(json.dumps({**LIST, "audio": None}))
    rescorer = relisten.Rescorer.from_pretrained()
    [wanted] = rescorer.rescore(relisten.load_nbest(path))
    assert ranked.pop("audio") == LIST["audio"]
    assert ranked == json.loads(nbest_to_line(wanted))
    assert [h["text"] for h in ranked["hypotheses"]] != []
    assert all("text" in h["scores"] for h in ranked["hypotheses"])


def test_rescore_takes_weights_and_phrases(server: str) -> None:
    for more, best in (
        ({"weights": {"values": {"asr": 1.0}}}, "a cat"),
        ({"weights": {"values": {"asr": -1.0}}}, "a bat"),
        ({"weights": {"values": {"asr": 1.0}}, "phrases": ["bat"]}, "a bat"),
    ):
        answer = httpx.post(f"{server}/v1/rescore", json={"utterances": [LIST], **more})
        assert answer.json()["utterances"][0]["hypotheses"][0]["text"] == best, more


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"utterances": [{"id": "x"}]}, "'x': has no hypotheses"),
        ({"utterances": [{"hypotheses": [{}]}]}, "utterances[0]"),
        ({"utterances": "no"}, "utterances"),
        ({"utterances": [LIST], "decision": "vote"}, "decision"),
        ({"utterances": [LIST], "weights": {"values": {"asr": "x"}}}, "'asr' is no number"),
        ({"utterances": [LIST], "weights": {"values": {"ctc": 1.0}}}, "no CTC head"),
        ({"utterances": [{"id": "x", "hypotheses": [{"text": "a"}] * 1001}]}, "1,001 hypotheses"),
    ],
)
def test_lists_that_do_not_fit(server: str, body: dict[str, Any], sentence: str) -> None:
    answer = httpx.post(f"{server}/v1/rescore", json=body)
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json()["error"]["message"]


def test_a_body_that_is_not_json(server: str) -> None:
    for path in ("rescore", "combine"):
        answer = httpx.post(
            f"{server}/v1/{path}", content=b"{", headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_combine_joins_and_ranks(server: str) -> None:
    systems = {"a": "the cat sat", "b": "the bat sat", "c": "the bat sat"}
    answer = httpx.post(f"{server}/v1/combine", json={"systems": systems, "id": "u"})
    [joined] = answer.json()["utterances"]
    assert joined["id"] == "u"
    assert joined["systems"] == systems
    assert [h["text"] for h in joined["hypotheses"]] == ["the bat sat", "the cat sat"]
    trusted = {"values": {"agreement.a": 1.0}}
    answer = httpx.post(f"{server}/v1/combine", json={"systems": systems, "weights": trusted})
    assert answer.json()["utterances"][0]["hypotheses"][0]["text"] == "the cat sat"
    for few in ({}, {"a": "x"}, {"a": {"hypotheses": []}, "b": {"hypotheses": []}}):
        assert httpx.post(f"{server}/v1/combine", json={"systems": few}).status_code == 400
