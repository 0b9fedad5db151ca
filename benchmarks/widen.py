"""N-best lists of as many hypotheses as a benchmark needs, from the confusions of real lists."""

from __future__ import annotations

import difflib
import random
from collections import defaultdict
from functools import cache

Words = tuple[str, ...]


def confusions(lists: list[list[Words]]) -> dict[Words, list[Words]]:
    """For a span of words, the words that the lists have in its place; both ways.

    An inserted or deleted word counts together with the word before it (at the start, after it).
    """
    found: dict[Words, set[Words]] = defaultdict(set)
    for first, *others in lists:
        for other in others:
            matcher = difflib.SequenceMatcher(None, first, other, autojunk=False)
            for kind, i, i_end, j, j_end in matcher.get_opcodes():
                if kind == "equal":
                    continue
                if kind != "replace":
                    back = min(i, j, 1)
                    i, j, i_end, j_end = i - back, j - back, i_end + 1 - back, j_end + 1 - back
                a, b = first[i:i_end], other[j:j_end]
                found[a].add(b)
                found[b].add(a)
    return {span: sorted(others - {span, ()}) for span, others in found.items() if span}


def grown(texts: list[Words], known: dict[Words, list[Words]], n: int, seed: int) -> list[Words]:
    """n distinct hypotheses: those given, then copies of them with one more known confusion.

    Fewer than n where the words allow no more.
    """
    rng = random.Random(seed)
    pool = list(dict.fromkeys(texts))[:n]
    seen = set(pool)
    longest = max((len(span) for span in known), default=0)

    @cache
    def places_in(words: Words) -> list[tuple[int, int]]:
        return [
            (start, start + length)
            for start in range(len(words))
            for length in range(1, longest + 1)
            if known.get(words[start : start + length])
        ]

    for _ in range(200 * n):
        if len(pool) == n:
            break
        words = rng.choice(pool)
        places = places_in(words)
        if not places:
            continue
        start, stop = rng.choice(places)
        changed = words[:start] + rng.choice(known[words[start:stop]]) + words[stop:]
        if changed not in seen:
            seen.add(changed)
            pool.append(changed)
    return pool


def widened(lists: list[list[Words]], known: dict[Words, list[Words]], n: int) -> list[list[Words]]:
    """The lists with exactly n hypotheses each; lists whose words do not allow n are left out."""
    made = [grown(texts, known, n, seed) for seed, texts in enumerate(lists)]
    return [texts for texts in made if len(texts) == n]
