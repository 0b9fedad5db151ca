"""How close tree scoring comes to a GPU's limit, for decoders of three sizes.

    python benchmarks/gpu.py [--size 135M] [--size 1B] [--size 7B] [--save RESULTS.json]

Random weights in bfloat16, with the shapes of SmolLM2-135M, Llama 3.2 1B and Llama 2 7B. One list
of a hundred hypotheses, and a thousand lists of ten, each behind 110 units of speech; texts are
those of the written lists, widened by the confusions in them. Three ways to attend: all trees of a
batch in one row and in blocks ("blocks", as `score` does on a GPU), each tree by itself ("apart"),
and padded rows with a mask ("padded"). They are timed only if, in float32 and with two layers, all
give the scores of full sequences one by one.

"share of peak" is the FLOPs that the scores need (matrix products, the head where something is
scored, attention of each node to its ancestors) per second, over the data sheet's dense bfloat16
rate; "share of products" is the same over the rate of one large product in the same run. The
seconds include building trees and batches and copying. The last line is one JSON object.
"""

from __future__ import annotations

import json
import zlib
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import torch
from peers import Problem
from rich.console import Console
from rich.table import Table
from scoring import (
    JSON_PREFIX,
    best_seconds,
    check_agreement,
    keep,
    machine,
    make_problem,
    written_lists,
)
from torch import nn
from widen import Words, confusions, widened

from relisten.lm import forward
from relisten.lm.attention import in_blocks
from relisten.lm.backend.llama import LlamaConfig, LlamaLM
from relisten.lm.model import SpeechTextLM
from relisten.lm.scorer import score_sequences
from relisten.lm.sequences import TokenSequence
from relisten.lm.vocabulary import Vocabulary

SHAPES = {
    "tiny": LlamaConfig(300, 64, 128, 2, 4, 2, 16, 1e-5, 10_000.0),
    "135M": LlamaConfig(49_152, 576, 1536, 30, 9, 3, 64, 1e-5, 100_000.0),
    "1B": LlamaConfig(128_256, 2048, 8192, 16, 32, 8, 64, 1e-5, 500_000.0),
    "7B": LlamaConfig(32_000, 4096, 11_008, 32, 32, 32, 128, 1e-5, 10_000.0),
}
PEAK_TFLOPS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L40S": 362, "L4": 121}
"""Dense bfloat16, from NVIDIA's data sheets, by the first name contained in the device's name."""
SETTINGS = {"one list of 100": (100, 1), "1,000 lists of 10": (10, 1000)}
WAYS = ("blocks", "apart", "padded")


class SplitWords:
    """Token ids without a tokenizer: one per word, and one more per six letters beyond six."""

    def __init__(self, n_text: int) -> None:
        self.n_text = n_text

    def words(self, text: str) -> list[list[int]]:
        return [
            [zlib.crc32(word[i : i + 6].encode()) % self.n_text for i in range(0, len(word), 6)]
            for word in text.split()
        ]


def random_lm(config: LlamaConfig, device: str, dtype: torch.dtype) -> SpeechTextLM:
    """A decoder with random weights, scaled so that no layer's output grows."""
    torch.manual_seed(0)
    with torch.device("meta"):
        causal = LlamaLM(config, set())
    causal = causal.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    for parameter in causal.parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return SpeechTextLM(causal, vocabulary_of(config))


def needed_flops(config: LlamaConfig, problem: Problem) -> float:
    """FLOPs of every node's products, of the head where something is scored, and of attention."""
    queries, keys = (
        n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads)
    )
    layer = config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size)
    flops = 0.0
    for tree in problem.trees():
        flops += 2.0 * len(tree) * layer * config.num_hidden_layers
        flops += 2.0 * len(np.unique(tree.target_node)) * config.hidden_size * config.vocab_size
        flops += 4.0 * int((tree.depth + 1).sum()) * queries * config.num_hidden_layers
    return flops


def attending(way: str) -> ExitStack:
    """A context in which scores are computed in this way."""
    stack = ExitStack()
    if way == "padded":
        never = property(lambda self: False)
        stack.enter_context(patch.object(SpeechTextLM, "takes_attend", never))
    stack.enter_context(patch.object(forward, "in_blocks", lambda device: way == "blocks"))
    return stack


def score_seconds(model: SpeechTextLM, sequences: list[list[TokenSequence]], repeats: int) -> float:
    """Seconds to score all lists, the quickest of the repeats."""
    run = partial(score_sequences, model, sequences, [None] * len(sequences))
    return best_seconds({"scores": run}, 1 + repeats)["scores"]  # the first warms up


def products_tflops(device: str, dtype: torch.dtype, size: int) -> float:
    """TFLOP/s of one large matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2e-12 * size**3 / best_seconds({"product": product}, 10)["product"]


def written_problem(config: LlamaConfig, lists: list[list[Words]], n: int, many: int) -> Problem:
    """`many` lists of n hypotheses, each behind units drawn at random."""
    wide = widened(lists, confusions(lists), n)
    again = [wide[i % len(wide)] for i in range(many)]
    texts = SplitWords(config.vocab_size)
    return make_problem(again, vocabulary_of(config), texts, JSON_PREFIX)


def vocabulary_of(config: LlamaConfig) -> Vocabulary:
    return Vocabulary(config.vocab_size, 0, 1)


def check_scores(lists: list[list[Words]], device: str) -> float:
    """The largest difference of any way to full sequences one by one, nats."""
    config = SHAPES["tiny"]
    model = random_lm(config, device, torch.float32)
    problem = written_problem(config, lists, 5, 3)
    sequences = problem.token_sequences()
    alone = [[one] for some in sequences for one in some]
    scores = {}
    with attending("apart"):
        scores["one by one"] = [np.concatenate(score_sequences(model, alone, [None] * len(alone)))]
    for way in WAYS:
        with attending(way):
            found = score_sequences(model, sequences, [None] * len(sequences))
            scores[way] = [np.concatenate(found)]
    return check_agreement(scores)


def peak_tflops(device: str) -> float | None:
    if device != "cuda":
        return None
    name = torch.cuda.get_device_name()
    return next((tflops for part, tflops in PEAK_TFLOPS.items() if part in name), None)


@click.command()
@click.option(
    "--size", "sizes", multiple=True, type=click.Choice(list(SHAPES)), help="Sizes of the LM."
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda")
@click.option("--lists", "n_lists", default=1000, help="Lists of the large setting.")
@click.option("--repeats", default=3, help="Repeats; the quickest counts.")
@click.option("--save", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def main(
    sizes: tuple[str, ...], device: str, n_lists: int, repeats: int, save: Path | None
) -> None:
    """Time tree scoring on a GPU against its limit."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("torch sees no GPU here; --device cpu --size tiny tries the code")
    lists = written_lists()
    worst = check_scores(lists, device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    limit = products_tflops(device, dtype, 8192 if device == "cuda" else 512)
    peak = peak_tflops(device)
    hosts = {**machine(), "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
    rows = []
    for size in sizes or ("135M", "1B", "7B"):
        config = SHAPES[size]
        model = random_lm(config, device, dtype)
        if in_blocks(model.device):
            model.causal.compile_layers()
        for setting, (n, many) in SETTINGS.items():
            problem = written_problem(config, lists, n, min(many, n_lists))
            flops, sequences = needed_flops(config, problem), problem.token_sequences()
            for way in WAYS:
                with attending(way):
                    taken = score_seconds(model, sequences, repeats)
                rate = 1e-12 * flops / taken
                rows.append(
                    {
                        "size": size,
                        "lists": setting,
                        "way": way,
                        "seconds": taken,
                        "lists_per_s": len(sequences) / taken,
                        "nodes_per_s": sum(map(len, problem.trees())) / taken,
                        "tflops": rate,
                        "share_of_products": rate / limit,
                        "share_of_peak": rate / peak if peak else None,
                    }
                )
        del model
    gib = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    summary = {
        f"{r['size']}, {r['lists']}": r["share_of_peak"] for r in rows if r["way"] == WAYS[0]
    }
    result = {"products_tflops": limit, "peak_gib": gib, "largest_difference": worst, **summary}
    tell_rows(hosts, rows, result, save)


def tell_rows(
    hosts: dict[str, object], rows: list[dict], result: dict[str, float | None], save: Path | None
) -> None:
    """Print the table and the last line, and write the file where `save` is given."""
    table = Table(title="tree scoring")
    for heading in rows[0]:
        table.add_column(heading.replace("_", " "), justify="right")
    for row in rows:
        cells = (v if isinstance(v, str) else "" if v is None else f"{v:.3g}" for v in row.values())
        table.add_row(*cells)
    console = Console(width=150)
    console.print(hosts)
    console.print(table)
    keep({"machine": hosts, "rows": rows, "summary": result}, save)
    print(json.dumps({k: None if v is None else float(f"{v:.4g}") for k, v in result.items()}))


if __name__ == "__main__":
    main()
