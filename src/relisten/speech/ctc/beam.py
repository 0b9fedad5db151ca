"""The most probable label sequences of a CTC model, free or restricted to known words.

Prefix beam search (arXiv:1408.2873): each prefix holds the probability of its paths that end in a
blank and of those that end in its last label. Numpy over all prefixes of the beam at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Spelling:
    """Which labels may follow: an automaton whose state 0 is before the first word.

    follows: int32 [S, V], the state that label v leads to from state s, -1 where v may not follow.
    is_final: bool [S], where a text may end.
    """

    follows: np.ndarray
    is_final: np.ndarray

    @classmethod
    def of_words(
        cls, words: Iterable[Sequence[int]], space: int, n_labels: int, blank: int = 0
    ) -> Spelling:
        """Texts of these words only, with a single space between two words.

        words: the labels of each, in any order, none empty. n_labels: V, the blank included.
        """
        following: list[dict[int, int]] = [{}]
        ends = set()
        for word in words:
            state = 0
            for label in word:
                if label not in following[state]:
                    following[state][label] = len(following)
                    following.append({})
                state = following[state][label]
            ends.add(state)
        follows = np.full((len(following), n_labels), -1, np.int32)
        for state, labels in enumerate(following):
            follows[state, list(labels)] = list(labels.values())
        is_final = np.zeros(len(following), bool)
        is_final[[0, *ends]] = True
        follows[list(ends), space] = 0
        follows[:, blank] = -1
        return cls(follows, is_final)


def ctc_beam(
    log_probs: np.ndarray, beam: int, blank: int = 0, spelling: Spelling | None = None
) -> list[tuple[int, ...]]:
    """The most probable label sequences of log_probs [T, V] (natural), best first, at most `beam`.

    Exact where the beam holds all prefixes. spelling: only sequences that it allows, and that may
    end at the last frame; there may be none. Impossible sequences are left out.
    """
    prefixes = _Prefixes(1 + beam * len(log_probs))
    rows = np.zeros(1, np.int64)  # of `prefixes`, those in the beam
    in_blank, in_label = np.zeros(1), np.full(1, -np.inf)
    for frame in np.asarray(log_probs, np.float64):
        last, state = prefixes.last[rows], prefixes.state[rows]
        both = np.logaddexp(in_blank, in_label)
        stays_blank = both + frame[blank]
        stays_label = np.where(last >= 0, in_label + frame[last], -np.inf)
        grows = both[:, None] + frame
        has_last = np.flatnonzero(last >= 0)
        # The same label again is a new one only behind a blank.
        grows[has_last, last[has_last]] = in_blank[has_last] + frame[last[has_last]]
        grows[:, blank] = -np.inf
        if spelling is not None:
            grows[spelling.follows[state] < 0] = -np.inf
        child, parent = _relatives(rows, prefixes.parent[rows])
        stays_label[child] = np.logaddexp(stays_label[child], grows[parent, last[child]])
        grows[parent, last[child]] = -np.inf

        total = np.concatenate([np.logaddexp(stays_blank, stays_label), grows.ravel()])
        best = _largest(total, beam)
        kept, new = best[best < len(rows)], best[best >= len(rows)] - len(rows)
        source, label = np.divmod(new, len(frame))
        grown = prefixes.extend(rows[source], label, spelling)
        rows = np.concatenate([rows[kept], grown])
        in_blank = np.concatenate([stays_blank[kept], np.full(len(new), -np.inf)])
        in_label = np.concatenate([stays_label[kept], grows[source, label]])
    total = np.logaddexp(in_blank, in_label)
    if spelling is not None:
        total[~spelling.is_final[prefixes.state[rows]]] = -np.inf
    return [prefixes.labels(rows[i]) for i in _largest(total, beam)]


def _largest(values: np.ndarray, n: int) -> np.ndarray:
    """Places of the n largest values above -inf, largest first; of equal values the first."""
    places = np.arange(len(values))
    if n < len(values):
        places = np.sort(np.argpartition(-values, n - 1)[:n])
    places = places[values[places] > -np.inf]
    return places[np.argsort(-values[places], kind="stable")]


def _relatives(rows: np.ndarray, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places i, j in the beam such that prefix i is prefix j plus one label."""
    order = np.argsort(rows)
    place = np.minimum(np.searchsorted(rows, parents, sorter=order), len(rows) - 1)
    found = rows[order[place]] == parents
    return np.flatnonzero(found), order[place[found]]


class _Prefixes:
    """Every prefix that was ever in the beam, one row each; row 0 is the empty one.

    last: the last label, -1 for the empty prefix. parent: the row of the prefix without it, -1
    likewise. state: of the spelling. The same prefix always has the same row.
    """

    def __init__(self, capacity: int) -> None:
        self.last, self.parent = np.full(capacity, -1), np.full(capacity, -1)
        self.state = np.zeros(capacity, np.int64)
        self._row: dict[tuple[int, int], int] = {}

    def extend(
        self, parents: np.ndarray, labels: np.ndarray, spelling: Spelling | None
    ) -> np.ndarray:
        """The rows of prefixes, int [n], that are these parents [n] plus one label each [n]."""
        keys = zip(parents.tolist(), labels.tolist(), strict=True)
        rows = np.array([self._row.setdefault(key, 1 + len(self._row)) for key in keys], np.int64)
        self.last[rows], self.parent[rows] = labels, parents
        if spelling is not None:
            self.state[rows] = spelling.follows[self.state[parents], labels]
        return rows

    def labels(self, row: int) -> tuple[int, ...]:
        """The labels of a prefix, in order."""
        labels = []
        while row:
            labels.append(int(self.last[row]))
            row = int(self.parent[row])
        return tuple(reversed(labels))
