"""Batches drawn by weight, of examples that are alike in length; the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from relisten.lm.sequences import Order
from relisten.tasks.training.examples import Example, WeightedSets, serving

TOKENS_PER_DRAW = 3
"""One example is drawn for so many tokens of a batch; neighbours in length make the batch."""


def draw_batch(
    sets: WeightedSets[Example],
    tasks: Mapping[Order, float],
    batch_tokens: int,
    seed: int,
    step: int,
    micro: int = 0,
) -> tuple[Order, list[Example]]:
    """The order of a micro-step and its batch; the same for the same (seed, step, micro).

    The order is drawn first, then examples of the sets that can serve it, by weight; neighbours in
    length of those make the batch, so that little of `batch_tokens` is padding: 11 % over 200 steps
    of the speechocean recipe (768 tokens; 12 % of 2,048; 5 % in the orders of whole speech).
    """
    rng = np.random.default_rng([seed, step, micro])
    orders = list(tasks)
    shares = np.array([tasks[o] for o in orders], float)
    order = orders[rng.choice(len(orders), p=shares / shares.sum())]
    found = serving(sets, order)
    return order, draw_alike(found, lambda e: n_positions(order, e), batch_tokens, rng)


def draw_alike(
    sets: WeightedSets[Example],
    size: Callable[[Example], int],
    budget: int,
    rng: np.random.Generator,
) -> list[Example]:
    """Examples drawn by weight and alike in size: padded to the longest they fit the budget."""
    shares = np.array([len(examples) * weight for examples, weight in sets])
    drawn = []
    n_drawn = max(64, budget // TOKENS_PER_DRAW)
    for s in rng.choice(len(sets), n_drawn, p=shares / shares.sum()):
        examples = sets[s][0]
        drawn.append(examples[rng.integers(len(examples))])
    drawn.sort(key=size)
    start = int(rng.integers(len(drawn)))
    batch: list[Example] = []
    longest = 0
    for example in drawn[start:] + drawn[:start][::-1]:
        longest = max(longest, size(example))
        if batch and longest * (len(batch) + 1) > budget:
            break
        batch.append(example)
    return batch


def n_positions(order: Order, example: Example) -> int:
    """About how many tokens an example's sequence has."""
    n_tokens, n_words = sum(map(len, example.words)), len(example.words)
    if order == "text":
        return n_tokens + 3
    if order == "chunked":
        return n_tokens + n_words + 2
    if order == "speech":
        return len(example.speech) + 3
    return n_tokens + len(example.speech) + 2 * n_words + 4
