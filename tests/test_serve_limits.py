"""What the server refuses before it works: strangers, too much, too many; and how it ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner

from relisten.apps.cli import main
from relisten.apps.serve.app import ServiceOptions
from relisten.apps.serve.gate import Limits
from relisten.core.combine import Weights
from relisten.core.types import NBest
from relisten.tasks.second_pass import SecondPass
from tiny_server import ScriptedPass, served, tiny_second_pass
from tiny_world import fill_cache, write_noise

URL = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, tmp_path_factory.mktemp("cache"))
        write_noise(folder / "a.wav", 1, 1.0)
        write_noise(folder / "long.wav", 2, 100.0)
        yield folder


@pytest.fixture(scope="module")
def second_pass(world: Path) -> SecondPass:
    return tiny_second_pass()


class Held:
    """A second pass that works when it is told to, and notes what it was given."""

    def __init__(self, inner: SecondPass) -> None:
        self.inner, self.batches = inner, list[list[str]]()
        self.gate, self.entered = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, utterances: Sequence[NBest], *rest: Any) -> list[NBest]:
        self.batches.append([one.id for one in utterances])
        self.entered.set()
        assert self.gate.wait(20)
        return self.inner.run(utterances, *rest)


def post(server: str, path: Path, **more: object) -> httpx.Response:
    with path.open("rb") as file:
        return httpx.post(
            f"{server}{URL}",
            files={"file": file},
            data={"model": "whisper-1"},
            timeout=60,
            **more,
        )


def test_a_token_is_wanted_for_all_but_the_page_and_health(
    second_pass: SecondPass, world: Path
) -> None:
    with served(second_pass, ServiceOptions(token="s3cret")) as server:
        for path in ("/", "/script.js", "/health", "/ready"):
            assert httpx.get(server + path).status_code == 200
        for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}):
            for path in ("/v1/models", "/metrics"):
                assert httpx.get(server + path, headers=headers).status_code == 401
            answer = post(server, world / "a.wav", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        with openai.OpenAI(base_url=f"{server}/v1", api_key="s3cret") as client:
            assert client.models.list().data
        with (
            openai.OpenAI(base_url=f"{server}/v1", api_key="wrong") as client,
            pytest.raises(openai.AuthenticationError, match="wants its token"),
        ):
            client.models.list()


def test_pages_of_others_and_other_names_are_refused(second_pass: SecondPass) -> None:
    """A web page can send to this machine what its visitor's browser can; it may not."""
    options = ServiceOptions(hosts=("127.0.0.1", "localhost"))
    with served(second_pass, options) as server:
        own = {"Origin": server}
        assert httpx.get(f"{server}/v1/models", headers=own).status_code == 200
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            answer = httpx.get(f"{server}/v1/models", headers=headers)
            assert answer.status_code == 403, headers


def test_what_is_too_large_or_too_long(second_pass: SecondPass, world: Path) -> None:
    """Told by its stated size before it is read, else while it is read."""
    limits = Limits(max_bytes=100_000, max_duration_s=2.0)
    with served(second_pass, ServiceOptions(limits=limits)) as server:
        assert post(server, world / "a.wav").status_code == 200
        address = server.removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1]))) as stranger:
            stranger.sendall(
                f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode()
            )
            stranger.settimeout(10)
            assert stranger.recv(100).startswith(b"HTTP/1.1 413")

        def endless() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            yield from (bytes(10_000) for _ in range(100))

        answer = httpx.post(
            server + URL,
            content=endless(),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, None)
    with served(second_pass, ServiceOptions(limits=Limits(max_duration_s=2.0))) as server:
        answer = post(server, world / "long.wav")
        assert answer.status_code == 400
        assert "lasts more than 2 s" in answer.json()["error"]["message"]


def test_a_full_queue_says_when_to_come_back(second_pass: SecondPass, world: Path) -> None:
    held = Held(second_pass)
    with served(held, ServiceOptions(limits=Limits(queue=1))) as server:
        answers = []
        first = threading.Thread(target=lambda: answers.append(post(server, world / "a.wav")))
        first.start()
        assert held.entered.wait(20)
        answer = post(server, world / "a.wav")
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert answer.json()["error"]["code"] == "queue_full"
        assert httpx.get(f"{server}/health").status_code == 200
        held.gate.set()
        first.join()
        assert answers[0].status_code == 200
        assert post(server, world / "a.wav").status_code == 200


def test_a_client_that_leaves_frees_the_models(second_pass: SecondPass, world: Path) -> None:
    """Of the four segments of a recording none is worked on once nobody waits for them."""
    held = Held(second_pass)
    with served(held, ServiceOptions(batch_size=1)) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                server + URL,
                files={"file": (world / "long.wav").read_bytes()},
                data={"model": "whisper-1"},
                timeout=httpx.Timeout(60, read=5.0),
            )
        assert held.entered.is_set()
        time.sleep(0.3)
        held.gate.set()
        assert post(server, world / "a.wav").status_code == 200
        assert len(held.batches) == 2, held.batches


def test_a_request_that_takes_too_long(second_pass: SecondPass, world: Path) -> None:
    held = Held(second_pass)
    with served(held, ServiceOptions(limits=Limits(timeout_s=0.5))) as server:
        answer = post(server, world / "a.wav")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
        assert answer.headers["x-should-retry"] == "false"
        held.gate.set()


def test_a_fault_of_one_request_is_not_the_others(
    second_pass: SecondPass, world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two are in one batch; one of them makes the models fail."""

    class Faulty(Held):
        def run(self, utterances: Sequence[NBest], *rest: Any) -> list[NBest]:
            ranked = super().run(utterances, *rest)
            if any(one.id.startswith("evil") for one in utterances):
                raise ZeroDivisionError("secret path")
            return ranked

    faulty = Faulty(second_pass)
    answers: dict[str, httpx.Response] = {}

    def ask(name: str) -> None:
        content = (world / "a.wav").read_bytes()
        answers[name] = httpx.post(
            server + URL, files={"file": (name, content)}, data={"model": "whisper-1"}, timeout=60
        )

    with served(faulty) as server:
        threads = [threading.Thread(target=ask, args=(n,)) for n in ("first", "evil", "good")]
        threads[0].start()
        assert faulty.entered.wait(20)
        for thread in threads[1:]:
            thread.start()
        time.sleep(0.7)  # both wait behind the first
        faulty.gate.set()
        for thread in threads:
            thread.join()
    assert {"evil:0.000", "good:0.000"} in [set(batch) for batch in faulty.batches]
    assert {name: one.status_code for name, one in answers.items()} == {
        "first": 200,
        "evil": 500,
        "good": 200,
    }
    assert "secret" not in answers["evil"].text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "0.0.0.0"], "others could use this server"),
        (["--token-file", "empty"], "holds no token"),
    ],
)
def test_a_server_for_others_wants_a_token(
    options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    done = CliRunner().invoke(main, ["serve", *options])
    assert (done.exit_code, sentence in done.stderr) == (2, True), done.output


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relisten.apps.serve.command.find_spec", lambda name: None)
    done = CliRunner().invoke(main, ["serve"])
    assert done.exit_code == 2
    assert "run `pip install 'relisten[serve]'`" in done.stderr


def test_it_finishes_what_it_accepted(second_pass: SecondPass, world: Path) -> None:
    """The server is told to end while it works: the answer comes first, and nobody else's."""
    held, answers = Held(second_pass), []
    with served(held) as server:
        asking = threading.Thread(target=lambda: answers.append(post(server, world / "a.wav")))
        asking.start()
        assert held.entered.wait(20)
        threading.Timer(0.5, held.gate.set).start()
    asking.join()
    assert answers[0].status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server}/health")


def test_rubbish_on_the_wire(second_pass: SecondPass, world: Path) -> None:
    """Half a body, a body that stalls, no HTTP at all: the others are served."""
    with pytest.MonkeyPatch.context() as patch, served(second_pass) as server:
        patch.setattr("relisten.apps.serve.gate.IDLE_S", 0.3)
        host, port = server.removeprefix("http://").split(":")
        head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        with socket.create_connection((host, int(port))) as vanishing:
            vanishing.sendall(head.encode())
        with socket.create_connection((host, int(port))) as noise:
            noise.sendall(bytes(range(256)))
            assert noise.recv(100).startswith(b"HTTP/1.1 400")
        with socket.create_connection((host, int(port))) as stalling:
            stalling.sendall(head.encode())
            stalling.settimeout(10)
            assert stalling.recv(100).startswith(b"HTTP/1.1 408")
        assert post(server, world / "a.wav").status_code == 200


def test_a_head_or_a_body_that_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then holds no connection; slow-loris clients do so by the hundred."""
    monkeypatch.setattr("relisten.apps.serve.protocol.HEAD_S", 0.5)
    monkeypatch.setattr("relisten.apps.serve.gate.IDLE_S", 0.5)
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    head += '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
    with served(ScriptedPass([], Weights({}))) as server:
        for begin in ("", "GET /health HTTP/1.1\r\nHost: x\r\n", head):
            started = time.monotonic()
            assert trickled(server, begin).startswith(b"HTTP/1.1 408"), begin
            assert time.monotonic() - started < 3.0
        with httpx.Client() as client:  # an open connection that is not used is no fault
            assert client.get(f"{server}/health").status_code == 200
            time.sleep(0.7)
            assert client.get(f"{server}/health").status_code == 200


def trickled(server: str, begin: str) -> bytes:
    """What a client gets that sends a byte every 50 ms."""
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.settimeout(0.05)
        client.sendall(begin.encode())
        for _ in range(100):
            with suppress(TimeoutError):
                return client.recv(100)
            client.sendall(b"a")
    return b""
