"""What `learn` is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from relisten.core.types import UsageError
from relisten.tasks.defaults import MODEL


@dataclass(frozen=True)
class LearnOptions:
    """What `relisten learn` is asked for; a run with other settings needs another output.

    model: bundle to start from. first_pass: the recogniser to teach; None: the bundle's. language:
    of the speech, an ISO code; None: the bundle's. dev: manifests that are held out instead of a
    part of the speech. texts: text corpora of the domain, for the language model. phrases: files of
    names and terms, one a line, for it too. steps: of the recogniser's training; None: by the
    amount of speech. hours: that this training may take at most; None: what it takes.
    curve: whether a quarter and a half of the speech are learnt from as well, to compare.
    Raises UsageError where steps are below 1.
    """

    model: str = MODEL
    first_pass: str | None = None
    language: str | None = None
    dev: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    steps: int | None = None
    hours: float | None = None
    curve: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps {self.steps}: give 1 or more, or none for as many as it takes")
