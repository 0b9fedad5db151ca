"""Peak memory of `rescore` and `evaluate` on 1,000 and 100,000 N-best lists.

    python benchmarks/memory.py [--lists 1000 100000]

Each command runs in a process of its own. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("ad", "en", "ill", "og", "um")]
N_BEST = 5


def write_lists(path: Path, n_lists: int) -> None:
    """N-best lists of random sentences of 4 to 24 words, a tenth of them changed."""
    draw = random.Random(0)
    with path.open("w") as file:
        for i in range(n_lists):
            reference = draw.choices(WORDS, k=draw.randint(4, 24))
            hypotheses = []
            for n in range(N_BEST):
                words = [w if draw.random() < 0.9 else draw.choice(WORDS) for w in reference]
                scores = {"asr": -n - draw.random(), "text": -20 * draw.random()}
                hypotheses.append({"text": " ".join(words), "scores": scores})
            line = {"id": f"utterance-{i}", "reference": " ".join(reference)}
            line["hypotheses"] = hypotheses
            file.write(json.dumps(line) + "\n")


def measure(*arguments: str | Path) -> tuple[float, float]:
    """Peak resident MB and seconds of one relisten command."""
    command = [sys.executable, "-c", "from relisten.apps.cli import main; main()"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.DEVNULL, env=os.environ
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed")
    return usage.ru_maxrss / 1024, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", type=int, nargs=2, default=(1_000, 100_000))
    few, many = parser.parse_args().lists
    peaks: dict[str, list[float]] = {"rescore": [], "evaluate": []}
    with tempfile.TemporaryDirectory() as folder:
        scored, ranked, weights = (Path(folder) / name for name in ("scored", "ranked", "w.json"))
        weights.write_text('{"values": {"asr": 1, "text": 0.3, "length": 0.5}}')
        for n_lists in (few, many):
            write_lists(scored, n_lists)
            runs = {
                "rescore": ("rescore", scored, "-o", ranked, "--weights", weights, "--quiet"),
                "evaluate": ("evaluate", ranked, "--quiet"),
            }
            for name, arguments in runs.items():
                peak_mb, seconds = measure(*arguments)
                peaks[name].append(peak_mb)
                print(f"{name}: {n_lists:,} lists, {peak_mb:.1f} MB, {seconds:.1f} s", flush=True)
    report: dict[str, object] = {"lists": [few, many]}
    for name, (small, large) in peaks.items():
        report[f"{name}_peak_mb"] = [round(small, 1), round(large, 1)]
        report[f"{name}_growth"] = round(large / small - 1, 4)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
