"""The prefix tree: hypotheses that start alike are computed once, up to where they part.

N sequences of one utterance become M ≤ Σ L_n nodes. A node sees its ancestors and itself, its
position is its depth, so its hidden state is that of a plain causal pass over its own path: one
forward pass gives exactly the scores of N. Speech that all hypotheses share is simply the trunk.
Last tokens are targets only and are never fed.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from relisten.lm.sequences import TokenSequence

_ROW_BITS = 24  # 65,536 chunk starts: 44 minutes at 25 Hz
_TARGET_BITS = 34  # 4 billion token ids, and how they are scored


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Nodes of one utterance's hypotheses in preorder: behind each all that lies below it.

    ids, rows: int64 [M], as in `TokenSequence`. depth: int64 [M], the position. stop: int64 [M],
    where what lies below a node ends: i is j, or below it, just where j <= i < stop[j]. Targets are
    the distinct (node, next token) pairs: target_node, target_id int64 [K], target_scored int8 [K].
    paths[n]: int64, the targets of hypothesis n that count in its score.
    """

    ids: np.ndarray
    rows: np.ndarray
    depth: np.ndarray
    stop: np.ndarray
    target_node: np.ndarray
    target_id: np.ndarray
    target_scored: np.ndarray
    paths: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Sequences in lexicographic order. order: int64 [N], which they are. tokens: int64 [N, L, 3],
    ids, rows and scored, filled up to the longest. n_fed, shared: int64 [N], how many of their
    tokens are fed, and how many of these a sequence shares with those before it."""

    order: np.ndarray
    tokens: np.ndarray
    n_fed: np.ndarray
    shared: np.ndarray


def _sorted(sequences: Seq[TokenSequence]) -> _Sorted:
    """In this order what a sequence shares with all before it, it shares with its neighbour."""
    lengths = np.array([len(s.ids) for s in sequences])
    inside = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.full((*inside.shape, 3), -2, np.int64)
    for i, name in enumerate(("ids", "rows", "scored")):
        tokens[inside, i] = np.concatenate([getattr(s, name) for s in sequences])
    # agree exactly where token and speech do; big-endian, so that bytes sort alike
    keys = (tokens[..., 0] + 2 << _ROW_BITS) | (tokens[..., 1] + 2)
    raw = [row.tobytes() for row in keys.astype(">i8")]
    order = np.array(sorted(range(len(raw)), key=raw.__getitem__))
    keys, n_fed = keys[order], lengths[order] - 1
    differ = np.ones((len(order), keys.shape[1] + 1), bool)
    differ[1:, :-1] = keys[1:] != keys[:-1]
    shared = np.minimum(differ.argmax(1), n_fed)
    shared[1:] = np.minimum(shared[1:], n_fed[:-1])
    return _Sorted(order, tokens[order], n_fed, shared)


def build_tree(sequences: Seq[TokenSequence]) -> PrefixTree:
    """The prefix tree of one utterance's sequences (each of at least two tokens).

    Each adds one run of new nodes to what it shares with those sorted before it.
    """
    some = _sorted(sequences)
    column = np.arange(some.tokens.shape[1])
    starts = np.cumsum(some.n_fed - some.shared) - (some.n_fed - some.shared)
    n_nodes = int(starts[-1] + some.n_fed[-1] - some.shared[-1])
    parts = column >= some.shared[:, None]  # from where a sequence's own nodes would stand
    is_new = parts & (column < some.n_fed[:, None])
    own = (starts - some.shared)[:, None] + column
    # a sequence's node at a depth is the last new one there, up to it in the order
    node = np.maximum.accumulate(np.where(is_new, own, 0), 0)
    ends = np.where(parts, starts[:, None], n_nodes)
    ends = np.minimum.accumulate(np.vstack([ends[1:], np.full_like(column, n_nodes)])[::-1], 0)
    fed, depth = some.tokens[is_new], np.broadcast_to(column, is_new.shape)[is_new]

    is_target = some.tokens[:, 1:, 2] > 0
    following = some.tokens[:, 1:][is_target]
    pairs = node[:, :-1][is_target] << _TARGET_BITS | following[:, 0] << 2 | following[:, 2]
    targets, index = np.unique(pairs, return_inverse=True)
    paths = np.split(index, np.cumsum(is_target.sum(1))[:-1])
    return PrefixTree(
        fed[:, 0],
        fed[:, 1],
        depth,
        ends[::-1][is_new],
        targets >> _TARGET_BITS,
        (targets & ((1 << _TARGET_BITS) - 1)) >> 2,
        (targets & 3).astype(np.int8),
        tuple(paths[i] for i in np.argsort(some.order)),
    )


def visible(stop: np.ndarray, depth: np.ndarray, window: int | None = None) -> np.ndarray:
    """Who sees whom in a tree, bool [M, M]: row i is true at i and at every ancestor of i less than
    window tokens above it."""
    node = np.arange(len(stop))
    seen = (node <= node[:, None]) & (node[:, None] < stop)
    return seen if window is None else seen & (depth[:, None] - depth < window)


def group_sequences(sequences: Seq[TokenSequence], max_nodes: int) -> list[list[int]]:
    """Indices of the sequences in groups whose trees stay below max_nodes where they can.

    Neighbours in sorted order stay together, for they share most. A sequence longer than max_nodes
    is a group of its own.
    """
    if sum(map(len, sequences)) <= max_nodes:
        return [list(range(len(sequences)))] if sequences else []
    some = _sorted(sequences)
    groups: list[list[int]] = []
    n_nodes = 0
    rows = np.stack([some.order, some.n_fed, some.shared], 1).tolist()
    for n, n_fed, shared in rows:
        added = n_fed - shared
        if not groups or n_nodes + added > max_nodes:
            groups.append([])
            n_nodes, added = 0, n_fed
        groups[-1].append(n)
        n_nodes += added
    return groups
