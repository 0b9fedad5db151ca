"""When words end: from cross-attention by dynamic time warping, from CTC by forced alignment; and
when they start: from the energy.

Plain numpy, shared by all first passes. A first pass gives the end of each *token*; `word_ends`
turns them into the end of each *word*. None of them tells a pause from the word behind it, so
`word_starts` looks at the recording.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from relisten.core.text import words_of_any_script
from relisten.io.audio import RATE_HZ

_HOP_S = 0.01
SHORTEST_PAUSE_S = 0.25
"""Silences that are shorter belong to words: they are the closures of stops (Goldman-Eisler,
Psycholinguistics, 1968)."""
_DEEPEST_DB = 50.0  # what lies further below the loud parts is as quiet as silence


def longest_word_s(word: str) -> float:
    """The time that a word takes where it is said slowly: 10 characters a second, and 0.2 s."""
    return 0.2 + 0.1 * len(word)


Pause = tuple[float, float]
"""Start and end, s."""


def word_starts(text: str, ends_s: Sequence[float], pauses: Sequence[Pause]) -> tuple[float, ...]:
    """When each whitespace-separated word of `text` starts, s, given when they end.

    pauses: of the recording, see `find_pauses`. A word starts where the one before it ends. Where a
    pause lies between, it starts with the sound behind the pause; where no pause can be heard, not
    earlier than a slow speaker would need for it. Starts never decrease nor exceed the ends.
    """
    starts, before_s = [], 0.0
    for word, end_s in zip(text.split(), ends_s, strict=True):
        start_s = before_s
        if end_s - before_s > SHORTEST_PAUSE_S:
            behind = [pause for pause in pauses if before_s < pause[1] < end_s]
            if len(words_of_any_script(word)) > 1:  # a phrase, which may hold pauses of its own
                behind = [pause for pause in behind if pause[0] <= before_s + SHORTEST_PAUSE_S]
            start_s = behind[-1][1] if behind else max(before_s, end_s - longest_word_s(word))
        starts.append(min(start_s, end_s))
        before_s = end_s
    return tuple(starts)


def find_pauses(recording: np.ndarray) -> list[Pause]:
    """The stretches of 0.25 s or more that are quiet, in order.

    recording: 16 kHz float [samples]. Quiet is what lies in the lower third between the floor of
    the recording (its quietest tenth) and its loud parts (the loudest twentieth), in dB.
    """
    hop = round(_HOP_S * RATE_HZ)
    n_frames = len(recording) // hop
    if not n_frames:
        return []
    frames = np.asarray(recording[: n_frames * hop], dtype=np.float64).reshape(n_frames, hop)
    level_db = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-12)
    quietest, loud = np.quantile(level_db, [0.1, 0.95])
    floor = max(quietest, loud - _DEEPEST_DB)
    is_quiet = np.concatenate([[False], level_db < floor + (loud - floor) / 3, [False]])
    starts, stops = np.flatnonzero(np.diff(is_quiet.astype(np.int8))).reshape(-1, 2).T
    is_long = stops - starts >= SHORTEST_PAUSE_S / _HOP_S
    pairs = zip(starts[is_long].tolist(), stops[is_long].tolist(), strict=True)
    return [(round(start * _HOP_S, 2), round(stop * _HOP_S, 2)) for start, stop in pairs]


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
