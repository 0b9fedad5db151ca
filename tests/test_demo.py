"""What the demo shows of a recording."""

from __future__ import annotations

import io
import re

import pytest
from click.testing import CliRunner
from rich.console import Console

from relisten.apps.demo import SENTENCES, Sentence, bare, main, show, word_diff
from relisten.core.combine import Weights
from relisten.core.types import Hypothesis, NBest
from relisten.tasks.transcript import Segment, Transcript


def test_word_diff() -> None:
    assert word_diff("a b c", "a x c").plain == "a [-b-] [+x+] c"
    assert word_diff("a", "a b").plain == "a [+b+]"
    assert word_diff("a", "a").plain == "nothing"
    assert word_diff("One, two three.", "one two", bare).plain == "One, two [-three.-]"


def test_the_list_is_shown_with_places_and_scores() -> None:
    """now, before, 1 · asr, 0.5 · text, sum: the first pass's choice is fourth, and still shown;
    the fifth is not."""
    rows = [("I heard a beep", 1, -2, -4), ("I heard a beat", 2, -3, -8), ("a beep", 3, -4, -8)]
    rows += [("I heard a deep", 0, -1, -20), ("I herd a beep", 4, -5, -20)]
    hypotheses = tuple(
        Hypothesis(text, {"asr": asr, "text": lm}, first_pass_rank=rank)
        for text, rank, asr, lm in rows
    )
    segment = Segment(0.0, 2.5, NBest("0", hypotheses))
    console = Console(file=io.StringIO(), width=100)
    show(
        console,
        Sentence("call.wav", 1.0, 3.5, "I heard a beep."),
        Transcript("a/call.wav", 2.5, (segment,), {"scores": 0.25}),
        Weights({"asr": 1.0, "text": 0.5, "length": 0.0}),
    )
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[0].startswith("call.wav, 1 to 3.5 s")
    assert lines[1:] == [
        "said I heard a beep.",
        "first pass I heard a deep",
        "chosen I heard a beep",
        "changed I heard a [-deep-] [+beep+]",
        "seconds scores 0.2 s",
        "0.0 to 2.5 s, a list of 5",
        "now before asr text sum words",
        "1 2 -2.0 -2.0 -4.0 I heard a beep",
        "2 3 -3.0 -4.0 -7.0 I heard a [-beep-] [+beat+]",
        "3 4 -4.0 -4.0 -8.0 [-I heard-] a beep",
        "4 1 -1.0 -10.0 -11.0 I heard a [-beep-] [+deep+]",
    ]


@pytest.mark.slow
def test_the_second_pass_has_fewer_wrong_words() -> None:
    """For a time it changed nothing, since whole recordings have short lists."""
    result = CliRunner().invoke(main, catch_exceptions=False)
    words = re.search(r"first pass (\d+), second pass (\d+)", " ".join(result.output.split()))
    assert words is not None, result.output
    assert int(words[2]) < int(words[1])
    assert result.output.count(" s ────") >= len(SENTENCES)
