"""Charts as inline SVG, coloured by the page's style sheet: no library, no script, good on paper.

Every chart has a text alternative: the caller gives it a label, and its numbers as a table beside
it. Coordinates are in user units, y downwards, rounded to a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 44


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """About n round numbers (1, 2 or 5 times a power of ten apart) from low to high."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 10) + 0.0 for place in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's label: few digits, a true minus sign."""
    return f"{value:.6g}".replace("-", "−")


@dataclass
class Plot:
    """A pair of axes to draw on; `svg` gives the picture.

    x, y: (low, high) of the data shown.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    height: int = HEIGHT
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The coordinates of a point of the data."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        bottom = self.height - BOTTOM
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(bottom - up * (bottom - TOP), 1),
        )

    def axes(self, x_label: str, y_label: str, x_ticks: Sequence[float] | None = None) -> None:
        """Grid, ticks and the names of both axes; that of y is above it, where it is horizontal."""
        for value in ticks(*self.y):
            _, y = self.at(self.x[0], value)
            self.parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
            self.text(LEFT - 7, y + 4, number(value), "end")
        base = self.height - BOTTOM
        for value in ticks(*self.x, 6) if x_ticks is None else x_ticks:
            x, _ = self.at(value, self.y[0])
            self.parts.append(f'<path class="tick" d="M{x} {base}v5"/>')
            self.text(x, base + 19, number(value), "middle")
        self.parts.append(f'<path class="axis" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>')
        self.text((LEFT + WIDTH - RIGHT) / 2, self.height - 6, x_label, "middle", "name")
        self.text(2, 12, y_label, "start", "name")

    def text(self, x: float, y: float, words: str, anchor: str, kind: str = "") -> None:
        name = f' class="{kind}"' if kind else ""
        self.parts.append(
            f'<text{name} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Straight from point to point; where points lie above the frame, the line has a gap."""
        runs = groupby(points, key=lambda point: point[1] <= self.y[1])
        path = "".join(
            "M" + "L".join("{} {}".format(*self.at(*point)) for point in run)
            for is_inside, run in runs
            if is_inside
        )
        self.parts.append(f'<path class="line {kind}" d="{path}"/>')

    def dot(self, x: float, y: float, kind: str, title: str = "") -> None:
        x, y = self.at(x, y)
        tooltip = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(f'<circle class="dot {kind}" cx="{x}" cy="{y}" r="4">{tooltip}</circle>')

    def bar(self, left: float, right: float, top: float, kind: str, title: str) -> None:
        x, y = self.at(left, top)
        end, base = self.at(right, self.y[0])
        self.parts.append(
            f'<rect class="bar {kind}" x="{x}" y="{y}" width="{round(end - x, 1)}" '
            f'height="{round(base - y, 1)}"><title>{escape(title)}</title></rect>'
        )

    def svg(self, label: str) -> str:
        """The picture; `label` describes it in words."""
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-label="{escape(label)}">{"".join(self.parts)}</svg>'
        )


def padded(values: Sequence[float], share: float = 0.1) -> tuple[float, float]:
    """The range of rates with a margin above and, down to 0, below; never empty."""
    low, high = min(values), max(values)
    margin = (high - low) * share or abs(high) * share or 1.0
    return max(0.0, low - margin), high + margin
