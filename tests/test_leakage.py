"""A bundle knows what it was trained on, and every figure says how much of that is in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import relisten
from relisten.apps.cli import main
from relisten.core.combine import Weights
from relisten.core.leakage import TrainedOn
from relisten.core.types import TEXT, Hypothesis, ModelError, NBest, UsageError
from relisten.io.bundle import (
    TRAINED_ON,
    BundleConfig,
    add_trained_on,
    read_trained_on,
    scoring_hash,
    write_bundle,
)
from relisten.io.nbest import save_nbest
from relisten.tasks.doctor.doctor import doctor
from relisten.tasks.tune import tune
from relisten.tasks.weights import identify, with_scored_by


def said(id: str, reference: str | None) -> NBest:
    return NBest(id, reference=reference)


def test_utterances_are_known_by_id_and_words_and_texts_by_words() -> None:
    learnt = TrainedOn.of([said("a", "Two cats!"), said("heard", None)], ["The rain in Spain."])
    assert learnt.has_seen(said("a", "two cats")) == "utterance"
    assert learnt.has_seen(said("b", "two cats")) == "reference"
    assert learnt.has_seen(said("b", "The rain, in Spain")) == "reference"
    assert learnt.has_seen(said("a", "three dogs")) is None, "0001 of other speech is another one"
    assert learnt.has_seen(said("heard", "whatever was said")) == "utterance"
    for nothing in (None, "", "..."):
        assert learnt.has_seen(said("b", nothing)) is None
    assert len(learnt.utterances) == len(learnt.texts) == 2
    both = learnt | TrainedOn.of(texts=["two cats", "new"])
    assert (len(both.utterances), len(both.texts)) == (2, 3)
    assert TrainedOn().has_seen(said("a", "two cats")) is None


def test_a_bundle_keeps_what_it_was_trained_on(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    assert read_trained_on(folder) is None
    before = scoring_hash(folder)
    add_trained_on(folder, TrainedOn.of([said("a", "one")]))
    add_trained_on(folder, TrainedOn.of([said("b", "two")], ["three"]))
    kept = read_trained_on(folder)
    assert kept is not None
    assert [kept.has_seen(said("x", text)) for text in ("one", "two", "three", "four")] == [
        *("reference",) * 3,
        None,
    ]
    assert (folder / TRAINED_ON).stat().st_size < 8 * 5 + 300
    assert scoring_hash(folder) == before, "it changes no score"
    (folder / TRAINED_ON).write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        read_trained_on(folder)


def bundle(folder: Path) -> Path:
    """A text-only bundle; nothing of it is loaded here."""
    write_bundle(folder, BundleConfig("smollm2-135m", "0" * 12, "spoken", Weights({"asr": 1.0})))
    return folder


NAMES = ("anna", "bert", "carla", "david", "emma", "frank", "greta", "hans")


def dev_lists(model: Path, n: int = 24) -> list[NBest]:
    """Lists of two, six words each. Of every three, `asr` is wrong about the first and `text` about
    the second; what `text` says counts more."""
    identity = identify(str(model))
    lists = []
    for i in range(n):
        right = f"they saw {NAMES[i % 8]} and {NAMES[i // 8]} there"
        asr, text = (0.5 if i % 3 == 0 else -0.5), (6.0 if i % 3 == 1 else -6.0)
        hypotheses = (
            Hypothesis(right.replace("saw", "sore"), {"asr": -1.0 + asr, TEXT: -9.0 + text}),
            Hypothesis(right, {"asr": -1.0, TEXT: -9.0}),
        )
        hypotheses = tuple(sorted(hypotheses, key=lambda h: -h.scores["asr"]))
        one = NBest(f"u{i}", hypotheses, reference=right, extra={"speaker": f"s{i % 6}"})
        lists.append(with_scored_by(one, identity, [TEXT]))
    return lists


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """24 scored lists. The model was trained on u1, and on the texts of u0, u3, …, u21."""
    model = bundle(tmp_path / "model")
    lists = dev_lists(model)
    add_trained_on(model, TrainedOn.of([lists[1]], [one.reference or "" for one in lists[::3]]))
    save_nbest(lists, tmp_path / "scored.jsonl")
    return tmp_path / "scored.jsonl"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_evaluate_counts_what_was_seen_and_reports_without_it(scored: Path) -> None:
    """u1 is refused. `text` corrects the 8 whose reference was read, and spoils 7 of the others."""
    ranked, weights, report = (scored.with_name(name) for name in ("ranked", "w.json", "r.json"))
    weights.write_text(json.dumps(Weights({"asr": 1.0, TEXT: 1.0}).to_json()))
    assert run("rescore", scored, "-o", ranked, "--weights", weights).exit_code == 0
    page = scored.with_name("page.html")
    result = run("evaluate", ranked, "--json", report, "--html", page)
    assert result.exit_code == 1
    assert "1 refused:" in result.stderr
    assert "u1: " in result.stderr
    assert "was trained on it" in result.stderr
    assert "trained on 1 of these utterances, left out, and on the text of 8 of the 23" in (
        " ".join(result.stdout.split())
    )
    record = json.loads(report.read_text())
    assert (record["n_utterances"], record["n_refused"]) == (23, 1)
    assert record["rescored"]["words"]["substitutions"] == 7
    training = record["training"]
    assert (training["n_utterances"], training["n_references"]) == (1, 8)
    new = training["new_references"]
    assert (new["n_utterances"], new["n_words"]) == (15, 15 * 6)
    assert (new["first_pass"]["wer"], new["rescored"]["wer"]) == (0, 7 / 90)
    assert [one["value"] for one in record["by"]["reference seen in training"]] == ["no", "yes"]
    assert "without these references: first pass 0.00%, rescored 7.78%" in result.stdout
    html = page.read_text()
    assert "By <bdi>reference seen in training</bdi>" in html
    assert "without these references: first pass 0.00 %, rescored 7.78 %" in html
    assert html.count('"u1"') == 0, "the page shows what was counted"


def test_tune_refuses_what_was_trained_on_and_reports_without_the_seen(scored: Path) -> None:
    result = run("tune", scored, "-o", scored.with_name("weights.json"), "--folds", "3")
    assert result.exit_code == 1
    assert "u1: " in result.stderr
    assert "on the text of 8 of the 23 references" in " ".join(result.stdout.split())
    assert "without these references, 15 utterances: first pass 0.00%" in result.stdout
    tuned, refused = tune(str(scored), folds=3)
    assert [one.id for one in refused] == ["u1"]
    assert tuned.training.n_references == 8
    assert tuned.training.n_utterances == 1
    assert tuned.new_references is not None
    assert tuned.new_references.gain.absolute <= 0 < tuned.rates_on(tuned.n_words > 0).n_utterances


def test_the_doctor_measures_without_what_was_trained_on(scored: Path) -> None:
    report = doctor(str(scored))
    [check] = [one for one in report.checks if one.name == "training"]
    assert check.status == "look here"
    assert check.statistics == {"trained_on_utterances": 1.0, "seen_references": 8.0}
    assert report.gain is not None
    assert report.gain.n_utterances == 23
    assert report.gain.new_references is not None
    assert report.gain.new_references.n_utterances == 15
    assert "first pass, new references (15 utterances)" in run("doctor", scored).stdout


def test_python_does_as_the_commands_do(scored: Path) -> None:
    lists = relisten.load_nbest(scored)
    with pytest.raises(UsageError, match=r"was trained on 1 of the 24 utterances.*'u1'"):
        relisten.tune_weights(lists)
    rest = [one for one in lists if one.id != "u1"]
    assert relisten.tune_weights(rest, folds=3, n_resamples=0).training.n_references == 8
    assert [one.id for one in relisten.evaluate(lists).refused] == ["u1"]


def test_where_all_or_nothing_was_seen(scored: Path, tmp_path: Path) -> None:
    model = scored.with_name("model")
    lists = relisten.load_nbest(scored)
    new = [lists[i] for i in range(24) if i % 3 == 2]
    report = relisten.evaluate(new)
    assert report.new_references is None
    assert "on the text of 0 of the 8 references" in report.training.sentences()[0]
    assert doctor_check(new, tmp_path) == "ok"
    add_trained_on(model, TrainedOn.of(lists))
    for act in (lambda: relisten.evaluate(lists), lambda: tune(str(scored))):
        with pytest.raises(UsageError, match="train"):
            act()
    with pytest.raises(UsageError, match="was trained on every utterance"):
        doctor(str(scored))


def doctor_check(lists: list[NBest], folder: Path) -> str | None:
    save_nbest(lists, folder / "checked.jsonl")
    checks = doctor(str(folder / "checked.jsonl")).checks
    return next((one.status for one in checks if one.name == "training"), None)


def test_a_model_that_does_not_say_is_named(scored: Path, tmp_path: Path) -> None:
    """Or one that is another now, or gone; lists that no model scored need no sentence."""
    lists = [one for one in relisten.load_nbest(scored) if one.id != "u1"]
    model = scored.with_name("model")
    (model / TRAINED_ON).unlink()
    assert "its bundle does not say" in relisten.evaluate(lists).training.sentences()[0]
    assert doctor_check(lists, tmp_path) == "cannot tell"
    config = BundleConfig("smollm2-135m", "1" * 12, "spoken", Weights({"asr": 1.0}))
    write_bundle(model, config)
    assert "it is another now" in relisten.evaluate(lists).training.sentences()[0]
    model.rename(tmp_path / "elsewhere")
    assert "is not known" in relisten.evaluate(lists).training.sentences()[0]
    bare = [replace(one, extra={}) for one in lists]
    assert relisten.evaluate(bare).training.sentences() == []
    assert doctor_check(bare, tmp_path) is None
