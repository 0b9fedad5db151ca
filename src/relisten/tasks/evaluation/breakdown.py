"""Errors by the values of a key of the utterances: speaker, domain, microphone."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import numpy as np

from relisten.core.bootstrap import BootstrapInterval, paired_bootstrap
from relisten.core.error_rates import ErrorCounts
from relisten.core.types import NBest

UNKNOWN = "(unknown)"
"""The value of utterances that lack the key."""
MIN_RESAMPLED = 8
"""Utterances, or speakers: with fewer, an interval would be too narrow to be of use."""
N_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class SubsetErrors:
    """Word errors of the utterances for which a key has one value.

    gain: of rescored over first pass, whole speakers resampled where two or more are known; None
        where there are fewer than `MIN_RESAMPLED` of what is resampled.
    """

    value: str
    n_utterances: int
    first_pass: ErrorCounts
    rescored: ErrorCounts
    gain: BootstrapInterval | None

    def to_json(self) -> dict[str, object]:
        """The subset as `evaluate --json` writes it."""
        gain = self.gain
        return {
            "value": self.value,
            "n_utterances": self.n_utterances,
            "n_words": self.first_pass.n_reference,
            "first_pass": {"wer": self.first_pass.rate, "words": asdict(self.first_pass)},
            "rescored": {"wer": self.rescored.rate, "words": asdict(self.rescored)},
            "absolute_reduction_ci95": [gain.absolute_low, gain.absolute_high] if gain else None,
        }


@dataclass(frozen=True, slots=True)
class Breakdown:
    """All values of one key, sorted as numbers where all are numbers, else as texts."""

    key: str
    subsets: tuple[SubsetErrors, ...]


@dataclass
class BreakdownTally:
    """Sums for one key over the utterances seen so far; three numbers of each are kept."""

    key: str
    _values: dict[str, _Sums] = field(default_factory=dict)

    def add(self, utterance: NBest, first_pass: ErrorCounts, rescored: ErrorCounts) -> None:
        sums = self._values.setdefault(value_of(utterance, self.key), _Sums())
        sums.add(utterance.speaker, first_pass, rescored)

    def result(self, seed: int) -> Breakdown | None:
        """None where no utterance has the key."""
        if set(self._values) <= {UNKNOWN}:
            return None
        subsets = (self._values[value].result(value, seed) for value in in_order(self._values))
        return Breakdown(self.key, tuple(subsets))


@dataclass
class _Sums:
    first_pass: ErrorCounts = field(default_factory=ErrorCounts)
    rescored: ErrorCounts = field(default_factory=ErrorCounts)
    counts: array[int] = field(default_factory=lambda: array("i"))
    speakers: list[object] = field(default_factory=list)

    def add(self, speaker: object, first_pass: ErrorCounts, rescored: ErrorCounts) -> None:
        self.first_pass += first_pass
        self.rescored += rescored
        self.counts.extend((first_pass.errors, rescored.errors, first_pass.n_reference))
        self.speakers.append(speaker)

    def result(self, value: str, seed: int) -> SubsetErrors:
        n = len(self.speakers)
        before, after, n_words = np.array(self.counts, np.int64).reshape(n, 3).T
        groups = [
            f"utterance {row}" if speaker is None else f"speaker {speaker}"
            for row, speaker in enumerate(self.speakers)
        ]
        n_groups = len(set(groups))
        gain = None
        if (n_groups if n_groups > 1 else n) >= MIN_RESAMPLED:
            gain = paired_bootstrap(before, after, n_words, groups, N_RESAMPLES, seed)
        return SubsetErrors(value, n, self.first_pass, self.rescored, gain)


def value_of(utterance: NBest, key: str) -> str:
    """The value of the utterance's key: JSON where it is not a text, `UNKNOWN` without one."""
    value = utterance.extra.get(key)
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def in_order(values: Iterable[str]) -> list[str]:
    """The values sorted as numbers where all are numbers, else as texts; `UNKNOWN` last."""
    known = sorted(set(values) - {UNKNOWN})
    with suppress(ValueError):
        known.sort(key=float)
    return known + [UNKNOWN] * (UNKNOWN in values)
