"""A real server on a port of its own, on tiny models."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import uvicorn

from relisten.apps.serve.app import Service, ServiceOptions
from relisten.apps.serve.command import load_second_pass
from relisten.apps.serve.protocol import ImpatientProtocol
from relisten.core.combine import Weights
from relisten.core.types import Hypothesis, NBest
from relisten.speech.first_pass import DecodingOptions
from relisten.tasks.defaults import MODEL
from relisten.tasks.ranking import rank
from relisten.tasks.second_pass import SecondPass, SecondPassOptions

MODELS = {
    "model": MODEL,
    "first_pass": (),
    "language": None,
    "phrases": None,
    "weights": None,
    "device": "auto",
    "dtype": "auto",
    "upstream": None,
    "upstream_model": None,
}


def tiny_second_pass(**given: Any) -> SecondPass:
    """What `relisten serve` loads without options, in a world of tiny models."""
    return load_second_pass({**MODELS, **given})[0]


class ScriptedPass:
    """In the place of a second pass: known lists for the segments of a recording, one each, in
    turn; no model is needed, and what is tested is the server or its page."""

    max_duration_s = 15.0
    name, encoder = "scripted", SimpleNamespace(id="scripted")
    decoding, options = DecodingOptions(), SecondPassOptions()
    rescorer = object()

    def __init__(self, script: Sequence[NBest], weights: Weights) -> None:
        self.weights, self._script = weights, script
        self.first_passes = [self]

    def run(
        self, utterances: Sequence[NBest], recordings: Sequence[np.ndarray], clock: object = None
    ) -> list[NBest]:
        numbers = [int(float(one.id.rpartition(":")[2]) // 7.5) for one in utterances]
        script = [self._script[number % len(self._script)] for number in numbers]
        ranked = [rank(one, self.weights) for one in script]
        return [
            replace(one, hypotheses=(self._timed(one.hypotheses[0], len(x) / 16_000), *rest))
            for one, x in zip(ranked, recordings, strict=True)
            for rest in [one.hypotheses[1:]]
        ]

    @staticmethod
    def _timed(hypothesis: Hypothesis, duration_s: float) -> Hypothesis:
        n = len(hypothesis.text.split())
        step_s = duration_s / max(n, 1)
        return replace(
            hypothesis,
            word_starts_s=tuple(step_s * k for k in range(n)),
            word_ends_s=tuple(step_s * (k + 0.9) for k in range(n)),
        )

    def tokens(self, text: str) -> tuple[int, ...]:
        return tuple(range(len(text.split())))


@contextmanager
def served(second_pass: Any, options: ServiceOptions | None = None) -> Iterator[str]:
    """The address of a server, which ends as it does on SIGTERM."""
    options = options or ServiceOptions()
    service = Service(second_pass, options)
    config = uvicorn.Config(service.asgi, log_level="warning", http=ImpatientProtocol, ws="none")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
