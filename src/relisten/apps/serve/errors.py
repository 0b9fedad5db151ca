"""Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from relisten.core.types import RelistenError, UpstreamError

LEFT = 499
"""The status, never sent, of a request whose client left."""

log = logging.getLogger("relisten.serve")


class ErrorDetail(BaseModel):
    """One error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not 200."""

    error: ErrorDetail


ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in (
        (400, "The request, or the recording, does not fit."),
        (401, "The token is missing or wrong."),
        (403, "The page or the host name is not this server's own."),
        (404, "There is no such model or path."),
        (405, "The path has other methods."),
        (408, "The body stalled."),
        (413, "The request is too large."),
        (429, "Too many requests are waiting; `Retry-After` says when to come back."),
        (500, "A fault of the server."),
        (502, "The server before this one gave no transcript."),
        (503, "Not finished in time, or shutting down."),
    )
}
"""What every path may answer, for the OpenAPI schema."""


def refusal(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> HTTPException:
    """The exception that answers a request with this error."""
    return HTTPException(status, _detail(status, message, param, code), dict(headers or {}))


def error_body(error: Exception) -> dict[str, Any]:
    """The answer's body for an exception; of our own faults no more than that they are ours."""
    if isinstance(error, HTTPException):
        return {"error": error.detail}
    if isinstance(error, UpstreamError):
        return {"error": _detail(502, str(error), None, "upstream")}
    if isinstance(error, RelistenError):
        return {"error": _detail(400, str(error), None, None)}
    return {"error": _detail(500, "a fault of relisten, written to its log", None, None)}


def log_fault(error: Exception) -> None:
    """Write a fault of ours to the log; what is the input's goes to the client alone."""
    if not isinstance(error, HTTPException | RelistenError):
        log.error("a fault of relisten", exc_info=error)


async def answer_http(request: Request, error: Exception) -> JSONResponse:
    """The answer for an HTTPException, of ours or of Starlette's own."""
    status, detail = error.status_code, error.detail  # type: ignore[attr-defined]
    if not isinstance(detail, dict):
        message = f"{request.method} {request.url.path}: {str(detail).lower()}"
        detail = _detail(status, message, None, None)
    headers = getattr(error, "headers", None)
    return JSONResponse({"error": detail}, status, headers)


async def answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """The answer for a request whose fields do not fit."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    param = ".".join(path) or None
    got = first.get("input")
    given = "" if first["type"] == "missing" or isinstance(got, dict) else f", not {_short(got)}"
    message = f"{param or 'the body'}: {first['msg'][:1].lower()}{first['msg'][1:]}{given}"
    return JSONResponse({"error": _detail(400, message, param, None)}, 400)


async def answer_ours(request: Request, error: Exception) -> JSONResponse:
    """The answer for a RelistenError: the input is at fault, or the server before this one."""
    return JSONResponse(error_body(error), 502 if isinstance(error, UpstreamError) else 400)


async def answer_fault(request: Request, error: Exception) -> JSONResponse:
    """The answer for everything else: the server is at fault. Its log has the traceback."""
    return JSONResponse(error_body(error), 500)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _detail(status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"message": message, "type": kind, "param": param, "code": code}
