"""The native format: what is read is what was written, and what does not fit is named."""

import io
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relisten.core.types import FormatError, Hypothesis, NBest, UsageError
from relisten.io.native import line_to_nbest, nbest_to_line
from relisten.io.nbest import (
    NBestWriter,
    load_nbest,
    read_nbest,
    rebase_audio,
    resolve_audio,
    save_nbest,
)

FULL = NBest(
    id="utt-1",
    audio="a.wav",
    start_s=1.25,
    duration_s=3.2,
    reference="the cat sat",
    context="A story.",
    hypotheses=(
        Hypothesis(
            "The cat sat.",
            {"asr": -3.25, "text": -12.0},
            (0.3, 0.72, 1.1),
            1,
            {"n": 5},
            word_starts_s=(0.0, 0.3, 0.9),
        ),
        Hypothesis("", {"asr": -9.5}, (), 0),
    ),
    extra={"speaker": "ß 7", "tags": [1, {"deep": None}]},
)


def test_a_line_is_the_documented_layout():
    assert json.loads(nbest_to_line(FULL)) == {
        "id": "utt-1",
        "audio": "a.wav",
        "start_s": 1.25,
        "duration_s": 3.2,
        "reference": "the cat sat",
        "context": "A story.",
        "speaker": "ß 7",
        "tags": [1, {"deep": None}],
        "hypotheses": [
            {
                "text": "The cat sat.",
                "word_starts_s": [0.0, 0.3, 0.9],
                "word_ends_s": [0.3, 0.72, 1.1],
                "scores": {"asr": -3.25, "text": -12.0},
                "first_pass_rank": 1,
                "n": 5,
            },
            {"text": "", "word_ends_s": [], "scores": {"asr": -9.5}, "first_pass_rank": 0},
        ],
    }
    assert nbest_to_line(NBest("a")) == b'{"id": "a"}\n'


def test_posterior_and_word_confidence_are_written_and_checked():
    """Rounded to six decimals; one confidence per word, from 0 to 1."""
    sure = Hypothesis("the cat", posterior=2 / 3, word_confidence=(1.0, 2 / 3))
    line = nbest_to_line(NBest("a", (sure,)))
    [record] = json.loads(line)["hypotheses"]
    assert record == {
        "text": "the cat",
        "posterior": 0.666667,
        "word_confidence": [1.0, 0.666667],
    }
    [read] = line_to_nbest(line, "x:1").hypotheses
    assert (read.posterior, read.word_confidence, read.extra) == (0.666667, (1.0, 0.666667), {})
    for key, value in (
        ("posterior", 1.5),
        ("posterior", "1"),
        ("word_confidence", [1.0]),
        ("word_confidence", [1.0, -0.1]),
        ("word_confidence", 1.0),
    ):
        broken = json.dumps({"id": "a", "hypotheses": [{**record, key: value}]}).encode()
        with pytest.raises(FormatError, match=rf"x:1 'a': hypothesis 1: {key} is"):
            line_to_nbest(broken, "x:1")


def test_round_trip_of_a_file(tmp_path):
    nbests = [FULL, NBest("manifest line", audio="b.wav"), NBest("three", (Hypothesis("x y"),))]
    save_nbest(nbests, tmp_path / "a.jsonl")
    assert load_nbest(tmp_path / "a.jsonl") == nbests
    save_nbest(read_nbest(tmp_path / "a.jsonl"), tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


numbers = st.floats(-1e6, 1e6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
own_keys = st.dictionaries(st.text().map(lambda key: "own " + key), json_values, max_size=3)
hypotheses = st.builds(
    Hypothesis,
    text=st.text(),
    scores=st.dictionaries(st.text(), numbers, max_size=3),
    first_pass_rank=st.none() | st.integers(0, 100),
    extra=own_keys,
)
nbest_lists = st.builds(
    NBest,
    id=st.text(min_size=1),
    hypotheses=st.lists(hypotheses, max_size=3).map(tuple),
    audio=st.none() | st.text(),
    start_s=st.floats(0, 1e5),
    duration_s=st.none() | st.floats(0, 1e5),
    reference=st.none() | st.text(),
    extra=own_keys,
)


@settings(max_examples=200, deadline=None)
@given(nbest_lists)
def test_any_utterance_survives_and_its_line_is_stable(nbest):
    """Numbers move by less than a millionth; every other value, and then the bytes, stay."""
    line = nbest_to_line(nbest)
    assert line.count(b"\n") == 1
    back = line_to_nbest(line, "here")
    assert nbest_to_line(back) == line
    assert (back.id, back.audio, back.reference) == (nbest.id, nbest.audio, nbest.reference)
    assert back.extra == nbest.extra
    assert back.start_s == pytest.approx(nbest.start_s, abs=1e-6)
    for ours, theirs in zip(back.hypotheses, nbest.hypotheses, strict=True):
        assert (ours.text, ours.extra) == (theirs.text, theirs.extra)
        assert ours.first_pass_rank == theirs.first_pass_rank
        assert ours.scores == pytest.approx(dict(theirs.scores), abs=1e-6)


def test_half_a_surrogate_pair_survives():
    line = b'{"id": "a", "own": "\\ud83d"}\n'
    assert nbest_to_line(line_to_nbest(line, "here")) == line


GOOD = '{"id": "one"}\n'
BAD = [
    ('{"id": "two", "hypotheses": [{"text": "a", "scores": {"asr": NaN}}]}', "'asr' is nan"),
    ('{"id": "two", "hypotheses": [{"text": "a", "scores": {"asr": -Infinity}}]}', "is -inf"),
    ('{"id": "two", "hypotheses": [{"text": "a", "scores": {"asr": 1e999}}]}', "is inf"),
    ('{"id": "two", "hypotheses": [{"text": "a", "scores": {"asr": "-3.2"}}]}', "is '-3.2'"),
    ('{"id": "two", "hypotheses": [{"text": "a", "scores": {"asr": null}}]}', "is None"),
    ('{"id": "two", "hypotheses": [{"text": "a", "scores": {"asr": true}}]}', "is True"),
    ('{"id": "two", "hypotheses": [{"text": "a", "scores": [-3.2]}]}', "must map"),
    ('{"id": "two", "hypotheses": [{"text": "a"}, {"scores": {}}]}', "hypothesis 2: has no 'text'"),
    ('{"id": "two", "hypotheses": [{"text": null}]}', "has no 'text'"),
    ('{"id": "two", "hypotheses": ["a b"]}', "has no 'text'"),
    ('{"id": "two", "hypotheses": {"text": "a"}}', "must be a list"),
    ('{"id": "two", "hypotheses": [{"text": "a b", "word_ends_s": [0.5]}]}', "1 word_ends_s for 2"),
    ('{"id": "two", "hypotheses": [{"text": "a b", "word_ends_s": [0.5, 0.4]}]}', "decreases"),
    ('{"id": "two", "hypotheses": [{"text": "a", "word_ends_s": 0.5}]}', "list of seconds"),
    ('{"id": "two", "hypotheses": [{"text": "a", "word_starts_s": [0, 1]}]}', "2 word_starts_s"),
    ('{"id": "two", "hypotheses": [{"text": "a b", "word_starts_s": [1, 0]}]}', "decreases"),
    (
        '{"id": "two", "hypotheses": [{"text": "a", "word_starts_s": [2], "word_ends_s": [1]}]}',
        "starts after its end",
    ),
    ('{"id": "two", "hypotheses": [{"text": "a", "word_ends_s": [NaN]}]}', "list of seconds"),
    (
        '{"id": "two", "hypotheses": [{"text": "a", "first_pass_rank": -1}]}',
        "first_pass_rank is -1",
    ),
    ('{"id": "two", "start_s": -1}', "start_s is -1"),
    ('{"id": "two", "duration_s": "3"}', "duration_s is '3'"),
    ('{"id": "two", "reference": 5}', "reference is 5"),
    ('{"id": "two", "own": NaN}', "holds NaN"),
    ('{"id": "one"}', "occurs twice"),
]


@pytest.mark.parametrize(("line", "words"), BAD)
def test_what_does_not_fit_is_named_with_line_and_id(tmp_path, line, words):
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD + line + "\n")
    with pytest.raises(FormatError) as error:
        save_nbest(read_nbest(path, "native"), tmp_path / "out.jsonl")
    message = str(error.value)
    assert message.startswith(f"{path}:2 '{json.loads(line)['id']}': ")
    assert words in message
    assert "\n" not in message
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "two", "hypotheses": [{"te', "truncated"),
        (b'["two"]', "no 'id'"),
        (b'{"text": "a"}', "no 'id'"),
        (b'{"id": 2}', "id is 2"),
        (b'{"id": ""}', "id is ''"),
        (b'{"id": "\xff"}', "not UTF-8"),
    ],
)
def test_a_line_without_an_id_is_named_by_its_number(tmp_path, line, words):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + line)
    with pytest.raises(FormatError, match=words) as error:
        load_nbest(path, "native")
    assert str(error.value).startswith(f"{path}:3: ")


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "one"}\r\n\r\n{"id": "two"}')
    assert [nbest.id for nbest in read_nbest(tmp_path / "a.jsonl")] == ["one", "two"]


def test_a_missing_file_and_a_missing_folder(tmp_path):
    with pytest.raises(FormatError, match=r"none\.jsonl: cannot be read"):
        load_nbest(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match=r"a\.jsonl: cannot be written"):
        save_nbest([], tmp_path / "none" / "a.jsonl")


class Killed(Exception):
    pass


def write_until(path, n_utterances, resume=False):
    """What a task does: writes those of 5 utterances that are not done, and dies after some."""
    with NBestWriter(path, resume) as writer:
        written = 0
        for i in range(5):
            nbest = NBest(f"utt-{i}", (Hypothesis("é" * i, {"asr": -1.5 * i}),))
            if nbest.id in writer.done:
                continue
            if written == n_utterances:
                raise Killed
            writer.write(nbest)
            written += 1
    return written


@pytest.mark.parametrize("torn", [b"", b'{"id": "utt-2", "hyp', b'{"id": "utt-2"}'])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, torn):
    assert write_until(tmp_path / "straight.jsonl", 5) == 5
    path, partial = tmp_path / "killed.jsonl", tmp_path / "killed.jsonl.partial"
    with pytest.raises(Killed):
        write_until(path, 2)
    assert not path.exists()
    partial.write_bytes(partial.read_bytes() + torn)
    with pytest.raises(Killed):
        write_until(path, 1, resume=True)
    assert write_until(path, 5, resume=True) == 2
    assert path.read_bytes() == (tmp_path / "straight.jsonl").read_bytes()
    assert not partial.exists()
    assert write_until(path, 5, resume=True) == 0  # a finished run has nothing left to do
    assert path.read_bytes() == (tmp_path / "straight.jsonl").read_bytes()


def test_without_resume_a_run_starts_anew(tmp_path):
    with pytest.raises(Killed):
        write_until(tmp_path / "a.jsonl", 2)
    assert write_until(tmp_path / "a.jsonl", 5) == 5


def test_each_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    with NBestWriter(tmp_path / "a.jsonl") as writer:
        writer.write(FULL)
        assert writer.partial_path.read_bytes() == nbest_to_line(FULL)


def test_a_score_that_is_not_finite_is_never_written(tmp_path):
    broken = NBest("utt-1", (Hypothesis("a", {"text": float("nan")}),))
    with pytest.raises(FormatError, match="'utt-1': cannot write nan"):
        save_nbest([FULL, broken], tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()


def test_standard_input_and_output(monkeypatch, capfdbinary):
    class Stream:
        buffer = io.BytesIO(nbest_to_line(FULL))

    monkeypatch.setattr("sys.stdin", Stream)
    assert load_nbest("-") == [FULL]
    save_nbest([FULL], "-")
    assert capfdbinary.readouterr().out == nbest_to_line(FULL)


def test_audio_is_relative_to_the_file_that_names_it(tmp_path):
    (tmp_path / "runs").mkdir()
    nbest = NBest("a", audio="sub/a.wav")
    moved = rebase_audio(nbest, tmp_path / "dev.jsonl", tmp_path / "runs" / "nbest.jsonl")
    assert moved.audio == "../sub/a.wav"
    target = resolve_audio(moved, tmp_path / "runs" / "nbest.jsonl").resolve()
    assert target == tmp_path / "sub" / "a.wav"
    assert rebase_audio(nbest, tmp_path / "dev.jsonl", tmp_path / "nbest.jsonl") is nbest
    absolute = NBest("a", audio=str(tmp_path / "a.wav"))
    assert rebase_audio(absolute, "x/dev.jsonl", tmp_path / "runs" / "n.jsonl") is absolute
    with pytest.raises(FormatError, match="'b': has no audio"):
        resolve_audio(NBest("b"), "dev.jsonl")


def test_who_speaks_is_a_text_or_unknown():
    speakers = [
        line_to_nbest(json.dumps({"id": "a", **given}).encode(), "x").speaker
        for given in ({"speaker": "ann"}, {"speaker": 7}, {"speaker": None}, {"speaker": ""}, {})
    ]
    assert speakers == ["ann", "7", None, None, None]


def test_memory_grows_by_the_ids_alone(tmp_path):
    """Peak memory of reading and writing grows by at most 200 bytes per list: its id is kept to
    find one that occurs twice; a list itself takes ten times as much."""
    program = (
        "import sys, resource; from relisten.io.nbest import read_nbest, save_nbest;"
        "save_nbest(read_nbest(sys.argv[1], 'native'), sys.argv[2]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for n_utterances in (300, 30_000):
        path = tmp_path / f"{n_utterances}.jsonl"
        with open(path, "wb") as file:
            for i in range(n_utterances):
                file.write(
                    nbest_to_line(NBest(f"utt-{i}", (Hypothesis("a b", {"asr": -1.5}),) * 3))
                )
        run = [sys.executable, "-c", program, str(path), str(tmp_path / "out.jsonl")]
        peaks.append(int(subprocess.run(run, check=True, capture_output=True, text=True).stdout))
    assert 1024 * (peaks[1] - peaks[0]) < 200 * (30_000 - 300)
