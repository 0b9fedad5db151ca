"""References of another file: paired by id, by time, or line by line, and nothing lost."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from relisten.apps.cli import main
from relisten.core.types import NBest, Refusal, UsageError
from relisten.tasks.evaluation.references import read_with_references

DATA = Path(__file__).parent / "data" / "readers"


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def pair(hypotheses: str, reference: str) -> tuple[list[NBest], list[Refusal]]:
    refused: list[Refusal] = []
    return list(read_with_references(hypotheses, reference, "auto", None, refused.append)), refused


def texts(utterances: list[NBest]) -> list[tuple[str, str | None]]:
    return [(one.hypotheses[0].text, one.reference) for one in utterances]


NATIVE = "".join(
    json.dumps({"id": f"utt-{n}", "hypotheses": [{"text": text}, {"text": "other"}]}) + "\n"
    for n, text in enumerate(("one", "two words", ""), 1)
)


@pytest.mark.parametrize(
    "reference",
    [
        "utt-3 silence\nutt-1 won\nutt-2\ttwo  words\n",  # Kaldi's text, LibriSpeech's trans.txt
        "silence (utt-3)\nwon (utt-1)\ntwo words (utt-2)\n",
        "id,text\nutt-1,won\nutt-2,two words\nutt-3,silence\n",
        '{"id": "utt-2", "reference": "two words"}\n{"id": "utt-1", "reference": "won"}\n'
        '{"id": "utt-3", "reference": "silence"}\n',
        "won\ntwo words\nsilence\n",  # in their order
    ],
)
def test_lists_get_the_references_of_any_layout(tmp_path: Path, reference: str) -> None:
    ours = write(tmp_path / "ours.jsonl", NATIVE)
    utterances, refused = pair(ours, write(tmp_path / "theirs", reference))
    assert [" ".join((one.reference or "").split()) for one in utterances] == [
        "won",
        "two words",
        "silence",
    ]
    assert [len(one.hypotheses) for one in utterances] == [2, 2, 2]
    assert refused == []


def test_plain_lines_are_paired_by_ids_or_by_their_order(tmp_path: Path) -> None:
    ours = write(tmp_path / "hyp.txt", "s1-2 a b\ns1-1 c\n")
    by_id, _ = pair(ours, write(tmp_path / "ref.txt", "s1-1 c\ns1-2 a\n"))
    assert texts(by_id) == [("a b", "a"), ("c", "c")]
    ours = write(tmp_path / "hyp.txt", "yes\n\nno no\n")  # somebody said nothing: a line, too
    in_order, _ = pair(ours, write(tmp_path / "ref.txt", "yes\nmaybe\nno\n"))
    assert texts(in_order) == [("yes", "yes"), ("", "maybe"), ("no no", "no")]
    with pytest.raises(UsageError, match=r"3 utterances and .* 2 lines"):
        pair(ours, write(tmp_path / "ref.txt", "yes\nno\n"))


def test_a_word_of_a_ctm_belongs_to_the_segment_that_holds_its_middle() -> None:
    """`can` is in the third segment, nothing in the ignored one; B is another channel."""
    utterances, refused = pair(str(DATA / "hyp.ctm"), str(DATA / "ref.stm"))
    assert texts(utterances) == [
        ("YES uh you", "yes you"),
        ("can", "can (uh) go"),
        ("hello", "hello"),
    ]
    assert [one.speaker for one in utterances] == ["anna", "ben", "cleo"]
    assert refused == []


def test_what_has_no_partner_is_told(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.trn", "a (u1)\nb (u2)\n")
    utterances, refused = pair(ours, write(tmp_path / "ref.trn", "a (u1)\nc (u3)\n"))
    assert texts(utterances) == [("a", "a"), ("b", None)]
    assert [one.id for one in refused] == ["u3"]
    with pytest.raises(UsageError, match=r"none of its ids \(v1, …\)"):
        pair(ours, write(tmp_path / "ref.trn", "a (v1)\n"))
    with pytest.raises(UsageError, match="lines without ids"):
        pair(write(tmp_path / "plain", "some text\n"), ours)
    theirs = write(tmp_path / "ref.trn", "a b (u1)\nb (u2)\nc (u3)")
    options = ["--reference", theirs, "--json", "-", "--quiet"]
    result = CliRunner().invoke(main, ["evaluate", ours, *options])
    assert result.exit_code == 1  # u3 was refused
    report = json.loads(result.stdout)
    assert report["n_utterances"] == 2
    assert report["rescored"]["wer"] == pytest.approx(1 / 3)
