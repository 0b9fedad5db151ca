"""The routes of the server: OpenAI's audio API, relisten's own, health, metrics, the page."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException

from relisten.api import Rescorer
from relisten.apps.serve import answers, errors
from relisten.apps.serve.engine import Engine
from relisten.apps.serve.form import TranscriptionForm
from relisten.apps.serve.gate import Gate, Limits
from relisten.apps.serve.lists import (
    CombineRequest,
    RankedLists,
    combine,
    read_rescore_request,
    rescore,
    rescore_body_schema,
)
from relisten.apps.serve.metrics import Metrics
from relisten.apps.serve.page import add_page
from relisten.apps.serve.upload import Upload
from relisten.core.types import RelistenError
from relisten.tasks.second_pass import SecondPass
from relisten.tasks.streams import Result
from relisten.tasks.transcribe import CHUNK_SIZE
from relisten.tasks.transcript import Segment, Transcript

Segments = AsyncGenerator[Segment | None]

TITLE = "relisten"
FORM = Form(media_type="multipart/form-data")


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How a service behaves.

    names: under which clients ask for the model, its own first. language: of the recogniser, an ISO
    code or "auto". token, hosts: see `Gate`.
    """

    names: tuple[str, ...] = ("relisten", "whisper-1")
    language: str = "en"
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    hosts: tuple[str, ...] = ()
    batch_size: int = CHUNK_SIZE


class Service:
    """What the routes share, and the routes."""

    def __init__(self, second_pass: SecondPass, options: ServiceOptions) -> None:
        assert second_pass.rescorer is not None
        self._second_pass, self._options = second_pass, options
        self._metrics, self._started_at = Metrics(), int(time.time())
        self._engine = Engine(second_pass, options.batch_size, self._metrics.observe_batch)
        self._rescorer = Rescorer(second_pass.rescorer, options=second_pass.options)
        self._gate = Gate(
            self._app(),
            options.limits,
            options.token,
            options.hosts,
            lambda: self._engine.backlog_s,
            self._metrics.observe_request,
        )

    @property
    def asgi(self) -> Gate:
        """The application."""
        return self._gate

    def _app(self) -> FastAPI:
        app = FastAPI(
            title=TITLE,
            docs_url=None,
            redoc_url=None,
            lifespan=self._lifespan,
            responses=errors.ANSWERS,
        )
        post, get = app.post, app.get
        post("/v1/audio/transcriptions")(self.transcribe)
        post("/v1/rescore", openapi_extra=rescore_body_schema())(self.rescore)
        post("/v1/combine")(self.combine)
        get("/v1/models")(self.models)
        get("/v1/models/{name:path}")(self.model)
        get("/health")(self.health)
        get("/ready")(self.ready)
        get("/metrics", response_class=PlainTextResponse)(self.metrics)
        add_page(app)
        app.add_exception_handler(HTTPException, errors.answer_http)
        app.add_exception_handler(RequestValidationError, errors.answer_invalid)
        app.add_exception_handler(RelistenError, errors.answer_ours)
        app.add_exception_handler(Exception, errors.answer_fault)
        return app

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self._engine.close)

    async def transcribe(
        self, request: Request, form: Annotated[TranscriptionForm, FORM]
    ) -> Response:
        """The transcript of a recording, as OpenAI's API gives it."""
        if error := form.conflict(self._options.language):
            raise error
        self._check_name(form.model)
        upload = await asyncio.to_thread(
            Upload,
            form.file.filename or "recording",
            form.file.file,
            self._options.limits.max_duration_s,
            self._second_pass.max_duration_s,
        )
        segments = self._engine.segments(upload, form.phrases, upload.likely_s)
        if form.stream:
            events = self._events(segments, upload, form.include)
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        found = await unless_left(request, self._all(segments))
        return self._answer(Transcript(upload.name, upload.duration_s, tuple(found)), form)

    async def rescore(self, request: Request) -> RankedLists:
        """N-best lists ranked by the second pass; scores that they lack are added."""
        asked, recordings = await read_rescore_request(request)
        work = self._engine.call(lambda: rescore(asked, recordings, self._rescorer))
        return await unless_left(request, self._in_time(work))

    async def combine(self, asked: CombineRequest) -> RankedLists:
        """What several recognisers said of one utterance, as one ranked list."""
        return await self._in_time(asyncio.to_thread(combine, asked))

    async def models(self) -> dict[str, Any]:
        """The names under which the model can be asked for."""
        names = self._options.names
        return {"object": "list", "data": [self._model(name) for name in names]}

    async def model(self, name: str) -> dict[str, Any]:
        """One of them."""
        self._check_name(name)
        return self._model(name)

    async def health(self) -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    async def ready(self) -> dict[str, str]:
        """Whether it takes work."""
        if not self._engine.is_ready:
            raise errors.refusal(503, "the server is shutting down")
        return {"status": "ready"}

    async def metrics(self) -> Response:
        """Counters for Prometheus."""
        text = self._metrics.text(self._gate.n_open, self._engine.backlog_s)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _model(self, name: str) -> dict[str, Any]:
        created = self._started_at
        return {"id": name, "object": "model", "created": created, "owned_by": "relisten"}

    def _check_name(self, name: str) -> None:
        if name not in self._options.names:
            known = ", ".join(self._options.names)
            message = f"model {name!r}: this server has {known}"
            raise errors.refusal(404, message, param="model", code="model_not_found")

    def _answer(self, transcript: Transcript, form: TranscriptionForm) -> Response:
        if form.response_format == "json":
            return JSONResponse(
                answers.to_json(transcript, form.include, self._second_pass.weights)
            )
        if form.response_format == "verbose_json":
            tokens = self._second_pass.first_passes[0].tokens
            language = answers.language_name(self._options.language, form.language)
            return JSONResponse(
                answers.to_verbose_json(transcript, form.granularities, language, tokens)
            )
        return PlainTextResponse(transcript.render(form.response_format))

    async def _all(self, segments: Segments) -> list[Segment]:
        async def collected() -> list[Segment]:
            async with aclosing(segments):
                return [one async for one in segments if one is not None]

        return await self._in_time(collected())

    async def _in_time(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            async with asyncio.timeout(self._options.limits.timeout_s):
                return await work
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> Exception:
        return errors.refusal(
            503,
            f"not finished within {self._options.limits.timeout_s:g} s; cut the recording, or let "
            "the server wait longer with --timeout",
            code="timeout",
            headers={"x-should-retry": "false"},
        )

    async def _events(
        self, segments: Segments, upload: Upload, include: Sequence[str]
    ) -> AsyncGenerator[str]:
        """A delta a segment, then the whole text; an error ends them."""
        found: list[Segment] = []
        text = ""
        try:
            async with asyncio.timeout(self._options.limits.timeout_s), aclosing(segments):
                async for segment in segments:
                    if segment is None:
                        yield ": still at work\n\n"
                        continue
                    found.append(segment)
                    delta = f"{' ' if text and segment.text else ''}{segment.text}"
                    text += delta
                    if delta or "nbest" in include:
                        yield answers.to_event(
                            answers.to_delta(
                                delta, segment, upload.likely_s, include, self._second_pass.weights
                            )
                        )
        except Exception as error:
            known = self._late() if isinstance(error, TimeoutError) else error
            errors.log_fault(known)
            yield answers.to_event(errors.error_body(known))
            return
        transcript = Transcript(upload.name, upload.duration_s, tuple(found))
        told = [one for one in include if one != "nbest"]  # the deltas had the lists
        done = answers.to_json(transcript, told, self._second_pass.weights)
        yield answers.to_event({"type": "transcript.text.done", **done})
        yield "data: [DONE]\n\n"


async def unless_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work gives; it is cancelled when the client closes the connection."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise errors.refusal(errors.LEFT, "the client left")
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
