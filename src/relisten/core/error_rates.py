"""Word and character errors: fewest substitutions, deletions and insertions (Levenshtein).

Texts are compared as they are: normalise them first. Words are separated by white space;
characters include the spaces between words, as in jiwer, except in scripts written without spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from rapidfuzz.distance import Levenshtein

from relisten.core.arrays import IntArray
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

    A space between two characters of a script written without spaces does not count: it stands for
    a comma, or comes from a normaliser that makes each character a word.
    """
    return _count(*(join_unspaced(" ".join(text.split())) for text in (reference, hypothesis)))


def errors_matrix(reference: str, hypotheses: Sequence[str]) -> IntArray:
    """Word errors of each of N hypotheses of one reference, int64 [N]: totals without the kinds."""
    words = reference.split()
    return np.array([Levenshtein.distance(words, h.split()) for h in hypotheses], dtype=np.int64)


def align_words(reference: str, hypotheses: Sequence[str]) -> list[tuple[str | None, ...]]:
    """The words of the reference and of N hypotheses in columns, each a tuple of 1 + N.

    None is a place without a word: in a hypothesis a deletion, in the reference an insertion. Entry
    k differs from entry 0 in as many columns as `word_errors` counts errors of hypothesis k.
    Insertions of several hypotheses between the same two reference words share columns.
    """
    words = reference.split()
    placed = [_place(words, hypothesis.split()) for hypothesis in hypotheses]
    columns: list[tuple[str | None, ...]] = []
    for place in range(len(words) + 1):
        inserted = zip_longest(*(before[place] for _, before in placed))
        columns += [(None, *column) for column in inserted]
        if place < len(words):
            columns.append((words[place], *(matched[place] for matched, _ in placed)))
    return columns


def _place(reference: list[str], hypothesis: list[str]) -> tuple[list[str | None], list[list[str]]]:
    """The words aligned with R reference words, [R], and those inserted before each, [R + 1]."""
    matched: list[str | None] = list(reference)
    inserted: list[list[str]] = [[] for _ in range(len(reference) + 1)]
    for edit in Levenshtein.editops(reference, hypothesis):
        if edit.tag == "insert":
            inserted[edit.src_pos].append(hypothesis[edit.dest_pos])
        else:
            matched[edit.src_pos] = hypothesis[edit.dest_pos] if edit.tag == "replace" else None
    return matched, inserted


def _count(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCounts:
    kinds = {"replace": 0, "delete": 0, "insert": 0}
    for edit in Levenshtein.editops(reference, hypothesis):
        kinds[edit.tag] += 1
    hits = len(reference) - kinds["replace"] - kinds["delete"]
    return ErrorCounts(
        hits, kinds["replace"], kinds["delete"], kinds["insert"], n_reference=len(reference)
    )
