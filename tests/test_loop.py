"""The training loop on two numbers: what it does can be worked out by hand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from relisten.core.types import ModelError, UsageError
from relisten.tasks.training.loop import BEST, CHECKPOINT, train
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import FINAL_RATE, Schedule

TARGETS = torch.tensor([[3.0, 1.0], [5.0, -1.0]])


def quiet(line: str) -> None:
    pass


def parameter() -> dict[str, nn.Parameter]:
    return {"x": nn.Parameter(torch.zeros(2))}


def squares(trained: dict[str, nn.Parameter], rows: list[int]) -> Tensor:
    """Mean over `rows` of TARGETS of the squared distance to x."""
    return ((trained["x"] - TARGETS[rows]) ** 2).sum(1).mean()


def test_two_micro_steps_are_one_batch_of_both(tmp_path: Path) -> None:
    """AdamW's first moments, a tenth of the first gradient, are those of one batch of both rows:
    x = 0, the gradient is -2 × the mean target = (-8, 0), clipped to norm 1: (-1, 0)."""
    for name, accumulate in (("both", 1), ("each", 2)):
        trained, state = parameter(), tmp_path / name

        def micro_step(
            step: int, micro: int, trained=trained, is_one=accumulate == 1
        ) -> tuple[str, Tensor, int]:
            return "squares", squares(trained, [0, 1] if is_one else [micro]), 1

        schedule = Schedule(1, 0.5, 0, 1, accumulate=accumulate)
        train(trained, schedule, micro_step, dict, Run(state, 0, quiet))
        kept = load_file(state / CHECKPOINT)
        torch.testing.assert_close(kept["exp_avg.x"], torch.tensor([-0.1, 0.0]))


def run(state: Path, figures: list[float], trained: dict[str, nn.Parameter], **options):
    """Train x towards the first row; the development metric is `figures`, one after the other."""
    said = iter(figures)
    seen: list[float] = []

    def dev_metrics() -> dict[str, float]:
        seen.append(trained["x"][0].item())
        return {"wer": next(said), "other": 0.0}

    schedule = Schedule(steps=20, learning_rate=0.1, warmup_steps=0, eval_every=2, **options)
    lines: list[str] = []
    result = train(
        trained,
        schedule,
        lambda *_: ("squares", squares(trained, [0]), 7),
        dev_metrics,
        Run(state, 0, lines.append),
    )
    return result, seen, lines


def test_patience_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    """Evaluations say 5, 3, 4, 4: the third and the fourth are no better than the second, whose
    parameters are what remain. The last 3 is said of them."""
    trained = parameter()
    result, seen, lines = run(tmp_path, [5, 3, 4, 4, 3], trained, patience=2)
    assert result == {"wer": 3, "other": 0.0}
    assert len(seen) == 5
    assert seen[0] < seen[1] < seen[2]
    assert trained["x"][0].item() == seen[1] == seen[4]
    assert lines[-2].startswith("step 8/20")
    assert (tmp_path / BEST).exists()
    # started again it trains nothing more
    again = parameter()
    result, seen, lines = run(tmp_path, [3], again, patience=2)
    assert torch.equal(again["x"], trained["x"])
    assert not any(line.startswith("step") for line in lines)


def test_without_patience_the_last_parameters_stay(tmp_path: Path) -> None:
    result, seen, lines = run(tmp_path, [5, 3, *[4] * 8], trained := parameter())
    assert result["wer"] == 4
    assert trained["x"][0].item() == seen[-1] > seen[1]
    assert not (tmp_path / BEST).exists()
    assert lines[-1].startswith("step 20/20  loss squares ")
    assert "dev other 0.00 · wer 4.00" in lines[-1]


def test_patience_survives_a_stop(tmp_path: Path) -> None:
    """Stopped between the third and fourth evaluation, the count of stale ones goes on."""
    with pytest.raises(StopIteration):
        run(tmp_path, [5, 3, 4], parameter(), patience=2)
    result, seen, _ = run(tmp_path, [4, 3], parameter(), patience=2)
    assert len(seen) == 2
    assert result["wer"] == 3


def test_what_is_not_finite_stops_with_a_sentence(tmp_path: Path) -> None:
    trained = parameter()

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        return "squares", squares(trained, [0]) * (float("nan") if step == 5 else 1), 1

    with pytest.raises(ModelError, match=r"step 6: loss \(squares nan\)") as caught:
        train(trained, Schedule(8, 0.1, 0, 4), micro_step, dict, Run(tmp_path, 0, quiet))
    assert "\n" not in str(caught.value)
    assert int(load_file(tmp_path / CHECKPOINT)["n_steps"]) == 4
    assert torch.isfinite(trained["x"]).all()


def test_rates_by_hand() -> None:
    """Two steps of warm-up, then down to a tenth: half-way a linear fall is at 0.55, and so is the
    cosine; a quarter on, they are at 0.775 and at 0.1 + 0.9 · (1 + cos 45°) / 2 = 0.868."""
    for kind, quarter in (("linear", 0.775), ("cosine", 0.868)):
        schedule = Schedule(10, 1.0, 2, 1, decay=kind)
        rates = [schedule.rate(step) for step in (0, 1, 2, 4, 6, 10)]
        assert rates == pytest.approx([0.5, 1.0, 1.0, quarter, 0.55, FINAL_RATE], abs=1e-3)


def test_parameters_can_move_at_their_own_rate(tmp_path: Path) -> None:
    """AdamW's first step is the learning rate, whatever the gradient: y moves ten times as far."""
    trained = {name: nn.Parameter(torch.zeros(1)) for name in "xy"}

    def micro_step(step: int, micro: int) -> tuple[str, Tensor, int]:
        return "sum", -(trained["x"] + trained["y"]).sum(), 1

    train(trained, Schedule(1, 0.01, 0, 1), micro_step, dict, Run(tmp_path, 0, quiet), {"y": 10.0})
    assert trained["x"].item() == pytest.approx(0.01, rel=1e-4)
    assert trained["y"].item() == pytest.approx(0.1, rel=1e-4)


def test_schedules_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="accumulate is 0; it must be at least 1"):
        Schedule(1, 0.1, 0, 1, accumulate=0)


def test_tensorboard_can_read_it(tmp_path: Path) -> None:
    """A scalar a label, of every step, and one a figure, of every evaluation."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path, [float(n) for n in range(10)], parameter())
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss/squares", "dev/wer", "dev/other"}
    assert [event.step for event in events.Scalars("loss/squares")] == list(range(1, 21))
    assert [event.value for event in events.Scalars("dev/wer")] == list(range(10))
    losses = [event.value for event in events.Scalars("loss/squares")]
    assert losses[0] == 10.0  # 3² + 1²
    assert losses[-1] < losses[0]


FOUR_TARGETS = torch.tensor([[3.0, 1.0], [5.0, -1.0], [0.0, 2.0], [1.0, 1.0]])


def walk(state: Path, accumulate: int) -> None:
    """Five steps, the micro-steps of each towards a target each; also run in processes below."""
    trained = parameter()
    train(
        trained,
        Schedule(5, 0.1, 0, 5, accumulate=accumulate),
        lambda step, micro: ("squares", ((trained["x"] - FOUR_TARGETS[micro]) ** 2).sum(), 1),
        lambda: {"x": float(trained["x"][0].detach())},
        Run(state),
    )


def test_two_processes_take_the_steps_of_one(tmp_path: Path, capsys) -> None:
    """Two processes of two micro-steps and one of four end in the same place; one of the two writes
    and reports."""
    walk(tmp_path / "one", 4)
    script = f"""
from accelerate import PartialState
PartialState(cpu=True)
from pathlib import Path
from test_loop import walk
walk(Path({str(tmp_path / "two")!r}), 2)
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    places |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | places | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    assert [stdout.count("step 5/5") for stdout, _ in ended] == [1, 0]
    one, two = (load_file(tmp_path / name / CHECKPOINT)["parameter.x"] for name in ("one", "two"))
    torch.testing.assert_close(one, two)
    assert "step 5/5" in capsys.readouterr().out
