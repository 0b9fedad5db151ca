"""Names from files on a terminal: shown as they are, never obeyed."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.table import Table

from relisten.apps.tables import print_evaluation, print_tuning
from relisten.apps.terminal import cell, printable, rate_text
from relisten.core.tune import fit_weights
from relisten.core.types import Hypothesis, NBest
from relisten.tasks.evaluation.evaluate import evaluate

NASTY = "[/x]\x1b[31mred\x07"


def test_control_characters_are_escaped_and_scripts_are_not() -> None:
    assert printable(NASTY) == "[/x]\\x1b[31mred\\x07"
    assert printable("a\u202eb\n\ud800") == "a\\u202eb\\n\\ud800"
    assert printable("naïve \u0645\u06cc\u200c\u062e 日本") == "naïve \u0645\u06cc\u200c\u062e 日本"


def test_a_cell_has_no_markup() -> None:
    table = Table()
    table.add_column(cell("[bold]"))
    table.add_row(cell("[/x]"))
    console = Console(width=40)
    with console.capture() as shown:
        console.print(table)
    assert "[/x]" in shown.get()
    assert "[bold]" in shown.get()


def test_a_rate_of_no_words_is_a_dash() -> None:
    assert (rate_text(0.1234), rate_text(float("inf")), rate_text(float("nan"))) == (
        "12.34%",
        "–",
        "–",
    )


def test_tables_show_names_of_scores_keys_and_speakers(capsys: pytest.CaptureFixture[str]) -> None:
    lists = [
        NBest(
            f"u{n}",
            (
                Hypothesis("a", {"asr": -1.0, NASTY: -2.0}),
                Hypothesis("b", {"asr": -1.5, NASTY: 0.0}),
            ),
            reference="ab"[n % 2],
            extra={NASTY: NASTY},
        )
        for n in range(4)
    ]
    print_tuning(fit_weights(lists, folds=2, by=NASTY, n_resamples=5))
    print_evaluation(evaluate(lists, n_resamples=5, by=[NASTY]))
    shown = capsys.readouterr().out
    assert shown.count("[/x]\\x1b[31m") >= 3
    assert "\x1b" not in shown
    assert "\x07" not in shown
