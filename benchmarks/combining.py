"""Several recognisers combined: each alone, votes, tuned weights, pairs, other speech, and time.

    python benchmarks/combining.py FOLDER -o combining.md

FOLDER holds one folder a test set, and in it one file a recogniser, NAME.jsonl, of the same
utterances in any layout that `relisten combine` reads. Nothing is scored: no model is loaded. What
is tuned is judged by folds that it did not see; intervals are of 95 %.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from relisten.core.agreement import agreement_name, default_votes, errors_of_systems
from relisten.core.arrays import IntArray
from relisten.core.bootstrap import paired_bootstrap
from relisten.core.combine import Weights
from relisten.core.decide import Decision, decide
from relisten.core.error_rates import errors_matrix
from relisten.core.scored_lists import merged_lists
from relisten.core.text import cached_normaliser
from relisten.core.tune import TuningResult, fit_weights
from relisten.core.types import SYSTEMS, Hypothesis, NBest
from relisten.io.nbest import load_nbest
from relisten.tasks.hypotheses.combine import combine
from relisten.tasks.rescore import rescore
from relisten.tasks.tune import tune

NORMALISE = cached_normaliser("english")
PARTNER = "whisper-large-v3"
N_TIMED = 10_000


@dataclass(frozen=True)
class TestSet:
    """A set whose best recogniser stands first. errors: of each recogniser, int64 [U]."""

    name: str
    files: dict[str, str]
    errors: dict[str, IntArray]
    n_words: IntArray

    @property
    def best(self) -> str:
        return next(iter(self.files))

    def lists(self, systems: Sequence[str], mix: bool) -> list[NBest]:
        """The lists that `relisten combine` makes of these recognisers, in this order."""
        with tempfile.TemporaryDirectory() as work:
            path = f"{work}/lists.jsonl"
            combine({name: self.files[name] for name in systems}, path, mix=mix)
            return load_nbest(path)

    def rate(self, errors: IntArray) -> str:
        return f"{100 * errors.sum() / self.n_words.sum():.2f}"

    def below(self, errors: IntArray, other: IntArray) -> str:
        """How many points of WER `errors` are below `other`, with the interval."""
        gain = paired_bootstrap(other, errors, self.n_words)
        low, high = 100 * gain.absolute_low, 100 * gain.absolute_high
        return f"{100 * gain.absolute:.2f} [{low:.2f}, {high:.2f}]"


def read_set(folder: Path) -> TestSet:
    files = {path.stem: str(path) for path in sorted(folder.glob("*.jsonl"))}
    with tempfile.TemporaryDirectory() as work:
        combine(files, f"{work}/lists.jsonl")
        lists = load_nbest(f"{work}/lists.jsonl")
    errors = {name: np.array(own) for name, own in errors_of_systems(lists, NORMALISE).items()}
    order = sorted(files, key=lambda name: int(errors[name].sum()))
    n_words = np.array([len(NORMALISE(one.reference or "").split()) for one in lists])
    return TestSet(folder.name, {name: files[name] for name in order}, errors, n_words)


def errors_of(lists: Iterable[NBest], weights: Weights, decision: Decision = "map") -> IntArray:
    """Errors of what weights choose, int64 [U]."""
    errors = []
    for one in lists:
        chosen = decide(one, weights, decision, confidence=False).hypotheses[0].text
        errors.append(errors_matrix(NORMALISE(one.reference or ""), [NORMALISE(chosen)])[0])
    return np.array(errors)


def rover(lists: Iterable[NBest]) -> IntArray:
    """Errors of the vote on each word in which each recogniser counts once, int64 [U]."""
    said = (
        replace(one, hypotheses=tuple(Hypothesis(t) for t in one.extra[SYSTEMS].values()))
        for one in lists
    )
    return errors_of(said, Weights({}), "rover")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "\n"


def alone(sets: Sequence[TestSet]) -> str:
    names = sorted({name for one in sets for name in one.files})
    rows = (
        [f"{one.name}, {len(one.n_words):,} utterances"]
        + [one.rate(one.errors[name]) if name in one.errors else "" for name in names]
        for one in sets
    )
    return table(["WER in %", *names], rows)


def combined(sets: Sequence[TestSet]) -> tuple[str, dict[str, TuningResult]]:
    """The table of all recognisers together, and what was tuned on each set, texts mixed."""
    found, rows = {}, []
    for one in sets:
        systems = list(one.files)
        plain = merged_lists(one.lists(systems, mix=False), "english")
        single = one.errors[one.best]
        votes = {agreement_name(name): 1.0 for name in systems}
        voted = rover(plain)
        untuned = errors_of(plain, Weights(default_votes(list(votes))))
        tuned = fit_weights(plain, n_resamples=0)
        mixed = found[one.name] = fit_weights(one.lists(systems, mix=True), n_resamples=0)
        oracle = np.min(list(one.errors.values()), axis=0)
        result = mixed.held_out_errors
        captured = (single.sum() - result.sum()) / max(1, single.sum() - oracle.sum())
        rows.append(
            [
                one.name,
                f"{one.rate(single)} ({one.best})",
                one.rate(voted),
                one.rate(errors_of(plain, Weights(votes), "mbr")),
                f"{one.rate(untuned)}; {one.below(untuned, single)}",
                one.rate(tuned.held_out_errors),
                one.rate(result),
                one.rate(oracle),
                one.below(result, single),
                one.below(result, voted),
                f"{captured:.0%}",
                "best single" if mixed.is_kept else "tuned",
            ]
        )
    headings = (
        "set", "best single", "vote (ROVER)", "MBR", "untuned; points below the best single",
        "tuned", "tuned, mixed", "oracle", "points below the best single",
        "points below the vote", "captured of single → oracle", "`tune` writes",
    )  # fmt: skip
    return table(headings, rows), found


def pairs(sets: Sequence[TestSet]) -> str:
    """Two recognisers, one of them PARTNER: points below the better one of the two."""
    rows = []
    for one in sets:
        for name in one.files:
            if name == PARTNER or PARTNER not in one.files:
                continue
            both = [system for system in one.files if system in (name, PARTNER)]
            tuned = fit_weights(one.lists(both, mix=True), n_resamples=0)
            result = tuned.held_out_errors
            rows.append(
                [
                    one.name,
                    name,
                    one.rate(one.errors[PARTNER]),
                    one.rate(one.errors[name]),
                    one.rate(result),
                    one.below(result, one.errors[both[0]]),
                    "best single" if tuned.is_kept else "tuned",
                ]
            )
    headings = ("set", "with", PARTNER, "the other", "both, tuned", "points below the better one",
                "`tune` writes")  # fmt: skip
    return table(headings, rows)


def transfer(sets: Sequence[TestSet], tuned: dict[str, TuningResult]) -> str:
    """Weights of one set on another: WER, and points below that one's best recogniser."""
    lists = {
        one.name: merged_lists(one.lists(list(one.files), mix=True), "english") for one in sets
    }
    rows = []
    for source in sets:
        row = [source.name]
        for one in sets:
            if one is source:
                row.append("")
                continue
            errors = errors_of(lists[one.name], tuned[source.name].cautious_weights)
            row.append(f"{one.rate(errors)}; {one.below(errors, one.errors[one.best])}")
        rows.append(row)
    return table(["weights of", *(f"on {one.name}" for one in sets)], rows)


def timed(sets: Sequence[TestSet], work: Path) -> str:
    """Seconds for N_TIMED utterances, those of all sets again and again under new ids."""
    names = sorted(set.intersection(*(set(one.files) for one in sets)))
    files = {}
    for name in names:
        lines = [line for one in sets for line in Path(one.files[name]).read_text().splitlines()]
        path = work / f"{name}.jsonl"
        with path.open("w") as file:
            for n, line in enumerate(islice(cycle(lines), N_TIMED)):
                record = json.loads(line) | {"audio_filepath": f"{n:06d}"}
                file.write(json.dumps(record) + "\n")
        files[name] = str(path)
    lists, ranked = str(work / "lists.jsonl"), str(work / "ranked.jsonl")
    kept: list[TuningResult] = []
    steps: dict[str, Callable[[], object]] = {
        "combine --mix": lambda: combine(files, lists, mix=True),
        "tune": lambda: kept.append(tune(lists)[0]),
        "rescore": lambda: rescore(lists, ranked, kept[0].weights),
    }
    rows = []
    for step, run in steps.items():
        start = time.perf_counter()
        run()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append([step, f"{time.perf_counter() - start:.0f}", f"{memory:.0f}"])
    return table((f"{N_TIMED:,} utterances", "seconds", "MiB at most until then"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--no-time", action="store_true", help="leave the timing out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        sets = [read_set(path) for path in sorted(options.folder.iterdir()) if path.is_dir()]
        # First, while little memory is used.
        times = {} if options.no_time else {"Time": timed(sets, Path(work))}
        all_together, tuned = combined(sets)
        parts = {
            "Each alone": alone(sets),
            "All together": all_together,
            f"Pairs with {PARTNER}": pairs(sets),
            "On other speech than tuned on": transfer(sets, tuned),
            **times,
        }
    text = "\n".join(f"## {heading}\n\n{part}" for heading, part in parts.items())
    options.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
