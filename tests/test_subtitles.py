"""Subtitles as players expect them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.core.types import UsageError
from relisten.io.subtitles import Cue, to_srt, to_vtt

SEGMENTS = [
    Cue(0.0, 1.5, " It was the best of times, "),
    Cue(1.5, 2.0, ""),
    Cue(59.9996, 3723.0049, "R&D:\n\n a < b --> c"),
]


def test_srt():
    assert to_srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nIt was the best of times,\n"
        "\n"
        "2\n00:01:00,000 --> 01:02:03,005\nR&D:\na < b -> c\n"
    )
    assert to_srt([]) == ""


def test_vtt():
    assert to_vtt(SEGMENTS) == (
        "WEBVTT\n"
        "\n"
        "00:00:00.000 --> 00:00:01.500\nIt was the best of times,\n"
        "\n"
        "00:01:00.000 --> 01:02:03.005\nR&amp;D:\na &lt; b --&gt; c\n"
    )
    assert to_vtt([]) == "WEBVTT\n"


@pytest.mark.parametrize("text", ["-->", "a --> b", "1\n00:00:01,000 --> 00:00:02,000", "---->"])
def test_an_arrow_in_an_srt_text_is_no_line_of_times(text):
    srt = to_srt([Cue(0.0, 1.0, text), Cue(1.0, 2.0, "b")])
    assert srt.count("-->") == 2
    assert "->" in srt.split("\n\n")[0].split("\n", 2)[2]


@given(st.floats(0, 400_000))
def test_a_clock_reads_as_its_seconds(seconds):
    """Hours, minutes and seconds add up to the time within half a millisecond."""
    times = re.search(
        r"(\d\d+):([0-5]\d):([0-5]\d)\.(\d{3}) --> ", to_vtt([Cue(seconds, 1e6, "a")])
    )
    h, m, s, ms = map(int, times.groups())
    assert 3600 * h + 60 * m + s + ms / 1000 == pytest.approx(seconds, abs=0.000_51)


@given(st.lists(st.text(), max_size=5))
def test_no_text_can_break_a_cue(texts):
    srt = to_srt([Cue(i, i + 1, text) for i, text in enumerate(texts)])
    cues = srt.split("\n\n") if srt else []
    assert len(cues) == sum(bool(text.strip()) for text in texts)
    assert [cue.split("\n")[0] for cue in cues] == [str(n + 1) for n in range(len(cues))]


@pytest.mark.parametrize(("start_s", "end_s"), [(2.0, 1.0), (-1.0, 1.0), (0.0, float("nan"))])
def test_a_time_that_runs_backwards_is_refused(start_s, end_s):
    with pytest.raises(UsageError, match="cannot run from"):
        Cue(start_s, end_s, "a")
