"""Text that would vanish, odd elements, channels, folders and ranks, scripts without spaces."""

import json
import time

import pytest

from relisten.core.types import FormatError, Hypothesis, NBest, UsageError
from relisten.io.native import MOST_CHARACTERS, line_to_nbest, nbest_to_line
from relisten.io.nbest import load_nbest
from relisten.io.readers import recognise
from relisten.io.readers.common import json_values, seconds
from relisten.tasks.rescore import rescore


def written(tmp_path, content, name="talk.json"):
    """A file with the content as text, or as JSON."""
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(tmp_path, content, format="auto", name="talk.json"):
    """(utterances, reasons of the refused)."""
    refused = []
    utterances = load_nbest(written(tmp_path, content, name), format, refuse=refused.append)
    return utterances, [refusal.reason for refusal in refused]


def texts(utterances):
    return [[h.text for h in utterance.hypotheses] for utterance in utterances]


# Text that vanishes


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "good morning", "segments": []},
        {"text": "good morning", "segments": None},
        {"text": "good morning", "chunks": []},
        {"text": "good morning", "words": []},
        {"results": {"transcripts": [{"transcript": "good morning"}], "items": []}},
        {"results": {"transcripts": [{"transcript": "good morning"}], "segments": []}},
        {"RecognitionStatus": "Success", "DisplayText": "good morning", "Offset": 0, "Duration": 9},
        {"id": "1", "status": "completed", "audio_url": "x", "text": "good morning", "words": None},
        {"result": [{"word": "good", "end": 1.0}], "text": "good morning"},
    ],
)
def test_a_text_is_read_where_its_list_is_empty(tmp_path, answer):
    utterances, refused = read(tmp_path, answer)
    assert (texts(utterances), refused) == ([["good morning"]], [])


@pytest.mark.parametrize(
    "record",
    [
        {"id": "a", "text": "good morning"},
        {"id": "a", "text": "good morning", "lang": "en", "hyps": []},
    ],
)
def test_a_line_of_ours_does_not_hide_a_text(tmp_path, record):
    """It says neither that the text was said nor that it was recognised."""
    with pytest.raises(FormatError, match="neither hypothesis nor reference"):
        load_nbest(written(tmp_path, record), "native")


@pytest.mark.parametrize(
    "record",
    [
        {"id": "a", "audio": "a.wav", "reference": "x"},
        {"id": "a", "result": "good morning", "confidence": 0.5},
        {"id": "a", "nbest": ["good morning"]},
        {"id": "a", "hypotheses": []},
    ],
)
def test_a_file_without_hypotheses_cannot_be_rescored(tmp_path, record):
    """What a recogniser found may stand under a name that is not ours."""
    path = written(tmp_path, record)
    assert recognise(path) == "native"
    with pytest.raises(UsageError, match="no utterance has hypotheses"):
        rescore(str(path), str(tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()


# One odd element


def test_one_odd_element_is_refused_and_the_rest_is_read(tmp_path):
    good = {"text": "a b", "start": 0, "end": 1}
    for format, content in {
        "whisper": {"segments": [good, {"text": "c", "start": "x", "end": 2}, 7, good]},
        "mlm-scoring": {
            "u1": {"hyp_1": {"text": "a b"}},
            "u2": {"hyp_1": {"text": None}},
            "u3": 7,
            "u4": {"hyp_1": {"text": "a b"}},
        },
        "hyporadise": [{"input": ["a b"]}, {"input": "c"}, 7, {"input": ["a b"]}],
        "vosk": [
            {"alternatives": [{"text": "a b", "confidence": 1}]},
            {"alternatives": [{"text": "c", "confidence": None}]},
            {"alternatives": 7},
            {"alternatives": [{"text": "a b", "confidence": 1}]},
        ],
        "google": {
            "results": [
                {"alternatives": [{"transcript": "a b"}]},
                {"alternatives": [{"transcript": 7}]},
                7,
                {"alternatives": [{"transcript": "a b"}]},
            ]
        },
        "tsv": "u1\ta b\t-1\nu2\tc\tx\nu3\tc\nu4\ta b\t-1\n",
        "nemo-manifest": "\n".join(
            json.dumps(entry)
            for entry in (
                {"audio_filepath": "a.wav", "pred_text": "a b"},
                {"audio_filepath": "b.wav", "pred_text": 7},
                {"pred_text": "c"},
                {"audio_filepath": "c.wav", "pred_text": "a b"},
            )
        ),
    }.items():
        utterances, refused = read(tmp_path, content, format)
        assert (format, texts(utterances), len(refused)) == (format, [["a b"], ["a b"]], 2)
        assert all(str(tmp_path) in reason and "\n" not in reason for reason in refused)


def test_what_protobuf_leaves_out_is_silence(tmp_path):
    """Neither an empty result nor one that holds only the speakers of words is a hypothesis."""
    utterances, refused = read(
        tmp_path,
        {
            "results": [
                {"resultEndTime": {"seconds": 1, "nanos": 500_000_000}},
                {"alternatives": [{}], "resultEndTime": {"seconds": "2"}},
                {"alternatives": [{"transcript": "a"}], "resultEndTime": "3.5s"},
                {"alternatives": [{"words": [{"word": "a", "speakerTag": 1}]}]},
            ]
        },
    )
    assert (texts(utterances), refused) == ([[], [], ["a"], []], [])
    assert [(u.start_s, u.duration_s) for u in utterances] == [
        (0.0, 1.5),
        (1.5, 0.5),
        (2.0, 1.5),
        (3.5, None),
    ]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1.5, 1.5),
        ("1.5", 1.5),
        ("1.5s", 1.5),
        ({"seconds": 1, "nanos": 5}, 1.000000005),
        ({"seconds": "1"}, 1.0),
        ({}, 0.0),
        ("PT1M1.5S", 61.5),
        ("00:01:01,500", 61.5),
        ("1:01.5", 61.5),
    ],
)
def test_times_are_numbers_texts_or_objects(value, wanted):
    assert seconds(value, "end", "here") == wanted


def test_a_list_does_not_compare_a_score_with_none(tmp_path):
    alternatives = [{"transcript": "a", "confidence": 0.5}, {"transcript": "b"}]
    utterances, _ = read(tmp_path, {"results": {"channels": [{"alternatives": alternatives}]}})
    assert [h.scores for h in utterances[0].hypotheses] == [{}, {}]


# Channel, folder and rank


def test_channels_keep_their_own_time_and_name(tmp_path):
    """Ends 1 and 3 on one channel, 2 and 5 on the other, in the order of the ends."""
    utterances, _ = read(
        tmp_path,
        {
            "results": [
                {
                    "alternatives": [{"transcript": "x"}],
                    "channel_tag": c,
                    "result_end_time": f"{e}s",
                }
                for c, e in ((1, 1), (2, 2), (1, 3), (2, 5))
            ]
        },
    )
    spans = [(u.extra["channel"], u.start_s, u.duration_s) for u in utterances]
    assert spans == [(1, 0.0, 1.0), (2, 0.0, 2.0), (1, 1.0, 2.0), (2, 2.0, 3.0)]
    phrases = [
        {"channel": c, "offsetInTicks": 0, "durationInTicks": 10_000_000, "nBest": []}
        for c in (0, 1)
    ]
    utterances, _ = read(tmp_path, {"recognizedPhrases": phrases})
    assert [u.extra for u in utterances] == [{"channel": 0}, {"channel": 1}]


def test_equal_names_in_folders_are_two_recordings(tmp_path):
    """An id does not depend on the order of the lines; parts of a recording are not its doubles."""
    entries = [
        {"audio_filepath": "s1/0001.wav"},
        {"audio_filepath": "s2/0001.wav"},
        {"audio_filepath": "s1/0002.v1.wav", "offset": 1.5},
        {"audio_filepath": "s1/0002.v1.wav", "offset": 3},
    ]
    ids = ["s1/0001", "s2/0001", "0002.v1-1.5", "0002.v1-3"]
    for order in (1, -1):
        lines = "\n".join(json.dumps(entry) for entry in entries[::order])
        utterances, refused = read(tmp_path, lines)
        assert ([u.id for u in utterances], refused) == (ids[::order], [])
    _, refused = read(tmp_path, "\n".join([json.dumps(entries[0])] * 2))
    assert "occurs twice" in refused[0]


def test_ranks_are_numbers_though_keys_were_sorted_as_text(tmp_path):
    ranks = sorted(map(str, range(1, 13)))
    assert ranks[1] == "10"
    (tmp_path / "text").write_text("".join(f"utt-{rank} w{rank}\n" for rank in ranks))
    (kaldi,) = load_nbest(tmp_path, "kaldi")
    (other,), _ = read(tmp_path, {"utt": {f"hyp_{rank}": {"text": f"w{rank}"} for rank in ranks}})
    for utterance in (kaldi, other):
        assert [h.text for h in utterance.hypotheses] == [f"w{n}" for n in range(1, 13)]


# Scripts without spaces


def chunks(*pieces):
    """A result of timed pieces, half a second each, one after the other."""
    return {
        "text": "".join(pieces),
        "chunks": [
            {"text": piece, "timestamp": [n / 2, (n + 1) / 2]} for n, piece in enumerate(pieces)
        ],
    }


@pytest.mark.parametrize(
    ("pieces", "text", "starts", "ends"),
    [
        (("今天", "天气", "很", "好"), "今天天气很好", (0.0,), (2.0,)),
        (("東京", "は", " Tokyo", "です"), "東京は Tokyoです", (0.0, 1.0), (1.0, 2.0)),
        (("ฝน", "ตก", "หนัก"), "ฝนตกหนัก", (0.0,), (1.5,)),
        (
            (" well", "-known", " to", " us", "."),
            "well-known to us.",
            (0.0, 1.0, 1.5),
            (1.0, 1.5, 2.0),
        ),
        ((" don", "'t", " go"), "don't go", (0.0, 1.0), (1.0, 1.5)),
    ],
)
def test_the_space_before_a_piece_is_its_spacing(tmp_path, pieces, text, starts, ends):
    (utterance,), _ = read(tmp_path, chunks(*pieces))
    assert utterance.hypotheses == (Hypothesis(text, word_ends_s=ends, word_starts_s=starts),)
    without = {key: value for key, value in chunks(*pieces).items() if key == "chunks"}
    (utterance,), _ = read(tmp_path, without)
    assert utterance.hypotheses[0].text == text


@pytest.mark.parametrize(
    "pieces", [("你好。", "再见。"), ("Oui.", "Non.", "Oui."), ("はい。", "いいえ。")]
)
def test_sentences_of_one_word_are_segments(tmp_path, pieces):
    utterances, _ = read(tmp_path, chunks(*pieces))
    assert texts(utterances) == [[piece] for piece in pieces]
    assert [u.start_s for u in utterances] == [n / 2 for n in range(len(pieces))]


def test_words_far_apart_are_segments(tmp_path):
    sparse = {
        "text": " one two",
        "chunks": [
            {"text": " one", "timestamp": [0, 1]},
            {"text": " two", "timestamp": [6, None]},
        ],
    }
    first, second = read(tmp_path, sparse)[0]
    assert (first.start_s, second.start_s, second.duration_s) == (0.0, 6.0, None)


# Files of an adversary, and our own output


def test_many_values_in_a_file_take_linear_time(tmp_path):
    """200,000 values of 2 MB: copying the rest for each took minutes."""
    path = written(tmp_path, '{"a": 1}\n' * 200_000)
    start = time.process_time()
    assert sum(1 for _ in json_values(path)) == 200_000
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("native", '{"id": "a", "hypotheses": [{"text": "a", "text": "b"}]}'),
        ("native", '{"id": "a", "id": "b"}'),
        ("whisper", '{"text": "a", "text": "b"}'),
        ("google", '{"results": [{"alternatives": [], "alternatives": []}]}'),
    ],
)
def test_a_key_that_occurs_twice_is_refused(tmp_path, format, content):
    with pytest.raises(FormatError, match="occurs twice in one object"):
        load_nbest(written(tmp_path, content), format)


@pytest.mark.parametrize(
    ("nbest", "words"),
    [
        (NBest(""), "id is ''"),
        (NBest("a", start_s=-0.5), "start_s is -0.5"),
        (NBest("a", duration_s=1e308), "duration_s is 1e"),
        (NBest("a", (Hypothesis("x", word_ends_s=(1e308,)),)), "word_ends_s is"),
        (NBest("a", (Hypothesis("x", word_ends_s=(-1.0,)),)), "word_ends_s is"),
        (NBest("a", (Hypothesis("x" * (MOST_CHARACTERS + 1)),)), "characters; at most"),
        (NBest("a", extra={"hypotheses": 7}), "extra holds 'hypotheses'"),
        (NBest("a", (Hypothesis("x", extra={"posterior": "no"}),)), "extra holds 'posterior'"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(nbest, words):
    with pytest.raises(FormatError, match=words):
        nbest_to_line(nbest)


def test_foreign_keys_that_are_ours_by_name_are_kept_under_another(tmp_path):
    segment = {"start": 0, "end": 1, "text": "a", "context": [7], "audio": 3}
    (one,), _ = read(tmp_path, {"segments": [segment]})
    assert one.extra == {"whisper.context": [7], "whisper.audio": 3}
    (two,), _ = read(tmp_path, "id\ttext\tposterior\nu\ta\thigh\n", name="t.tsv")
    assert two.hypotheses[0].extra == {"tsv.posterior": "high"}
    for utterance in (one, two):
        assert line_to_nbest(nbest_to_line(utterance), "here") == utterance


def test_a_foreign_utterance_that_is_not_one_is_refused(tmp_path):
    _, refused = read(tmp_path, "a\tb\t-1\n\tc\t-1\n", name="t.tsv")
    assert ["id is ''" in reason for reason in refused] == [True]
    good = {"start": 0, "end": 1, "text": "a"}
    utterances, refused = read(tmp_path, {"segments": [{**good, "start": -1}, good]})
    assert (texts(utterances), "start_s is -1" in refused[0]) == ([["a"]], True)


def test_score_and_asr_are_one_column(tmp_path):
    (one,), _ = read(tmp_path, "id\ttext\tasr\nu\ta\t-2\n", name="t.tsv")
    assert one.hypotheses == (Hypothesis("a", {"asr": -2.0}),)
    with pytest.raises(FormatError, match="both a score and an asr"):
        load_nbest(written(tmp_path, "id\ttext\tasr\tscore\nu\ta\t-2\t-3\n", "t.tsv"))


@pytest.mark.parametrize("format", ["espnet", "kaldi"])
def test_a_folder_or_file_in_the_wrong_place_is_one_sentence(tmp_path, format):
    """A folder called `text` where the file should be was an IndexError; a file named as the folder
    was read as no utterances."""
    file = tmp_path / "lists.txt"
    file.write_text("utt-1 a\n")
    with pytest.raises(FormatError, match="is no folder; name the one"):
        load_nbest(file, format)
    empty = tmp_path / "decode"
    (empty / "1best_recog" / "text").mkdir(parents=True)
    with pytest.raises(FormatError, match="is a folder without"):
        load_nbest(empty, format)
    with pytest.raises(FormatError, match="is a folder without"):
        load_nbest(empty)


@pytest.mark.parametrize(
    "line",
    [
        {"id": "y", "hypotheses": [], "text": "lost"},
        {"id": "y", "hypotheses": None, "transcript": "lost"},
        {"id": "y", "hyp": "lost"},
        {"id": "y", "audio": None, "pred_text": "lost"},
    ],
)
def test_a_text_under_a_foreign_key_does_not_vanish(tmp_path, line):
    """Beside a list it was carried along unread, and nothing said so."""
    good = {"id": "x", "hypotheses": [{"text": "kept"}]}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(FormatError, match=r"a\.jsonl:2 'y': has a '.*' that is neither"):
        load_nbest(path)
    path.write_text(json.dumps({**line, "reference": "lost", "audio": "a.wav"}) + "\n")
    assert load_nbest(path)[0].reference == "lost"
