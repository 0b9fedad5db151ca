"""The cost of scoring as the list and the speech grow, in every order of speech and text.

    python benchmarks/curves.py [--nbest LISTS.jsonl] [--threads N] [--save RESULTS.json]

The same LM and the same batching twice: each list as one prefix tree, and each hypothesis as a full
sequence ("full"). They are timed only if they give the same scores. Texts come from the lists,
widened by the confusions in them. Words end every 0.4 s, at the same times in all hypotheses that
begin alike, which lets a tree share as much as possible; with --nbest, a file with word_ends_s, the
lists and their word ends are used as they are. The last line is one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import peers
import torch
from rich.console import Console
from rich.table import Table
from scoring import best_seconds, check_agreement, idle_cores, keep, machine, written_lists
from widen import confusions, widened

from relisten.core.types import NBest
from relisten.io.nbest import load_nbest
from relisten.io.sources import resolve_model
from relisten.lm.load import load_for_scoring, text_vocabulary
from relisten.lm.model import SpeechExtension, SpeechShape, SpeechTextLM
from relisten.lm.scorer import score_sequences
from relisten.lm.sequences import Order, Speech, TokenSequence, build_sequence
from relisten.lm.texts import TextEncoder
from relisten.lm.tree import build_tree

N_UNITS, UNIT_S, WORD_S = 500, 0.04, 0.4
ORDERS: tuple[Order, ...] = ("text", "speech_first", "interleaved", "text_first")
N, DURATION_S = 10, 4.4
N_CURVE, DURATION_CURVE_S = (5, 10, 20, 50, 100), (2.0, 4.4, 10.0, 20.0, 30.0)

Timed = tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]
"""Texts of a list, and the seconds at which the words of each end."""


def timed_lists(lists: Sequence[NBest]) -> list[Timed]:
    """Lists of at least five hypotheses that all have word ends."""
    found = []
    for one in lists:
        ends = [h.word_ends_s for h in one.hypotheses]
        if len(ends) >= 5 and all(e is not None for e in ends):
            found.append((tuple(h.text for h in one.hypotheses), tuple(e for e in ends if e)))
    return [pair for pair in found if len(pair[0]) == len(pair[1])]


def evenly_timed(texts: Sequence[tuple[str, ...]], duration_s: float) -> Timed:
    """A list with words of WORD_S each; those past duration_s end there."""
    ends = tuple(
        tuple(min(WORD_S * (i + 1), duration_s) for i in range(len(words))) for words in texts
    )
    return tuple(" ".join(words) for words in texts), ends


def measure(
    model: SpeechTextLM,
    texts: TextEncoder,
    order: Order,
    lists: Sequence[Timed],
    duration_s: float,
    repeats: int,
) -> dict[str, float]:
    """Seconds per list of both ways, and the tokens that they compute."""
    rng = np.random.default_rng(0)
    sequences: list[list[TokenSequence]] = []
    speeches: list[Speech | None] = []
    for written, ends in lists:
        last = max([duration_s, *(e[-1] for e in ends if e)])
        codes = rng.integers(0, N_UNITS, (round(last / UNIT_S), 1)).astype(np.int32)
        speeches.append(Speech(codes, UNIT_S))
        sequences.append(
            [
                build_sequence(order, model.vocabulary, texts.words(text), speeches[-1], e)
                for text, e in zip(written, ends, strict=True)
            ]
        )
    apart = [[sequence] for some in sequences for sequence in some]
    apart_speeches = [s for some, s in zip(sequences, speeches, strict=True) for _ in some]
    scores: dict[str, list[np.ndarray]] = {}

    def tree() -> None:
        scores["tree"] = score_sequences(model, sequences, speeches)

    def full() -> None:
        scores["full"] = score_sequences(model, apart, apart_speeches)

    seconds = best_seconds({"tree": tree, "full": full}, repeats)
    check_agreement({name: [np.concatenate(found)] for name, found in scores.items()})
    nodes = sum(len(build_tree(some)) for some in sequences)
    fed = sum(len(sequence) - 1 for some in sequences for sequence in some)
    return {
        "nodes": nodes / len(lists),
        "tokens": fed / len(lists),
        "tree_s": seconds["tree"] / len(lists),
        "full_s": seconds["full"] / len(lists),
        "speedup": seconds["full"] / seconds["tree"],
        "tokens_per_s": nodes / seconds["tree"],
    }


def dense_fraction(model: SpeechTextLM, order: Order, row: dict[str, float]) -> float:
    """The tree's tokens per second over those of a plain causal pass of as many tokens."""
    n = max(1, round(row["nodes"]))
    seconds = best_seconds({"dense": lambda: peers.dense(model, [(1, n)], 0)}, 3)["dense"]
    return row["tokens_per_s"] / (n / seconds)


@click.command()
@click.option("--model", "reference", default="smollm2-135m", help="Any causal LM.")
@click.option(
    "--nbest", type=click.Path(exists=True), help="Lists with word_ends_s, used as they are."
)
@click.option("--lists", "n_lists", default=3, help="Lists per setting.")
@click.option("--repeats", default=2, help="Repeats; the quickest counts.")
@click.option("--threads", type=int, help="Threads of both ways (default: idle cores).")
@click.option("--save", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def main(
    reference: str,
    nbest: str | None,
    n_lists: int,
    repeats: int,
    threads: int | None,
    save: Path | None,
) -> None:
    """Time trees against full sequences as N and the speech grow."""
    torch.set_num_threads(threads or idle_cores())
    torch.manual_seed(0)
    causal, tokenizer = load_for_scoring(resolve_model(reference))
    n_columns = causal.get_input_embeddings().weight.shape[1]
    n_rows = causal.get_output_embeddings().weight.shape[1]
    extension = SpeechExtension(SpeechShape(N_UNITS), n_columns, n_rows)
    model = SpeechTextLM(causal, text_vocabulary(tokenizer, N_UNITS), extension).eval()
    texts = TextEncoder(tokenizer)
    written = written_lists()
    known = confusions(written)

    def wide(n: int, duration_s: float) -> list[Timed]:
        lists = widened(written, known, n)[:n_lists]
        return [evenly_timed(some, duration_s) for some in lists]

    given = timed_lists(load_nbest(nbest))[:n_lists] if nbest else None
    rows = []
    for order in ORDERS:
        settings = [(N, DURATION_S)]
        if order in ("speech_first", "interleaved") and given is None:
            settings += [(n, DURATION_S) for n in N_CURVE if n != N]
            settings += [(N, s) for s in DURATION_CURVE_S if s != DURATION_S]
        for n, duration_s in sorted(settings):
            lists = given if given is not None else wide(n, duration_s)
            lasting_s = 0.0 if given is not None else duration_s
            row = measure(model, texts, order, lists, lasting_s, repeats)
            fraction = dense_fraction(model, order, row)
            rows.append(
                {"order": order, "n": n, "s": duration_s, **row, "dense_fraction": fraction}
            )
    table = Table(title=f"{reference}, float32: per list")
    columns = ("nodes", "tokens", "tree_s", "full_s", "speedup", "dense_fraction")
    for heading in ("order", "N", "speech, s", *columns):
        table.add_column(heading, justify="right")
    for row in rows:
        where = ("as given", "as given") if given is not None else (str(row["n"]), f"{row['s']:g}")
        table.add_row(str(row["order"]), *where, *(f"{row[key]:.3g}" for key in columns))
    hosts = machine()
    console = Console()
    console.print(hosts)
    console.print(table)
    keep({"machine": hosts, "rows": rows}, save)
    main_row = next(r for r in rows if r["order"] == "interleaved" and r["n"] == N)
    keys = ("speedup", "dense_fraction")
    print(json.dumps({f"interleaved_{key}": float(f"{main_row[key]:.4g}") for key in keys}))


if __name__ == "__main__":
    main()
