"""Where to cut a long recording: at its quietest points."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from relisten.io.audio import RATE_HZ

HOP_S = 0.02
SMOOTH_HOPS = 15  # 0.3 s: shorter than a pause between sentences, longer than a stop consonant


def split_audio(
    audio: np.ndarray, rate_hz: int = RATE_HZ, max_s: float = 28.0
) -> list[tuple[float, float]]:
    """Start and end of consecutive pieces of audio [samples], s, none longer than max_s.

    Together they are the whole recording. Each cut lies where the energy, smoothed over 0.3 s, is
    lowest in the second half of the span that may still fit; of equal places the last. A recording
    that fits is one piece; an empty one gives no pieces.
    """
    if not len(audio):
        return []
    hop = max(1, round(HOP_S * rate_hz))
    energy = np.add.reduceat(np.asarray(audio, np.float64) ** 2, np.arange(0, len(audio), hop))
    total = np.cumsum(np.concatenate([[0.0], energy]))
    hops = np.arange(len(energy) + 1)
    low = np.maximum(hops - SMOOTH_HOPS // 2, 0)
    high = np.minimum(hops + SMOOTH_HOPS // 2, len(energy))
    loudness = (total[high] - total[low]) / (high - low)  # around the start of each hop
    max_hops = max(2, int(max_s / HOP_S))
    cuts = [0]
    while len(energy) - cuts[-1] > max_hops:
        first, last = cuts[-1] + max_hops // 2, cuts[-1] + max_hops
        window = loudness[first : last + 1]
        quietest = window <= window.min() * (1 + 1e-9)
        cuts.append(first + int(np.flatnonzero(quietest)[-1]))
    times_s = [cut * hop / rate_hz for cut in cuts] + [len(audio) / rate_hz]
    return list(pairwise(times_s))
