"""Adaptation to untranscribed recordings, on tiny models: what is learnt from, and what is not."""

from __future__ import annotations

import json
import math
import wave
from dataclasses import replace
from pathlib import Path

import pytest

from relisten.core.combine import Weights
from relisten.core.types import Hypothesis, UsageError
from relisten.io.bundle import read_bundle, read_trained_on
from relisten.io.nbest import load_nbest, read_nbest, save_nbest
from relisten.tasks import adapt as adapt_module
from relisten.tasks.adapt import AdaptConfig, adapt, default_tasks
from relisten.tasks.loading import load_rescorer
from relisten.tasks.pretrain import PretrainConfig, pretrain
from relisten.tasks.streams import Outcome
from relisten.tasks.training.batches import draw_batch
from relisten.tasks.training.codebook import CodebookConfig
from relisten.tasks.training.config import STATE
from relisten.tasks.training.ctc import CTCConfig
from relisten.tasks.training.lm import LMConfig
from relisten.tasks.training.projector import ProjectorConfig
from relisten.tasks.training.pseudo import pseudo_references, without_references
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule
from tiny_speech import noise
from tiny_world import fill_cache, small_ctc_batches

TEXTS = ("ab cd", "cd ab ab", "ab", "cd cd")
MIXTURE = {"speech": 0.5, "chunked": 0.3, "text": 0.2}


def write_manifest(path: Path, texts: tuple[str, ...] | None) -> str:
    lines = []
    for i in range(6):
        reference = {} if texts is None else {"reference": texts[i % len(texts)]}
        record = {"id": f"{path.stem}{i}", "audio": f"{i}.wav", "speaker": f"s{i % 3}"}
        lines.append(json.dumps({**record, **reference}))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Recordings, the same with transcripts, and a bundle that was trained on them and on units."""
    folder = tmp_path_factory.mktemp("world")
    for i in range(6):
        samples = (noise(1.5 + 0.2 * i, i) * 20_000).astype("<i2")
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
    old = write_manifest(folder / "old.jsonl", TEXTS)
    write_manifest(folder / "new.jsonl", None)
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, folder / "models")
        small_ctc_batches(patch)
        pretrain(pretraining(folder, "bundle", old, MIXTURE), quiet)
        yield folder


def pretraining(folder: Path, name: str, manifest: str, tasks) -> PretrainConfig:
    return PretrainConfig(
        output=str(folder / name),
        manifests={manifest: 1.0},
        cache=str(folder / "cache"),
        ctc=CTCConfig(steps=2),
        projector=ProjectorConfig(epochs=1),
        codebook=CodebookConfig(units=8),
        lm=LMConfig(tasks=tasks, lora_rank=2, batch_tokens=64),
        schedule=Schedule(3, 5e-4, 50, 100),
        folds=2,
        dtype="float32",
    )


def quiet(line: str) -> None:
    pass


def config(world: Path, name: str, steps: int = 4, patience: int = 0, **options) -> AdaptConfig:
    wanted = {
        "output": str(world / name),
        "manifests": {str(world / "new.jsonl"): 1.0},
        "replay": {str(world / "old.jsonl"): 1.0},
        "tasks": MIXTURE,
        "cache": str(world / "cache"),
        "folds_of": str(world / "bundle" / STATE),
        "schedule": Schedule(steps, 2e-4, 10, 2, patience=patience),
        "batch_tokens": 64,
        "learn_from": "units",
        "dtype": "float32",
        **options,
    }
    return AdaptConfig(model=str(world / "bundle"), **wanted)


PSEUDO = {"learn_from": "pseudo_references", "min_confidence": 0.3}


@pytest.fixture
def proposals(monkeypatch):
    """A first pass that has something to say: the random one says nothing. Lists of two."""

    def propose(manifest: str, output: str, first_pass: str, normaliser: str, resume: bool):
        lists = []
        for i, utterance in enumerate(read_nbest(manifest)):
            assert utterance.reference is None
            texts = (TEXTS[i % 4] + " ab", "cd")
            proposed = tuple(
                Hypothesis(
                    text,
                    {"asr": -1.0 - 40 * n},
                    tuple(0.4 * k + 0.4 for k in range(text.count(" ") + 1)),
                )
                for n, text in enumerate(texts)
            )
            lists.append(replace(utterance, hypotheses=proposed))
        save_nbest(lists, output)
        return Outcome(len(lists))

    monkeypatch.setattr("relisten.tasks.training.pseudo.make_nbest", propose)


def test_nothing_sure_is_said(world):
    """The random first pass's own lists: no two words on them."""
    with pytest.raises(
        UsageError,
        match="the new domain gives nothing to learn from: no pseudo-reference of two words",
    ):
        adapt(config(world, "unsure", cache=str(world / "its-cache"), **PSEUDO), quiet)


def test_without_any_confidence_other_things_are_advised(world):
    """Where 0 is enough, it cannot be lowered."""
    settings = config(world, "zero", cache=str(world / "its-cache"), **PSEUDO)
    with pytest.raises(UsageError, match="no recording can be read, or no list has a winner"):
        adapt(replace(settings, min_confidence=0.0), quiet)


@pytest.mark.parametrize("model", ["relisten-tiny", "bundle"])
def test_default_keys_adapt_any_bundle(world, proposals, model):
    """The default one, which knows text only, and one that is asked in chunks."""
    reference = model if model == "relisten-tiny" else str(world / model)
    settings = AdaptConfig(
        output=str(world / f"default-{model}"),
        manifests={str(world / "new.jsonl"): 1.0},
        cache=str(world / "cache"),
        model=reference,
        min_confidence=0.3,
        schedule=Schedule(1, 2e-4, 10, 2),
    )
    assert replace(settings, model=AdaptConfig("o", {"m": 1.0}).model).model == "relisten-tiny"
    adapt(settings, quiet)
    assert read_bundle(world / f"default-{model}").has_speech == (model == "bundle")


def test_the_mixture_where_none_is_named(world):
    bundle = read_bundle(world / "bundle")
    units = AdaptConfig("o", {"m": 1.0}, learn_from="units")
    assert default_tasks(units, bundle) == {"speech": 1.0}, "nothing else is served"
    replayed = replace(units, replay={"r": 1.0})
    assert set(default_tasks(replayed, bundle)) == {"speech", "chunked", "text"}
    assert set(default_tasks(AdaptConfig("o", {"m": 1.0}), bundle)) == {"chunked", "text"}


def parts(bundle: Path) -> dict[str, bytes]:
    names = ("adapter_model.safetensors", "extension.safetensors", "codebook.safetensors")
    return {name: (bundle / name).read_bytes() for name in names}


@pytest.mark.parametrize("way", [{}, PSEUDO], ids=["units", "pseudo-references"])
def test_an_adapted_bundle_is_another_bundle(world, proposals, way):
    """Of the same shape and weights, other in what was trained; the first one stays as it is."""
    before = parts(world / "bundle")
    name = f"adapted-{len(way)}"
    dev = (str(world / "old.jsonl"),)
    dev_metrics = adapt(config(world, name, dev_manifests=dev, **way), quiet)
    assert {"speech", "chunked", "chunked, wrong speech", "text"} <= set(dev_metrics)
    after = parts(world / name)
    assert parts(world / "bundle") == before
    assert after["codebook.safetensors"] == before["codebook.safetensors"]
    assert after["adapter_model.safetensors"] != before["adapter_model.safetensors"]
    assert after["extension.safetensors"] != before["extension.safetensors"]
    adapted, first = read_bundle(world / name), read_bundle(world / "bundle")
    assert adapted == first
    known, learnt = read_trained_on(world / "bundle"), read_trained_on(world / name)
    assert known is not None
    assert learnt is not None
    for one in load_nbest(world / "new.jsonl"):
        with_text = replace(one, id=f"{one.id}", reference="what nobody told")
        assert learnt.has_seen(with_text) == "utterance", "heard, though its text was not known"
    assert all(learnt.has_seen(one) == "utterance" for one in load_nbest(world / "old.jsonl"))
    assert set(load_rescorer(str(world / name)).components) == {
        "text",
        "text_given_speech",
        "ctc",
    }


@pytest.mark.parametrize("way", [{}, PSEUDO], ids=["units", "pseudo-references"])
def test_references_in_the_manifest_are_never_read(world, proposals, way):
    """None, and two sets of them: the same bytes of everything that was trained."""
    made = []
    for n, texts in enumerate((None, ("ab", "cd"), ("dd aa bb",))):
        manifest = write_manifest(world / "told.jsonl", texts)
        options = {**way, "manifests": {manifest: 1.0}, "cache": str(world / f"cache{n}")}
        name = f"told-{len(way)}-{n}"
        adapt(config(world, name, **options), quiet)
        made.append(parts(world / name))
    assert made[0] == made[1] == made[2]


def test_a_stopped_run_goes_on_to_the_same_bits(world, proposals):
    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("step 4/"):
            raise Stop

    whole, stopped = (config(world, name, **PSEUDO, steps=6) for name in ("whole", "stopped"))
    adapt(whole, quiet)
    with pytest.raises(Stop):
        adapt(stopped, stop)
    assert not (world / "stopped" / "adapter_model.safetensors").exists()
    said: list[str] = []
    adapt(stopped, said.append)
    assert not any(line.startswith("step 2/") for line in said), "steps 1 and 2 were kept"
    assert parts(world / "stopped") == parts(world / "whole")
    with pytest.raises(UsageError, match="holds a run with other min_confidence"):
        adapt(replace(stopped, min_confidence=0.5), said.append)


@pytest.mark.parametrize("way", [{}, PSEUDO], ids=["units", "pseudo-references"])
def test_replay_is_drawn(world, proposals, way, monkeypatch):
    """By units the new recordings serve `speech` alone, and replay all tasks; with transcripts of
    their own they serve all tasks, too."""
    corpora = []
    monkeypatch.setattr(
        adapt_module, "train_lm", lambda model, training, data, run: corpora.append(data.sets) or {}
    )
    adapt(config(world, f"drawn-{len(way)}", **way), quiet)
    seen = {order: set() for order in MIXTURE}
    for step in range(40):
        order, batch = draw_batch(corpora[0], MIXTURE, 64, 0, step)
        seen[order] |= {e.cached.id[:3] for e in batch}
        assert order != "chunked" or all(len(e.guesses) == len(e.words) + 1 for e in batch)
    told = {"old", "new"} if way else {"old"}
    assert seen == {"speech": {"old", "new"}, "chunked": told, "text": told}


def hypotheses(*pairs: tuple[str, float]) -> list[dict[str, object]]:
    return [
        {"text": text, "scores": {"asr": asr}, "word_ends_s": [0.5] * len(text.split())}
        for text, asr in pairs
    ]


def test_confident_pseudo_references_only(world, tmp_path):
    """With weight 1 on `asr` alone, -1 against -1 - ln 9 is a posterior of 0.9, and against
    -1 - ln 2 of 0.67. One word is too few, however sure."""
    nine, two = -1 - math.log(9), -1 - math.log(2)
    lists = {
        "sure": hypotheses(("a cat", -1.0), ("a hat", nine)),
        "doubtful": hypotheses(("a cat", -1.0), ("a hat", two)),
        "second": hypotheses(("a hat", nine), ("a cat sat", -1.0)),
        "short": hypotheses(("Cat!", -1.0), ("a hat", -9.0)),
        "silent": [],
    }
    (tmp_path / "r.jsonl").write_text("")
    (tmp_path / "r-scored.jsonl").write_text(
        "".join(json.dumps({"id": id, "hypotheses": some}) + "\n" for id, some in lists.items())
    )
    bundle = replace(read_bundle(world / "bundle"), weights=Weights({"asr": 1.0}))
    said: list[str] = []
    recordings = str(tmp_path / "r.jsonl")

    def kept(min_confidence: float) -> dict[str, tuple[str, float]]:
        found = pseudo_references(
            recordings, "", bundle, world / "cache", min_confidence, Run(tmp_path, 0, said.append)
        )
        return {id: (one.text, round(one.confidence, 3)) for id, one in found.items()}

    assert kept(0.8) == {"sure": ("a cat", 0.9), "second": ("a cat sat", 0.9)}
    assert "2 of 5 pseudo-references kept, 5 words: confidence at least 0.8" in said[-1]
    assert set(kept(0.6)) == {"sure", "second", "doubtful"}


def test_a_copy_names_recordings_and_nothing_else(world, tmp_path):
    record = {"id": "a", "audio": "0.wav", "start_s": 0.5, "duration_s": 1.0, "speaker": "s"}
    told = {"reference": "ab", "context": "cd", "note": "ab", "hypotheses": [{"text": "ab"}]}
    path = world / "everything.jsonl"
    path.write_text(json.dumps({**record, **told}) + "\n")
    copy = without_references(str(path), tmp_path / "kept")
    assert without_references(str(path), tmp_path / "kept") == copy
    [bare] = load_nbest(copy)
    assert (bare.id, bare.start_s, bare.duration_s, bare.extra) == ("a", 0.5, 1.0, {"speaker": "s"})
    assert (bare.reference, bare.context, bare.hypotheses) == (None, None, ())
    assert (Path(copy).parent / bare.audio).resolve() == (world / "0.wav").resolve()


def test_contradictions_are_named(world):
    def refused(**options) -> str:
        with pytest.raises(UsageError) as caught:
            adapt(config(world, f"refused{len(str(options))}", **options), quiet)
        return str(caught.value)

    assert "units serve the task speech alone" in refused(tasks={"text": 1.0})
    assert "tasks names interleaved" in refused(tasks={"speech": 0.5, "interleaved": 0.5})
    assert "no source can serve the task chunked" in refused(replay={})
    assert "min_confidence is 2" in refused(min_confidence=2.0)
    silent = str(world / "new.jsonl")
    assert "no utterance with a reference" in refused(dev_manifests=(silent,))
    assert "at least one manifest" in refused(manifests={})
    assert "patience needs dev_manifests" in refused(patience=1)


def test_units_need_a_bundle_that_predicted_them(world):
    old = str(world / "old.jsonl")
    pretrain(pretraining(world, "chunks", old, {"chunked": 1.0}), quiet)
    chunks = replace(config(world, "never"), model=str(world / "chunks"))
    with pytest.raises(UsageError, match="never predicted units; adapt it with learn_from"):
        adapt(chunks, quiet)
