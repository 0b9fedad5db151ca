"""The form of `POST /v1/audio/transcriptions`: its fields, and what they ask of the second pass."""

import re
from typing import Literal

from fastapi import HTTPException, UploadFile
from pydantic import BaseModel, Field

from relisten.apps.serve.errors import refusal
from relisten.core.biasing import Phrase

MAX_PROMPT_WORDS = 5
"""Of a part of a prompt that is taken for an expected phrase: a longer one is a sentence."""


class TranscriptionForm(BaseModel):
    """What OpenAI's clients send; see its API for the fields. Unknown ones are ignored."""

    file: UploadFile = Field(description="The recording, in any format that FFmpeg reads.")
    model: str = Field(description="A name that `GET /v1/models` lists.")
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"] = "json"
    language: str | None = Field(None, description="ISO code of the language spoken.")
    prompt: str | None = Field(
        None,
        description="Expected names and terms, with commas or line ends between. Parts of more "
        f"than {MAX_PROMPT_WORDS} words count for nothing.",
    )
    keywords: list[str] = Field([], alias="keywords[]", description="Expected names and terms.")
    granularities: list[Literal["word", "segment"]] = Field(
        [], alias="timestamp_granularities[]", description="With verbose_json alone."
    )
    include: list[Literal["logprobs", "nbest"]] = Field(
        [],
        alias="include[]",
        description="With json alone. logprobs: the log of the confidence in each word. nbest "
        "(relisten's own): all hypotheses of each segment, with their scores.",
    )
    temperature: float = Field(
        0.0, ge=0, le=1, description="Accepted, without effect: nothing is drawn at random."
    )
    stream: bool = Field(
        False, description="With json alone: server-sent events, one a segment when it is finished."
    )

    def conflict(self, language: str) -> HTTPException | None:
        """What is wrong with the fields together, on a server of this language (ISO code, "auto":
        any)."""
        if self.response_format == "diarized_json":
            return refusal(
                400,
                "response_format diarized_json: this server does not tell speakers apart; ask for "
                "verbose_json",
                param="response_format",
            )
        for param, is_given, wanted in (
            ("timestamp_granularities[]", self.granularities, "verbose_json"),
            ("include[]", self.include, "json"),
            ("stream", self.stream, "json"),
        ):
            if is_given and self.response_format != wanted:
                message = f"{param} needs response_format {wanted}, not {self.response_format}"
                return refusal(400, message, param=param)
        if self.language and language not in ("auto", self.language.lower()):
            return refusal(
                400,
                f"language {self.language!r}: this server transcribes {language!r}; start another "
                "with `relisten serve --language`",
                param="language",
            )
        return None

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """What is expected to be said: the keywords, and the short parts of the prompt."""
        parts = re.split(r"[,;\n]", self.prompt or "")
        short = [part for part in parts if len(part.split()) <= MAX_PROMPT_WORDS]
        texts = dict.fromkeys(" ".join(one.split()).strip(" .") for one in (*self.keywords, *short))
        return tuple(Phrase(text) for text in texts if text)
