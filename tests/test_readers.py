"""Each layout is recognised by its content, and read with the right sign, base and times."""

import json
import math
import shutil
from pathlib import Path

import pytest

from relisten.core.types import FormatError, Hypothesis, NBest, UsageError
from relisten.io.nbest import load_nbest, save_nbest
from relisten.io.readers import FORMATS, recognise

DATA = Path(__file__).parent / "data" / "readers"

FILES = {
    "tsv": ["plain.tsv", "header.tsv", "header.csv"],
    "nemo": ["preds_out_width2_alpha1.0_beta0.5.tsv"],
    "nemo-manifest": ["nemo_manifest.json", "nemo_beams.json", "open_asr.jsonl"],
    "espnet": ["espnet"],
    "kaldi": ["kaldi", "kaldi/archives.1"],
    "mlm-scoring": ["mlm_scoring.json"],
    "hyporadise": ["hyporadise.json"],
    "whisper": [
        "whisper.json",
        "whisperx.json",
        "faster_whisper_list.json",
        "transformers_chunks.json",
        "transformers_words.json",
    ],
    "whisper-cpp": ["whisper_cpp.json"],
    "sherpa": ["sherpa.json"],
    "deepgram": ["deepgram.json", "deepgram_utterances.json"],
    "assemblyai": ["assemblyai.json"],
    "vosk": ["vosk.json"],
    "amazon": ["amazon.json"],
    "google": ["google.json"],
    "azure": ["azure.json", "azure_batch.json"],
    "trn": ["hyp.trn"],
    "ctm": ["hyp.ctm"],
    "stm": ["ref.stm"],
}


@pytest.mark.parametrize(
    ("format", "name"), [(format, name) for format, names in FILES.items() for name in names]
)
def test_the_format_is_told_by_the_content(format, name, tmp_path):
    """What was read is unchanged by the native format, times and scores to a millionth."""
    assert recognise(DATA / name) == format
    utterances = load_nbest(DATA / name)
    assert utterances == load_nbest(DATA / name, format)
    save_nbest(utterances, tmp_path / "ours.jsonl")
    assert recognise(tmp_path / "ours.jsonl") == "native"
    save_nbest(load_nbest(tmp_path / "ours.jsonl"), tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "ours.jsonl").read_bytes()


def test_every_format_has_a_file():
    assert set(FILES) | {"native"} == set(FORMATS)


def texts_and_asr(nbest: NBest) -> list[tuple[str, float | None]]:
    return [(h.text, h.scores.get("asr")) for h in nbest.hypotheses]


CAT = [("the cat sat", -3.25), ("the cat sad", -4.5)]


def test_tsv():
    first, second = load_nbest(DATA / "plain.tsv")
    assert (first.id, texts_and_asr(first)) == ("utt-a", CAT)
    assert (second.id, texts_and_asr(second)) == ("utt-b", [("", -0.5)])
    (named,) = load_nbest(DATA / "header.tsv")
    assert (named.reference, texts_and_asr(named)) == ("the cat sat", CAT)
    assert named.hypotheses[0].extra == {"speaker": "s1"}


def test_csv_may_quote_commas_quotes_and_line_breaks():
    first, second = load_nbest(DATA / "header.csv")
    assert texts_and_asr(first) == [("the cat, sat", -3.25), ("the cat sad", -4.5)]
    assert (first.reference, first.hypotheses[0].extra) == ("the cat sat", {"system": "one"})
    assert (second.id, texts_and_asr(second)) == ("utt-b", [('a "b"\nc', -1.0)])


def test_predictions_in_a_nemo_manifest_are_hypotheses():
    """The score stands before the text or behind it; equal names get their folders."""
    first, second = load_nbest(DATA / "nemo_beams.json")
    assert (first.id, first.reference, texts_and_asr(first)) == ("a/one", "the cat sat", CAT)
    assert (second.id, texts_and_asr(second)) == ("b/one", [("on", -1.0)])
    wrong, silent = load_nbest(DATA / "open_asr.jsonl")
    assert (wrong.id, wrong.reference) == ("sample_0", "turn the light off")
    assert texts_and_asr(wrong) == [("turn the lights off", None)]
    assert (silent.reference, texts_and_asr(silent)) == ("", [("", None)])


def test_nemo_numbers_the_utterances_or_takes_those_of_a_manifest():
    predictions = DATA / FILES["nemo"][0]
    first, second = load_nbest(predictions)
    assert texts_and_asr(first) == CAT
    assert texts_and_asr(second) == [("on the mat", -1.0), ("", -7.75)]
    first, second = load_nbest(predictions, manifest=DATA / "nemo_manifest.json")
    assert (first.id, first.audio, first.duration_s) == ("first", "wavs/first.wav", 1.5)
    assert (first.reference, texts_and_asr(first)) == ("the cat sat", CAT)
    assert (second.id, second.start_s, second.extra) == ("second-4.5", 4.5, {"lang": "en"})


def test_a_manifest_completes_other_formats_by_id(tmp_path):
    manifest = tmp_path / "dev.jsonl"
    save_nbest([NBest("utt-b", reference="b"), NBest("utt-a", audio="a.wav")], manifest)
    first, second = load_nbest(DATA / "plain.tsv", manifest=manifest)
    assert (second.reference, texts_and_asr(first)) == ("b", CAT)
    assert (DATA / first.audio).resolve() == tmp_path / "a.wav"  # relative to the manifest
    save_nbest([NBest("utt-a")], manifest)
    with pytest.raises(FormatError, match="'utt-b': is not in the manifest"):
        load_nbest(DATA / "plain.tsv", manifest=manifest)


def test_segments_of_a_service_keep_their_times_and_get_their_recording(tmp_path):
    """A manifest put its own start and duration in their place: each then heard the whole file."""
    lists = tmp_path / "lists" / "amazon.json"
    lists.parent.mkdir()
    shutil.copy(DATA / "amazon.json", lists)
    plain = load_nbest(lists)
    assert plain[1].start_s > 0
    lines = [NBest(one.id, audio="call.wav", reference="r", duration_s=60.0) for one in plain]
    save_nbest(lines, tmp_path / "references.jsonl")
    for manifest in (tmp_path / "references.jsonl", tmp_path / "call.wav"):
        completed = load_nbest(lists, manifest=manifest)
        assert {one.audio for one in completed} == {"../call.wav"}
        times = [(one.start_s, one.duration_s) for one in completed]
        assert times == [(one.start_s, one.duration_s) for one in plain]
    later = [NBest(one.id, audio="call.wav", start_s=9.0) for one in plain]
    save_nbest(later, tmp_path / "later.jsonl")
    assert load_nbest(lists, manifest=tmp_path / "later.jsonl")[1].start_s == 9.0


def test_espnet():
    a, b, c = load_nbest(DATA / "espnet")
    assert (a.id, texts_and_asr(a)) == ("utt-a", CAT)
    assert (b.id, texts_and_asr(b)) == ("utt-b", [("", -0.5)])
    assert texts_and_asr(c) == [("on the mat", -1.0), ("on the map", -2.0), ("on a mat", -2.5)]


def test_espnet_jobs_below_a_folder_are_read_in_order(tmp_path):
    for job in ("output.10", "output.9"):
        shutil.copytree(DATA / "espnet", tmp_path / "logdir" / job)
        for file in (tmp_path / "logdir" / job).glob("*/*"):
            file.write_text(file.read_text().replace("utt-", f"{job}-"))
    ids = [nbest.id for nbest in load_nbest(tmp_path)]
    assert ids == [f"output.{n}-{x}" for n in (9, 10) for x in "abc"]


def test_kaldi_costs_become_scores():
    """−(25.5 + 0.1 · −120) = −13.5; −(24.25 − 10.05) = −14.2; −(2.5 + 1) = −3.5."""
    first, second = load_nbest(DATA / "kaldi")
    assert (first.id, second.id) == ("spk-1-utt", "spk-2-utt")
    assert [text for text, _ in texts_and_asr(first)] == ["the cat sat", "the cat sad"]
    assert [asr for _, asr in texts_and_asr(first)] == pytest.approx([-13.5, -14.2])
    assert first.hypotheses[0].extra == {"graph_cost": 25.5, "acoustic_cost": -120.0}
    assert texts_and_asr(second) == [("", -3.5)]


def test_mlm_scoring_orders_by_the_number_of_the_hypothesis():
    first, second = load_nbest(DATA / "mlm_scoring.json")
    assert (first.id, first.reference) == ("1272-128104-0000", "the cat sat")
    assert texts_and_asr(first) == [*CAT, ("a cat", -9.0)]
    assert (second.reference, texts_and_asr(second)) == ("", [("", -0.5)])


def test_hyporadise_has_no_scores_and_spells_nothing_as_unk():
    first, second = load_nbest(DATA / "hyporadise.json")
    assert [h.text for h in first.hypotheses][:2] == ["the cat sat", "the cat sad"]
    assert len(first.hypotheses) == 5
    assert not any(h.scores for h in first.hypotheses)
    assert (second.reference, [h.text for h in second.hypotheses]) == ("", ["", "on"])


def test_whisper_scores_are_summed_again():
    """avg_logprob −0.25 over 6 tokens and EOS: −1.75."""
    first, second = load_nbest(DATA / "whisper.json")
    assert first.hypotheses == (
        Hypothesis(
            "The cat sat.", {"asr": -1.75}, (0.25, 0.75, 1.5), word_starts_s=(0.0, 0.25, 0.75)
        ),
    )
    assert (first.start_s, first.duration_s) == (0.5, 1.5)
    assert second.hypotheses == (Hypothesis("On the mat!", {"asr": -3.5}),)
    assert (second.start_s, second.extra["seek"]) == (30.0, 3000)


def test_whisperx_gives_numbers_no_time():
    first, second = load_nbest(DATA / "whisperx.json")
    assert first.hypotheses == (Hypothesis("Room 12 now."),)
    assert (first.start_s, first.duration_s) == (0.5, 1.5)
    assert second.hypotheses == (
        Hypothesis("Sit down.", word_ends_s=(0.25, 1.0), word_starts_s=(0.0, 0.5)),
    )


def test_a_dumped_list_of_segments_is_a_whisper_result():
    """5 tokens and EOS at −0.25 each; 3 and EOS at −0.5."""
    first, second = load_nbest(DATA / "faster_whisper_list.json")
    assert first.hypotheses == (Hypothesis("The cat sat.", {"asr": -1.5}),)
    assert second.hypotheses == (
        Hypothesis("On the mat.", {"asr": -2.0}, (0.25, 0.5, 1.0), word_starts_s=(0.0, 0.25, 0.5)),
    )
    assert (second.start_s, second.duration_s) == (2.0, 1.0)


def test_whisper_cpp_joins_tokens_to_words():
    """Four tokens of probability 1/2; [_BEG_] and [_TT_75] do not count. "cats" ends with "s"."""
    first, second = load_nbest(DATA / "whisper_cpp.json")
    (only,) = first.hypotheses
    assert (only.text, only.word_ends_s) == ("The cats.", (0.25, 1.0))
    assert only.scores["asr"] == pytest.approx(4 * math.log(0.5))
    assert (second.start_s, second.duration_s) == (2.0, 1.0)


def test_sherpa_sums_the_tokens():
    first, second = load_nbest(DATA / "sherpa.json")
    assert first.hypotheses == (
        Hypothesis("the cat", {"asr": -0.875}, (0.5, 1.25), word_starts_s=(0.25, 0.5)),
    )
    assert first.start_s == 1.5
    assert second.hypotheses == (Hypothesis("我们去"),)


def test_sherpa_scores_of_recognisers_that_do_not_stream(tmp_path):
    record = {"text": " Ask not", "tokens": [" Ask", " not"], "timestamps": [0.25, 0.5]}
    (tmp_path / "a.json").write_text(json.dumps({**record, "ys_log_probs": [-0.25, -0.5]}))
    (utterance,) = load_nbest(tmp_path / "a.json")
    assert utterance.hypotheses == (Hypothesis("Ask not", {"asr": -0.75}),)
    assert utterance.extra == {}


def test_sentences_of_parakeet_are_segments(tmp_path):
    """Only the whole text was read, and the sentences with their times were lost."""
    tokens = [
        {"text": " Hel", "start": 0.25, "end": 0.5, "duration": 0.25, "confidence": 0.9},
        {"text": "lo", "start": 0.5, "end": 0.75, "duration": 0.25, "confidence": 0.9},
        {"text": " there.", "start": 0.75, "end": 1.25, "duration": 0.5, "confidence": 0.9},
    ]
    first = {"text": "Hello there.", "start": 0.25, "end": 1.25, "tokens": tokens}
    second = {"text": "Bye.", "start": 2.0, "end": 2.5, "confidence": 0.8, "tokens": []}
    record = {"text": "Hello there. Bye.", "sentences": [first, second]}
    (tmp_path / "a.json").write_text(json.dumps(record, indent=2))
    one, two = load_nbest(tmp_path / "a.json")
    assert [u.hypotheses[0].text for u in (one, two)] == ["Hello there.", "Bye."]
    assert (one.start_s, one.duration_s, two.start_s) == (0.25, 1.0, 2.0)
    assert one.hypotheses[0].word_ends_s == (0.5, 1.0)
    assert "tokens" not in one.extra


def test_transformers_chunks_are_segments_or_words():
    first, second = load_nbest(DATA / "transformers_chunks.json")
    assert (first.start_s, first.duration_s) == (0.5, 1.5)
    assert (second.start_s, second.duration_s) == (2.0, None)
    assert second.hypotheses == (Hypothesis("On the mat!"),)
    words, plain = load_nbest(DATA / "transformers_words.json")
    assert words.hypotheses == (
        Hypothesis("The cat", word_ends_s=(0.75, 1.25), word_starts_s=(0.5, 0.75)),
    )
    assert plain.hypotheses == (Hypothesis("On"),)


def test_vosk_scores_stay_and_times_count_from_the_segment():
    first, second = load_nbest(DATA / "vosk.json")
    assert texts_and_asr(first) == [("the cat", 297.045959), ("that", 295.5)]
    assert first.start_s == 1.74
    assert [h.word_ends_s for h in first.hypotheses] == [(0.39, 0.9), (0.9,)]
    assert (second.id, texts_and_asr(second)) == ("vosk-0002", [("sat", -2.25)])


def test_amazon_multiplies_the_confidences_of_words():
    """1 · 0.5 · 0.25; and 0.5 · 0, where 0 counts as a millionth; a segment without words."""
    first, second = load_nbest(DATA / "amazon.json")
    assert (first.start_s, first.duration_s) == (1.04, 1.5)
    scores = [h.scores["asr"] for h in first.hypotheses]
    assert scores == pytest.approx([math.log(0.125), math.log(0.5e-6)])
    assert first.hypotheses[0].word_ends_s == (0.31, 0.71, 1.31)
    assert second.hypotheses == (Hypothesis("On"),)


def test_google_batches_of_version_2_start_anew_with_each_recording(tmp_path):
    def answer(text, end_s):
        result = {"alternatives": [{"transcript": text, "confidence": 0.5}]}
        return {"results": [{**result, "resultEndOffset": f"{end_s}s"}]}

    batch = {
        "gs://b/a.wav": {"transcript": answer("one", 2)},
        "gs://b/b.wav": {"inlineResult": {"transcript": answer("two", 3)}},
    }
    path = tmp_path / "batch.json"
    path.write_text(json.dumps({"results": batch}))
    assert recognise(path) == "google"
    first, second = load_nbest(path)
    assert (first.hypotheses[0].text, first.start_s, first.extra["uri"]) == (
        "one",
        0.0,
        "gs://b/a.wav",
    )
    assert (second.hypotheses[0].text, second.start_s, second.duration_s) == ("two", 0.0, 3.0)


@pytest.mark.parametrize(
    "text",
    [
        "start\tend\ttext\n0\t3200\tIt is hard to wreck a nice beach.\n",
        "1\n00:00:00,000 --> 00:00:02,000\nIt is hard.\n",
        "WEBVTT\n\n00:00.000 --> 00:02.000\nIt is hard.\n",
    ],
)
def test_subtitles_are_told_from_lists(text, tmp_path):
    """Whisper's programs write them beside the JSON; the table was taken for one of hypotheses,
    whose score is 'text'."""
    path = tmp_path / "talk.srt"
    path.write_text(text)
    with pytest.raises(FormatError, match="take the recogniser's JSON"):
        load_nbest(path)


def test_google_scores_count_only_where_all_alternatives_have_one():
    first, second = load_nbest(DATA / "google.json")
    assert texts_and_asr(first) == [("the cat sat", None), ("the cat sad", None)]
    assert first.hypotheses[0].word_ends_s == (0.5, 0.9, 1.4)
    assert (second.start_s, second.duration_s) == (1.5, 1.25)
    assert second.hypotheses == (
        Hypothesis(
            "on the mat", {"asr": math.log(0.25)}, (0.5, 0.6, 1.0), word_starts_s=(0.0, 0.5, 0.6)
        ),
        Hypothesis("on a mat", {"asr": math.log(0.125)}),
    )


def test_azure_times_the_spoken_words_only_where_they_are_the_written_ones():
    (only,) = load_nbest(DATA / "azure.json")
    assert (only.start_s, only.duration_s) == (0.5, 1.5)
    assert only.hypotheses == (
        Hypothesis("At 2:40.", {"asr": math.log(0.5)}),
        Hypothesis("A tooth.", {"asr": math.log(0.25)}, (0.25, 1.5), word_starts_s=(0.0, 0.25)),
    )
    (batch,) = load_nbest(DATA / "azure_batch.json")
    assert (batch.start_s, batch.duration_s) == (0.5, 1.5)
    assert batch.hypotheses == (
        Hypothesis("The cat.", {"asr": math.log(0.5)}, (0.25, 1.25), word_starts_s=(0.0, 0.25)),
    )


def test_deepgram_reads_channels_or_utterances(tmp_path):
    left, right = load_nbest(DATA / "deepgram.json")
    assert left.hypotheses == (
        Hypothesis(
            "the cat sat",
            {"asr": math.log(0.5)},
            (0.32, 0.72, 1.25),
            word_starts_s=(0.08, 0.32, 0.72),
        ),
        Hypothesis("the cat sad", {"asr": math.log(0.25)}),
    )
    assert [left.extra, right.extra] == [{"channel": 0}, {"channel": 1}]
    first, second = load_nbest(DATA / "deepgram_utterances.json")
    assert first.hypotheses[0].word_ends_s == (0.25, 0.75, 1.5)
    assert (second.start_s, second.duration_s, second.speaker) == (2.5, 1.0, "1")
    stream = tmp_path / "stream.json"
    stream.write_text(
        '{"type": "Results", "channel_index": [1, 2], "start": 0.0, "duration": 1.0,'
        ' "is_final": false, "channel": {"alternatives": [{"transcript": "the"}]}}\n'
        '{"type": "UtteranceEnd", "channel": [1, 2], "last_word_end": 0.9}\n'
        '{"type": "Results", "channel_index": [1, 2], "start": 0.5, "duration": 1.0,'
        ' "is_final": true, "channel": {"alternatives": [{"transcript": "the cat"}]}}\n'
    )
    (final,) = load_nbest(stream)
    assert texts_and_asr(final) == [("the cat", None)]
    assert (final.start_s, final.duration_s, final.extra) == (0.5, 1.0, {"channel": 1})


def test_assemblyai_counts_milliseconds(tmp_path):
    first, second = load_nbest(DATA / "assemblyai.json")
    assert first.hypotheses == (
        Hypothesis(
            "The cat sat.",
            {"asr": math.log(0.5)},
            (0.25, 0.65, 1.0),
            word_starts_s=(0.0, 0.25, 0.65),
        ),
    )
    assert (first.start_s, first.duration_s, first.speaker) == (0.25, 1.0, "A")
    assert (second.id, texts_and_asr(second)) == ("assemblyai-0002", [("On.", math.log(0.25))])
    whole = json.loads((DATA / "assemblyai.json").read_text()) | {"utterances": None}
    (tmp_path / "whole.json").write_text(json.dumps(whole))
    (only,) = load_nbest(tmp_path / "whole.json")
    assert only.hypotheses[0].word_ends_s == (0.5, 0.9, 1.25, 2.5)
    (tmp_path / "failed.json").write_text(
        '{"id": "1", "status": "error", "audio_url": "x", "text": null, "error": "no speech"}'
    )
    with pytest.raises(FormatError, match="an error: no speech"):
        load_nbest(tmp_path / "failed.json")


def test_a_one_line_whisper_result_is_not_taken_for_ours(tmp_path):
    """Its segments have ids too."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(json.loads((DATA / "whisper.json").read_text())))
    assert recognise(path) == "whisper"


TORN = '{"results": [{"alternatives": [\n{"transcript": "a'


@pytest.mark.parametrize(
    ("format", "content", "words"),
    [
        ("tsv", "utt-a\ta\t-1\nutt-b\tb\tnan\n", ":2 'utt-b': score is 'nan'"),
        ("tsv", "utt-a\ta\t-1\nutt-b\tb\t\n", ":2 'utt-b': score is ''"),
        ("tsv", "utt-a\ta\t-1\nutt-b\tb\n", ":2: has 2 columns"),
        ("tsv", "a\ta\t-1\nb\tb\t-1\na\tc\t-2\n", ": 'a': this id occurs twice"),
        ("nemo", "a\t-1\nb\t-inf\n", ":2: hypothesis 'b': score is '-inf'"),
        ("nemo", "a\t-1\nb\t-2\nc\t-3\n", "3 lines do not fit the beam width 2"),
        (
            "mlm-scoring",
            '{"u": {"hyp_1": {"text": "a", "score": NaN}}}',
            "'u': hyp_1: score is nan",
        ),
        ("mlm-scoring", '{"u": {"hyp_1": {"score": -1}}}', "'u': hyp_1: 'text' is None"),
        ("mlm-scoring", '{"u": {"hyp_1": {"text": "a", "score": -1}', ":1: is not JSON"),
        ("hyporadise", '[{"input": "a", "output": "a"}]', "'input' is 'a'; it must be a list"),
        ("whisper", '{"segments": [{"text": "a"}]}', "start is None"),
        ("vosk", '{"text": "the cat"}', "call SetMaxAlternatives"),
        ("vosk", '{"alternatives": [{"text": "a"}]}', "confidence is None"),
        ("amazon", '{"results": {"transcripts": []}}', "ShowAlternatives"),
        ("google", TORN, ":2: is not JSON"),
        ("google", '{"results": [7]}', "'alternatives' is None"),
        (
            "google",
            '{"results": [{"alternatives": [{"transcript": "a", "words": [7]}]}]}',
            "layout",
        ),
        (
            "azure",
            '{"NBest": [{"Confidence": 1.5, "Display": "a"}], "Offset": 0}',
            "between 0 and 1",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, format, content, words):
    path = tmp_path / "width2.txt"
    path.write_text(content)
    with pytest.raises(FormatError) as error:
        save_nbest(load_nbest(path, format), tmp_path / "out.jsonl")
    assert words in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_folders_that_do_not_match_are_refused(tmp_path):
    shutil.copytree(DATA / "espnet", tmp_path / "espnet")
    (tmp_path / "espnet/2best_recog/text").write_text("utt-c on the map\nutt-a the cat sad\n")
    with pytest.raises(FormatError, match=r"2best_recog.score:1 .utt-a.: stands where text has"):
        load_nbest(tmp_path / "espnet")
    shutil.copytree(DATA / "kaldi", tmp_path / "kaldi")
    (tmp_path / "kaldi/archives.1/acwt").write_text("spk-1-utt-2 1\nspk-1-utt-1 2\n")
    with pytest.raises(FormatError, match="acwt:1 'spk-1-utt-2': stands where"):
        load_nbest(tmp_path / "kaldi")


def test_formats_that_cannot_be_told_ask_for_a_name(tmp_path):
    (tmp_path / "a.txt").write_text("just a text\n")
    (tmp_path / "b.json").write_text("[1, 2]")
    (tmp_path / "folder").mkdir()
    for name, words in [
        ("a.txt", "name one of: native, tsv"),
        ("b.json", "name one of: native, tsv"),
        ("folder", "is a folder without"),
        ("none", "cannot be read"),
    ]:
        with pytest.raises(FormatError, match=words):
            load_nbest(tmp_path / name)
    with pytest.raises(UsageError, match="'csv' is not known"):
        load_nbest(tmp_path / "a.txt", "csv")
    (tmp_path / "nothing.jsonl").write_text("")
    assert load_nbest(tmp_path / "nothing.jsonl") == []
