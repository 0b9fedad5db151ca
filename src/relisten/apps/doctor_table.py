"""What people read at the end of `relisten doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from relisten.tasks.doctor.doctor import DoctorReport
    from relisten.tasks.doctor.gain import Gain

_COLOURS = {"ok": "green", "look here": "yellow", "broken": "bold red", "cannot tell": "yellow"}


def print_doctor(report: DoctorReport) -> None:
    """Checks, gains and the verdict, on standard output."""
    console = Console()
    checks = Table(
        title=f"{report.n_utterances:,} utterances", show_header=False, box=None, pad_edge=False
    )
    for no_wrap in (True, True, False):
        checks.add_column(no_wrap=no_wrap)
    for check in report.checks:
        finding = Text(check.finding)
        if check.meaning:
            finding.append(f"\n{check.meaning}", "bold" if check.status == "broken" else "")
        if check.remedy:
            finding.append(f"\n→ {check.remedy}")
        checks.add_row(Text(check.status, _COLOURS[check.status]), check.name, finding)
    console.print(checks)
    if report.gain:
        console.print(_rates(report.gain))
        if report.gain.parts:
            console.print(_parts(report.gain))
    console.print(Text(report.verdict, "bold"), soft_wrap=True)
    console.print(Text(f"Next: {report.next_step}"), soft_wrap=True)


def _rates(gain: Gain) -> Table:
    table = Table(title="word error rate, weights tuned on other speech (cross-validated)")
    table.add_column("choice")
    table.add_column("WER", justify="right")
    table.add_column("of the headroom", justify="right")
    for name, wer in (
        ("first pass", gain.first_pass_wer),
        ("best without a language model", gain.without_lm_wer),
        ("all scores, tuned", gain.tuned_wer),
        ("best of the list (oracle)", gain.oracle_wer),
    ):
        headroom = gain.first_pass_wer - gain.oracle_wer
        share = f"{(gain.first_pass_wer - wer) / headroom:.0%}" if headroom else ""
        table.add_row(name, f"{wer:.2%}", share)
    interval = gain.gain
    table.caption = (
        f"below the first pass {interval.absolute * 100:+.2f} points "
        f"[{interval.absolute_low * 100:+.2f}, {interval.absolute_high * 100:+.2f}], 95 % interval "
        f"over {gain.n_groups:,} speakers or utterances"
    )
    return table


def _parts(gain: Gain) -> Table:
    table = Table(title="what each score brings beside the others (left out, the rest tuned anew)")
    table.add_column("score")
    for heading in ("weight", "WER without", "points it brings", "95 % interval"):
        table.add_column(heading, justify="right")
    for part in gain.parts:
        brought = part.gain
        table.add_row(
            part.component,
            f"{part.weight:.3f}",
            f"{part.wer_without:.2%}",
            f"{brought.absolute * 100:+.2f}",
            f"[{brought.absolute_low * 100:+.2f}, {brought.absolute_high * 100:+.2f}]",
        )
    return table
