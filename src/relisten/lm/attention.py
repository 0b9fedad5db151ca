"""Attention over a row of many prefix trees: no padding, and no matrix of all pairs of nodes.

Trees stand one behind the other, each in preorder, so that the descendants of node j are the nodes
up to stop[j]: i sees j just where j <= i < stop[j], and no tree sees another. Two comparisons
decide it, on a GPU as well: of blocks of 128 nodes, the last stop in a block tells whether later
blocks see any of it, the first stop whether they see all of it (FlexAttention, arXiv:2412.05496).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from relisten.lm.tree import PrefixTree, visible

MASKED = -1e9  # additive; finite, so that a row in which nothing is seen has no NaN
BLOCK = 128
"""Nodes of a block: what FlexAttention's kernels work on at a time."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(queries [B, heads, L, d], keys and values [B, key heads, L, d]) → attended values, shaped as the
queries; each key head answers the same number of query heads."""


def in_blocks(device: torch.device) -> bool:
    """Whether FlexAttention's kernels run there: on a GPU, through Triton."""
    return device.type == "cuda" and find_spec("triton") is not None


def additive(seen: np.ndarray, dtype: torch.dtype) -> Tensor:
    """The additive mask, 0 where a bool array of any shape is true and MASKED elsewhere."""
    mask = torch.zeros(seen.shape, dtype=dtype)
    return mask.masked_fill_(torch.from_numpy(~seen), MASKED)


def attend_masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """`Attend` with an additive mask, broadcast over [B, heads, L, L]; None: plain causal."""
    key, value = _for_each_query(key, query), _for_each_query(value, query)
    return functional.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees in one row of L nodes.

    depth, stop: int64 [L], as in `PrefixTree`, but stop counts from the start of the row. bounds:
    int64 [n_trees + 1], where trees start and end. window: a node sees ancestors less than this
    many positions before it (None: all). Nodes that fill the row up to a multiple of BLOCK, where
    that is asked for, see themselves alone.
    """

    depth: np.ndarray
    stop: np.ndarray
    bounds: np.ndarray
    window: int | None = None

    @classmethod
    def of(cls, trees: Seq[PrefixTree], window: int | None = None, fill: bool = False) -> Forest:
        """The row of these trees; fill: whether it is filled up to a multiple of BLOCK."""
        bounds = np.cumsum([0, *map(len, trees)])
        length = -(-bounds[-1] // BLOCK) * BLOCK if fill else bounds[-1]
        depth, stop = np.zeros(length, np.int64), np.arange(1, length + 1)
        for tree, start, end in zip(trees, bounds[:-1], bounds[1:], strict=True):
            depth[start:end] = tree.depth
            stop[start:end] = tree.stop + start
        return cls(depth, stop, bounds, window)

    def __len__(self) -> int:
        return len(self.depth)

    def attend_apart(self, device: torch.device, dtype: torch.dtype) -> Attend:
        """Each tree by itself, with the mask of its nodes; the row must not be filled up."""
        masks = []
        for start, end in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            stop, depth = self.stop[start:end] - start, self.depth[start:end]
            masks.append(additive(visible(stop, depth, self.window), dtype).to(device))
        sizes = np.diff(self.bounds).tolist()

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            row = (query, _for_each_query(key, query), _for_each_query(value, query))
            parts = zip(*(x.split(sizes, 2) for x in row), masks, strict=True)
            return torch.cat([functional.scaled_dot_product_attention(*part) for part in parts], 2)

        return attend

    def attend_in_blocks(self, device: torch.device) -> Attend:
        """All trees at once, in a kernel that skips the blocks of which nothing is seen.

        The row must be filled up. Outside of `torch.compile` all blocks are computed.
        """
        from torch.nn.attention.flex_attention import flex_attention

        mask = self.block_mask(device)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return flex_attention(query, key, value, block_mask=mask, enable_gqa=True)

        return attend

    def block_mask(self, device: torch.device) -> Any:
        """FlexAttention's BlockMask, made from blocks instead of from all pairs of nodes."""
        from torch.nn.attention.flex_attention import BlockMask

        n = len(self) // BLOCK
        last, first = (f(self.stop.reshape(n, BLOCK), 1) for f in (np.max, np.min))
        start = np.arange(n) * BLOCK
        before = np.tri(n, k=-1, dtype=bool)
        full = before & (first >= start[:, None] + BLOCK) & (self.window is None)
        partial = (before & (last > start[:, None]) & ~full) | np.eye(n, dtype=bool)
        stop, depth = (torch.from_numpy(x).int().to(device) for x in (self.stop, self.depth))
        window = self.window

        def sees(_batch: Tensor, _head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            seen = (j <= i) & (i < stop[j])
            return seen if window is None else seen & (depth[i] - depth[j] < window)

        return BlockMask.from_kv_blocks(
            *_kv_blocks(partial, device), *_kv_blocks(full, device), BLOCK, sees
        )


def _kv_blocks(blocks: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """How many entries of each row [n, n] are true, and the columns, true ones first: [1, 1, n] and
    [1, 1, n, n]."""
    order = np.argsort(~blocks, 1, kind="stable")
    counts, order = (torch.from_numpy(x).int().to(device) for x in (blocks.sum(1), order))
    return counts[None, None], order[None, None]


def _for_each_query(x: Tensor, query: Tensor) -> Tensor:
    """Keys or values [B, key heads, L, d] repeated to the number of query heads."""
    group = query.shape[1] // x.shape[1]
    return x if group == 1 else x.repeat_interleave(group, 1)
