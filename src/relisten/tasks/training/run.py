"""What all stages of a training run share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

Say = Callable[[str], None]
"""Takes one line about the progress of a run."""


@dataclass(frozen=True)
class Run:
    """state: the folder of what a stopped run goes on from. seed: of all random draws."""

    state: Path
    seed: int = 0
    say: Say = print

    def inside(self, name: str) -> Run:
        """The same with its state in a folder of its own within this one's."""
        return replace(self, state=self.state / name)
