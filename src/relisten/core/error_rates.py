"""Word and character errors: fewest substitutions, deletions and insertions (Levenshtein).

All texts are taken as they come: normalise them first. Words are separated by white space;
characters include the spaces between words, as in jiwer, but for scripts written without spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from relisten.core.text import join_unspaced
from relisten.core.types import UsageError


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Counts over words or characters; they add up: `sum(counts, ErrorCounts())`.

    n_reference: reference length = hits + substitutions + deletions (checked).
    Raises UsageError where the counts are negative or contradict each other.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    n_reference: int = 0

    def __post_init__(self) -> None:
        counts = (self.hits, self.substitutions, self.deletions, self.insertions)
        if min(counts) < 0:
            raise UsageError(f"error counts cannot be negative: {self}")
        if self.hits + self.substitutions + self.deletions != self.n_reference:
            raise UsageError(f"hits, substitutions and deletions are not n_reference: {self}")

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.n_reference + other.n_reference,
        )

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """errors / n_reference; may exceed 1. Without any reference: 0 if no error, else inf."""
        if self.n_reference:
            return self.errors / self.n_reference
        return float("inf") if self.errors else 0.0


def word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Errors over words. An empty reference makes every word of the hypothesis an insertion."""
    return _count(reference.split(), hypothesis.split())


def char_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Errors over characters, spaces between words counted, runs of white space as one space.

    A space between two characters of a script written without spaces is none: there it stands for
    a comma, or for a normaliser's word.
    """
    return _count(*(join_unspaced(" ".join(text.split())) for text in (reference, hypothesis)))


def errors_matrix(reference: str, hypotheses: Sequence[str]) -> npt.NDArray[np.int64]:
    """Word errors of each of N hypotheses of one reference, int64 [N]: totals without the kinds."""
    words = reference.split()
    return np.array([Levenshtein.distance(words, h.split()) for h in hypotheses], dtype=np.int64)


def _count(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCounts:
    kinds = {"replace": 0, "delete": 0, "insert": 0}
    for edit in Levenshtein.editops(reference, hypothesis):
        kinds[edit.tag] += 1
    hits = len(reference) - kinds["replace"] - kinds["delete"]
    return ErrorCounts(
        hits, kinds["replace"], kinds["delete"], kinds["insert"], n_reference=len(reference)
    )
