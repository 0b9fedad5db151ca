"""What holds for every test."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

# Tests run side by side, one process a core: more threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves the machine, be it pip, the hub or a socket, unless a test is marked slow."""
    if request.node.get_closest_marker("slow"):
        return
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    resolve = socket.getaddrinfo

    def refuse(host: object, *rest: Any, **more: Any) -> Any:
        if host == "127.0.0.1":  # a server that the test itself started
            return resolve("127.0.0.1", *rest, **more)
        raise OSError(f"a test asks for {host!r}; mark it slow if it needs a network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
