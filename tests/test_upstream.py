"""Another server as the first pass: its text comes first; what it does wrong is told in a sentence.

The stand-in is a few lines of the standard library; `relisten serve` itself is the other one.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from relisten.apps.cli import main
from relisten.core.types import UpstreamError, UsageError
from relisten.io import audio_api
from relisten.io.audio_api import AudioAPI
from tiny_server import served, tiny_second_pass
from tiny_world import fill_cache, write_noise

SAID = "hello there"
SPEECH = np.linspace(-0.5, 0.5, 16_000, dtype=np.float32)

Answer = Callable[["StandIn"], None]


class StandIn(BaseHTTPRequestHandler):
    """A server with OpenAI's audio API, as good or bad as its `answer`."""

    answer: Answer
    asked: list[tuple[str, str, bytes]]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.reply({"object": "list", "data": [{"id": "large"}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, self.headers.get("Authorization", ""), body))
        type(self).answer(self)

    def reply(self, content: object, status: int = 200, **headers: str) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def stand_in(answer: Answer) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """Its address, and what it is asked: path, authorisation, body."""
    asked: list[tuple[str, str, bytes]] = []
    handler = type("Handler", (StandIn,), {"answer": staticmethod(answer), "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def says(text: str, **more: object) -> Answer:
    return lambda self: self.reply({"text": text, **more})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_api, "FIRST_PAUSE_S", 0.001)
    monkeypatch.delenv(audio_api.KEY_VARIABLE, raising=False)


def test_a_request_has_the_fields_of_the_contract() -> None:
    with stand_in(says("  hello\n there ")) as (url, asked):
        said = AudioAPI(url + "/", "large", "de", "s3cret").transcribe(SPEECH)
    assert said.text == SAID
    [(path, authorisation, body)] = asked
    assert (path, authorisation) == ("/v1/audio/transcriptions", "Bearer s3cret")
    for name, value in {
        "model": "large",
        "response_format": "verbose_json",
        "language": "de",
    }.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body
    assert b'name="file"; filename="speech.wav"' in body
    assert body.count(b"RIFF") == 1
    assert (SPEECH * 32_767).astype("<i2").tobytes() in body


def test_a_server_that_has_json_alone_is_asked_for_that() -> None:
    def answer(self: StandIn) -> None:
        is_verbose = b"verbose_json" in self.asked[-1][2]
        error = {"error": {"message": "response_format 'verbose_json' is not compatible"}}
        self.reply(error, 400) if is_verbose else self.reply({"text": SAID})

    with stand_in(answer) as (url, asked):
        api = AudioAPI(url)
        assert [api.transcribe(SPEECH).text for _ in range(2)] == [SAID, SAID]
    assert len(asked) == 3, "the second time it is known"


def test_what_whisper_says_about_itself_is_read() -> None:
    segments = [
        {"no_speech_prob": 0.9, "avg_logprob": -1.5},
        {"no_speech_prob": 0.8, "avg_logprob": -1.2},
        "odd",
        {"no_speech_prob": None},
    ]
    with stand_in(says("Thank you.", segments=segments[:3])) as (url, _):
        said = AudioAPI(url).transcribe(SPEECH)
    assert (said.no_speech_prob, said.mean_logprob) == (0.8, -1.2)
    with stand_in(says("Thank you.", segments=segments)) as (url, _):
        assert AudioAPI(url).transcribe(SPEECH).no_speech_prob == 0.0


def test_it_asks_again_where_that_may_help() -> None:
    """Twice more, as OpenAI's client does."""
    statuses = [503, 429]

    def answer(self: StandIn) -> None:
        if statuses:
            self.reply({"error": {"message": "busy"}}, statuses.pop(), Retry_After="0")
        else:
            self.reply({"text": SAID})

    with stand_in(answer) as (url, asked):
        assert AudioAPI(url).transcribe(SPEECH).text == SAID
    assert len(asked) == 3


def drop(self: StandIn) -> None:
    self.connection.close()


def stall(self: StandIn) -> None:
    threading.Event().wait(1.0)


def drip(self: StandIn) -> None:
    self.send_response(200)
    self.end_headers()
    for _ in range(20):
        self.wfile.write(b" ")
        threading.Event().wait(0.05)


def echo_key(self: StandIn) -> None:
    said = f"no such key: {self.headers['Authorization']}"
    self.reply({"error": {"message": said}}, 401)


def elsewhere(self: StandIn) -> None:
    self.reply(b"", 307, Location="https://elsewhere.example/s3cret")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (drop, "cannot be reached"),
        (stall, "no answer within 0.3 s"),
        (drip, "no answer within 0.3 s"),
        (echo_key, r"refuses the key; set the right one in RELISTEN_UPSTREAM_KEY \(401: no such"),
        (elsewhere, r"sends us to https://elsewhere.example/\*\*\*; name that address"),
        (lambda self: self.reply(b"<html>", 404), "many addresses end in /v1"),
        (lambda self: self.reply({"error": 7}, 429, Retry_After="3600"), "is overloaded"),
        (lambda self: self.reply({"error": {"message": "too\nshort"}}, 400), r"\(400: too short\)"),
        (lambda self: self.reply(b"boom", 500), r"does not transcribe this \(500: boom\)"),
        (lambda self: self.reply(b""), "the answer is no transcript: ''"),
        (lambda self: self.reply(b"<!doctype html>"), "no transcript: '<!doctype html>'"),
        (lambda self: self.reply([SAID]), "no transcript"),
        (lambda self: self.reply({"text": None}), "no transcript"),
        (lambda self: self.reply({"words": []}), "no transcript"),
        (lambda self: self.reply(b'{"text": "\\ud800"}'), "no transcript"),
        (lambda self: self.reply(bytes(20_000)), "the answer is no transcript: it does not end"),
    ],
)
def test_what_a_server_does_wrong_is_one_sentence(
    answer: Answer, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its address, and never with the key."""
    monkeypatch.setattr(audio_api, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(audio_api, "MOST_BYTES", 10_000)
    with stand_in(answer) as (url, _), pytest.raises(UpstreamError) as caught:
        AudioAPI(url, key="s3cret").transcribe(SPEECH)
    message = str(caught.value)
    assert re.fullmatch(f"{url}: .*{sentence}.*", message), message
    assert "s3cret" not in message
    assert "s3cret" not in repr(AudioAPI(url, key="s3cret"))


def test_a_server_is_known_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its only model is taken, another one is refused, and so are addresses that are none."""
    monkeypatch.setenv(audio_api.KEY_VARIABLE, " s3cret\n")
    with stand_in(says(SAID)) as (url, _):
        api = AudioAPI.connect(url)
        assert (api.model, api.key) == ("large", "s3cret")
        with pytest.raises(UpstreamError, match="has no model 'small'; name one of large"):
            AudioAPI.connect(url, "small")
    with pytest.raises(UpstreamError, match=r"cannot be reached .*; start it, or correct"):
        AudioAPI.connect(url)
    for address in (
        "127.0.0.1:9000",
        "ftp://host/v1",
        "http://",
        "http://hôte/v1",
        "http://h:x/",
        "http://[::1",
    ):
        with pytest.raises(UsageError, match="is no address of a server"):
            AudioAPI.connect(address)
    with pytest.raises(UsageError, match="put the key into RELISTEN_UPSTREAM_KEY"):
        AudioAPI.connect("http://me:s3cret@127.0.0.1/v1")
    monkeypatch.setenv(audio_api.KEY_VARIABLE, "s3\ncret")
    with pytest.raises(UsageError, match="no key has such characters") as caught:
        AudioAPI.connect(url)
    assert "cret" not in str(caught.value)


# In both passes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, tmp_path_factory.mktemp("cache"))
        write_noise(folder / "a.wav", 1, 1.5)
        write_noise(folder / "long.wav", 2, 45.0)
        yield folder


def segments(server: str, path: Path) -> list[dict[str, object]]:
    answer = httpx.post(
        f"{server}/v1/audio/transcriptions",
        files={"file": path.read_bytes()},
        data={"model": "whisper-1", "include[]": "nbest"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    found: list[dict[str, object]] = answer.json()["segments"]
    return found


def test_its_text_is_the_first_pass_of_every_segment(world: Path) -> None:
    """The local recogniser's hypotheses stand beside it; all have all scores, and a text that does
    not win by the margin does not replace it."""
    with stand_in(says(SAID)) as (url, asked), served(tiny_second_pass(upstream=url)) as server:
        found = segments(server, world / "long.wav")
    assert len(asked) == len(found) > 1
    for segment in found:
        assert segment["first_pass_text"] == SAID
        assert len(segment["hypotheses"]) > 1
        assert segment["components"]["first_pass"] == 4.0
        kept = [one["scores"]["first_pass"] for one in segment["hypotheses"]]
        assert sum(kept) == 1


def test_a_text_that_the_local_recogniser_has_too_is_there_once(world: Path) -> None:
    with served(tiny_second_pass()) as server:
        [alone] = segments(server, world / "a.wav")
    text = alone["hypotheses"][-1]["text"]
    with stand_in(says(text)) as (url, _), served(tiny_second_pass(upstream=url)) as server:
        [segment] = segments(server, world / "a.wav")
    texts = [one["text"] for one in segment["hypotheses"]]
    assert sorted(texts) == sorted(one["text"] for one in alone["hypotheses"])
    assert segment["first_pass_text"] == text


def test_relisten_behind_relisten(world: Path) -> None:
    """The upstream's own choice is the first pass's text of the other one."""
    with served(tiny_second_pass()) as first:
        own = [one["text"] for one in segments(first, world / "long.wav")]
        behind = tiny_second_pass(upstream=f"{first}/v1", upstream_model="relisten")
        with served(behind) as second:
            found = segments(second, world / "long.wav")
    assert [one["first_pass_text"] for one in found] == own
    assert any(own)


def test_the_command_writes_what_the_server_answers(world: Path) -> None:
    path = world / "long.wav"
    with stand_in(says(SAID)) as (url, _):
        command = ["transcribe", str(path), "--format", "srt", "--quiet", "--upstream", url]
        done = CliRunner().invoke(main, command)
        with served(tiny_second_pass(upstream=url)) as server:
            answer = httpx.post(
                f"{server}/v1/audio/transcriptions",
                files={"file": path.read_bytes()},
                data={"model": "whisper-1", "response_format": "srt"},
                timeout=60,
            )
    assert done.exit_code == 0, done.output
    assert done.stdout == answer.text


def test_a_failing_upstream_is_a_bad_gateway(world: Path) -> None:
    """502 in OpenAI's form, in a stream as an event; other requests and the server go on."""
    is_broken = threading.Event()

    def answer(self: StandIn) -> None:
        self.reply(b"no", 500) if is_broken.is_set() else self.reply({"text": SAID})

    with stand_in(answer) as (url, _), served(tiny_second_pass(upstream=url)) as server:
        is_broken.set()
        for stream in ("false", "true"):
            given = httpx.post(
                f"{server}/v1/audio/transcriptions",
                files={"file": (world / "a.wav").read_bytes()},
                data={"model": "whisper-1", "stream": stream},
                timeout=60,
            )
            assert given.status_code == (502 if stream == "false" else 200)
            error = json.loads(given.text.removeprefix("data: "))["error"]
            assert (error["type"], error["code"]) == ("server_error", "upstream")
            assert error["message"].startswith(f"{url}: does not transcribe this (500: no)")
        is_broken.clear()
        assert segments(server, world / "a.wav")


def test_the_command_ends_with_a_sentence_and_goes_on_later(world: Path, tmp_path: Path) -> None:
    """Of nine recordings the eight that were finished are kept, and not asked for again; the bytes
    are those of a run that nobody disturbed."""
    folder = tmp_path / "talks"
    folder.mkdir()
    for number in range(9):
        write_noise(folder / f"{number}.wav", number, 0.5)
    made, left = tmp_path / "texts.json", [1_000]

    def answer(self: StandIn) -> None:
        left[0] -= 1
        self.reply({"text": SAID}) if left[0] >= 0 else self.reply(b"no", 422)

    with stand_in(answer) as (url, asked):
        command = ["transcribe", str(folder), "--format", "json", "--quiet"]
        command += ["--upstream", url]
        run = CliRunner().invoke
        whole = run(main, command).stdout
        left[0] = 8
        done = run(main, [*command, "-o", str(made)])
        assert (done.exit_code, made.exists()) == (2, False)
        assert "does not transcribe this (422: no)" in done.stderr
        left[0], n_before = 1_000, len(asked)
        done = run(main, [*command, "-o", str(made), "--resume"])
        assert done.exit_code == 0, done.output
        assert len(asked) - n_before == 1
    assert made.read_text() == whole
