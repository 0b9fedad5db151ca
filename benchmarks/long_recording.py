"""A long recording joined from real utterances, with pauses and noise: WER, speed, memory, resume.

    python benchmarks/long_recording.py SET/dev.jsonl [SET/dev.jsonl ...] --minutes 10 [--kill]

Utterances come in random order, again and again until the recording is long enough, with pauses of
0.3 to 3 s between them, every tenth one of 20 s, and noise under all of it. `relisten transcribe`
runs in a process of its own. --kill: a second run is ended by kill -9 at half the segments, resumed
and compared byte by byte. Other options go to the command. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from relisten.core.error_rates import word_errors
from relisten.core.text import normaliser
from relisten.core.types import NBest
from relisten.io.audio import RATE_HZ, load_audio
from relisten.io.nbest import load_nbest, resolve_audio

NOISE_DBFS = -55.0
COMMAND = [sys.executable, "-c", "from relisten.apps.cli import main; main()", "transcribe"]


@dataclass
class Joined:
    """A recording: what is said, and where nobody speaks, as (start, end), s."""

    duration_s: float = 0.0
    references: list[str] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)


def join(utterances: list[tuple[NBest, Path]], path: Path, minutes: float, seed: int) -> Joined:
    """Write the recording, utterance by utterance."""
    draw, joined, n_samples = np.random.default_rng(seed), Joined(), 0
    order: list[int] = []
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))

        def write(samples: np.ndarray) -> None:
            nonlocal n_samples
            noise = draw.standard_normal(len(samples)) * 10 ** (NOISE_DBFS / 20)
            pcm = (np.clip(samples + noise, -1, 1) * 32_767).astype("<i2")
            file.writeframes(pcm.tobytes())
            n_samples += len(samples)

        while n_samples < minutes * 60 * RATE_HZ:
            order = order or list(draw.permutation(len(utterances)))
            one, manifest = utterances[order.pop()]
            start_s = n_samples / RATE_HZ
            is_tenth = len(joined.references) % 10 == 9
            write(np.zeros(int((20.0 if is_tenth else draw.uniform(0.3, 3.0)) * RATE_HZ)))
            joined.pauses.append((start_s, n_samples / RATE_HZ))
            audio = resolve_audio(one, str(manifest))
            write(load_audio(audio, start_s=one.start_s, duration_s=one.duration_s))
            joined.references.append(one.reference or "")
    joined.duration_s = n_samples / RATE_HZ
    return joined


def transcribe(path: Path, output: Path, more: list[str]) -> tuple[float, float]:
    """Seconds and peak resident GiB of the command."""
    start = time.perf_counter()
    process = subprocess.Popen(command(path, output, more))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"relisten transcribe {path} failed")
    return time.perf_counter() - start, usage.ru_maxrss / (1 << 20)


def command(path: Path, output: Path, more: list[str]) -> list[str]:
    return [*COMMAND, str(path), "--format", "json", "--quiet", "-o", str(output), *more]


def kill_and_resume(path: Path, output: Path, n_segments: int, more: list[str]) -> bool:
    """Whether a run that is killed at half of its segments, then resumed, makes the same bytes."""
    again = output.with_name("resumed.json")
    log = again.with_name(f"{again.name}.partial")
    process = subprocess.Popen(command(path, again, more))
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= n_segments // 2:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.2)
    if process.returncode != -signal.SIGKILL:
        raise SystemExit("the run ended before it was killed; take a longer recording")
    transcribe(path, again, ["--resume", *more])
    return again.read_bytes() == output.read_bytes()


def words_in_pauses(transcript: dict[str, Any], pauses: list[tuple[float, float]]) -> int:
    """How many words lie in a pause, a quarter of a second at its edges aside."""
    words = [word for segment in transcript["segments"] for word in segment["words"]]
    middles = np.array([(word["start_s"] + word["end_s"]) / 2 for word in words])
    return sum(int(((middles > a + 0.25) & (middles < b - 0.25)).sum()) for a, b in pauses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("long-recording"))
    parser.add_argument("--kill", action="store_true")
    arguments, more = parser.parse_known_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path, output = arguments.folder / "joined.wav", arguments.folder / "transcript.json"
    utterances = [(one, name) for name in arguments.manifests for one in load_nbest(name)]
    joined = join(utterances, path, arguments.minutes, arguments.seed)
    print(f"{joined.duration_s / 60:.1f} minutes, {len(joined.references)} utterances", flush=True)
    took_s, peak_gib = transcribe(path, output, more)
    transcript = json.loads(output.read_text())
    normalise = normaliser("english")
    reference = normalise(" ".join(joined.references))

    def wer(text: str) -> float:
        return round(100 * word_errors(reference, normalise(text)).rate, 2)

    report = {
        "minutes": round(joined.duration_s / 60, 1),
        "segments": len(transcript["segments"]),
        "words": len(reference.split()),
        "wer_first_pass": wer(transcript["first_pass_text"]),
        "wer": wer(transcript["text"]),
        "words_in_pauses": words_in_pauses(transcript, joined.pauses),
        "real_time_factor": round(took_s / joined.duration_s, 3),
        "peak_gib": round(peak_gib, 2),
    }
    if arguments.kill:
        n_segments = len(transcript["segments"])
        report["resumed_to_the_same_bytes"] = kill_and_resume(path, output, n_segments, more)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
