"""How a span of speech is described by a fixed number of frames, however long it lasts."""

from __future__ import annotations

import numpy as np

N_QUARTERS = 4


def quarter_means(frames: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Mean frame of each quarter of each span, float32 [n, N_QUARTERS * D].

    frames: [T, D] of any float type. starts, stops: [n], the spans in frames, whole or fractional.
    A quarter counts every frame that it touches, so that a span shorter than four frames has all
    quarters; one beyond the last frame is that frame. Sums are float64.
    """
    starts, stops = (np.asarray(x, np.float64) for x in (starts, stops))
    edges = starts[:, None] + np.linspace(0, 1, N_QUARTERS + 1) * (stops - starts)[:, None]
    # 1e-6: seconds times a rate miss whole frames by rounding
    first = np.clip(np.floor(edges[:, :-1] + 1e-6), 0, len(frames) - 1).astype(int)
    last = np.clip(np.ceil(edges[:, 1:] - 1e-6), first + 1, len(frames)).astype(int)
    sums = np.concatenate([np.zeros((1, frames.shape[1])), np.cumsum(frames, 0, np.float64)])
    means: np.ndarray = (sums[last] - sums[first]) / (last - first)[..., None]
    return means.reshape(len(starts), N_QUARTERS * frames.shape[1]).astype(np.float32)
