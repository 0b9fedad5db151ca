"""A client of OpenAI's audio API: what another server says of a recording."""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import time
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from typing import Any, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np

from relisten.core.types import UpstreamError, UsageError
from relisten.io.audio import RATE_HZ

KEY_VARIABLE = "RELISTEN_UPSTREAM_KEY"
COMMON_MODEL = "whisper-1"
"""The name that most servers take, whatever their model is."""
TIMEOUT_S = 300.0
"""For one answer: a server on a CPU works on eight segments of 30 s for minutes."""
RETRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 2, 0.5, 30.0
"""As OpenAI's own client: twice more, unless `Retry-After` is far off."""
RETRIED = (408, 409, 429, 500, 502, 503, 504)
MOST_BYTES = 16 << 20
"""Of an answer."""
REMEDIES = {
    401: f"refuses the key; set the right one in {KEY_VARIABLE}",
    403: f"refuses the key; set the right one in {KEY_VARIABLE}",
    404: "does not know the path or the model; many addresses end in /v1, and --upstream-model "
    "names the model",
    429: "is overloaded, or has a quota that is used up",
}


@dataclass(frozen=True, slots=True)
class RemoteTranscript:
    """What a server made of a recording.

    no_speech_prob, mean_logprob: of its text, as Whisper has them; 0 where it does not tell.
    """

    text: str
    no_speech_prob: float = 0.0
    mean_logprob: float = 0.0


@dataclass
class AudioAPI:
    """A server with OpenAI's audio API.

    url: up to and with /v1. model: as the server calls it. language: an ISO code, None to let it
    detect one. key: sent as a bearer token, and kept out of every message.
    """

    url: str
    model: str = COMMON_MODEL
    language: str | None = None
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_address(self.url)
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise UsageError(f"{KEY_VARIABLE}: no key has such characters; set it again")
        self.url = self.url.rstrip("/")
        self._formats = ["verbose_json", "json"]  # some models take the second alone
        self._opener = build_opener(_NoRedirects)

    @classmethod
    def connect(cls, url: str, model: str | None = None, language: str | None = None) -> AudioAPI:
        """The server at an address, with the key of the environment.

        model: by default the only one that it lists, or else `COMMON_MODEL`. Raises UpstreamError
        where it does not answer, refuses the key, or does not list the model.
        """
        key = os.environ.get(KEY_VARIABLE, "").strip() or None
        api = cls(url, model or COMMON_MODEL, language, key)
        listed = api.models()
        if model is None and len(listed) == 1:
            [api.model] = listed
        if listed and api.model not in listed:
            some = ", ".join(listed[:10]) + (", …" if len(listed) > 10 else "")
            raise UpstreamError(f"{url}: has no model {api.model!r}; name one of {some}")
        return api

    def models(self) -> list[str]:
        """The names of its models; none where it has no list of them."""
        try:
            answer = _decoded(self._answer("/models"))
            return [str(one["id"]) for one in answer["data"]]
        except HTTPError as error:
            if error.code in (404, 405, 501):
                return []
            raise self._refused(error) from None
        except (ValueError, KeyError, TypeError):
            raise UpstreamError(
                f"{self.url}: its list of models is none; is it a server with OpenAI's audio API?"
            ) from None

    def transcribe(self, samples: np.ndarray) -> RemoteTranscript:
        """What it makes of a recording, 16 kHz float32 [T].

        Raises UpstreamError where it cannot be reached, takes too long, refuses, or answers with
        something else than a transcript.
        """
        content = _wav(samples)
        fields = {"model": self.model, "language": self.language}
        for form in self._formats:
            try:
                body = self._answer(
                    "/audio/transcriptions", {**fields, "response_format": form}, content
                )
            except HTTPError as error:
                if error.code not in (400, 422) or form == self._formats[-1]:
                    raise self._refused(error) from None
                continue
            self._formats = [form]
            return self._read(body)
        raise AssertionError("the last format returns or raises")

    def _read(self, body: bytes) -> RemoteTranscript:
        try:
            answer = _decoded(body)
            text = " ".join(answer["text"].split())
            text.encode()
        except (ValueError, KeyError, TypeError, AttributeError):
            start = self._safe(body[:80].decode(errors="replace"))
            raise UpstreamError(f"{self.url}: the answer is no transcript: {start!r}") from None
        segments = answer.get("segments")
        told = [one for one in segments or () if isinstance(one, dict)]
        return RemoteTranscript(
            text,
            min((_number(one.get("no_speech_prob")) for one in told), default=0.0),
            max((_number(one.get("avg_logprob")) for one in told), default=0.0),
        )

    def _answer(
        self, path: str, fields: Mapping[str, str | None] | None = None, content: bytes = b""
    ) -> bytes:
        """The body of an answer. Raises HTTPError for a status that is none of success."""
        body, headers = None, {"Accept": "application/json", "User-Agent": "relisten"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        if fields is not None:
            boundary = secrets.token_hex(16)
            body = _form(fields, content, boundary)
            headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        deadline = time.monotonic() + TIMEOUT_S
        for attempt in range(RETRIES + 1):
            pause_s = FIRST_PAUSE_S * 2**attempt
            try:
                with self._opener.open(
                    Request(self.url + path, body, headers), timeout=TIMEOUT_S
                ) as response:
                    return self._body(response, deadline)
            except HTTPError as error:
                pause_s = max(pause_s, _retry_after_s(error.headers))
                is_last = attempt == RETRIES or pause_s > LONGEST_PAUSE_S
                if error.code not in RETRIED or is_last:
                    raise
                error.close()
            except TimeoutError:
                raise self._late() from None
            except (OSError, HTTPException) as error:  # URLError is an OSError
                reason = getattr(error, "reason", error)
                if isinstance(reason, TimeoutError):
                    raise self._late() from None
                if attempt == RETRIES:
                    raise UpstreamError(
                        f"{self.url}: cannot be reached ({self._safe(str(reason))}); start it, or "
                        "correct --upstream"
                    ) from None
            time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _body(self, response: Any, deadline: float) -> bytes:
        parts, n_bytes = [], 0
        while part := response.read1(1 << 16):
            parts.append(part)
            n_bytes += len(part)
            if n_bytes > MOST_BYTES:
                raise UpstreamError(f"{self.url}: the answer is no transcript: it does not end")
            if time.monotonic() > deadline:
                raise TimeoutError
        return b"".join(parts)

    def _late(self) -> UpstreamError:
        return UpstreamError(f"{self.url}: no answer within {TIMEOUT_S:g} s")

    def _refused(self, error: HTTPError) -> UpstreamError:
        """What a status means, with the server's own words."""
        try:
            body = error.read(1 << 16)
        except (OSError, HTTPException):
            body = b""
        try:
            said = str(_decoded(body)["error"]["message"])
        except (ValueError, KeyError, TypeError):
            said = body.decode(errors="replace")
        said = " ".join(self._safe(said).split())[:200]
        if error.code in (301, 302, 303, 307, 308):
            target = self._safe(str(error.headers.get("Location")))
            meaning = f"sends us to {target}; name that address"
        else:
            meaning = REMEDIES.get(error.code, "does not transcribe this")
        return UpstreamError(f"{self.url}: {meaning} ({error.code}{said and ': '}{said})")

    def _safe(self, text: str) -> str:
        """A text of the server's without the key, which it may have sent back."""
        return text.replace(self.key, "***") if self.key else text


class _NoRedirects(HTTPRedirectHandler):
    """The key is for the server that was named, and no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        has_key = "@" in parts.netloc
    except ValueError:  # of a port that is no number, of brackets
        is_address = has_key = False
    if has_key:
        raise UsageError(f"--upstream: put the key into {KEY_VARIABLE}, not into the address")
    if not is_address or not url.isascii():
        raise UsageError(
            f"--upstream {url}: is no address of a server; write it as in http://127.0.0.1:9000/v1"
        )


def _decoded(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises ValueError or TypeError for anything else."""
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise TypeError("no object")
    return cast(dict[str, Any], answer)


def _wav(samples: np.ndarray) -> bytes:
    """16 kHz float32 [T] as a WAV file of 16 bit."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return file.getvalue()


def _form(fields: Mapping[str, str | None], content: bytes, boundary: str) -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
        if value is not None
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="speech.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    return "".join([*parts, head]).encode() + content + f"\r\n--{boundary}--\r\n".encode()


def _number(value: object) -> float:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(cast(float, value)) if is_number else 0.0


def _retry_after_s(headers: Message) -> float:
    stated = headers.get("Retry-After", "")
    return float(stated) if stated.isdecimal() else 0.0
