"""`relisten serve`: the official client gets what the command writes; errors are OpenAI's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner

from relisten.apps.cli import main
from relisten.tasks.second_pass import SecondPass
from tiny_server import served, tiny_second_pass
from tiny_world import fill_cache, write_noise


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with recordings, beside a cache of tiny models."""
    folder = tmp_path_factory.mktemp("recordings")
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, tmp_path_factory.mktemp("cache"))
        write_noise(folder / "short.wav", 1, 1.5)
        write_noise(folder / "long.wav", 2, 45.0)
        yield folder


@pytest.fixture(scope="module")
def second_pass(world: Path) -> SecondPass:
    return tiny_second_pass()


@pytest.fixture(scope="module")
def server(second_pass: SecondPass) -> Iterator[str]:
    with served(second_pass) as address:
        yield address


@pytest.fixture
def client(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        yield client


def command(path: Path, format: str, *more: str) -> str:
    done = CliRunner().invoke(main, ["transcribe", str(path), "--format", format, "--quiet", *more])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("name", ["short.wav", "long.wav"])
def test_the_official_client_gets_what_the_command_writes(
    client: openai.OpenAI, world: Path, name: str
) -> None:
    path = world / name
    texts = {}
    for format in ("text", "srt", "vtt"):
        with path.open("rb") as file:
            texts[format] = client.audio.transcriptions.create(
                file=file, model="whisper-1", response_format=format
            )
        assert texts[format] == command(path, format)
    assert texts["text"].strip()
    with path.open("rb") as file:
        answer = client.audio.transcriptions.create(file=file, model="whisper-1")
    assert answer.text == texts["text"].rstrip("\n")


def post(server: str, path: Path, **fields: object) -> httpx.Response:
    data = {"model": "whisper-1", **fields}
    with path.open("rb") as file:
        return httpx.post(
            f"{server}/v1/audio/transcriptions", files={"file": file}, data=data, timeout=60
        )


def test_verbose_json_has_the_times_of_the_command(client: openai.OpenAI, world: Path) -> None:
    """Without granularities it has segments; with words, theirs are the command's."""
    path = world / "long.wav"
    written = json.loads(command(path, "json"))
    with path.open("rb") as file:
        plain = client.audio.transcriptions.create(
            file=file, model="whisper-1", response_format="verbose_json"
        )
    assert (plain.text, plain.words) == (written["text"], None)
    assert (plain.duration, plain.language) == (45.0, "english")
    assert plain.usage is not None
    assert plain.usage.seconds == 45
    assert plain.segments is not None
    spoken = [one for one in written["segments"] if one["text"]]
    assert [(s.start, s.end, s.text) for s in plain.segments] == [
        (one["start_s"], one["end_s"], one["text"]) for one in spoken
    ]
    assert all(s.avg_logprob < 0 and s.tokens for s in plain.segments)
    with path.open("rb") as file:
        timed = client.audio.transcriptions.create(
            file=file,
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )
    assert timed.segments is None
    assert timed.words is not None
    assert [(w.word, w.end) for w in timed.words] == [
        (word["text"], word["end_s"]) for one in written["segments"] for word in one["words"]
    ]
    assert all(word.start <= word.end for word in timed.words)


def test_logprobs_are_those_of_the_words(client: openai.OpenAI, world: Path) -> None:
    path = world / "short.wav"
    with path.open("rb") as file:
        answer = client.audio.transcriptions.create(
            file=file, model="whisper-1", include=["logprobs"]
        )
    assert answer.logprobs is not None
    words = json.loads(command(path, "json"))["segments"][0]["words"]
    assert [one.token for one in answer.logprobs] == [word["text"] for word in words]
    assert bytes(map(int, answer.logprobs[0].bytes or [])).decode() == words[0]["text"]
    for one, word in zip(answer.logprobs, words, strict=True):
        assert math.exp(one.logprob or 0.0) == pytest.approx(word["confidence"], abs=1e-3)


def test_a_stream_has_a_delta_a_segment(client: openai.OpenAI, world: Path) -> None:
    path = world / "long.wav"
    with path.open("rb") as file:
        events = list(client.audio.transcriptions.create(file=file, model="whisper-1", stream=True))
    deltas = [one.delta for one in events if one.type == "transcript.text.delta"]
    done = events[-1]
    assert done.type == "transcript.text.done"
    assert len(deltas) == len([s for s in _segments(path) if s["text"]]) > 1
    assert "".join(deltas) == done.text == command(path, "text").rstrip("\n")


def _segments(path: Path) -> list[dict[str, Any]]:
    segments: list[dict[str, Any]] = json.loads(command(path, "json"))["segments"]
    return segments


def test_a_segment_shows_what_each_score_counted_for(server: str, world: Path) -> None:
    """The chosen hypothesis has the highest sum of weight times score."""
    answer = post(server, world / "long.wav", **{"include[]": "nbest"}).json()
    assert answer["duration"] == 45.0
    assert len(answer["segments"]) > 1
    for segment in answer["segments"]:
        assert set(segment["components"]) == {"asr", "text", "length", "context"}
        sums = summed(segment)
        assert max(sums) == pytest.approx(sums[0], abs=1e-3)
        assert segment["text"] == segment["hypotheses"][0]["text"]
        assert all(word["start_s"] <= word["end_s"] for word in segment["words"])


def summed(segment: dict[str, Any]) -> list[float]:
    """Weight times score, summed, of each hypothesis."""
    weights = segment["components"]
    return [
        sum(weights[name] * score for name, score in one["scores"].items())
        for one in segment["hypotheses"]
    ]


def test_keywords_and_prompt_are_expected_phrases(
    client: openai.OpenAI, server: str, world: Path, tmp_path: Path
) -> None:
    """A hypothesis less than two nats behind wins where it holds a phrase, as with --phrases."""
    path, phrases = world / "names.wav", tmp_path / "phrases.txt"
    write_noise(path, 0, 4.0)
    [segment] = post(server, path, **{"include[]": "nbest"}).json()["segments"]
    sums, texts = summed(segment), [one["text"] for one in segment["hypotheses"]]
    expected = next(
        t for t, s in zip(texts[1:], sums[1:], strict=True) if t.isalpha() and sums[0] - s < 1.9
    )
    phrases.write_text(f"{expected}\nsomebody\n")
    assert command(path, "text", "--phrases", str(phrases)).strip() == expected
    for more in (
        {"extra_body": {"keywords": [expected, "somebody"]}},
        {"prompt": f"somebody; {expected}.\nA sentence that has more than five words, else"},
    ):
        with path.open("rb") as file:
            answer = client.audio.transcriptions.create(file=file, model="whisper-1", **more)
        assert answer.text == expected != segment["text"]


def test_requests_at_one_time_are_not_mixed_up(server: str, world: Path) -> None:
    """Ten at once, of many lengths, some with phrases: each gets what it gets alone."""
    paths = []
    for seed in range(10):
        paths.append(world / f"{seed}.wav")
        write_noise(paths[-1], seed, 0.5 + 2.0 * (seed % 5))

    def scores(seed: int) -> list[float]:
        phrases = ["abcd"] if seed % 3 == 0 else []
        answer = post(server, paths[seed], **{"keywords[]": phrases, "include[]": "nbest"})
        [segment] = answer.json()["segments"]
        return [score for one in segment["hypotheses"] for score in one["scores"].values()]

    alone = [scores(seed) for seed in range(10)]
    assert len({tuple(one) for one in alone}) == 10
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(scores, range(10)))
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=2e-3)
    text = httpx.get(f"{server}/metrics").text
    [batches] = re.findall(r"^relisten_batch_segments_count (\S+)", text, re.M)
    [segments] = re.findall(r"^relisten_batch_segments_sum (\S+)", text, re.M)
    assert float(segments) > float(batches), "some were batched"


def test_the_command_has_the_options_of_transcribe() -> None:
    """Those that decide the text, with the same defaults."""
    own = {"host", "port", "token_file", "no_token", "alias"}
    own |= {"max_size", "max_duration", "queue", "timeout"}
    serve = {one.name: one.default for one in main.commands["serve"].params}
    transcribe = {one.name: one.default for one in main.commands["transcribe"].params}
    cues = ("max_cue_s", "min_cue_s", "line_width", "cue_lines")
    for name in ("audio", "output", "output_dir", "format", "channels", "resume", *cues):
        del transcribe[name]
    assert {name: value for name, value in serve.items() if name not in own} == transcribe


def test_models(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["relisten", "whisper-1"]
    assert client.models.retrieve("whisper-1").owned_by == "relisten"
    with pytest.raises(openai.NotFoundError, match="this server has relisten, whisper-1"):
        client.models.retrieve("gpt-5")


@pytest.mark.parametrize(
    ("fields", "param", "sentence"),
    [
        ({"response_format": "xml"}, "response_format", "'json'.*not 'xml'"),
        ({"response_format": "diarized_json"}, "response_format", "does not tell speakers apart"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]", "verbose_json"),
        ({"include[]": "logprobs", "response_format": "text"}, "include[]", "needs .* json"),
        ({"stream": "true", "response_format": "srt"}, "stream", "needs .* json, not srt"),
        ({"temperature": "2"}, "temperature", "less than or equal to 1, not '2'"),
        ({"language": "de"}, "language", "transcribes 'en'"),
        ({"model": "gpt-5"}, "model", "this server has"),
    ],
)
def test_fields_that_do_not_fit(
    server: str, world: Path, fields: dict[str, str], param: str, sentence: str
) -> None:
    answer = post(server, world / "short.wav", **fields)
    assert answer.status_code == (404 if param == "model" else 400)
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert re.search(sentence, error["message"]), error["message"]


def test_a_form_without_its_fields(server: str) -> None:
    url = f"{server}/v1/audio/transcriptions"
    answer = httpx.post(url, data={"model": "whisper-1"}, files={"other": b"x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    answer = httpx.post(url, data={"model": "whisper-1", "file": "no file"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    answer = httpx.post(url, json={"model": "whisper-1"})
    assert answer.status_code == 400
    answer = httpx.post(
        url, content=b"junk", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 400
    assert httpx.get(url).status_code == 405
    assert httpx.get(f"{server}/nowhere").json()["error"]["message"] == "GET /nowhere: not found"
