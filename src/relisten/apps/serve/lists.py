"""`POST /v1/rescore` and `/v1/combine`: N-best lists in, ranked lists out."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile

from relisten.api import Rescorer
from relisten.core.combine import Weights
from relisten.core.decide import Decision
from relisten.core.text import cached_normaliser
from relisten.core.types import NBest, UsageError
from relisten.io.native import line_to_nbest, nbest_to_line
from relisten.tasks.hypotheses.combine import combine_utterance
from relisten.tasks.ranking import rank
from relisten.tasks.second_pass import SecondPassOptions
from relisten.tasks.weights import OwnWeights

MAX_HYPOTHESES = 1_000
"""Of one request. They take some seconds, and other requests wait for them."""

Object = dict[str, Any]
Recordings = Mapping[str, BinaryIO]


class RankingOptions(BaseModel):
    """How lists are ranked."""

    weights: Object | None = Field(
        None, description="What `relisten tune` wrote; by default the weights of the model."
    )
    decision: Decision = "map"

    @property
    def chosen_weights(self) -> Weights | None:
        """Raises FormatError for another layout."""
        return None if self.weights is None else Weights.from_json(self.weights)


class RescoreRequest(RankingOptions):
    """Lists to score, as far as they lack scores, and to rank."""

    utterances: list[Object] = Field(
        description="N-best lists as relisten's files have them, one object an utterance."
    )
    phrases: list[str] = Field([], description="Expected names and terms.")


class CombineRequest(RankingOptions):
    """One utterance of several recognisers, the best one first."""

    systems: dict[str, str | Object] = Field(
        description="Name → its text, or its N-best list as relisten's files have it."
    )
    id: str = "utterance"
    mix: bool = Field(False, description="Add texts that take words of one system and of another.")


class RankedLists(BaseModel):
    """The lists, in order, the chosen hypothesis of each first."""

    utterances: list[Object]


async def read_rescore_request(request: Request) -> tuple[RescoreRequest, Recordings]:
    """The request and the recordings that came with it, by name.

    It is JSON; or a form with the JSON in the field `request` and recordings in `files[]`, each
    named as an utterance's `audio` names it. Raises RequestValidationError where it does not fit.
    """
    recordings: Recordings = {}
    body: bytes | str = b""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        form = await request.form()
        text = form.get("request")
        body = text if isinstance(text, str) else ""
        files = [one for one in form.getlist("files[]") if isinstance(one, UploadFile)]
        recordings = {file.filename or "": file.file for file in files}
    else:
        body = await request.body()
    try:
        return RescoreRequest.model_validate_json(body), recordings
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def rescore_body_schema() -> Object:
    """Both forms of the request, for the OpenAPI schema."""
    schema = RescoreRequest.model_json_schema()
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "properties": {"request": {"type": "string"}, "files[]": files},
        "required": ["request"],
    }
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def rescore(asked: RescoreRequest, recordings: Recordings, rescorer: Rescorer) -> RankedLists:
    """The lists, scored and ranked. Raises a RelistenError for one that does not fit.

    An utterance whose recording did not come along is ranked by its text and the scores it has: no
    path that it names is ever opened.
    """
    lists = [_to_nbest(one, f"utterances[{n}]") for n, one in enumerate(asked.utterances)]
    n_hypotheses = sum(len(one.hypotheses) for one in lists)
    if n_hypotheses > MAX_HYPOTHESES:
        raise UsageError(
            f"{n_hypotheses:,} hypotheses; one request takes {MAX_HYPOTHESES:,}: send several"
        )
    if empty := [one.id for one in lists if not one.hypotheses]:
        raise UsageError(f"{empty[0]!r}: has no hypotheses; give it at least one with a text")
    heard = [one if one.audio in recordings else replace(one, audio=None) for one in lists]
    options = SecondPassOptions(
        phrases=tuple(asked.phrases), weights=asked.chosen_weights, decision=asked.decision
    )
    ranked = rescorer.rescore(heard, recordings, options)
    return RankedLists(
        utterances=[
            _to_object(replace(one, audio=given.audio))
            for one, given in zip(ranked, lists, strict=True)
        ]
    )


def combine(asked: CombineRequest) -> RankedLists:
    """The joined list, ranked; without weights by the vote of the systems.

    Raises a RelistenError for a system that does not fit.
    """
    if len(asked.systems) < 2:
        raise UsageError(f"systems: {len(asked.systems)} is named; name two or more")
    parts = {}
    for name, said in asked.systems.items():
        given = {"hypotheses": [{"text": said}]} if isinstance(said, str) else said
        parts[name] = _to_nbest({"id": asked.id, **given}, f"systems.{name}")
    if not any(one.hypotheses for one in parts.values()):
        raise UsageError("systems: none has a hypothesis; give at least one a text")
    normalise = cached_normaliser("english")
    joined = combine_utterance(parts, list(parts), normalise, asked.mix)
    weights = asked.chosen_weights or OwnWeights()(joined)
    return RankedLists(utterances=[_to_object(rank(joined, weights, asked.decision))])


def _to_nbest(record: Object, where: str) -> NBest:
    return line_to_nbest(json.dumps({"id": where, **record}).encode(), where)


def _to_object(nbest: NBest) -> Object:
    answer: Object = json.loads(nbest_to_line(nbest))
    return answer
