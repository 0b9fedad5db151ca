"""The tables that `relisten doctor` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table

from relisten.apps.terminal import cell

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
        lines = [cell(check.finding)]
        if check.meaning:
            lines.append(cell(check.meaning, "bold" if check.status == "broken" else ""))
        if check.remedy:
            lines.append(cell(f"→ {check.remedy}"))
        checks.add_row(cell(check.status, _COLOURS[check.status]), cell(check.name), Group(*lines))
    console.print(checks)
    if report.gain:
        console.print(_rates(report.gain))
        if report.gain.parts:
            console.print(_ablations(report.gain))
    console.print(cell(report.verdict, "bold"), soft_wrap=True)
    console.print(cell(f"Next: {report.next_step}"), soft_wrap=True)


def _rates(gain: Gain) -> Table:
    table = Table(title="word error rate, weights tuned on other utterances (cross-validated)")
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
    if (new := gain.new_references) is not None:
        table.add_section()
        label = f"new references ({new.n_utterances:,} utterances)"
        table.add_row(f"first pass, {label}", f"{new.first_pass_wer:.2%}", "")
        table.add_row(f"all scores, tuned, {label}", f"{new.cross_validated_wer:.2%}", "")
    interval = gain.gain
    table.caption = (
        f"below the first pass {interval.absolute * 100:+.2f} points "
        f"[{interval.absolute_low * 100:+.2f}, {interval.absolute_high * 100:+.2f}], 95 % interval "
        f"over {gain.n_groups:,} speakers or utterances"
    )
    return table


def _ablations(gain: Gain) -> Table:
    table = Table(title="what each score contributes (it is left out, the others are tuned again)")
    table.add_column("score")
    for heading in ("weight", "WER without", "points gained", "95 % interval"):
        table.add_column(heading, justify="right")
    for part in gain.parts:
        gained = part.gain
        table.add_row(
            cell(part.component),
            f"{part.weight:.3f}",
            f"{part.wer_without:.2%}",
            f"{gained.absolute * 100:+.2f}",
            f"[{gained.absolute_low * 100:+.2f}, {gained.absolute_high * 100:+.2f}]",
        )
    return table
