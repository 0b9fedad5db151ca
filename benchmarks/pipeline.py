"""Real-time factor of the whole of `transcribe`, seconds of each stage, and peak memory.

    python benchmarks/pipeline.py [RECORDING...] [--samples N] [--propose N] [--threads N]
        [--save RESULTS.json]

By default with the recordings of `make demo`. One process; loading the models and one warm-up run
are timed separately and not counted in the real-time factor. The stage "first_pass" is what a
recogniser alone would cost: beam search, without word ends. The last line is one JSON object.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch
from loading import peak_mib
from scoring import machine, tell

from relisten import DecodingOptions, Rescorer, SecondPassOptions
from relisten.io.sources import resolve_model
from relisten.tasks.transcript import Transcript

ALONE = ("audio", "first_pass")
"""Stages that a recogniser without a second pass has, too."""


def summary(transcripts: list[Transcript], wall_s: float) -> dict[str, float]:
    """Seconds of each stage, the real-time factor, and the second pass's share of the time."""
    stages: dict[str, float] = {}
    for transcript in transcripts:
        for stage, seconds in transcript.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    audio_s = sum(transcript.duration_s for transcript in transcripts)
    again = sum(seconds for stage, seconds in stages.items() if stage not in ALONE)
    return {
        "speech_s": audio_s,
        "real_time_factor": wall_s / audio_s,
        "second_pass_share": again / sum(stages.values()),
        **{f"{stage}_s": seconds for stage, seconds in stages.items()},
    }


@click.command()
@click.argument("recordings", nargs=-1, type=click.Path(exists=True))
@click.option("--model", default="relisten-tiny", help="Bundle.")
@click.option("--samples", default=0, help="As in `relisten transcribe`.")
@click.option("--propose", default=0, help="As in `relisten transcribe`.")
@click.option("--threads", type=int, help="Threads of torch (default: its own choice).")
@click.option("--save", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def main(
    recordings: tuple[str, ...],
    model: str,
    samples: int,
    propose: int,
    threads: int | None,
    save: Path | None,
) -> None:
    """Time `transcribe` from recordings to chosen words."""
    if threads:
        torch.set_num_threads(threads)
    paths = recordings or tuple(map(str, sorted(resolve_model("demo-speech").iterdir())))
    start = time.perf_counter()
    rescorer = Rescorer.from_pretrained(
        model,
        decoding=DecodingOptions(samples=samples),
        options=SecondPassOptions(propose=propose),
    )
    rescorer.transcribe(paths[0])  # loads the recogniser, and warms up
    loading_s = time.perf_counter() - start
    start = time.perf_counter()
    transcripts = rescorer.transcribe_all(paths)
    result = summary(transcripts, time.perf_counter() - start)
    result["loading_s"] = loading_s
    result["peak_mib"] = peak_mib()
    result = {key: float(f"{value:.4g}") for key, value in result.items()}

    hosts = {**machine(), "n_recordings": len(paths), "samples": samples, "propose": propose}
    tell(f"transcribe, {model}, {result['speech_s']:.1f} s of speech", hosts, result, save)


if __name__ == "__main__":
    main()
