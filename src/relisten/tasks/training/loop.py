"""The training loop, for every task that trains: resumable to the bit, on one process or many.

`accelerate launch` (or torchrun) starts the processes; each draws its own micro-steps, and all take
the same step with the mean of their gradients. The first of them evaluates, reports and writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from safetensors.torch import load_file
from torch import Tensor, nn

from relisten.core.types import ModelError, UsageError
from relisten.io.tensors import save_tensors
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule

CHECKPOINT = "checkpoint.safetensors"
"""What a stopped run goes on from: parameters and optimiser."""
BEST = "best.safetensors"
"""Parameters of the best evaluation, where there is patience."""

MicroStep = Callable[[int, int], tuple[str, Tensor, int]]
"""(step, micro) → a label to log under, the loss (differentiable), tokens read."""
DevMetrics = Callable[[], Mapping[str, float]]
"""Development figures; the first of them is to fall. Empty where there is no development set."""


def products_dtype(dtype: str) -> torch.dtype:
    """What products are computed in. auto: bfloat16, or float32 on a CPU without instructions for
    it, where it takes 4 (AVX-512) to 7 (AVX2) times as long. Raises UsageError for a type that is
    none of these.
    """
    if dtype not in ("auto", "bfloat16", "float32"):
        raise UsageError(f"dtype {dtype}: give auto, bfloat16 or float32")
    is_slow = PartialState().device.type == "cpu" and not _multiplies_bfloat16()
    return torch.float32 if dtype == "float32" or (dtype == "auto" and is_slow) else torch.bfloat16


def _multiplies_bfloat16() -> bool:
    """Whether the CPU itself does; oneDNN claims to from AVX-512 on, and emulates it there."""
    kinds = ("avx512_bf16", "amx_tile")
    return any(getattr(torch.cpu, f"_is_{kind}_supported", bool)() for kind in kinds)


@dataclass
class _Progress:
    """What a checkpoint says besides tensors. n_stale: evaluations since the best figure."""

    n_steps: int = 0
    best: float = math.inf
    n_stale: int = 0


@dataclass
class _Since:
    """What happened since the last evaluation."""

    losses: dict[str, list[float]] = field(default_factory=dict)
    n_tokens: int = 0
    n_steps: int = 0
    started: float = field(default_factory=time.monotonic)


def train(
    trained: Mapping[str, nn.Parameter],
    schedule: Schedule,
    micro_step: MicroStep,
    dev_metrics: DevMetrics,
    run: Run,
    rates: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Train in place; the development figures of the parameters that remain.

    What `micro_step` draws depends on (step, micro) alone, and torch's generator is seeded from
    them before, so a run that was stopped goes on from `run.state` to the same bits. rates:
    parameter → factor of its learning rate, 1 unless named. Raises ModelError where a loss or its
    gradient is not finite; the last checkpoint stays.
    """
    processes, state = PartialState(), run.state
    state.mkdir(parents=True, exist_ok=True)
    groups = [
        {"params": [parameter], "scale": (rates or {}).get(name, 1.0)}
        for name, parameter in trained.items()
    ]
    optimiser = adamw(groups, schedule.learning_rate)
    progress = _load(state / CHECKPOINT, trained, optimiser)
    since, figures = _Since(), {}
    with _scalars(state, progress.n_steps, schedule.steps) as log:
        while not _is_done(progress, schedule):
            step = progress.n_steps
            for group in optimiser.param_groups:
                group["lr"] = schedule.learning_rate * schedule.rate(step) * group["scale"]
            optimiser.zero_grad()
            for label, loss in _gradients(trained, schedule, micro_step, run.seed, step, since):
                log(f"loss/{label}", loss, step + 1)
            optimiser.step()
            progress.n_steps = step + 1
            since.n_steps += 1
            if progress.n_steps % schedule.eval_every and progress.n_steps < schedule.steps:
                continue
            seconds = time.monotonic() - since.started
            figures = _evaluated(dev_metrics)
            for name, figure in figures.items():
                log(f"dev/{name}", figure, progress.n_steps)
            if processes.is_main_process:
                run.say(_sentence(progress, schedule, since, seconds, figures))
            _keep(state, trained, optimiser, progress, figures, schedule)
            since = _Since()
    if schedule.patience and (state / BEST).exists():
        if progress.n_stale and processes.is_main_process:
            run.say(f"the best evaluation is kept: {progress.best:.4g}")
        _set_parameters(trained, load_file(state / BEST))
        figures = {}
    return figures or _evaluated(dev_metrics)


def adamw(groups: Sequence[Mapping[str, Any]], learning_rate: float) -> torch.optim.AdamW:
    """AdamW over groups of parameters, in one pass over each where they lie on the CPU: 110M take
    0.20 s on a core of Zen 1 instead of 0.65."""
    on_cpu = all(p.device.type == "cpu" for group in groups for p in group["params"])
    return torch.optim.AdamW(
        [dict(group) for group in groups], learning_rate, weight_decay=0.01, fused=on_cpu or None
    )


def _is_done(progress: _Progress, schedule: Schedule) -> bool:
    ran_out = bool(schedule.patience) and progress.n_stale >= schedule.patience
    return ran_out or progress.n_steps >= schedule.steps


def _gradients(
    trained: Mapping[str, nn.Parameter],
    schedule: Schedule,
    micro_step: MicroStep,
    seed: int,
    step: int,
    since: _Since,
) -> list[tuple[str, float]]:
    """Leave the mean gradient of all micro-steps of all processes; (label, loss) of this one's."""
    processes = PartialState()
    losses: list[tuple[str, float]] = []
    for i in range(schedule.accumulate):
        micro = i * processes.num_processes + processes.process_index
        drawn = np.random.SeedSequence([seed, step, micro]).generate_state(1)
        torch.manual_seed(int(drawn[0]))
        label, loss, n_tokens = micro_step(step, micro)
        (loss / schedule.accumulate).backward()
        losses.append((label, loss.item()))
        since.losses.setdefault(label, []).append(loss.item())
        since.n_tokens += n_tokens * processes.num_processes
    if processes.num_processes > 1:
        for parameter in trained.values():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = reduce(gradient, "mean")
    norm = torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
    if not all(map(math.isfinite, [norm.item(), *(loss for _, loss in losses)])):
        told = ", ".join(f"{label} {loss:.3g}" for label, loss in losses)
        raise ModelError(
            f"step {step + 1}: loss ({told}) or gradient is not finite; the last checkpoint "
            "stays: lower learning_rate, or set dtype: float32, and name another output"
        )
    return losses


def _evaluated(dev_metrics: DevMetrics) -> dict[str, float]:
    """The first process's figures, on all of them."""
    shared: list[Any] = [dict(dev_metrics()) if PartialState().is_main_process else None]
    return dict(broadcast_object_list(shared)[0])


def _sentence(
    progress: _Progress,
    schedule: Schedule,
    since: _Since,
    seconds: float,
    figures: Mapping[str, float],
) -> str:
    left_s = (schedule.steps - progress.n_steps) * seconds / since.n_steps
    return (
        f"step {progress.n_steps}/{schedule.steps}  loss {_line(since.losses)}  "
        f"dev {_line(figures)}  {since.n_tokens / seconds:.0f} tokens/s  {left_s / 60:.0f} min left"
    )


def _line(values: Mapping[str, float] | Mapping[str, list[float]]) -> str:
    return " · ".join(f"{name} {np.mean(value):.2f}" for name, value in sorted(values.items()))


@contextmanager
def _scalars(state: Path, start: int, steps: int) -> Iterator[Callable[[str, float, int], None]]:
    """Writes (name, value, step) as TensorBoard events where that library is installed."""
    is_read = PartialState().is_main_process and start < steps
    if not is_read or find_spec("tensorboard") is None:
        yield lambda name, value, step: None
        return
    from torch.utils.tensorboard import SummaryWriter

    # What a killed run logged beyond its checkpoint is done again: purged.
    writer = SummaryWriter(str(state), purge_step=start + 1 if start else None)
    try:
        yield writer.add_scalar
    finally:
        writer.close()


def _keep(
    state: Path,
    trained: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    progress: _Progress,
    figures: Mapping[str, float],
    schedule: Schedule,
) -> None:
    """Checkpoint, and where there is patience the best parameters first: a run killed between the
    two does the same steps again and finds the same best."""
    first = next(iter(figures.values()), math.inf)
    improved = first < progress.best or not figures
    progress.best = min(first, progress.best)
    progress.n_stale = 0 if improved else progress.n_stale + 1
    if PartialState().is_main_process:
        if schedule.patience and improved:
            save_tensors({f"parameter.{name}": p for name, p in trained.items()}, state / BEST)
        tensors: dict[str, Tensor] = {f"parameter.{name}": p for name, p in trained.items()}
        for name, parameter in trained.items():
            for key, value in optimiser.state[parameter].items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value)
        for key, number in vars(progress).items():
            tensors[key] = torch.tensor(number, dtype=torch.float64)
        save_tensors(tensors, state / CHECKPOINT)
    PartialState().wait_for_everyone()


def _load(
    path: Path, trained: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> _Progress:
    """How far the run came, nothing where there is no checkpoint; sets parameters and optimiser to
    it."""
    if not path.exists():
        return _Progress()
    tensors = load_file(path)
    _set_parameters(trained, tensors)
    for name, parameter in trained.items():
        optimiser.state[parameter] = {
            # AdamW counts steps on the CPU
            key: tensors[f"{key}.{name}"].to("cpu" if key == "step" else parameter.device)
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"{key}.{name}" in tensors
        }
    n_stale = int(tensors["n_stale"]) if "n_stale" in tensors else 0
    best = float(tensors["best"]) if "best" in tensors else math.inf
    return _Progress(int(tensors["n_steps"]), best, n_stale)


def _set_parameters(trained: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in trained.items():
        parameter.data.copy_(tensors[f"parameter.{name}"])
