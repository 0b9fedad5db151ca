"""The tasks on stored scores: streams that resume, ranking, evaluation; no model is needed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from relisten.core.combine import Weights, fingerprint
from relisten.core.types import FormatError, Hypothesis, NBest, UsageError
from relisten.io.nbest import load_nbest, save_nbest
from relisten.tasks.cues import CueOptions, to_cues
from relisten.tasks.evaluation.evaluate import evaluate
from relisten.tasks.evaluation.resampled import MAX_ROWS, ResampledRows
from relisten.tasks.rescore import rescore
from relisten.tasks.streams import Outcome, Refusal, load_recording, walk, work_on_accepted
from relisten.tasks.transcript import Segment
from relisten.tasks.tune import tune
from relisten.tasks.weights import load_weights


def heard(id: str, reference: str | None, *texts: str, **extra: object) -> NBest:
    """An utterance whose hypotheses have the scores asr = 0, -1, -2, …"""
    hypotheses = tuple(Hypothesis(text, {"asr": -float(n)}) for n, text in enumerate(texts))
    return NBest(id, hypotheses, reference=reference, extra=extra)


def mark(chunk: list[NBest]) -> list[NBest | Refusal]:
    """Each utterance with the ids of its chunk; the one called `bad` is refused."""
    together = "+".join(utterance.id for utterance in chunk)
    return [
        Refusal(u.id, "it is bad") if u.id == "bad" else replace(u, extra={"chunk": together})
        for u in chunk
    ]


def manifest_of(folder: Path, *ids: str) -> str:
    path = folder / "in.jsonl"
    save_nbest([NBest(id) for id in ids], path)
    return str(path)


def test_in_is_out_plus_refused(tmp_path: Path) -> None:
    source = manifest_of(tmp_path, "a", "bad", "c")
    ticks: list[int] = []
    outcome = walk(source, str(tmp_path / "out"), mark, {}, chunk_size=2, tick=ticks.append)
    assert outcome == Outcome(2, (Refusal("bad", "it is bad"),))
    assert [u.id for u in load_nbest(tmp_path / "out")] == ["a", "c"]
    assert ticks == [2, 1]


@pytest.mark.parametrize("n_calls", [0, 1, 2])
def test_resume_ends_as_the_same_bytes(tmp_path: Path, n_calls: int) -> None:
    """Killed before any chunk, and in the middle: chunks are made up as in one run."""
    source = manifest_of(tmp_path, "a", "b", "bad", "d", "e")
    walk(source, str(tmp_path / "whole"), mark, {}, chunk_size=2)
    calls: list[str] = []

    def dying(chunk: list[NBest]) -> list[NBest | Refusal]:
        if len(calls) == n_calls:
            raise KeyboardInterrupt
        calls.append(chunk[0].id)
        return mark(chunk)

    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        walk(source, str(output), dying, {}, chunk_size=2)
    assert not output.exists()
    partial = output.with_name("out.partial")
    lines = partial.read_bytes().splitlines(keepends=True)
    partial.write_bytes(b"".join(lines[:-1]))  # killed between two lines of a chunk
    outcome = walk(source, str(output), mark, {}, chunk_size=2, resume=True)
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()
    assert outcome == Outcome(4, (Refusal("bad", "it is bad"),))


def test_audio_paths_stay_true(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "out").mkdir()
    save_nbest([NBest("a", audio="wav/a.wav")], tmp_path / "set" / "in.jsonl")
    walk(str(tmp_path / "set" / "in.jsonl"), str(tmp_path / "out" / "o.jsonl"), lambda c: c, {})
    assert load_nbest(tmp_path / "out" / "o.jsonl")[0].audio == "../set/wav/a.wav"


def test_work_skips_what_is_refused() -> None:
    refusal = Refusal("x", "no")
    doubled = work_on_accepted([1, refusal, 3], lambda some: [2 * n for n in some])
    assert doubled == [2, refusal, 6]
    assert work_on_accepted([refusal], lambda some: some) == [refusal]


def test_rescore_by_hand(tmp_path: Path) -> None:
    """asr + 0.5 text: 0 - 4 = -4, -1 - 2 = -3, -2 - 1 = -3: the tie keeps first-pass order."""
    texts = (-8.0, -4.0, -2.0)
    utterance = heard("a", "two", "one", "two", "three", speaker="s")
    scored = replace(
        utterance,
        hypotheses=tuple(
            replace(h, scores={**h.scores, "text": t})
            for h, t in zip(utterance.hypotheses, texts, strict=True)
        ),
    )
    save_nbest([scored], tmp_path / "scored")
    weights = Weights({"asr": 1.0, "text": 0.5})
    assert rescore(str(tmp_path / "scored"), str(tmp_path / "ranked"), weights) == Outcome(1)
    ranked = load_nbest(tmp_path / "ranked")[0]
    assert [h.text for h in ranked.hypotheses] == ["two", "three", "one"]
    assert [h.first_pass_rank for h in ranked.hypotheses] == [1, 2, 0]
    assert ranked.extra == {"speaker": "s"}


def test_rescore_merges_equal_texts(tmp_path: Path) -> None:
    """A recogniser that does not merge shares out what it believes: 0.25 + 0.25 beats 0.4.

    The first pass liked "two" better than "Two!", so its text and its other scores stay.
    """
    hypotheses = (
        Hypothesis("Two!", {"asr": np.log(0.25), "text": -5.0}, first_pass_rank=2),
        Hypothesis("one", {"asr": np.log(0.4), "text": -3.0}, first_pass_rank=0),
        Hypothesis("two", {"asr": np.log(0.25), "text": -3.0}, first_pass_rank=1),
    )
    save_nbest([NBest("a", hypotheses, reference="two")], tmp_path / "scored")
    for normaliser, expected in (("english", ["two", "one"]), ("none", ["one", "two", "Two!"])):
        weights = Weights({"asr": 1.0, "text": 1.0}, normaliser)
        rescore(str(tmp_path / "scored"), str(tmp_path / "ranked"), weights)
        [ranked] = load_nbest(tmp_path / "ranked")
        assert [h.text for h in ranked.hypotheses] == expected
    rescore(str(tmp_path / "scored"), str(tmp_path / "ranked"), Weights({"asr": 1.0}))
    [ranked] = load_nbest(tmp_path / "ranked")
    assert ranked.hypotheses[0].scores == pytest.approx({"asr": np.log(0.5), "text": -3.0}, 1e-5)
    assert [h.first_pass_rank for h in ranked.hypotheses] == [1, 0]
    assert evaluate([ranked]).first_pass.words.rate == 1, "its choice is still known"


def test_rescore_names_the_missing_score(tmp_path: Path) -> None:
    save_nbest([heard("utt-7", "x", "x")], tmp_path / "in")
    with pytest.raises(UsageError, match=r"utt-7.*relisten score"):
        rescore(str(tmp_path / "in"), str(tmp_path / "out"), Weights({"text": 1.0}))
    assert not (tmp_path / "out").exists()


def test_evaluate_refuses_what_was_tuned_on(tmp_path: Path) -> None:
    utterances = [heard("a", "x", "x"), heard("b", "x", "x")]
    save_nbest(utterances, tmp_path / "in")
    weights = Weights({"asr": 1.0}, tuned_on=frozenset({fingerprint(utterances[1])}))
    rescore(str(tmp_path / "in"), str(tmp_path / "tuned"), weights)
    report = evaluate(load_nbest(tmp_path / "tuned"))
    assert report.n_utterances == 1
    assert [(one.id, "tuned on it" in one.reason) for one in report.refused] == [("b", True)]
    with pytest.raises(UsageError, match=r"all 1 utterances.*served to train.*or to tune"):
        evaluate(list(load_nbest(tmp_path / "tuned"))[1:])
    rescore(str(tmp_path / "tuned"), str(tmp_path / "again"), Weights({"asr": 1.0}))
    assert evaluate(load_nbest(tmp_path / "again")).n_utterances == 2  # other weights, no mark


def ranked(utterance: NBest, *order: int) -> NBest:
    """The utterance in the order of these places in its first pass."""
    return replace(
        utterance,
        hypotheses=tuple(
            replace(utterance.hypotheses[place], first_pass_rank=place) for place in order
        ),
    )


def test_evaluate_by_hand() -> None:
    """Two utterances, five words.

    a: "one two three"; first pass "one too three" (1 error), chosen "one two three" (0);
    b: "four five"; first pass and chosen "for five six" (1 substitution, 1 insertion), third
       hypothesis "four" (1 deletion), second the first one again.
    """
    a = ranked(heard("a", "One two three.", "one too three", "One, two, three!"), 1, 0)
    b = ranked(heard("b", "four five", "xfor five six", "xfor five six", "four"), 0, 1, 2)
    report = evaluate([a, b], normaliser="basic", n_resamples=100)
    assert (report.n_utterances, report.n_words) == (2, 5)
    assert report.first_pass.words.errors == 3
    assert report.rescored.words.errors == 2
    assert report.rescored.words.substitutions == report.rescored.words.insertions == 1
    assert report.oracle.errors == 1
    assert report.oracle_wer_at == (3 / 5, 2 / 5, 1 / 5)
    assert report.relative_reduction == pytest.approx(1 / 3)
    # "xfor five six" for "four five": x and " six" inserted, u deleted
    assert report.rescored.chars.errors == 1 + 4 + 1
    assert report.first_pass.chars.errors == 6 + 1
    as_json = report.to_json()
    assert as_json["first_pass"]["wer"] == 3 / 5
    assert as_json["rescored"]["wer"] == 2 / 5
    assert as_json["oracle"]["wer"] == 1 / 5
    assert as_json["normaliser"] == "basic"


def test_merged_adds_up_equal_texts() -> None:
    """asr of "b" twice, ln 0.3 each, beats "a", ln 0.4: all three one word long."""
    hypotheses = tuple(
        Hypothesis(text, {"asr": float(np.log(p))})
        for text, p in (("a", 0.4), ("b", 0.3), ("B", 0.3))
    )
    report = evaluate([NBest("u", hypotheses, reference="b")], normaliser="basic", n_resamples=10)
    assert report.merged is not None
    assert report.merged.words.errors == 0
    assert report.first_pass.words.errors == report.rescored.words.errors == 1


def test_without_first_pass_scores_nothing_is_merged() -> None:
    bare = NBest("u", (Hypothesis("a"), Hypothesis("b")), reference="a")
    assert evaluate([bare, heard("v", "a", "a")], n_resamples=10).merged is None


def test_empty_things_are_counted() -> None:
    """Nothing said, one word heard: an insertion. Two words said, no hypothesis: two deletions."""
    report = evaluate(
        [heard("a", "", "word"), NBest("b", reference="two words"), heard("c", "", "")],
        normaliser="none",
        n_resamples=10,
    )
    counts = report.rescored.words
    assert (counts.insertions, counts.deletions, counts.n_reference) == (1, 2, 2)
    assert report.n_utterances == 3
    assert report.merged is not None
    assert report.merged.words == counts


def test_evaluate_lists_what_has_no_reference() -> None:
    report = evaluate([heard("a", "x", "x"), heard("b", None, "x")], n_resamples=10)
    assert report.n_utterances == 1
    assert [refusal.id for refusal in report.refused] == ["b"]
    with pytest.raises(UsageError, match="no utterance has a reference"):
        evaluate([heard("b", None, "x")])


def test_speakers_stand_or_fall_together() -> None:
    """Gain and loss within each speaker cancel, so resampling whole speakers never varies."""
    gain = ranked(heard("g", "one two", "one", "one two"), 1, 0)
    loss = ranked(heard("l", "one two", "one two", "one"), 1, 0)
    alone = [replace(u, id=f"{u.id}{i}") for i in range(6) for u in (gain, loss)]
    spoken = [replace(u, extra={"speaker": u.id[1:]}) for u in alone]
    assert evaluate(spoken, n_resamples=200).relative_reduction_ci95 == (0.0, 0.0)
    low, high = evaluate(alone, n_resamples=200).relative_reduction_ci95
    assert low < 0 < high


def test_what_is_resampled_stays_small() -> None:
    """Runs of utterances grow when there are many; sums, and the size of the table, do not."""
    rows = ResampledRows(2)
    n = 2 * MAX_ROWS + 3
    for i in range(n):
        rows.add(None, i, 1)
    columns = rows.columns()
    assert columns.shape[1] <= MAX_ROWS
    assert columns.sum(axis=1).tolist() == [n * (n - 1) // 2, n]
    assert columns[:, 0].tolist() == [0 + 1 + 2 + 3, 4]


def test_rows_are_speakers_where_two_are_known() -> None:
    one, two, mixed = ResampledRows(1), ResampledRows(1), ResampledRows(1)
    for i, n_errors in enumerate([1, 2, 4]):
        one.add("x", n_errors)
        two.add("xy"[i % 2], n_errors)
        mixed.add("x" if i else None, n_errors)
    assert one.columns().tolist() == [[1, 2, 4]]
    assert two.columns().tolist() == [[5, 2]]
    assert mixed.columns().tolist() == [[6, 1]]


def test_tune_then_load(tmp_path: Path) -> None:
    """The second hypothesis is right whenever its text score is: text must earn a weight."""
    utterances = []
    for i in range(40):
        wrong, right = (
            Hypothesis("a b", {"asr": 0.0, "text": -5.0}),
            Hypothesis("c d", {"asr": -1.0, "text": -1.0}),
        )
        utterances.append(NBest(f"u{i}", (wrong, right), reference="c d"))
    save_nbest([*utterances, heard("lost", None, "x")], tmp_path / "dev")
    with pytest.raises(FormatError, match="text"):
        tune(str(tmp_path / "dev"), components=("asr", "speech_given_text"))
    result, refused = tune(str(tmp_path / "dev"))
    assert [refusal.id for refusal in refused] == ["lost"]
    assert result.fitted_wer == 0
    assert len(result.weights.tuned_on) == 40
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(FormatError, match=r"bad\.json.*relisten tune"):
        load_weights(str(tmp_path / "bad.json"))


def test_cues_hold_all_words_and_are_short() -> None:
    words = [f"word{i}" for i in range(60)]
    ends = [0.4 * (i + 1) for i in range(60)]
    cues = to_cues(" ".join(words), ends, 10.0, 34.0)
    assert " ".join(cue.text for cue in cues).split() == words
    assert cues[0].start_s == 10.0
    assert cues[-1].end_s == pytest.approx(34.0)
    for cue, following in pairwise(cues):
        assert cue.end_s == following.start_s
    assert all(c.end_s - c.start_s <= CueOptions().max_cue_s + 1e-9 for c in cues)
    lines = [cue.text.split("\n") for cue in cues]
    assert all(len(one) <= 2 and max(map(len, one)) <= 42 for one in lines)


def test_a_cue_starts_with_its_speech() -> None:
    """Twelve seconds of silence before the first word, nine between two sentences: the cues once
    began at 0.0 and 13.2 s, and "Under" stood alone. "The" takes 0.5 s at most, "Under" 0.7."""
    words = ["The", "cat", "sat.", "Under", "the", "table"]
    cues = to_cues(" ".join(words), [12.2, 12.7, 13.2, 22.2, 22.4, 22.9], 0.0, 30.0)
    assert [cue.text for cue in cues] == ["The cat sat.", "Under the table"]
    assert [cue.start_s for cue in cues] == pytest.approx([11.7, 21.5])
    assert [cue.end_s for cue in cues] == pytest.approx([13.2, 22.9])


def test_cues_follow_word_starts_and_options() -> None:
    """Words that start at known times need no guess. One line of 12 characters, cues of 2 s."""
    words = "The cat sat. Under the table"
    starts, ends = [12.0, 12.3, 12.8, 22.0, 22.3, 22.5], [12.2, 12.7, 13.2, 22.2, 22.4, 22.9]
    cues = to_cues(words, ends, 0.0, 30.0, word_starts_s=starts)
    assert [cue.start_s for cue in cues] == pytest.approx([12.0, 22.0])
    options = CueOptions(min_cue_s=2.0, line_width=12, cue_lines=1)
    cues = to_cues(words, ends, 0.0, 30.0, options, starts)
    assert [cue.text for cue in cues] == ["The cat sat.", "Under the", "table"]
    times = [time for cue in cues for time in (cue.start_s, cue.end_s)]
    assert times == pytest.approx([12.0, 14.0, 22.0, 22.5, 22.5, 24.5])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_cue_s": 0.0},
        {"max_cue_s": 0.5},
        {"min_cue_s": -1.0},
        {"max_cue_s": float("inf")},
        {"max_cue_s": float("nan")},
        {"line_width": 0},
        {"cue_lines": 0},
    ],
)
def test_cues_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="cue"):
        CueOptions(**wrong)


def test_cues_prefer_whole_sentences_and_last_a_second() -> None:
    cues = to_cues("Stop. I said stop it now. Yes.", [0.3, 0.8, 1.0, 1.3, 1.5, 1.8, 2.2], 5.0, 7.5)
    assert [cue.text for cue in cues] == ["Stop. I said stop it now.", "Yes."]
    assert (cues[1].start_s, cues[1].end_s) == pytest.approx((6.8, 7.5))  # the segment's end
    (alone,) = to_cues("Yes.", [0.3], 5.0, 9.0)
    assert (alone.start_s, alone.end_s) == pytest.approx((5.0, 6.0))


@pytest.mark.parametrize("text", ["今天天气很好我们去公园散步吧" * 10, "สวัสดีครับ" * 12, "w" * 100])
def test_scripts_without_spaces_are_cut_by_characters(text) -> None:
    """One word to `split`: it was one cue of any length. Its characters share its time."""
    cues = to_cues(text, [20.0], 0.0, 20.0)
    assert "".join(cue.text.replace("\n", "") for cue in cues) == text
    assert len(cues) > 1
    assert all(cue.end_s - cue.start_s <= 6.0 + 1e-9 for cue in cues)
    assert all(max(map(len, cue.text.split("\n"))) <= 42 for cue in cues)


def test_cues_without_word_ends() -> None:
    assert to_cues("", None, 0.0, 1.0) == []
    assert [cue.text for cue in to_cues("all at once", None, 1.0, 2.0)] == ["all at once"]


def test_recordings_that_cannot_be_had_are_refused() -> None:
    assert load_recording(NBest("b"), "-") == Refusal(
        "b", "it names no recording; add the key 'audio'"
    )
    missing = load_recording(NBest("a", audio="nowhere.wav"), "-")
    assert isinstance(missing, Refusal)
    assert "nowhere.wav" in missing.reason


def test_words_of_a_stretch_have_times_and_confidence() -> None:
    """The stretch begins at 10 s; what is not known of a word is left out."""
    chosen = Hypothesis(
        "one two",
        word_starts_s=(0.2, 0.5),
        word_ends_s=(0.5, 1.25),
        word_confidence=(0.9, 0.12345),
    )
    segment = Segment(10.0, 12.0, NBest("0", (chosen, Hypothesis("one", first_pass_rank=0))))
    segment = segment.to_json()
    assert (segment["text"], segment["first_pass_text"]) == ("one two", "one")
    assert segment["words"] == [
        {"text": "one", "start_s": 10.2, "end_s": 10.5, "confidence": 0.9},
        {"text": "two", "start_s": 10.5, "end_s": 11.25, "confidence": 0.123},
    ]
    bare = Segment(0.0, 1.0, NBest("0", (Hypothesis("one"),)))
    assert bare.to_json()["words"] == [{"text": "one"}]
    assert Segment(0.0, 1.0, NBest("0")).to_json()["words"] == []
