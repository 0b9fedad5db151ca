"""Errors parted by what a key of the utterances says: speaker, domain, microphone."""

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
"""Utterances, or speakers, below which an interval would promise more than it knows."""
N_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Part:
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
        """The part as `evaluate --json` writes it."""
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
    """All parts of one key, by value: in the order of numbers where all are, else of texts."""

    key: str
    parts: tuple[Part, ...]


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
        parts = (self._values[value].part(value, seed) for value in in_order(self._values))
        return Breakdown(self.key, tuple(parts))


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

    def part(self, value: str, seed: int) -> Part:
        n = len(self.speakers)
        columns = np.array(self.counts, np.int64).reshape(n, 3).T
        groups = [
            f"utterance {row}" if speaker is None else f"speaker {speaker}"
            for row, speaker in enumerate(self.speakers)
        ]
        n_groups = len(set(groups))
        gain = None
        if (n_groups if n_groups > 1 else n) >= MIN_RESAMPLED:
            gain = paired_bootstrap(*columns, groups=groups, n_resamples=N_RESAMPLES, seed=seed)
        return Part(value, n, self.first_pass, self.rescored, gain)


def value_of(utterance: NBest, key: str) -> str:
    """What a key of the utterance says, as text; JSON where it is no text, `UNKNOWN` without it."""
    value = utterance.extra.get(key)
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def in_order(values: Iterable[str]) -> list[str]:
    """Numbers by size where all values are numbers, else texts by letters; `UNKNOWN` last."""
    known = sorted(set(values) - {UNKNOWN})
    with suppress(ValueError):
        known.sort(key=float)
    return known + [UNKNOWN] * (UNKNOWN in values)
