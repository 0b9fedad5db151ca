"""What all stages of a training run share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from relisten.tasks.streams import Say


@dataclass(frozen=True)
class Run:
    """state: the folder of what a stopped run goes on from. seed: of all random draws. say: takes
    a line about the progress at a time."""

    state: Path
    seed: int = 0
    say: Say = print

    def inside(self, name: str) -> Run:
        """The same with its state in a folder of its own within this one's."""
        return replace(self, state=self.state / name)
