"""The prefix tree's layout, by hand and by property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.lm.sequences import TokenSequence
from relisten.lm.tree import build_tree, group_sequences, path_tree, visible


def sequence(*ids: int) -> TokenSequence:
    return TokenSequence.of_text(ids)


def test_layout_by_hand():
    """0 5 6 E, 0 5 E, 0 7 E with E = 1: the nodes are 0 5 6 7, the targets 5 7 | 1 6 | 1 | 1."""
    tree = build_tree([sequence(0, 5, 6, 1), sequence(0, 5, 1), sequence(0, 7, 1)])
    assert sorted(tree.ids.tolist()) == [0, 5, 6, 7]
    assert len(tree.target_id) == 6
    depth = dict(zip(tree.ids.tolist(), tree.depth.tolist(), strict=True))
    assert depth == {0: 0, 5: 1, 6: 2, 7: 1}
    seen = {
        i: set(tree.ids[row].tolist())
        for i, row in zip(tree.ids.tolist(), visible(tree.stop, tree.depth), strict=True)
    }
    assert seen == {0: {0}, 5: {0, 5}, 6: {0, 5, 6}, 7: {0, 7}}


sequences = st.lists(
    st.lists(st.integers(2, 4), max_size=6).map(lambda ids: sequence(0, *ids, 1)),
    min_size=1,
    max_size=12,
)


@given(sequences)
def test_every_path_reads_back_as_its_sequence(built):
    tree = build_tree(built)
    prefixes = {tuple(s.ids[: i + 1]) for s in built for i in range(len(s) - 1)}
    assert len(tree) == len(prefixes), "one node a distinct prefix, no more"
    for s, path in zip(built, tree.paths, strict=True):
        assert tree.target_id[path].tolist() == s.ids[1:].tolist()
        for i, node in enumerate(tree.target_node[path]):
            ancestors = np.flatnonzero(visible(tree.stop, tree.depth)[node])
            assert tree.ids[ancestors].tolist() == s.ids[: i + 1].tolist()
            assert tree.depth[ancestors].tolist() == list(range(i + 1))


@given(sequences)
def test_the_tree_of_one_sequence_is_a_path(built):
    """Made directly or as any tree; where a tree branches it is no path."""
    path, tree = path_tree(built[0]), build_tree(built[:1])
    for name in ("ids", "spans", "depth", "stop", "target_node", "target_id", "target_scored"):
        np.testing.assert_array_equal(getattr(path, name), getattr(tree, name))
    np.testing.assert_array_equal(path.paths, tree.paths)
    assert path.is_path
    whole = build_tree(built)
    everything_before = np.tri(len(whole), dtype=bool)
    assert whole.is_path == (visible(whole.stop, whole.depth) == everything_before).all()


def test_the_same_marker_with_other_speech_is_another_node():
    """Chunks of units 0 to 2 and 0 to 3 part after BOS; equal ones stay together."""
    first, second = sequence(0, 9, 1), sequence(0, 9, 1)
    first.spans[1], second.spans[1] = (0, 2), (0, 3)
    assert build_tree([first, second]).spans.tolist() == [[-1, -1], [0, 2], [0, 3]]
    assert len(build_tree([first, first])) == 2


def test_tokens_that_do_not_fit_64_bits_are_refused():
    one = sequence(0, 2**40, 1)
    one.spans[1] = (2**20, 2**21)
    with pytest.raises(ValueError, match="invalid dims"):
        build_tree([one])


@given(sequences, st.integers(1, 20))
def test_groups_hold_every_sequence_once_and_stay_small(built, max_nodes):
    groups = group_sequences(built, max_nodes)
    assert sorted(n for g in groups for n in g) == list(range(len(built)))
    for group in groups:
        assert len(group) == 1 or len(build_tree([built[n] for n in group])) <= max_nodes
