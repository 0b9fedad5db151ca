"""What holds for every test."""

from __future__ import annotations

import os
import socket

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

    def refuse(host: object, *_: object, **__: object) -> None:
        raise OSError(f"a test asks for {host!r}; mark it slow if it needs a network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
