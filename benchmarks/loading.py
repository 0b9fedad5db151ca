"""Seconds and memory from the start of a process to its first scores.

    python benchmarks/loading.py [--model relisten-tiny] [--repeats 3]

Each run is a fresh process: imports, the model, a list of five hypotheses (`text`, and `ctc` where
the model has a CTC head). relisten's own way is compared with the same through transformers. Files
are fetched and converted before anything is timed. The last line is one JSON object. Peak memory is
that of the resident set (Linux, macOS).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

WAYS = {
    "relisten": (False, "float32"),
    "transformers": (True, "float32"),
    "relisten, bfloat16": (False, "bfloat16"),
    "relisten, int8": (False, "int8"),
}
"""Whether transformers loads the LM, and its dtype."""
TEXTS = (
    "he could hear the sea from where he sat",
    "he could hear the see from where he sat",
    "he could here the sea from where he sat",
    "he could hear the sea from where she sat",
    "he could hear the sea from wear he sat",
)
STAGES = ("imports", "model", "first list")
TOLERANCE = 1e-3
"""Nats by which the two float32 ways may differ."""


def start_and_score(model: str, through_transformers: bool, dtype: str) -> None:
    """Load and score in this process; prints a JSON object."""
    marks = [(0.0 if (began := os.environ.get("BEGAN")) is None else float(began), 0.0)]

    def mark() -> None:
        marks.append((time.time(), time.process_time()))

    import torch

    from relisten.lm.scorer import ScoringInput
    from relisten.tasks.loading import load_rescorer

    if through_transformers:
        import relisten.lm.load

        relisten.lm.load.load_llama = lambda *_: None
    mark()
    rescorer = load_rescorer(model, "cpu", dtype)
    mark()
    components = [name for name in ("text", "ctc") if name in rescorer.components]
    speech = None
    if "ctc" in components:
        second = np.sin(np.arange(16_000, dtype=np.float32) / 20)
        speech = rescorer.need_frontend().encode([second], components)[0]
    scores = {}
    for name in components:
        utterance = ScoringInput(TEXTS, speech=speech)
        scores[name] = rescorer.score([utterance], name)[0].tolist()
    mark()
    report = {
        "wall_s": np.diff([wall for wall, _ in marks]).tolist(),
        "cpu_s": np.diff([cpu for _, cpu in marks]).tolist(),
        "peak_mib": peak_mib(),
        "threads": torch.get_num_threads(),
        "scores": scores,
    }
    print(json.dumps(report))


def peak_mib() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def run(model: str, way: str) -> dict:
    """The figures of one way, from a fresh process."""
    command = [sys.executable, __file__, "--model", model, "--only", way]
    environment = {**os.environ, "BEGAN": repr(time.time())}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="relisten-tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        return start_and_score(asked.model, *WAYS[asked.only])
    runs: dict[str, list[dict]] = {way: [] for way in WAYS}
    for repeat in range(asked.repeats + 1):
        for way in runs:
            found = run(asked.model, way)
            if repeat:  # the first run fetches, converts, and warms the disk's cache
                runs[way].append(found)
    check(runs)
    best = {way: min(found, key=lambda one: sum(one["wall_s"])) for way, found in runs.items()}
    table = Table("way", *(f"{stage}, s" for stage in STAGES), "all, s", "CPU, s", "peak, MiB")
    for way, one in best.items():
        walls = [*one["wall_s"], sum(one["wall_s"]), sum(one["cpu_s"])]
        table.add_row(way, *(f"{value:.2f}" for value in walls), f"{one['peak_mib']:.0f}")
    Console().print(table)
    report = {"model": asked.model, "threads": best["relisten"]["threads"]}
    for way, one in best.items():
        stages = dict(zip(STAGES, one["wall_s"], strict=True))
        report[way] = {
            **{f"{stage}_s": round(value, 3) for stage, value in stages.items()},
            "ready_s": round(stages["imports"] + stages["model"], 3),
            "first_scores_s": round(sum(one["wall_s"]), 3),
            "cpu_s": round(sum(one["cpu_s"]), 3),
            "peak_mib": round(one["peak_mib"], 1),
        }
    print(json.dumps(report))
    return None


def check(runs: dict[str, list[dict]]) -> None:
    """Exit where the two float32 ways do not give the same scores."""
    ours, theirs = (runs[way][0]["scores"] for way in ("relisten", "transformers"))
    for name in theirs:
        apart = float(np.abs(np.array(ours[name]) - np.array(theirs[name])).max())
        if not apart <= TOLERANCE:
            raise SystemExit(f"{name} differs by {apart:.2g} nats: not timed")


if __name__ == "__main__":
    main()
