"""The prefix tree: hypotheses that start alike are computed once, up to where they part.

N sequences of one utterance become M ≤ Σ L_n nodes. A node sees its ancestors and itself, and its
position is its depth, so its hidden state is that of a plain causal pass over its own path: one
forward pass gives exactly the scores of N. Speech that all hypotheses share is simply the trunk.
Last tokens are targets only and are never fed.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from relisten.lm.sequences import AS_SPEECH, UNSCORED, TokenSequence


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Nodes of one utterance's hypotheses in preorder: each node is followed by its descendants.

    ids: int64 [M], spans: int64 [M, 2], as in `TokenSequence`. depth: int64 [M], the position.
    stop: int64 [M], where a node's descendants end: i is j or a descendant of j just where
    j <= i < stop[j]. Targets are the distinct (node, next token) pairs: target_node, target_id
    int64 [K], target_scored int8 [K]. paths: for each hypothesis the indices of the targets that
    its score sums, int64.
    """

    ids: np.ndarray
    spans: np.ndarray
    depth: np.ndarray
    stop: np.ndarray
    target_node: np.ndarray
    target_id: np.ndarray
    target_scored: np.ndarray
    paths: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_path(self) -> bool:
        """Whether it nowhere branches: every node sees all nodes before it."""
        return self.depth[-1] == len(self) - 1


@dataclass(frozen=True, slots=True)
class _Sorted:
    """N sequences in lexicographic order of their tokens.

    order: int64 [N], the place of each among the sequences given. ids, spans, scored: the tokens of
    all sequences one after the other, as given, and one more that is never scored. token: int64
    [N, L], the index of each sequence's tokens among those, -1 beyond its end. n_fed, shared: int64
    [N], how many of a sequence's tokens are fed, and how many of those it shares with its
    predecessors.
    """

    order: np.ndarray
    ids: np.ndarray
    spans: np.ndarray
    scored: np.ndarray
    token: np.ndarray
    n_fed: np.ndarray
    shared: np.ndarray


def _sorted(sequences: Seq[TokenSequence]) -> _Sorted:
    """In this order, what a sequence shares with any before it, it shares with its neighbour."""
    lengths = np.array([len(s) for s in sequences])
    inside = np.arange(lengths.max()) < lengths[:, None]
    token = np.full(inside.shape, -1)
    token[inside] = np.arange(lengths.sum())
    ids = np.concatenate([*(s.ids for s in sequences), [-1]])
    spans = np.concatenate([*(s.spans for s in sequences), [(-1, -1)]])
    scored = np.concatenate([*(s.scored for s in sequences), [UNSCORED]])
    # Tokens are the same where id and span are: one number each, what stands beyond the end the
    # smallest. numpy raises ValueError where the numbers would not fit 64 bits.
    columns = (ids + 1, *(spans.T + 1))
    keys = np.ravel_multi_index(columns, [int(column.max()) + 1 for column in columns])[token]
    raw = [row.tobytes() for row in keys.astype(">i8")]  # big-endian, so that bytes sort alike
    order = np.array(sorted(range(len(raw)), key=raw.__getitem__))
    keys, n_fed = keys[order], lengths[order] - 1
    differ = np.ones((len(order), keys.shape[1] + 1), bool)
    differ[1:, :-1] = keys[1:] != keys[:-1]
    shared = np.minimum(differ.argmax(1), n_fed)
    shared[1:] = np.minimum(shared[1:], n_fed[:-1])
    return _Sorted(order, ids, spans, scored, token[order], n_fed, shared)


def build_tree(sequences: Seq[TokenSequence]) -> PrefixTree:
    """The prefix tree of one utterance's sequences (each of at least two tokens).

    In sorted order each sequence adds one run of new nodes to those it shares with its
    predecessors.
    """
    batch = _sorted(sequences)
    column = np.arange(batch.token.shape[1])
    n_new = batch.n_fed - batch.shared
    starts = np.cumsum(n_new) - n_new
    n_nodes = int(n_new.sum())
    is_own = column >= batch.shared[:, None]  # columns from which a sequence has nodes of its own
    is_new = is_own & (column < batch.n_fed[:, None])
    # a sequence's node at a depth is the last new one there, up to this sequence in the order
    own = (starts - batch.shared)[:, None] + column
    node = np.maximum.accumulate(np.where(is_new, own, 0), 0)
    ends = np.where(is_own, starts[:, None], n_nodes)
    ends = np.minimum.accumulate(np.vstack([ends[1:], np.full_like(column, n_nodes)])[::-1], 0)
    fed, depth = batch.token[is_new], np.broadcast_to(column, is_new.shape)[is_new]

    following = batch.token[:, 1:]
    is_target = batch.scored[following] > UNSCORED
    following = following[is_target]
    # targets are the distinct (node, id, scored), sorted as one number each
    columns = node[:, :-1][is_target], batch.ids[following], batch.scored[following]
    shape = n_nodes, int(batch.ids.max()) + 1, AS_SPEECH + 1
    targets, index = np.unique(np.ravel_multi_index(columns, shape), return_inverse=True)
    target_node, target_id, target_scored = np.unravel_index(targets, shape)
    paths = np.split(index, np.cumsum(is_target.sum(1))[:-1])
    return PrefixTree(
        batch.ids[fed],
        batch.spans[fed],
        depth,
        ends[::-1][is_new],
        target_node,
        target_id,
        target_scored.astype(np.int8),
        tuple(paths[i] for i in np.argsort(batch.order)),
    )


def path_tree(sequence: TokenSequence) -> PrefixTree:
    """The tree of one sequence: a path, its targets in the order of the sequence."""
    n = len(sequence) - 1
    is_target = np.flatnonzero(sequence.scored)
    return PrefixTree(
        sequence.ids[:-1],
        sequence.spans[:-1],
        np.arange(n),
        np.full(n, n),
        is_target - 1,
        sequence.ids[is_target],
        sequence.scored[is_target],
        (np.arange(len(is_target)),),
    )


def visible(stop: np.ndarray, depth: np.ndarray, window: int | None = None) -> np.ndarray:
    """Who sees whom in a tree, bool [M, M]: row i is true at i and at every ancestor of i that is
    less than `window` positions before it (None: at every ancestor)."""
    node = np.arange(len(stop))
    seen = (node <= node[:, None]) & (node[:, None] < stop)
    return seen if window is None else seen & (depth[:, None] - depth < window)


def group_sequences(sequences: Seq[TokenSequence], max_nodes: int) -> list[list[int]]:
    """Indices of the sequences, in groups whose trees have at most max_nodes nodes where possible.

    Neighbours in sorted order stay together, for they share most. A sequence longer than max_nodes
    is a group of its own.
    """
    if sum(map(len, sequences)) <= max_nodes:
        return [list(range(len(sequences)))] if sequences else []
    batch = _sorted(sequences)
    groups: list[list[int]] = []
    n_nodes = 0
    rows = np.stack([batch.order, batch.n_fed, batch.shared], 1).tolist()
    for n, n_fed, shared in rows:
        added = n_fed - shared
        if not groups or n_nodes + added > max_nodes:
            groups.append([])
            n_nodes, added = 0, n_fed
        groups[-1].append(n)
        n_nodes += added
    return groups
