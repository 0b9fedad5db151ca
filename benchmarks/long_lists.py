"""Seconds and memory of decisions on long lists, with and without word confidence.

    python benchmarks/long_lists.py [--hypotheses 1000] [--words 100]

One list of a random text with random errors, ranked after its texts are merged. `normalise` is the
time to normalise its texts once, which no decision can do without: `ratio` is to that. Peak memory
is what a decision allocates at most besides the list. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import tracemalloc
from collections.abc import Callable

from relisten.core.combine import Weights
from relisten.core.decide import DECISIONS
from relisten.core.text import cached_normaliser, normaliser
from relisten.core.types import Hypothesis, NBest
from relisten.tasks.ranking import rank

WEIGHTS = Weights({"asr": 1.0, "length": 0.4})


def make_list(n_hypotheses: int, n_words: int, seed: int = 0) -> NBest:
    """Hypotheses of which each lacks 5 % of the words of a text and has 10 % others."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices("abdegiklmnorstu", k=5)) for _ in range(500)]
    text = draw.choices(vocabulary, k=n_words)

    def with_errors() -> str:
        kept = (word for word in text if draw.random() > 0.05)
        return " ".join(draw.choice(vocabulary) if draw.random() < 0.1 else word for word in kept)

    texts = [with_errors() for _ in range(n_hypotheses)]
    return NBest("u", tuple(Hypothesis(text, {"asr": -5.0 - n}) for n, text in enumerate(texts)))


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of `work`, and MB at most in another run of it, the normaliser's cache emptied."""
    cached_normaliser.cache_clear()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    cached_normaliser.cache_clear()
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hypotheses", type=int, default=1000)
    parser.add_argument("--words", type=int, default=100)
    options = parser.parse_args()
    nbest = make_list(options.hypotheses, options.words)
    normalise = normaliser(WEIGHTS.normaliser)
    normalise("twenty one")  # the rules are loaded
    unit, _ = measured(lambda: [normalise(hypothesis.text) for hypothesis in nbest.hypotheses])
    results = {"normalise": {"seconds": unit, "ratio": 1.0}}
    for decision in DECISIONS:
        for confidence in (True, False):
            name = decision if confidence else f"{decision} without confidence"
            seconds, peak_mb = measured(
                lambda d=decision, c=confidence: rank(nbest, WEIGHTS, d, c)  # type: ignore[misc]
            )
            results[name] = {"seconds": seconds, "ratio": seconds / unit, "peak_mb": peak_mb}
    for name, row in results.items():
        memory = f"{row['peak_mb']:6.0f} MB" if "peak_mb" in row else ""
        print(f"{name:26} {row['seconds']:6.2f} s  x {row['ratio']:4.1f} {memory}")
    print(json.dumps({"hypotheses": options.hypotheses, "words": options.words, **results}))


if __name__ == "__main__":
    main()
