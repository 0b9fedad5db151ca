"""The terms of this package: an utterance, its hypotheses, and the errors that input can cause.

*unit*: a discrete speech token from a codebook. *token*: an id of the joint vocabulary.
*hypothesis*: one possible transcript of an utterance. *N-best*: its list of hypotheses.
*score*: a natural logarithm, higher is better. *first pass*: the recogniser that proposed the
hypotheses. *reference*: the correct transcript.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ASR = "asr"
ADAPTED = "asr.adapted"
TEXT = "text"
TEXT_GIVEN_SPEECH = "text_given_speech"
SPEECH_GIVEN_TEXT = "speech_given_text"
CTC = "ctc"
CTC_ADAPTED = "ctc.adapted"
LENGTH = "length"
CONTEXT = "context"
FIRST_PASS_CHOICE = "first_pass"
"""A component that is not stored: 1 for the first pass's own choice, 0 for all others. Its weight
is the margin, in nats, by which another hypothesis must win to overrule it."""
AGREEMENT = "agreement"
"""`agreement.NAME`: how far a text agrees with what recogniser NAME said (`core.agreement`)."""
PACE = "pace"
"""A component of combined lists that is not stored: words times ln(1 + m), m the median number of
words of what the systems said. So a word more counts otherwise in long utterances than in short."""
SYSTEMS = "systems"
"""Key of an utterance of combined lists: recogniser → its best text."""

LM_COMPONENTS = (TEXT, TEXT_GIVEN_SPEECH, SPEECH_GIVEN_TEXT)
"""Scores that a language model adds to a hypothesis."""
OF_TAUGHT = (ADAPTED, CTC_ADAPTED)
"""Scores of a recogniser taught the user's speech: its decoder's, and that of a CTC head on what
its encoder hears."""
COMPONENTS = (*LM_COMPONENTS, CTC, *OF_TAUGHT)
"""Scores that relisten adds: the language model's, log P(labels|speech) of a CTC head trained on
the domain (`speech.ctc.head`), and both of a recogniser taught the user's speech (`relisten
learn`). `asr` comes from the first pass; `context` from a list of phrases
(`core.biasing`)."""

FORMER_NAMES: Mapping[str, str] = {"letters": CTC}
"""Names of scores in files of earlier versions → the present ones; both are read."""


class RelistenError(Exception):
    """Base of every error that is the input's, not ours.

    RelistenError
    ├── FormatError      a file does not have the layout it should (names file and line)
    ├── AudioError       a recording cannot be read
    ├── ModelError       a model or bundle is missing, broken or does not fit together
    ├── UpstreamError    another server, asked for a transcript, gave none
    └── UsageError       options or data that contradict each other
    """


class FormatError(RelistenError):
    """A file does not have the layout it should; the message names the file and the line."""


class AudioError(RelistenError):
    """A recording cannot be read; the message names the file."""


class ModelError(RelistenError):
    """A model or bundle is missing, broken, or its parts do not belong together."""


class UpstreamError(RelistenError):
    """Another server, asked for a transcript, gave none; the message names its address."""


class UsageError(RelistenError):
    """Options or data contradict each other."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One possible transcript.

    text: the surface form, case and punctuation kept.
    scores: component → natural-log score, higher is better (`asr` summed over tokens, EOS counted).
    word_ends_s: when each whitespace-separated word of `text` ends, in seconds from the start of
        the utterance, non-decreasing; None where unknown.
    word_starts_s: when each of them starts, likewise; at most its end.
    first_pass_rank: place in the first pass's own order, 0 = its choice; None until re-ranked.
    extra: unknown keys of the file, carried through untouched.
    posterior: probability of this hypothesis among those of its list; None until re-ranked.
    word_confidence: probability of each whitespace-separated word of `text`, of the chosen
        hypothesis alone.
    """

    text: str
    scores: Mapping[str, float] = field(default_factory=dict)
    word_ends_s: tuple[float, ...] | None = None
    first_pass_rank: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    posterior: float | None = None
    word_confidence: tuple[float, ...] | None = None
    word_starts_s: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class NBest:
    """One utterance and its hypotheses, best first; a manifest line has none yet.

    audio: path as written in the file (relative to it). start_s, duration_s: the segment of it, s;
        duration_s None means to the end.
    extra: unknown keys of the file, carried through untouched.
    """

    id: str
    hypotheses: tuple[Hypothesis, ...] = ()
    audio: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    reference: str | None = None
    context: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def speaker(self) -> str | None:
        """Who speaks, from the key `speaker` of the file; None where it is missing or empty."""
        value = self.extra.get("speaker")
        return None if value in (None, "") else str(value)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An utterance that could not be read or processed, and why, in one sentence.

    id: of the utterance; where it has none, its file and line.
    """

    id: str
    reason: str
