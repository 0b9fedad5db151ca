"""When words end: from cross-attention by dynamic time warping, from CTC by forced alignment.

Plain numpy, shared by all first passes. A first pass gives the end of each *token*; `word_ends`
turns them into the end of each *word*.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np


def word_ends(
    prefixes: Sequence[str], token_ends_s: Sequence[float] | np.ndarray, duration_s: float
) -> tuple[float, ...]:
    """The end of each whitespace-separated word, s; one per `prefixes[-1].split()`.

    prefixes[i]: the text of tokens 0..i, decoded. A word ends with its last token that holds a
    letter, mark or digit: a full stop takes in the silence after it ("Bill." would end 0.4 s later
    than "Bill"), and hypotheses that differ only in punctuation should be cut in the same places.
    Words of punctuation alone end with their last token. Ends never decrease nor exceed duration_s.
    """
    ends: list[float] = []
    n_spoken_before = 0
    word_is_spoken = False
    for prefix, end_s in zip(prefixes, token_ends_s, strict=True):
        n_words = len(prefix.split())
        n_spoken = sum(unicodedata.category(character)[0] in "LMN" for character in prefix)
        is_spoken = n_spoken > n_spoken_before
        if n_words > len(ends):
            ends.extend([end_s] * (n_words - len(ends)))
            word_is_spoken = is_spoken
        elif ends and (is_spoken or not word_is_spoken):
            ends[-1] = end_s
            word_is_spoken |= is_spoken
        n_spoken_before = n_spoken
    ends = ends[: len(prefixes[-1].split())] if prefixes else []
    capped = np.minimum(np.maximum.accumulate(ends or [0.0]), duration_s)
    return tuple(round(float(end), 3) for end in capped[: len(ends)])


def attention_token_ends(attention: np.ndarray, n_prompt: int, median_width: int = 7) -> np.ndarray:
    """Frame at which each token ends, int [L - n_prompt - 1], from Whisper's cross-attention.

    attention: [heads, L, T] of the alignment heads over the spoken frames, each row summing to 1;
    row l is the step that *reads* token l, so the row before a token predicts it. The first
    n_prompt rows (start, language, task) are normalised with but not aligned; the last row predicts
    the end of the transcript and takes the silence behind it. A token ends where the next starts.
    """
    centred = attention - attention.mean(axis=1, keepdims=True)
    weights = centred / (attention.std(axis=1, keepdims=True) + 1e-12)
    weights = _median_filter(weights, median_width).mean(axis=0)[n_prompt:]
    tokens, frames = dtw_path(-weights)
    starts = frames[np.searchsorted(tokens, np.arange(len(weights)))]
    return starts[1:]


def _median_filter(values: np.ndarray, width: int) -> np.ndarray:
    """Running median over the last axis, edges mirrored; short rows are left as they are."""
    half = width // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)


def dtw_path(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The monotone path of lowest cost through cost [L, T], corner to corner: its rows and columns.

    Moves: to the next row, to the next column, or both.
    """
    n_rows, n_columns = cost.shape
    total = np.full((n_rows + 1, n_columns + 1), np.inf)
    total[0, 0] = 0.0
    for row in range(1, n_rows + 1):
        above = np.minimum(total[row - 1, 1:], total[row - 1, :-1])
        left = np.inf
        for column in range(1, n_columns + 1):
            left = total[row, column] = cost[row - 1, column - 1] + min(above[column - 1], left)
    path = []
    row, column = n_rows, n_columns
    while row and column:
        path.append((row - 1, column - 1))
        moves = (total[row - 1, column - 1], total[row - 1, column], total[row, column - 1])
        best = int(np.argmin(moves))
        row, column = row - (best != 2), column - (best != 1)
    rows, columns = np.array(path[::-1]).T
    return rows, columns


def ctc_token_ends(log_probs: np.ndarray, tokens: Sequence[int], blank: int) -> np.ndarray:
    """Frame after the last one of each token, int [L]: CTC forced alignment (Viterbi).

    log_probs: [T, V], natural logarithms. A blank always separates two equal tokens. If there are
    fewer frames than the tokens need, the ends are spread evenly.
    """
    n_frames = len(log_probs)
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    can_skip = np.zeros(len(states), bool)
    can_skip[2:] = (states[2:] != blank) & (states[2:] != states[:-2])
    best = np.full(len(states), -np.inf)
    best[:2] = log_probs[0, states[:2]]
    steps = np.zeros((n_frames, len(states)), np.int64)
    for t in range(1, n_frames):
        moves = np.full((3, len(states)), -np.inf)
        moves[0] = best
        moves[1, 1:] = best[:-1]
        moves[2, 2:] = np.where(can_skip[2:], best[:-2], -np.inf)
        steps[t] = moves.argmax(axis=0)
        best = moves.max(axis=0) + log_probs[t, states]
    state = len(states) - 1
    if len(states) > 1 and best[-2] > best[-1]:
        state -= 1
    if not np.isfinite(best[state]):
        return np.arange(1, len(tokens) + 1) * n_frames // max(1, len(tokens))
    ends = np.zeros(len(states), np.int64)
    for t in range(n_frames - 1, -1, -1):
        ends[state] = max(ends[state], t + 1)
        state -= steps[t, state]
    return ends[1::2]
