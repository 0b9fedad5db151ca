"""The rows that the bootstrap resamples, in memory that does not grow with the utterances."""

from __future__ import annotations

import numpy as np

MAX_ROWS = 16_384
"""Utterances that are drawn one by one; of more, neighbours are drawn together, which changes an
interval by less than its own noise."""


class ResampledRows:
    """Sums over the utterances that are resampled together, int64 rows of C counts.

    Those of one speaker are, where two or more are known; else each utterance is a row.
    """

    def __init__(self, n_counts: int) -> None:
        self._speakers: dict[str, np.ndarray] = {}
        self._all = _Runs(n_counts)
        self._of_unknown = _Runs(n_counts)

    def add(self, speaker: object, *counts: int) -> None:
        """Add an utterance; speaker None: unknown."""
        row = np.array(counts, np.int64)
        self._all.add(row)
        if speaker is None:
            self._of_unknown.add(row)
        elif (name := str(speaker)) in self._speakers:
            self._speakers[name] += row
        else:
            self._speakers[name] = row

    def columns(self) -> np.ndarray:
        """int64 [C, R]: of each row that is drawn whole, one column."""
        alone = self._of_unknown.rows()
        if not self._speakers or len(self._speakers) + len(alone) < 2:
            return self._all.rows().T
        return np.concatenate([np.stack(list(self._speakers.values())), alone]).T


class _Runs:
    """Sums over runs of utterances, of one each until there are too many rows, then of 2, 4, …"""

    def __init__(self, n_counts: int) -> None:
        self._table = np.zeros((MAX_ROWS, n_counts), np.int64)
        self._n_rows = 0
        self._run_length = 1
        self._n_in_last = 0

    def add(self, row: np.ndarray) -> None:
        if self._n_in_last == 0:
            if self._n_rows == MAX_ROWS:
                self._join_neighbours()
            self._n_rows += 1
        self._table[self._n_rows - 1] += row
        self._n_in_last = (self._n_in_last + 1) % self._run_length

    def _join_neighbours(self) -> None:
        half = MAX_ROWS // 2
        self._table[:half] = self._table.reshape(half, 2, -1).sum(axis=1)
        self._table[half:] = 0
        self._n_rows, self._run_length = half, 2 * self._run_length

    def rows(self) -> np.ndarray:
        return self._table[: self._n_rows]
