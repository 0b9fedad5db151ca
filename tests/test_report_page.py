"""The page of `evaluate --html`: whole, safe, alone; and its script, where a browser is at hand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relisten.apps.cli import main
from relisten.apps.report.charts import Plot, padded, ticks
from relisten.apps.report.figures import reliability_figure
from relisten.apps.report.markup import data, percent, signed, text
from relisten.apps.report.page import render
from relisten.core.calibration import Calibration, ReliabilityBin
from relisten.core.combine import Weights
from relisten.core.types import Hypothesis, NBest
from relisten.io.nbest import save_nbest
from relisten.tasks.evaluation.analysis import ErrorAnalyser
from relisten.tasks.evaluation.evaluate import evaluate
from test_report import decoded

NASTY = '</script><!-- "it\'s" & \u2028 \ud800'
VOID = {"meta", "input", "br"}


class Outline(HTMLParser):
    """The elements of a page as they open and close, and the text of its scripts by id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.started: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._script = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.started.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self._script = dict(attrs).get("id") or ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.started.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


UTTERANCES = [
    decoded("a", "one two three", "one too three", "one two three", chosen=1, speaker="s1"),
    decoded("b", "four five", "four five", "for five", chosen=1, speaker="s2"),
    decoded(NASTY, NASTY, "שלום עולם", "हाँ जी", "", speaker=NASTY, domain="<b>"),
    NBest("silence", reference=""),
]


def page_of(utterances: list[NBest], weights: Weights | None = None, *keys: str) -> str:
    tally = ErrorAnalyser("none", keys, weights)
    evaluation = evaluate(utterances, "none", n_resamples=50, by=keys, watch=tally.add)
    report = tally.result(evaluation)
    return render(report, "ranked <1>.jsonl")


def test_the_page_is_well_formed_and_has_its_parts() -> None:
    page = page_of(UTTERANCES, Weights({"asr": 1.0, "length": 0.1}), "speaker", "domain")
    outline = Outline(page)
    assert outline.open == []
    ids = [attributes["id"] for _, attributes in outline.started if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert {"rates", "gain", "weights", "words", "by-0", "by-1", "utterances", "data"} <= set(ids)
    labels = [attributes.get("aria-labelledby") for _, attributes in outline.started]
    assert set(filter(None, labels)) <= set(ids)
    charts = [a for tag, a in outline.started if tag == "svg" and a.get("class") == "chart"]
    assert len(charts) == 4, "oracle, confidence, and a sweep of each weight"
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert "By <bdi>domain</bdi>" in page
    assert "&lt;b&gt;" in page
    assert "$" not in re.sub(r"<script>.*?</script>", "", page, flags=re.S), "an unfilled place"


def test_the_page_asks_for_nothing() -> None:
    page = page_of(UTTERANCES, None, "speaker")
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bsrc=|<link|fetch\(|innerHTML", page)


def test_data_comes_back_as_it_was() -> None:
    """The words of an utterance that tries to close the script, in three scripts of the world."""
    page = page_of(UTTERANCES, None, "speaker")
    page.encode()  # no half pair is left
    scripts = Outline(page).scripts
    assert len(scripts) == 3
    record = json.loads(scripts["data"])
    assert record["keys"] == ["speaker"]
    assert record["components"] == ["asr"]
    assert record["rows"][0] == ["a", ["s1"], ["one", ["two", "too", "two"], "three"], 0, 0.731]
    assert record["rows"][2][:2] == [NASTY, [NASTY]]
    reference = [words[0] for words in record["rows"][2][2] if words[0] is not None]
    assert reference == NASTY.split()
    lists = [json.loads(line) for line in scripts["lists"].strip().split("\n")]
    assert [[hypothesis[0] for hypothesis in one] for one in lists] == [
        ["one two three", "one too three"],
        ["for five", "four five"],
        ["שלום עולם", "हाँ जी", ""],
        [""],
    ]
    assert ["two", "too"] in record["pairs"]


def test_the_name_of_a_score_is_no_markup() -> None:
    name = "<script>alert(1)</script>"
    hypotheses = (Hypothesis("x", {"asr": -1.0, name: -2.0}), Hypothesis("y", {"asr": 0, name: 0}))
    page = page_of([NBest("u", hypotheses, reference="x")], Weights({"asr": 1.0, name: -2.0}))
    assert "weight of &lt;script&gt;" in page
    assert len(Outline(page).scripts) == 3


def test_empty_references_make_a_page_and_finite_numbers() -> None:
    """Every rate is infinite: the page crashed, and the JSON held Infinity."""
    weights = Weights({"asr": 1.0})
    utterances = [
        decoded("a", "", "x y", "x", chosen=1, speaker="s1"),
        decoded("b", "", "z", speaker="s2"),
        decoded("c", "", "", "z", speaker="s2"),
    ]
    page = page_of(utterances, weights, "speaker")
    assert Outline(page).open == []
    assert "the references have no words" in page
    assert not re.search(r"(?<![a-z])(nan|inf)(?![a-z])", page.split("<script")[0], re.I)
    report = evaluate(utterances, "basic", n_resamples=20, by=["speaker"])
    record = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert record["first_pass"]["wer"] is None
    assert record["n_words"] == 0


def test_the_verdict_says_no_more_than_is_known() -> None:
    better = [decoded(f"u{i}", "x y", "x", "x y", chosen=1) for i in range(9)]
    assert "100.0\u00a0% fewer word errors</b> (95\u00a0% interval +100.0" in page_of(better)
    worse = [decoded(f"u{i}", "x y", "x z", "z z", chosen=1) for i in range(9)]
    assert "100.0\u00a0% more word errors</b> (95\u00a0% interval +100.0" in page_of(worse)
    assert "No difference is certain" in page_of([*better[:4], *worse[4:7]])
    assert "leaves the word error rate at 0.00\u00a0%" in page_of([decoded("u", "x", "x", "y")])


def test_what_is_left_out_is_said() -> None:
    page = page_of([NBest("u", (Hypothesis("x"), Hypothesis("y")), reference="x")])
    assert "hypotheses have no first-pass score" in page
    assert "--weights FILE" in page
    assert "No word was confused" in page


def test_reliability_where_confidences_are_known() -> None:
    bins = (ReliabilityBin(4, 0.25, 0.5), ReliabilityBin(6, 0.75, 1.0))
    drawn = reliability_figure(Calibration(10, ece=0.25, brier=0.1, bins=bins))
    plot = Plot((0, 1), (0, 1))
    for x, y in ((0.25, 0.5), (0.75, 1.0)):
        assert 'cx="{}" cy="{}"'.format(*plot.at(x, y)) in drawn
    assert reliability_figure(None) == reliability_figure(Calibration(0, 0.0, 0.0, ())) == ""


def test_numbers_as_people_read_them() -> None:
    assert (percent(0.12345), percent(float("inf"))) == ("12.35", "–")
    assert (signed(0.1), signed(-0.1, 1), signed(-0.00001)) == ("+10.00", "−10.0", "0.00")
    assert text("<\ud800") == "<bdi>&lt;\ufffd</bdi>"
    assert json.loads(data([NASTY])) == [NASTY]
    assert "<" not in data([NASTY])


def test_charts_by_hand() -> None:
    """52 to 446 across for 0 to 10, 30 to 216 down for 4 to 0: the middle is in the middle."""
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(-0.13, 0.11) == [-0.1, -0.05, 0, 0.05, 0.1]
    assert ticks(3, 3) == [3]
    plot = Plot((0, 10), (0, 4), height=260)
    assert plot.at(0, 0) == (52, 216)
    assert plot.at(5, 2) == (249, 123)
    plot.line([(0, 0), (5, 2), (10, 9), (5, 4)], "k")
    assert plot.parts == ['<path class="line k" d="M52.0 216.0L249.0 123.0M249.0 30.0"/>']
    assert padded([1.0, 11.0]) == (0.0, 12.0)
    assert padded([0.0]) == (0.0, 1.0)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    ranked, page, report = (tmp_path / name for name in ("r.jsonl", "r.html", "r.json"))
    save_nbest(UTTERANCES[:2], ranked)
    done = run("evaluate", ranked, "--html", page, "--json", report, "--by", "speaker", "--quiet")
    assert done.exit_code == 0, done.output
    assert "<h1><bdi>r.jsonl</bdi></h1>" in page.read_text(encoding="utf-8")
    assert [part["value"] for part in json.loads(report.read_text())["by"]["speaker"]] == [
        "s1",
        "s2",
    ]
    assert "s1" in done.stdout, "the terminal tells the parts, too"
    done = run("evaluate", ranked, "--by", "domain", "--quiet")
    assert done.exit_code == 2
    assert "--by domain: no utterance has this key" in done.stderr
    weights = tmp_path / "w.json"
    weights.write_text('{"values": {"asr": 1}}')
    assert run("evaluate", ranked, "--html", page, "--weights", weights).exit_code == 0
    assert "weight of asr" in page.read_text(encoding="utf-8")


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHECK = """<script>
const press = (query) => document.querySelector(query).click();
const ids = () => [...document.querySelectorAll("#list .id")].map((one) => one.textContent).join();
const told = [ids()];
press("#filters [value=worsened]"); told.push(ids());
press("#filters [value=all]");
const sort = document.querySelector("#sort");
sort.value = "gain"; sort.dispatchEvent(new Event("change")); told.push(ids());
press("[data-pair='0']"); told.push(ids());
press(".chip"); press("#list .open");
told.push(document.querySelector("#list .hypotheses tbody").rows.length);
press("table.sortable thead button"); told.push(document.querySelector("[aria-sort]").ariaSort);
press("[data-key='0'][data-value='1']"); told.push(ids());
document.documentElement.dataset.told = JSON.stringify(told);
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_script_filters_sorts_and_opens(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    file = tmp_path / "page.html"
    page = page_of(UTTERANCES[:2] + UTTERANCES[3:], None, "speaker")
    file.write_text(page.replace("</body>", f"{CHECK}</body>"), encoding="utf-8")
    made = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", file.as_uri()],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=120,
    ).stdout
    told = re.search('data-told="([^"]*)"', made)
    assert told, made[:500]
    assert json.loads(unescape(told[1])) == [
        "a,b,silence",
        "b",
        "a,silence,b",
        "b",
        2,
        "ascending",
        "b",
    ]


def test_each_system_of_combined_lists_has_a_row() -> None:
    """Two systems, the second wrong in one of four words, the choice in none."""
    said = {"first": "one two three four", "<b>": "one two tree four"}
    utterance = NBest(
        "u",
        (Hypothesis(said["first"]), Hypothesis(said["<b>"])),
        reference=said["first"],
        extra={"systems": said},
    )
    page = page_of([utterance, replace(utterance, id="v")])
    outline = Outline(page)
    assert outline.open == []
    assert "<bdi>first</bdi> alone" in page
    row = page[page.index("<bdi>&lt;b&gt;</bdi> alone") :]
    assert "25.00" in row[: row.index("</tr>")]
    assert "below the best single system, <bdi>first</bdi>" in page
