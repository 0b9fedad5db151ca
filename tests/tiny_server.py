"""A real server on a port of its own, on tiny models."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from relisten.apps.serve.app import Service, ServiceOptions
from relisten.apps.serve.command import load_second_pass
from relisten.tasks.defaults import MODEL
from relisten.tasks.second_pass import SecondPass

MODELS = {
    "model": MODEL,
    "first_pass": (),
    "language": None,
    "phrases": None,
    "weights": None,
    "device": "auto",
    "dtype": "auto",
}


def tiny_second_pass(**given: Any) -> SecondPass:
    """What `relisten serve` loads without options, in a world of tiny models."""
    return load_second_pass({**MODELS, **given})[0]


@contextmanager
def served(second_pass: SecondPass, options: ServiceOptions | None = None) -> Iterator[str]:
    """The address of a server, which ends as it does on SIGTERM."""
    options = options or ServiceOptions()
    service = Service(second_pass, options)
    config = uvicorn.Config(service.asgi, log_level="warning", http="h11", ws="none")
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
