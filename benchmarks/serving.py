"""How the server carries load: nothing lost, nothing mixed up, how fast, with and without batches.

    python benchmarks/serving.py short.wav talk.wav --requests 300 --clients 16
    python benchmarks/serving.py short.wav --requests 1000 --batch-sizes 8      # memory

Each recording is first transcribed alone; every later answer must be the same. The server runs in
this process, on a port of its own, with the default models. Memory is that of the process, before
the requests and behind them.
"""

from __future__ import annotations

import argparse
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import uvicorn

from relisten.apps.serve.app import Service, ServiceOptions
from relisten.apps.serve.command import load_second_pass
from relisten.io.audio import RATE_HZ, load_audio
from relisten.tasks.defaults import MODEL
from relisten.tasks.second_pass import SecondPass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audio", nargs="+", type=Path)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--model", default=MODEL)
    arguments = parser.parse_args()
    given = {"model": arguments.model, "first_pass": (), "language": None, "phrases": None}
    second_pass, _ = load_second_pass({**given, "weights": None, "device": "auto", "dtype": "auto"})
    for batch_size in arguments.batch_sizes:
        measure(second_pass, batch_size, arguments.audio, arguments.requests, arguments.clients)


def resident_gib() -> float:
    """What the process holds now."""
    n_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return n_pages * resource.getpagesize() / (1 << 30)


def measure(
    second_pass: SecondPass, batch_size: int, paths: list[Path], n_requests: int, n_clients: int
) -> None:
    """Print what became of the requests."""
    service = Service(second_pass, ServiceOptions(batch_size=batch_size))
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/audio/transcriptions"
    server = uvicorn.Server(uvicorn.Config(service.asgi, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    contents = [path.read_bytes() for path in paths]
    seconds = [len(load_audio(path)) / RATE_HZ for path in paths]

    def ask(number: int) -> tuple[float, str | None]:
        started = time.perf_counter()
        answer = httpx.post(
            url,
            files={"file": contents[number % len(paths)]},
            data={"model": "whisper-1"},
            timeout=600,
        )
        text = answer.json()["text"] if answer.status_code == 200 else None
        return time.perf_counter() - started, text

    alone = [ask(number)[1] for number in range(len(paths))]
    before_gib = resident_gib()
    started = time.perf_counter()
    with ThreadPoolExecutor(n_clients) as pool:
        answers = list(pool.map(ask, range(n_requests)))
    took_s = time.perf_counter() - started
    server.should_exit = True
    thread.join()
    lost = sum(text is None for _, text in answers)
    mixed = sum(text not in (None, alone[n % len(paths)]) for n, (_, text) in enumerate(answers))
    middle, late = np.percentile([waited for waited, _ in answers], [50, 95])
    speech_s = sum(seconds[n % len(paths)] for n in range(n_requests))
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    after_gib = resident_gib()
    print(
        f"batches of {batch_size}: {n_requests} requests, {n_clients} clients, {lost} lost, "
        f"{mixed} mixed up; p50 {middle:.2f} s, p95 {late:.2f} s; {speech_s / took_s:.1f} s of "
        f"speech a second; memory {before_gib:.2f} -> {after_gib:.2f}, peak {peak_gib:.2f} GiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
