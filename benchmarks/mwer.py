"""Seconds of a training step for word errors (MWER): prefix trees against N passes per list.

    python benchmarks/mwer.py [--quick] [--model NAME] [--nbest LISTS.jsonl] [--save RESULTS.json]

Forward and backward, LoRA on the same LM, the same token ids and threads in one process; the ways
take turns and count with their quickest repeat. They are timed only if they give the same
gradients. The last line is one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from peers import Problem
from rich.console import Console
from rich.table import Table
from scoring import (
    WRITTEN_LISTS,
    best_seconds,
    idle_cores,
    keep,
    machine,
    make_problem,
    written_lists,
)
from torch import Tensor
from widen import confusions, widened

from relisten.io.sources import resolve_model
from relisten.lm.load import load_causal_lm, text_vocabulary
from relisten.lm.model import SpeechTextLM
from relisten.lm.mwer import hypothesis_scores, mwer_loss
from relisten.lm.texts import TextEncoder
from relisten.lm.training import sequence_losses
from relisten.tasks.training.trainable import add_lora

N = 10
TREE, PADDED, ONE_BY_ONE = "tree", "batch of N", "one by one"
TOLERANCE = 1e-3
"""By how much gradients may differ, relative to the largest."""
LISTS, QUICK_LISTS = 6, 2


def on_trees(model: SpeechTextLM, problem: Problem) -> list[Tensor]:
    """Scores of each list's hypotheses, from one tree per list."""
    trees = problem.trees()
    return [hypothesis_scores(model, [tree], [None])[0] for tree in trees]


def padded(model: SpeechTextLM, problem: Problem) -> list[Tensor]:
    """The same from one padded batch of full sequences per list."""
    found = []
    for sequences in problem.token_sequences():
        losses = sequence_losses(model, sequences, [None] * len(sequences))
        n_scored = [int((s.scored > 0).sum()) for s in sequences]
        found.append(torch.stack([-part.sum() for part in losses.split(n_scored)]))
    return found


def one_by_one(model: SpeechTextLM, problem: Problem) -> list[Tensor]:
    """The same from one pass per hypothesis."""
    return [
        torch.stack([-sequence_losses(model, [s], [None]).sum() for s in sequences])
        for sequences in problem.token_sequences()
    ]


def step(
    model: SpeechTextLM,
    problem: Problem,
    score: Callable[[SpeechTextLM, Problem], Sequence[Tensor]],
) -> list[Tensor]:
    """The gradients of the mean MWER loss; the hypotheses of a list have 0, 1, … N − 1 errors."""
    model.zero_grad()
    losses = [mwer_loss(s, torch.arange(len(s)).float()) for s in score(model, problem)]
    torch.stack(losses).mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def check_agreement(gradients: dict[str, list[Tensor]]) -> float:
    """The largest difference to the first way's gradients, relative; exits above TOLERANCE."""
    (first, *rest) = gradients
    wanted = np.concatenate([g.flatten().numpy() for g in gradients[first]])
    worst = 0.0
    for name in rest:
        found = np.concatenate([g.flatten().numpy() for g in gradients[name]])
        difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        if not difference <= TOLERANCE:
            raise SystemExit(f"{name} differs from {first} by {difference:.2g}: not timed")
        worst = max(worst, difference)
    return worst


def compare(model: SpeechTextLM, problem: Problem, repeats: int) -> dict[str, object]:
    """Tokens and seconds of a step on one problem."""
    ways = {TREE: on_trees, PADDED: padded, ONE_BY_ONE: one_by_one}
    gradients: dict[str, list[Tensor]] = {}

    def run(name: str) -> Callable[[], None]:
        return lambda: gradients.__setitem__(name, step(model, problem, ways[name]))

    runs = {name: run(name) for name in ways}
    seconds = best_seconds(runs, repeats)
    return {
        "n_utterances": len(problem.sequences),
        "tree_tokens": sum(map(len, problem.trees())),
        "batch_tokens": problem.padded_tokens,
        "largest_difference": check_agreement(gradients),
        "seconds": seconds,
    }


@click.command()
@click.option("--quick", is_flag=True, help="Two lists, two repeats: a minute.")
@click.option("--model", "reference", default="smollm2-135m", help="Any causal LM.")
@click.option("--nbest", default=WRITTEN_LISTS, help="N-best lists to take the texts from.")
@click.option("--threads", type=int, help="Threads of every way (default: idle cores).")
@click.option("--save", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def main(quick: bool, reference: str, nbest: Path, threads: int | None, save: Path | None) -> None:
    """Time a MWER step through trees against passes over full sequences, N = 10."""
    torch.set_num_threads(threads or idle_cores())
    causal, tokenizer = load_causal_lm(resolve_model(reference))
    texts = TextEncoder(tokenizer)
    lora = add_lora(causal, 16, reference, 0)
    for name, parameter in causal.named_parameters():
        if "lora_B" in name:  # at zero, half of the gradients are zero as well
            torch.nn.init.normal_(parameter, std=0.01)
    model = SpeechTextLM(causal, text_vocabulary(tokenizer)).eval()
    lists = written_lists(nbest)
    wide = widened(lists, confusions(lists), N)
    hosts = {key: value for key, value in machine().items() if key != "minicons"}
    console = Console()
    console.print(hosts)
    table = Table(title=f"{reference}, LoRA {lora['r']}, float32, N = {N}: seconds (and the ratio)")
    for heading in ("prefix", "lists", "nodes", "batch", TREE, PADDED, ONE_BY_ONE):
        table.add_column(heading, justify="right")
    rows = []
    for n_prefix in (0, 110):
        some = wide[: QUICK_LISTS if quick else LISTS]
        problem = make_problem(some, model.vocabulary, texts, n_prefix)
        row = {"prefix": n_prefix, **compare(model, problem, 2 if quick else 3)}
        rows.append(row)
        seconds = row["seconds"]
        table.add_row(
            *(str(row[k]) for k in ("prefix", "n_utterances", "tree_tokens", "batch_tokens")),
            *(f"{s:.2f} ({s / seconds[TREE]:.1f})" for s in seconds.values()),
        )
    console.print(table)
    result = {
        f"speedup_prefix{row['prefix']}{key}": float(
            f"{row['seconds'][name] / row['seconds'][TREE]:.4g}"
        )
        for row in rows
        for name, key in ((ONE_BY_ONE, ""), (PADDED, "_batched"))
    }
    keep({"machine": hosts, "model": reference, "rows": rows, "summary": result}, save)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
