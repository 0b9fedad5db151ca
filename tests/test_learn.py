"""`relisten learn` whole, on tiny models: recordings with texts become a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import relisten
from relisten.apps.cli import main
from relisten.core.combine import Weights
from relisten.core.familiarity import Familiarity, OtherSpeech
from relisten.core.types import ADAPTED, Hypothesis, NBest, UsageError
from relisten.io.audio import load_audio
from relisten.io.bundle import (
    CTC_HEAD,
    EXTENSION,
    FAMILIARITY,
    OTHER_SPEECH,
    WORDS,
    read_bundle,
    read_trained_on,
    resolve_bundle,
    write_bundle,
)
from relisten.io.nbest import load_nbest
from relisten.speech.guard import frame_means, load_statistics, save_statistics
from relisten.speech.load import load_encoder
from relisten.tasks.defaults import FIRST_PASS, MODEL
from relisten.tasks.learning.learn import learn
from relisten.tasks.learning.options import LearnOptions
from relisten.tasks.learning.prepare import Prepared, prepare
from relisten.tasks.learning.teach import recogniser_schedule
from relisten.tasks.loading import load_listeners, load_rescorer
from relisten.tasks.ranking import FAMILIARITY_KEY, STRANGE
from relisten.tasks.score import score
from relisten.tasks.training.recogniser import RecogniserTraining
from tiny_world import (
    fill_cache,
    small_ctc_batches,
    tiny_speech_bundle,
    transcripts_of,
    write_noise,
)


@pytest.fixture(scope="module", autouse=True)
def short_training_of_letters():
    with pytest.MonkeyPatch.context() as patch:
        small_ctc_batches(patch)
        patch.setattr("relisten.tasks.learning.letters.FEWEST_STEPS", 4)
        patch.setattr("relisten.tasks.learning.letters.PASSES", 0.1)
        yield


TEXTS = ("ab cd", "cd ab ab", "ab dc", "cd cd", "ab")
N_SPEAKERS = 6


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A folder with speech.jsonl, the bundle learnt from it, the report, and what was said."""
    folder = tmp_path_factory.mktemp("learn")
    lines = []
    for number in range(18):
        write_noise(folder / f"{number}.wav", number, 1.0 + 0.1 * (number % 3))
        record = {
            "id": f"u{number}",
            "audio": f"{number}.wav",
            "speaker": f"s{number % N_SPEAKERS}",
        }
        lines.append(json.dumps({**record, "reference": TEXTS[number % len(TEXTS)].upper()}))
    lines.append(json.dumps({"id": "long", "audio": "0.wav", "reference": "ab " * 100}))
    lines.append(json.dumps({"id": "gone", "audio": "none.wav", "reference": "ab"}))
    (folder / "speech.jsonl").write_text("\n".join(lines) + "\n")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, folder / "models")
        noise = [
            np.random.default_rng(n).normal(0, 0.2, 16000).astype(np.float32) for n in range(9)
        ]
        means = frame_means(load_encoder(FIRST_PASS), noise)
        others = OtherSpeech.of([np.array(means[:4]), np.array(means[4:])], FIRST_PASS)
        save_statistics(others, resolve_bundle(MODEL) / OTHER_SPEECH)
        options = LearnOptions(steps=4)
        bundle = folder / "bundle"
        report, refused = learn([str(folder / "speech.jsonl")], str(bundle), options, said.append)
        assert {one.id for one in refused} == {"long", "gone"}
        yield folder, bundle, report, said


def test_the_report_compares_all_choices_on_held_out_speakers(learnt):
    folder, _, report, said = learnt
    names = [choice.name for choice in report.choices]
    assert names[:2] == ["first pass", "recogniser fine-tuned, alone"]
    assert names[-1] == "the bundle: asr + text + ctc.adapted"
    held_out = load_nbest(folder / "bundle" / "state" / "speech" / "held-out.jsonl")
    learnt_from = load_nbest(folder / "bundle" / "state" / "speech" / "learnt.jsonl")
    assert report.n_utterances == len(held_out) >= 2
    assert not {u.speaker for u in held_out} & {u.speaker for u in learnt_from}
    assert {"long", "gone"}.isdisjoint({u.id for u in (*held_out, *learnt_from)})
    assert any("do not fit" in line for line in said)
    assert set(report.real_time_factors) == {
        "first pass",
        "recogniser fine-tuned, alone",
        "the bundle",
    }
    json.loads(json.dumps(report.to_json(), allow_nan=False))


def test_the_bundle_transcribes_with_the_taught_recogniser(learnt):
    folder, bundle, _, _ = learnt
    config = read_bundle(bundle)
    assert config.weights.tuned_on
    seen = read_trained_on(bundle)
    for name, expected in (("learnt", {"utterance"}), ("held-out", {"reference", None})):
        lists = load_nbest(bundle / "state" / "speech" / f"{name}.jsonl")
        assert {seen.has_seen(one) for one in lists} <= expected
    assert config.weights.by == FAMILIARITY_KEY
    assert config.weights.domains[STRANGE] == {"asr": 1.0, "text": 0.3, "length": 0.4}
    rescorer = load_rescorer(str(bundle))
    assert ADAPTED in rescorer.components
    familiar = bundle / FAMILIARITY
    with of_limit(familiar, np.inf):
        [transcript] = transcripts_of([str(folder / "3.wav")], str(bundle))
    [segment] = transcript.segments
    assert FAMILIARITY_KEY not in segment.nbest.extra
    [decoded] = rescorer.adapted.decode([load_audio(folder / "3.wav")])
    own = {hypothesis.text: hypothesis.scores["asr"] for hypothesis in decoded.hypotheses}
    for hypothesis in segment.nbest.hypotheses:  # those of equal texts are added up
        assert hypothesis.scores["asr"] >= own[hypothesis.text] - 1e-3


def test_any_list_gets_the_score_of_the_taught_recogniser(learnt, tmp_path):
    """Of another recogniser, without scores; what the bundle's own lists hold is the same."""
    folder, bundle, _, _ = learnt
    cloud = {
        "id": "c",
        "audio": str(folder / "3.wav"),
        "hypotheses": [{"text": "ab cd"}, {"text": ""}],
    }
    (tmp_path / "cloud.jsonl").write_text(json.dumps(cloud) + "\n")
    out = tmp_path / "scored.jsonl"
    outcome = score(str(tmp_path / "cloud.jsonl"), str(out), str(bundle), (ADAPTED,))
    assert (outcome.n_done, outcome.refused) == (1, ())
    [scored] = load_nbest(out)
    adapted = load_rescorer(str(bundle)).adapted
    expected = adapted.scorer(load_audio(folder / "3.wav")).score(["ab cd", ""], timed=False)
    found = [h.scores[ADAPTED] for h in scored.hypotheses]
    np.testing.assert_allclose(found, [h.scores["asr"] for h in expected], atol=1e-4)


def test_a_finished_run_is_not_done_again_and_another_is_refused(learnt, monkeypatch):
    folder, bundle, report, _ = learnt
    monkeypatch.setattr("relisten.tasks.training.loop.adamw", None)  # nothing is trained
    again, _ = learn(
        [str(folder / "speech.jsonl")], str(bundle), LearnOptions(steps=4), lambda _: None
    )
    assert [c.wer for c in again.choices] == [c.wer for c in report.choices]
    with pytest.raises(UsageError, match="steps"):
        learn([str(folder / "speech.jsonl")], str(bundle), LearnOptions(steps=5), lambda _: None)


@contextmanager
def of_limit(path: Path, limit: float) -> Iterator[None]:
    """The bundle taking speech for strange above another limit."""
    before = path.read_bytes()
    save_statistics(replace(load_statistics(Familiarity, path), limit=limit), path)
    yield
    path.write_bytes(before)


def test_strange_speech_gets_what_the_bundle_started_from_gives(learnt, monkeypatch, tmp_path):
    """The same list, scores and choice, among recordings that are not strange too."""
    folder, bundle, _, _ = learnt
    fill_cache(monkeypatch, tmp_path)
    recordings = [str(folder / f"{n}.wav") for n in range(4)]
    before = transcripts_of(recordings, MODEL)
    guard = load_listeners(bundle).guard
    means = frame_means(load_encoder(FIRST_PASS), list(map(load_audio, recordings)))
    limit = float(np.median([guard.familiarity.strangeness(one) for one in means]))
    with of_limit(bundle / FAMILIARITY, limit):
        after = transcripts_of(recordings, str(bundle))
    strange = [one.segments[0].nbest.extra.get(FAMILIARITY_KEY) == STRANGE for one in after]
    assert sum(strange) == 2
    for one, other, is_strange in zip(after, before, strange, strict=True):
        texts = [[h.text for h in t.segments[0].nbest.hypotheses] for t in (one, other)]
        asr = [[h.scores["asr"] for h in t.segments[0].nbest.hypotheses] for t in (one, other)]
        if is_strange:
            assert sorted(texts[0]) == sorted(texts[1])
            np.testing.assert_allclose(sorted(asr[0]), sorted(asr[1]), atol=1e-3)
        else:
            assert sorted(asr[0]) != sorted(asr[1])


def test_familiarity_knows_its_own_and_not_others():
    """Kinds of speech that it was told of, and one that it was not; thirty recordings will do."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, 40))

    def speech(n: int, shift: float = 0.0) -> np.ndarray:
        return rng.normal(size=(n, 8)) @ mixing + 0.3 * rng.normal(size=(n, 40)) + shift

    kinds = OtherSpeech.of([speech(50, shift) for shift in (2.0, -2.0, 3.0)], "an encoder")
    known = Familiarity.of(speech(30), speech(100), kinds)
    assert np.mean([known.knows(one) for one in speech(200)]) > 0.93
    for shift in (2.0, -2.0, 2.5):
        assert np.mean([known.knows(one) for one in speech(200, shift)]) < 0.05


def test_steps_follow_the_amount_of_speech():
    steps = [recogniser_schedule(n, False).steps for n in (20, 1000, 100_000)]
    assert steps == [100, 188, 400]
    assert recogniser_schedule(1000, False).patience == 0
    assert recogniser_schedule(1000, True).patience > 0


def test_the_command_tells_and_writes_the_report(learnt, tmp_path):
    folder, bundle, report, _ = learnt
    arguments = ["learn", str(folder / "speech.jsonl"), "-o", str(bundle), "--steps", "4"]
    made = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "r.json")])
    assert made.exit_code == 1, made.output  # two recordings were left out
    assert "2 refused" in made.output
    assert "recogniser fine-tuned" in made.output
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["n_utterances"] == report.n_utterances
    nothing = CliRunner().invoke(
        main, ["learn", str(tmp_path / "no.jsonl"), "-o", str(tmp_path / "b")]
    )
    assert nothing.exit_code == 2
    assert "no.jsonl" in nothing.output


def test_other_speech_needs_another_output(learnt, tmp_path):
    folder, bundle, _, _ = learnt
    lines = (folder / "speech.jsonl").read_text().splitlines()[:9]
    (folder / "less.jsonl").write_text("\n".join(lines) + "\n")
    kept = bundle / "state" / "speech" / "speech.jsonl"
    before = kept.read_bytes()
    with pytest.raises(UsageError, match="other speech"):
        learn([str(folder / "less.jsonl")], str(bundle), LearnOptions(steps=4), lambda _: None)
    assert kept.read_bytes() == before


def test_recordings_without_a_transcript_serve_by_what_the_bundle_is_sure_of(
    learnt, tmp_path, monkeypatch
):
    """All of them, where every text will do; held out is other speech, with transcripts."""
    folder, _, _, _ = learnt
    monkeypatch.setattr("relisten.tasks.learning.learn.MIN_CONFIDENCE", 0.0)
    monkeypatch.setattr("relisten.tasks.training.pseudo.MIN_WORDS", 0)
    lines = [json.loads(line) for line in (folder / "speech.jsonl").read_text().splitlines()[:18]]
    for one in lines:
        one["audio"] = str(folder / one["audio"])
    for one in lines:  # of one speaker, as many sets are
        one["speaker"] = "same"
    bare = [{k: v for k, v in one.items() if k != "reference"} for one in lines[:10]]
    for name, some in (("bare", bare), ("dev", lines[10:])):
        text = "\n".join(map(json.dumps, some)) + "\n"
        (tmp_path / f"{name}.jsonl").write_text(text)
    options = LearnOptions(steps=2, dev=(str(tmp_path / "dev.jsonl"),))
    said: list[str] = []
    report, _ = learn([str(tmp_path / "bare.jsonl")], str(tmp_path / "b"), options, said.append)
    assert report.n_utterances == 8
    assert any("pseudo-references kept" in line for line in said)
    assert any(line.startswith("recogniser: ") for line in said)


def test_one_speaker_is_divided_by_recordings_and_held_out_speakers_stay_out(learnt, tmp_path):
    folder, _, _, _ = learnt
    records = [json.loads(line) for line in (folder / "speech.jsonl").read_text().splitlines()[:18]]
    for one in records:
        one["audio"] = str(folder / one["audio"])

    def prepared(name: str, some: list[dict[str, str]]) -> tuple[Prepared, list[str]]:
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)) + "\n")
        said: list[str] = []
        sources = [str(tmp_path / f"{name}.jsonl")]
        return prepare(sources, (), tmp_path / name, 0, said.append, lambda _: None), said

    one, _ = prepared("one", [{**record, "speaker": "same"} for record in records])
    assert len(one.learnt) > len(one.held_out) > 0
    bare = [{**record, "id": f"{record['id']}-bare"} for record in records]
    for record in bare:
        del record["reference"]
    mixed, said = prepared("mixed", [*records, *bare])
    held_out = {u.speaker for u in mixed.held_out}
    assert held_out
    assert held_out.isdisjoint(u.speaker for u in (*mixed.learnt, *mixed.untranscribed))
    assert mixed.untranscribed or any("without a transcript" in line for line in said)


def test_another_language_keeps_the_lm_alone_and_gets_its_letters(learnt, tmp_path):
    """From a speech-text bundle of another language; a second run finds all done."""
    folder, _, _, _ = learnt
    start, bundle = tmp_path / "start", tmp_path / "bundle"
    tiny_speech_bundle(start, Weights({"asr": 1.0, "ctc": 0.1}))
    write_bundle(start, replace(read_bundle(start), language="de"))
    lines = [json.loads(line) for line in (folder / "speech.jsonl").read_text().splitlines()[:18]]
    for one in lines:
        one["audio"] = str(folder / one["audio"])
        one["reference"] = one["reference"].lower().replace("cd", "cö")
    (tmp_path / "speech.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    options = LearnOptions(model=str(start), language="en", steps=2)
    report, _ = learn([str(tmp_path / "speech.jsonl")], str(bundle), options, lambda _: None)
    assert report.choices[-1].name == "the bundle: asr + text + ctc.adapted"
    config = read_bundle(bundle)
    assert (config.language, config.has_speech) == ("en", False)
    assert not any((bundle / name).exists() for name in (EXTENSION, CTC_HEAD, WORDS))
    rescorer = load_rescorer(str(bundle))
    assert rescorer.adapted_ctc_head.alphabet == " abcdö"
    assert set(rescorer.components) == {"text", "asr.adapted", "ctc.adapted"}
    [transcript] = transcripts_of([lines[0]["audio"]], str(bundle))
    assert transcript.segments
    again, _ = learn([str(tmp_path / "speech.jsonl")], str(bundle), options, lambda _: None)
    assert [c.wer for c in again.choices] == [c.wer for c in report.choices]


def test_what_the_taught_encoder_hears_is_scored_alike_by_both_ways(learnt, tmp_path):
    """`transcribe` takes the windows that were decoded, `score` encodes."""
    folder, bundle, _, _ = learnt
    with of_limit(bundle / FAMILIARITY, np.inf):
        weights = Weights({"asr": 1.0, "ctc.adapted": 0.1})
        options = relisten.SecondPassOptions(weights=weights)
        [transcript] = transcripts_of([str(folder / "3.wav")], str(bundle), options=options)
        [segment] = transcript.segments
        own = {h.text: h.scores["ctc.adapted"] for h in segment.nbest.hypotheses}
        line = {"id": "u", "audio": str(folder / "3.wav")}
        line["hypotheses"] = [{"text": text} for text in own]
        (tmp_path / "list.jsonl").write_text(json.dumps(line) + "\n")
        asked = ("ctc.adapted",)
        score(str(tmp_path / "list.jsonl"), str(tmp_path / "s.jsonl"), str(bundle), asked)
    [scored] = load_nbest(tmp_path / "s.jsonl")
    for h in scored.hypotheses:
        assert h.scores["ctc.adapted"] == pytest.approx(own[h.text], abs=1e-3)


def test_texts_alone_teach_the_language_model(learnt, tmp_path):
    """Which finds them likelier than before; recogniser and weights are those started from."""
    sentences = [f"{a} {b} {c}." for a in ("ab", "cd") for b in TEXTS for c in ("dd cc", "cc dd")]
    (tmp_path / "domain.txt").write_text("\n".join(sentences * 20) + "\n")
    bundle, said = tmp_path / "b", []
    options = LearnOptions(texts=(str(tmp_path / "domain.txt"),))
    report, refused = learn([], str(bundle), options, said.append)
    assert (report, refused) == (None, ())
    assert any(line.startswith("language model: 0 transcripts, 380 sentences") for line in said)
    config, start = read_bundle(bundle), read_bundle(resolve_bundle(MODEL))
    assert (config.weights, config.first_pass) == (start.weights, start.first_pass)
    utterance = NBest("u", (Hypothesis("ab cd dd cc", {}), Hypothesis("cd ab cc dd", {})))
    costs = []
    for reference in (MODEL, str(bundle)):
        [scored] = relisten.Rescorer.from_pretrained(reference).score([utterance], ["text"])
        costs.append(sum(h.scores["text"] for h in scored.hypotheses))
    assert costs[1] > costs[0] + 1
    with pytest.raises(UsageError, match="--text"):
        learn([], str(tmp_path / "c"), LearnOptions(), said.append)


def test_phrases_are_read_and_may_be_spelled(learnt, tmp_path):
    start, bundle = tmp_path / "start", tmp_path / "bundle"
    tiny_speech_bundle(start, Weights({"asr": 1.0}))
    (start / WORDS).write_text("ab\n")
    (tmp_path / "names.txt").write_text("Bede Facade\nGaga\t2\n")
    said: list[str] = []
    options = LearnOptions(model=str(start), phrases=(str(tmp_path / "names.txt"),))
    learn([], str(bundle), options, said.append)
    assert any(line.startswith("language model: 0 transcripts, 2 sentences") for line in said)
    assert (bundle / WORDS).read_text().split() == ["Bede", "Facade", "Gaga", "ab"]


def test_a_curve_learns_from_parts_and_judges_by_the_same(learnt, tmp_path):
    folder, _, whole, _ = learnt
    options = LearnOptions(steps=2, curve=True)
    bundle, speech = tmp_path / "b", [str(folder / "speech.jsonl")]
    report, _ = learn(speech, str(bundle), options, lambda _: None)
    state = bundle / "state"
    held_out = {u.id for u in load_nbest(state / "speech" / "held-out.jsonl")}
    sizes = []
    for name, point in zip(("0.25", "0.5"), report.curve, strict=True):
        part = load_nbest(state / f"curve-{name}" / "part.jsonl")
        assert held_out.isdisjoint(u.id for u in part)
        judged = load_nbest(state / f"curve-{name}" / "state" / "held-out-scored.jsonl")
        assert {u.id for u in judged} == held_out
        assert point.duration_s == pytest.approx(sum(u.duration_s for u in part))
        sizes.append(len(part))
    assert 0 < sizes[0] < sizes[1] < whole.n_utterances + 18
    assert len(report.to_json()["curve"]) == 2


def test_hours_shorten_the_training(learnt, tmp_path, monkeypatch):
    """To what the machine does in that time, which a run that goes on does not measure again."""
    folder, _, _, _ = learnt
    steps_s = iter([3.0])
    monkeypatch.setattr(RecogniserTraining, "seconds_per_step", lambda _: next(steps_s))
    said: list[str] = []
    monkeypatch.setattr("relisten.tasks.learning.learn.teach_lm", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            learn(
                [str(folder / "speech.jsonl")],
                str(tmp_path / "b"),
                LearnOptions(hours=6 / 3600),
                said.append,
            )
    [planned] = [line for line in said if line.startswith("recogniser: ")]
    assert planned.endswith("2 steps of 3.0 s, 1 min at most")


def stopped(*_: object) -> None:
    raise KeyboardInterrupt
