"""What the pages say is so: commands exist and run, examples run, links lead somewhere."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from relisten.apps.cli import main
from relisten.io.pinned import PINNED
from relisten.io.readers import FORMATS
from tiny_world import fill_cache

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        page
        for place in (".", "docs", "recipes", "recipes/*")
        for page in ROOT.glob(f"{place}/*.md")
    ],
    key=lambda page: page.as_posix(),
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
PACKAGE = ROOT / "src" / "relisten"
PLACES = (PACKAGE, ROOT)
SET_UP = ("make", "pip", ".", "cd", "python")
"""Shell commands that the pages may show beside our own."""

_FENCE = re.compile(r"^```(\w*)[^\n`]*?(?:title=\"([^\"]+)\")?\n(.*?)^```", re.M | re.S)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Fence:
    """A block of code on a page. title: of the file it is, if any."""

    language: str
    title: str | None
    code: str


def fences(page: Path) -> list[Fence]:
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [Fence(language, title or None, code) for language, title, code in found]


def shell_commands(code: str) -> list[list[str]]:
    """The words of every command; a backslash continues a line, `|` and `&&` part commands."""
    commands: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word in ("|", "&&"):
                commands += [words] if words else []
                words = []
            else:
                words.append(word)
    return commands


def check_relisten(arguments: list[str]) -> None:
    """Parse as the command line would, without running. Raises click.UsageError."""
    context = click.Context(main, info_name="relisten")
    if not arguments or arguments[0].startswith("-"):
        with pytest.raises(click.exceptions.Exit):
            main.make_context("relisten", arguments)
        return
    name, command, rest = main.resolve_command(context, arguments)
    assert command is not None
    with contextlib.suppress(click.exceptions.Exit):  # --help
        command.make_context(name, rest, parent=context)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as Markdown turns them into fragments."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    plain = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles]
    return {re.sub(r"[\s-]+", "-", title) for title in plain}


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    if not files:
        pytest.skip("not a git checkout: what belongs to the repository is not known")
    return files


def test_reading_of_pages(tmp_path: Path) -> None:
    """The helpers above find what they should, so that the tests below can fail."""
    page = tmp_path / "page.md"
    page.write_text(
        '# A `b`, c\n```sh\na \\\n  b | c "d e" && f # no\n```\n```json title="x"\n1\n```\n'
    )
    shell, file = fences(page)
    assert shell_commands(shell.code) == [["a", "b"], ["c", "d e"], ["f"]]
    assert file == Fence("json", "x", "1\n")
    assert anchors(page) == {"a-b-c"}
    with pytest.raises(click.UsageError):
        check_relisten(["rescore", "scored.jsonl", "-o", "x", "--no-such-option"])
    with pytest.raises(click.UsageError):
        check_relisten(["no-such-command"])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist(page: Path) -> None:
    for fence in fences(page):
        if fence.language != "sh":
            assert fence.language not in ("bash", "shell", "console"), "fences are called sh"
            continue
        for command in shell_commands(fence.code):
            if command[0] == "relisten":
                check_relisten(command[1:])
            elif command[0] == "make":
                targets = {word for word in command[1:] if "=" not in word}
                assert targets <= make_targets(), command
            else:
                assert command[0] in SET_UP, f"not known here: {shlex.join(command)}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in (one or other for one, other in _LINK.findall(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if fragment:
            assert fragment in anchors(target), f"{page.name} links to {link}: no such heading"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    """A cache of tiny models, and the files that examples take for granted."""
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, tmp_path_factory.mktemp("cache"))
        yield


def run_relisten(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, f"relisten {shlex.join(arguments)}: {result.output}"


def follow_tutorial(folder: Path) -> None:
    """Every block of it, in its order."""
    for fence in fences(ROOT / "docs" / "tutorial.md"):
        if fence.title:
            (folder / fence.title).write_text(fence.code, encoding="utf-8")
        elif fence.language == "python":
            exec(compile(fence.code, "tutorial.md", "exec"), {})
        elif fence.language == "sh":
            for command in shell_commands(fence.code):
                if command[0] == "relisten":
                    run_relisten(command[1:])


@pytest.mark.usefixtures("world")
def test_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder; models are tiny, recordings noise."""
    monkeypatch.chdir(tmp_path)
    follow_tutorial(tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    assert {"two_cities.srt", "ranked.jsonl", "report.json", "weights.json"} <= made


@pytest.mark.slow
def test_tutorial_gains_with_the_shipped_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its example once lost, and its lists did not fit its weights: only tiny models ran it."""
    monkeypatch.chdir(tmp_path)
    follow_tutorial(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["n_utterances"] == 5
    assert report["oracle"]["wer"] < report["rescored"]["wer"] < report["first_pass"]["wer"]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "tutorial.md"], ids=str)
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone, in a folder that holds a recording and an N-best list."""
    examples = [fence for fence in fences(page) if fence.language == "python"]
    if not examples:
        return
    from relisten.io.sources import resolve_model

    shutil.copy(resolve_model("demo-speech") / "clone-test.wav", tmp_path / "talk.wav")
    shutil.copy(ROOT / "tests" / "data" / "readers" / "header.tsv", tmp_path / "nbest.tsv")
    monkeypatch.chdir(tmp_path)
    for example in examples:
        exec(compile(example.code, page.name, "exec"), {})


def test_architecture_is_as_described() -> None:
    """Its table of rooms lists every folder of code, and what it names in code is there."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = set(re.findall(r"^\| `([a-z_/]+)/` \|", text, re.M))
    files = sorted(PACKAGE.rglob("*.py"))
    folders = {str(file.parent.relative_to(PACKAGE)) for file in files} - {"."}
    assert rooms == folders
    named = set(
        re.findall(r"(?<![\w/])(?:(?:[a-z_]+/)+(?:[\w.]+\.py)?|[a-z_]+\.py)(?![\w/])", text)
    )
    assert [name for name in sorted(named) if not any((p / name).exists() for p in PLACES)] == []
    words = text.partition("## One word per idea")[2].partition("\n## ")[0]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    in_code = re.findall(r"`(\w+)[.`]\w*`? \|$", words, re.M)
    assert len(in_code) > 10
    assert [w for w in in_code if not re.search(rf"^(class|def) {w}\b|^{w} = ", code, re.M)] == []


def test_every_format_has_its_line() -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in text] == []


def test_every_known_model_has_its_line() -> None:
    lines = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    for name, model in PINNED.items():
        row = next((line for line in lines if line.startswith(f"| `{name}`")), "")
        packages = {wheel.requirement for file in model.files for wheel, _ in file.parts}
        assert all(package in row for package in packages), name
        assert model.licence.split(" ")[0] in row, name


def test_changelog_begins_with_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    releases = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert releases[0] == version


_PLACES = "home|root|Users|work|opt|mnt|tmp"
_ABSOLUTE = re.compile(r"(?<![\w.~$})/-])/(?:" + _PLACES + r")/\w")
_HOSTS = re.compile(
    "|".join(
        rf"\b{name}\.{end}\b"
        for name, end in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("huggingface", "co"),
            ("hf", "co"),
            ("pytorch", "org/whl"),
            ("npmjs", "org"),
            ("debian", "org"),
            ("conda", "anaconda"),
        )
    )
)


def test_no_file_knows_a_machine() -> None:
    """No absolute path of anyone's disk, no host of a package index: pip is configured by users."""
    assert _ABSOLUTE.search("see " + "/home" + "/me/x")
    assert _HOSTS.search("https://" + "pypi" + ".org/simple")
    found = []
    for file in tracked_files():
        if file.name in (".gitignore", Path(__file__).name):
            continue
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for n, line in enumerate(lines, 1):
            if _ABSOLUTE.search(line) or _HOSTS.search(line):
                found.append(f"{file.relative_to(ROOT)}:{n}: {line.strip()[:80]}")
    assert found == []
