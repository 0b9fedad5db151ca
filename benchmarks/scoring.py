"""Seconds to score N-best lists: prefix trees against padded batches of full sequences.

    python benchmarks/scoring.py [--quick] [--n 50 --prefix 300] [--save RESULTS.json]

All ways use the same LM, token ids and threads in one process, take turns, and count with their
quickest repeat. They are timed only if they give the same scores. The last line is one JSON object.
Needs minicons.
"""

from __future__ import annotations

import json
import os
import platform
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
import numpy as np
import peers
import torch
from peers import Problem
from rich.console import Console
from rich.table import Table
from widen import Words, confusions, widened

from relisten.io.nbest import load_nbest
from relisten.io.sources import resolve_model
from relisten.lm.load import load_causal_lm, load_for_scoring, text_vocabulary
from relisten.lm.model import SpeechTextLM
from relisten.lm.scorer import BATCH_TOKENS
from relisten.lm.texts import TextEncoder
from relisten.lm.vocabulary import Vocabulary

LISTS, QUICK_LISTS = {5: 8, 10: 6, 50: 2}, {5: 2, 10: 2, 50: 1}
"""N → the number of lists."""
WRITTEN_LISTS = Path(__file__).parent / "data" / "nbest.jsonl"
PEERS = ("HF batch", "minicons")
TREE = "tree"
OWN_PRODUCTS, CACHED = "HF*", "HF* cached"
"""HF with our matrix products (*), and with a cached prefix besides: the ratio to the first is what
trees and batches gain, that to the second what sharing words gains."""
TOLERANCE = 1e-3
"""Nats by which the scores of a hypothesis may differ."""
JSON_PREFIX = 110
"""Units of 4.4 s of speech at 25 Hz; figures of the last line that name no prefix are for it."""


def make_problem(
    lists: list[list[Words]], vocabulary: Vocabulary, texts: TextEncoder, n_prefix: int
) -> Problem:
    rng = random.Random(n_prefix)
    sequences = []
    for hypotheses in lists:
        prefix = [rng.randrange(vocabulary.n_text) for _ in range(n_prefix)]
        given = [vocabulary.bos_id, *prefix]
        sequences.append(
            [
                [*given, *(t for w in texts.words(" ".join(words)) for t in w), vocabulary.eos_id]
                for words in hypotheses
            ]
        )
    return Problem(sequences, n_prefix + 1)


def check_agreement(scores: dict[str, peers.Scores]) -> float:
    """The largest difference to the first way's scores, nats; exits above TOLERANCE."""
    (first, *rest) = scores
    wanted = np.concatenate(scores[first])
    worst = 0.0
    for name in rest:
        difference = float(np.abs(np.concatenate(scores[name]) - wanted).max())
        if not difference <= TOLERANCE:
            raise SystemExit(f"{name} differs from {first} by {difference:.2g} nats: not timed")
        worst = max(worst, difference)
    return worst


def best_seconds(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each run's quickest repeat; runs take turns, so that a busy moment hits all."""
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def compare(
    problem: Problem, field: dict[str, Callable[[Problem], peers.Scores]], repeats: int
) -> dict[str, object]:
    """Tokens and seconds of one problem."""
    scores: dict[str, peers.Scores] = {}

    def run(name: str) -> Callable[[], None]:
        return lambda: scores.__setitem__(name, field[name](problem))

    # the scores of the first repeat are checked
    runs = {name: run(name) for name in field}
    seconds = best_seconds(runs, 1)
    worst = check_agreement(scores)
    if repeats > 1:
        again = best_seconds(runs, repeats - 1)
        seconds = {name: min(s, again[name]) for name, s in seconds.items()}
    return {
        "n_utterances": len(problem.sequences),
        "n_scored_tokens": problem.n_scored,
        "tree_tokens": sum(map(len, problem.trees())),
        "batch_tokens": problem.padded_tokens,
        "largest_difference": worst,
        "seconds": seconds,
    }


def dense_fractions(model: SpeechTextLM, problem: Problem, repeats: int) -> dict[str, float]:
    """Our tokens per second over those of plain causal passes with the same matrix products.

    The passes compute as many tokens: each has as many rows as a batch of ours has trees, of the
    trees' mean length.
    """
    trees = problem.trees()
    n_nodes = sum(map(len, trees))
    mean = round(n_nodes / len(trees))
    per_batch = max(1, BATCH_TOKENS // mean)
    shapes = [(min(per_batch, len(trees) - i), mean) for i in range(0, len(trees), per_batch)]
    score = peers.tree(model)
    head_rows = sum(len(np.unique(t.target_node)) for t in trees)
    seconds = best_seconds(
        {
            "ours": lambda: score(problem),
            "dense": lambda: peers.dense(model, shapes, 0),
            "dense_with_head": lambda: peers.dense(model, shapes, head_rows),
        },
        repeats,
    )
    ours = n_nodes / seconds["ours"]
    n_dense = sum(b * length for b, length in shapes)
    return {
        "dense_fraction": ours / (n_dense / seconds["dense"]),
        "dense_fraction_with_head": ours / (n_dense / seconds["dense_with_head"]),
        "head_rows_per_token": head_rows / n_nodes,
        "tokens_per_s": ours,
    }


def idle_cores() -> int:
    """Threads to use: more threads than idle cores would wait for each other."""
    return max(1, min(torch.get_num_threads(), round(torch.get_num_threads() - os.getloadavg()[0])))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, object]:
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((s.split(":")[1].strip() for s in lines if s.startswith("model name")), cpu)
    packages = ("relisten", "torch", "transformers", "ctranslate2", "minicons")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
    }


def tell(title: str, hosts: dict[str, object], result: dict[str, float], save: Path | None) -> None:
    """Print figures as a table and as one JSON object on the last line; also to the file `save`."""
    table = Table(title=title)
    for heading in ("figure", "value"):
        table.add_column(heading, justify="right")
    for name, value in result.items():
        table.add_row(name, f"{value:g}")
    console = Console()
    console.print(hosts)
    console.print(table)
    keep({"machine": hosts, "summary": result}, save)
    print(json.dumps(result))


def keep(everything: dict[str, object], save: Path | None) -> None:
    """Write all figures as JSON to `save`, where it is given."""
    if save:
        save.parent.mkdir(parents=True, exist_ok=True)
        save.write_text(json.dumps(everything, indent=1) + "\n")


def written_lists(nbest: Path = WRITTEN_LISTS) -> list[list[Words]]:
    """The words of each hypothesis, of lists whose first hypothesis has more than two."""
    lists = [[tuple(h.text.split()) for h in u.hypotheses] for u in load_nbest(nbest)]
    return [some for some in lists if some and len(some[0]) > 2]


def settings(
    quick: bool, ns: tuple[int, ...], prefixes: tuple[int, ...]
) -> Iterator[tuple[int, int, int]]:
    """(N, units of prefix, utterances)."""
    if quick and not ns and not prefixes:
        for n, n_utterances in QUICK_LISTS.items():
            yield n, JSON_PREFIX if n > 5 else 0, n_utterances
        return
    for n, n_utterances in (QUICK_LISTS if quick else LISTS).items():
        for n_prefix in prefixes or (0, 100, JSON_PREFIX, 300):
            if n in (ns or LISTS):
                yield n, n_prefix, n_utterances


@click.command()
@click.option("--quick", is_flag=True, help="Few settings and repeats: under five minutes.")
@click.option("--n", "ns", multiple=True, type=click.Choice(["5", "10", "50"]), help="Hypotheses.")
@click.option("--prefix", "prefixes", multiple=True, type=int, help="Units before the texts.")
@click.option("--model", "reference", default="smollm2-135m", help="Any causal LM.")
@click.option("--nbest", default=WRITTEN_LISTS, help="N-best lists to take the texts from.")
@click.option("--threads", type=int, help="Threads of every way (default: idle cores).")
@click.option("--save", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def main(
    quick: bool,
    ns: tuple[str, ...],
    prefixes: tuple[int, ...],
    reference: str,
    nbest: Path,
    threads: int | None,
    save: Path | None,
) -> None:
    """Time the tree scorer against a Hugging Face batch and minicons."""
    torch.set_num_threads(threads or idle_cores())
    folder = resolve_model(reference)
    causal, tokenizer = load_causal_lm(folder)
    texts = TextEncoder(tokenizer)
    # the peers normalise over all rows of the head, including those that no token uses
    n_rows = causal.get_output_embeddings().weight.shape[0]
    vocabulary = replace(text_vocabulary(tokenizer), n_text=n_rows)
    model = SpeechTextLM(load_for_scoring(folder)[0], vocabulary)
    hf = peers.hf_batch(causal)
    field = {
        TREE: peers.tree(model),
        "HF batch": hf,
        "minicons": peers.minicons(causal, tokenizer),
        OWN_PRODUCTS: peers.through_onednn(hf),
        CACHED: peers.through_onednn(peers.hf_cached_prefix(causal)),
    }
    lists = written_lists(nbest)
    known = confusions(lists)
    hosts = machine()
    console = Console()
    console.print(hosts)
    table = Table(
        title=f"{reference}, float32: seconds (and against the tree)",
        caption="* with relisten's matrix products (oneDNN); cached: the prefix computed once",
    )
    for heading in ("N", "prefix", "lists", "nodes", "batch", *field):
        table.add_column(heading, justify="right")

    wide = {n: widened(lists, known, n) for n in (5, 10, 50)}
    field[TREE](make_problem(wide[10][:1], model.vocabulary, texts, 0))  # warm-up
    rows = []
    for n, n_prefix, n_utterances in settings(quick, tuple(map(int, ns)), prefixes):
        problem = make_problem(wide[n][:n_utterances], model.vocabulary, texts, n_prefix)
        row = {"n": n, "prefix": n_prefix, **compare(problem, field, 2 if quick else 3)}
        rows.append(row)
        seconds = row["seconds"]
        table.add_row(
            *(str(row[k]) for k in ("n", "prefix", "n_utterances", "tree_tokens", "batch_tokens")),
            *(f"{s:.2f} ({s / seconds[TREE]:.1f})" for s in seconds.values()),
        )
    console.print(table)

    some = wide[10][: 8 if quick else 20]
    problem = make_problem(some, model.vocabulary, texts, JSON_PREFIX)
    result: dict[str, float] = {
        **_speedups(rows),
        **dense_fractions(model, problem, 3 if quick else 5),
        "largest_difference": max(r["largest_difference"] for r in rows),
    }
    result = {key: float(f"{value:.4g}") for key, value in result.items()}
    keep({"machine": hosts, "model": reference, "rows": rows, "summary": result}, save)
    print(json.dumps(result))


def _speedups(rows: list[dict]) -> dict[str, float]:
    """The fastest peer's seconds over ours, and the same for HF with our products."""
    result = {}
    for row in rows:
        if not row["prefix"]:
            continue
        seconds = row["seconds"]
        name = f"speedup_n{row['n']}"
        if row["prefix"] != JSON_PREFIX:
            name += f"_prefix{row['prefix']}"
        result[name] = min(seconds[p] for p in PEERS) / seconds[TREE]
        result[f"{name}_same_products"] = seconds[OWN_PRODUCTS] / seconds[TREE]
        result[f"{name}_cached_prefix"] = seconds[CACHED] / seconds[TREE]
    return result


if __name__ == "__main__":
    main()
