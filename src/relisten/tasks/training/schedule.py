"""How long and how hard a run trains; the section `schedule` of every configuration that trains."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import MISSING, dataclass
from typing import Literal

from relisten.core.types import UsageError
from relisten.tasks.training.keys import key

FINAL_RATE = 0.1
"""Share of the learning rate that is left at the end of the schedule."""


@dataclass(frozen=True)
class Schedule:
    """Training schedule."""

    steps: int = key(MISSING, "Training steps.")
    learning_rate: float = key(MISSING, "Highest learning rate of AdamW.")
    warmup_steps: int = key(MISSING, "Steps over which the learning rate rises from zero.")
    eval_every: int = key(
        MISSING, "Steps between two evaluations on development data.", affects_training=False
    )
    decay: Literal["cosine", "linear"] = key(
        "cosine", "How the learning rate falls after the warm-up, to a tenth of itself."
    )
    accumulate: int = key(1, "Batches whose mean gradient makes one step.")
    patience: int = key(
        0,
        "Stop after so many evaluations without a better first development figure, and keep the "
        "best parameters; 0: never stop early, and keep the last ones.",
    )

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("eval_every", 1), ("accumulate", 1), ("patience", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    def check_watched(self, dev: Collection[str], name: str) -> None:
        """Raises UsageError where patience has no development data, the key `name`, to watch."""
        if self.patience and not dev:
            raise UsageError(f"patience needs {name}, or it would wait for nothing")

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        left = 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return FINAL_RATE + (1 - FINAL_RATE) * left
