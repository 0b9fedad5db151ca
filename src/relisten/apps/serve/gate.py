"""What is decided before the body of a request is read: who may ask, how much, and how many."""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relisten.apps.serve.errors import answer_http, refusal

IDLE_S = 30.0
"""A body of which nothing arrives for so long is given up."""
LEAST_BYTES_S = 1_000
"""Of a body, a second, `IDLE_S` aside: a client that sends a byte now and then is given up, too."""
JSON_BYTES = 16 << 20
"""Of a request that is no form."""
DRAINED_BYTES, DRAIN_S = 8 << 20, 1.0
"""Of the body of a refused request, so much is read: many clients read no answer before they have
sent all, and a connection closed under them is an error to them that says nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes."""

    max_bytes: int = 512 << 20
    """Of one request."""
    max_duration_s: float = 4 * 3600.0
    """Of one recording."""
    queue: int = 64
    """Requests that are worked on or waiting; more are told to come back."""
    timeout_s: float = 600.0
    """For one request, from its end of upload to its answer."""


class Gate:
    """ASGI middleware in front of the app.

    token: that requests to the API must carry; None: none. hosts: names under which a server
    without a token may be addressed, so that no web page reaches it by a name of its own; empty:
    any. backlog_s: how long the waiting work will take. observe: told of each request its path,
    status and seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        token: str | None,
        hosts: tuple[str, ...],
        backlog_s: Callable[[], float],
        observe: Callable[[str, int, float], None],
    ) -> None:
        self._app, self._limits, self._token, self._hosts = app, limits, token, hosts
        self._backlog_s, self._observe = backlog_s, observe
        self.n_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, started, status = Request(scope), monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pass(request, receive, noted)
        finally:
            self._observe(request.url.path, status, monotonic() - started)

    async def _pass(self, request: Request, receive: Receive, send: Send) -> None:
        is_work = request.method == "POST" and request.url.path.startswith("/v1/")
        try:
            self._check_sender(request)
            if is_work:
                self._check_size(request)
                self._check_queue()
        except HTTPException as error:
            await _drain(receive)
            await (await answer_http(request, error))(request.scope, receive, send)
            return
        if not is_work:
            await self._app(request.scope, receive, send)
            return
        self.n_open += 1
        try:
            await self._app(request.scope, self._limited(receive, self._most(request)), send)
        finally:
            self.n_open -= 1

    def _check_sender(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if self._hosts and urlsplit(f"//{host}").hostname not in self._hosts:
            raise refusal(403, f"this server is not called {host!r}; ask 127.0.0.1")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise refusal(403, f"a page of {origin} may not use this server")
        is_open = not request.url.path.startswith(("/v1/", "/metrics"))
        if self._token is None or is_open:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode(), self._token.encode()
        ):
            raise refusal(
                401,
                "this server wants its token: send Authorization: Bearer TOKEN (the client's "
                "api_key)",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_size(self, request: Request) -> None:
        stated = request.headers.get("content-length", "0")
        if stated.isdecimal() and int(stated) > self._most(request):
            raise _too_large(self._most(request))

    def _most(self, request: Request) -> int:
        """The largest body, bytes: a form goes to a file, JSON into memory."""
        is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
        return self._limits.max_bytes if is_form else min(self._limits.max_bytes, JSON_BYTES)

    def _check_queue(self) -> None:
        if self.n_open >= self._limits.queue:
            wait_s = max(1, min(60, math.ceil(self._backlog_s())))
            raise refusal(
                429,
                f"{self.n_open} requests are being worked on; come back in {wait_s} s",
                code="queue_full",
                headers={"Retry-After": str(wait_s)},
            )

    def _limited(self, receive: Receive, most: int) -> Receive:
        """The same body, which may not stall nor be larger than allowed."""
        n_bytes, is_whole, started = 0, False, monotonic()

        async def limited() -> Message:
            nonlocal n_bytes, is_whole
            late_s = max(0.0, monotonic() - started - n_bytes / LEAST_BYTES_S)
            if not is_whole and late_s >= IDLE_S:  # what arrives now and then ends no wait
                raise _too_slow()
            try:
                message = await asyncio.wait_for(receive(), None if is_whole else IDLE_S - late_s)
            except TimeoutError:
                raise _too_slow() from None
            if message["type"] == "http.request":
                n_bytes += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if n_bytes > most:
                    raise _too_large(most)
            return message

        return limited


def _too_slow() -> HTTPException:
    return refusal(408, "the body stalls, or arrives too slowly; send it again")


def _too_large(most: int) -> HTTPException:
    return refusal(413, f"the request is larger than {most / (1 << 20):g} MiB; send less at once")


async def _drain(receive: Receive) -> None:
    n_bytes, is_whole = 0, False
    try:
        async with asyncio.timeout(DRAIN_S):
            while not is_whole and n_bytes < DRAINED_BYTES:
                message = await receive()
                n_bytes += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
    except TimeoutError:
        pass
