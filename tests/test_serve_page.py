"""The page of `relisten serve` in a real browser: upload, streamed result, weights, errors."""

from __future__ import annotations

import re
import shutil
import wave
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from relisten.apps.serve.app import ServiceOptions
from relisten.apps.serve.page import FILES
from relisten.core.combine import Weights
from relisten.core.types import Hypothesis, NBest
from relisten.speech.vad import VoiceActivityDetector
from tiny_server import ScriptedPass, served
from tiny_world import take_noise_for_speech, write_noise

STATIC = Path(__file__).parent.parent / "src" / "relisten" / "apps" / "serve" / "static"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def listed(*hypotheses: tuple[str, float, float]) -> NBest:
    """A list of texts, each with its scores `asr` and `text`."""
    return NBest("x", tuple(Hypothesis(t, {"asr": a, "text": b}) for t, a, b in hypotheses))


SCRIPT = [
    listed(
        ("We need to wreck a nice beach before the tide.", -6.1, -48.2),
        ("We need to recognise speech before the tide.", -6.9, -31.7),
        ("We need to recognise peach before the tide.", -8.4, -44.0),
        ("We need to wreck an ice beach before the tied.", -9.2, -57.3),
    ),
    listed(
        ("It was the best of times, it was the worst of times.", -2.0, -20.5),
        ("It was the best of thymes, it was the worst of times.", -4.5, -33.0),
    ),
    listed(("", -0.1, -2.0), ("Thank you.", -4.0, -9.0)),
]
WEIGHTS = Weights({"asr": 1.0, "text": 0.3, "length": 0.4})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write_noise(folder / "talk.wav", 0, 4.0)
    write_noise(folder / "long.wav", 2, 30.0)
    (folder / "broken.wav").write_bytes(b"RIFF" + bytes(40))
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, served(ScriptedPass(SCRIPT, WEIGHTS)) as address:
        take_noise_for_speech(patch)
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no chromium here")
    with sync_api.sync_playwright() as driver:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = driver.chromium.launch(executable_path=BROWSER, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """A page that fails the test for any error in its script and any request to elsewhere."""
    yield from opened(browser, server)


def opened(browser: Any, server: str, **settings: Any) -> Iterator[Any]:
    faults: list[str] = []
    context = browser.new_context(**settings)
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: _is_own(asked.url, server) or faults.append(asked.url))
    page.goto(server)
    yield page
    context.close()
    assert faults == []


def _is_own(url: str, server: str) -> bool:
    return url.startswith((server, "blob:", "data:"))


def upload(page: Any, path: Path) -> None:
    page.set_input_files("#file", str(path))
    page.locator("#status", has_text=re.compile("^Done")).wait_for()


def transcribed(server: str, path: Path, format: str) -> str:
    return httpx.post(
        f"{server}/v1/audio/transcriptions",
        files={"file": path.read_bytes()},
        data={"model": "whisper-1", "response_format": format},
    ).text


def words(page: Any) -> list[str]:
    return [str(word) for word in page.locator(".words button").all_inner_texts()]


def test_a_recording_is_transcribed_segment_by_segment(page: Any, server: str, world: Path) -> None:
    upload(page, world / "long.wav")
    assert page.locator("#segments > li").count() > 1
    assert words(page) == transcribed(server, world / "long.wav", "text").split()
    assert page.locator(".badge", has_text="changed by the second pass").count() >= 1
    assert page.locator("del").first.inner_text() == "wreck a nice beach"
    assert page.locator("#error").is_hidden()
    page.locator("#wave").wait_for()
    sure = page.locator(".words button").first.get_attribute("title")
    assert re.fullmatch(r"\d+ % sure", sure)


def test_downloads_are_what_the_server_writes(page: Any, server: str, world: Path) -> None:
    path = world / "long.wav"
    upload(page, path)
    for format, name in (("text", "txt"), ("srt", "srt"), ("vtt", "vtt")):
        with page.expect_download() as download:
            page.click(f"[data-format={name}]")
        assert download.value.suggested_filename == f"long.{name}"
        assert Path(download.value.path()).read_text() == transcribed(server, path, format)
    with page.expect_download() as download:
        page.click("[data-format=json]")
    assert '"hypotheses"' in Path(download.value.path()).read_text()


def test_a_word_is_played_and_keys_move_between_words(page: Any, world: Path) -> None:
    upload(page, world / "long.wav")
    page.locator(".words button").first.focus()
    page.keyboard.press("ArrowRight")
    second = page.locator(".words button").nth(1)
    assert second.evaluate("one => one === document.activeElement")
    assert page.locator(".words button[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    page.locator("#play", has_text="Pause").wait_for()
    page.locator("#play", has_text="Play").wait_for()  # it stops behind the word


def test_a_weight_ranks_the_lists_again(page: Any, world: Path) -> None:
    """Without the language model the first pass's choice is back; reset undoes it. By hand: -6.1
    beats -6.9; with text, -6.1 - 0.3 · 48.2 + 0.4 · 10 loses to -6.9 - 0.3 · 31.7 + 0.4 · 8."""
    upload(page, world / "talk.wav")
    second, first = (SCRIPT[0].hypotheses[n].text.split() for n in (1, 0))
    assert words(page) == second
    page.locator("#weight-text").fill("0")
    page.locator(".badge", has_text="changed by your weights").wait_for()
    assert words(page) == first
    page.click("#reset")
    assert words(page) == second
    page.click("#segments summary")
    assert page.locator("#segments tbody tr").count() == 4
    told = page.inner_text(".why")
    assert "text +4.95, length −0.80, asr −0.80; in sum +3.35 nats" in told


def test_a_broken_file_is_told_and_the_next_one_works(page: Any, world: Path) -> None:
    page.set_input_files("#file", str(world / "broken.wav"))
    page.locator("#error", has_text="cannot be decoded").wait_for()
    assert page.locator("#work").is_hidden()
    upload(page, world / "talk.wav")
    assert page.locator("#error").is_hidden()


def test_speech_is_recorded(page: Any) -> None:
    """Chromium's own device beeps; what matters is that its WebM comes back as some answer."""
    page.click("#record")
    page.locator("#record", has_text="Stop").wait_for()
    page.wait_for_timeout(1500)
    page.click("#record")
    page.locator("#status", has_text=re.compile("^(Done|No speech)")).wait_for()
    assert page.locator("#error").is_hidden()


def test_a_server_with_a_token_asks_for_it(
    browser: Any, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_noise_for_speech(monkeypatch)
    options = ServiceOptions(token="s3cret")
    with served(ScriptedPass(SCRIPT, WEIGHTS), options) as server:
        for page in opened(browser, server):
            page.set_input_files("#file", str(world / "talk.wav"))
            page.fill("#token", "s3cret")
            page.keyboard.press("Enter")
            page.locator("#status", has_text=re.compile("^Done")).wait_for()
            assert page.locator("#login").is_hidden()


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(
    browser: Any, server: str, world: Path, width: int
) -> None:
    for page in opened(browser, server, viewport={"width": width, "height": 700}):
        upload(page, world / "talk.wav")
        page.click("#segments summary")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, server: str, world: Path, scheme: str) -> None:
    """Before, with a transcript and its lists open, and with an error; the rules come in a package,
    and nothing is asked of the outside."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def serious(page: Any) -> list[str]:
        found = axe.run(page).response["violations"]
        return [
            f"{one['id']}: {node['html'][:120]}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    for page in opened(browser, server, color_scheme=scheme):
        assert serious(page) == []
        upload(page, world / "long.wav")
        for summary in page.locator("summary").all():
            summary.click()
        page.locator("#weight-text").fill("0")
        assert serious(page) == []
        page.set_input_files("#file", str(world / "broken.wav"))
        page.locator("#error", has_text="cannot be decoded").wait_for()
        page.evaluate("document.getElementById('login').hidden = false")
        assert serious(page) == []


def test_silence_gets_an_answer_without_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No segment, no batch: the server once waited for one until the request was too old."""
    monkeypatch.setattr("relisten.speech.segmentation.VoiceActivityDetector", VoiceActivityDetector)
    with wave.open(str(tmp_path / "silence.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(64_000))
    with served(ScriptedPass(SCRIPT, WEIGHTS)) as server:
        for format, answer in (("text", "\n"), ("srt", ""), ("vtt", "WEBVTT\n")):
            assert transcribed(server, tmp_path / "silence.wav", format) == answer
        streamed = httpx.post(
            f"{server}/v1/audio/transcriptions",
            files={"file": (tmp_path / "silence.wav").read_bytes()},
            data={"model": "whisper-1", "stream": "true"},
        ).text
        assert streamed.startswith('data: {"type": "transcript.text.done", "text": ""')


class Controls(HTMLParser):
    """Ids, labels and the controls of a page, and all it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self.controls: list[str] = []
        self.loaded: list[str] = []
        self.styles: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag == "label":
            self.labelled.add(given.get("for") or "")
        if tag in ("input", "textarea", "select"):
            self.controls.append(given.get("id") or "?")
        if tag in ("link", "script", "img", "audio"):
            self.loaded += [given[key] or "" for key in ("src", "href") if key in given]
        self.styles += [key for key in given if key == "style" or key.startswith("on")]


def test_the_page_brings_all_it_needs(server: str) -> None:
    """Own files alone, a policy without exceptions, unique ids, a label for every field."""
    answer = httpx.get(server)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    controls = Controls(answer.text)
    assert set(controls.loaded) <= {*FILES, "data:,"}
    assert controls.styles == []
    assert len(set(controls.ids)) == len(controls.ids)
    assert 'lang="en"' in answer.text
    wrapped = set(re.findall(r"<label[^>]*>\s*<input[^>]*id=\"(\w+)\"", answer.text))
    assert set(controls.controls) <= controls.labelled | wrapped
    script = (STATIC / "script.js").read_text()
    used = set(re.findall(r'byId\("([\w-]+)"\)', script))
    assert used <= set(controls.ids)
    assert "innerHTML" not in script


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_can_be_read_in_both_schemes() -> None:
    """4.5 to 1 for all text on all grounds that it stands on (WCAG AA)."""
    blocks = re.findall(r":root \{(.*?)\}", (STATIC / "style.css").read_text(), re.S)
    assert len(blocks) == 2
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        pairs = [(ink, ground) for ink in ("ink", "soft") for ground in ("paper", "card")]
        pairs += [("accent", "card"), ("accent", "accent-soft"), ("accent", "paper")]
        pairs += [("on-accent", "accent"), ("bad", "bad-soft"), ("bad", "card"), ("mid", "card")]
        pairs += [("good", "card"), ("bad", "good-soft"), ("mid", "good-soft")]
        for ink, ground in pairs:
            light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])))[::-1]
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
