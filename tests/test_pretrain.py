"""From recordings to a bundle and its scores, on tiny models: the whole path of `pretrain`."""

from __future__ import annotations

import hashlib
import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from relisten.core.combine import Weights
from relisten.core.types import ModelError, UsageError
from relisten.io.bundle import read_bundle
from relisten.io.nbest import load_nbest
from relisten.io.sources import resolve_model
from relisten.lm.load import load_causal_lm
from relisten.lm.sequences import Speech
from relisten.speech.ctc.head import CTCHead
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.load import load_encoder, load_first_pass
from relisten.tasks.codebook import make_codebook
from relisten.tasks.frontend import load_frontend
from relisten.tasks.loading import load_rescorer
from relisten.tasks.pretrain import PretrainConfig, pretrain
from relisten.tasks.rescore import rescore
from relisten.tasks.score import exchanged, score
from relisten.tasks.second_pass import SecondPassOptions
from relisten.tasks.training.cache import FeatureSpec, cache_manifest
from relisten.tasks.training.config import STATE
from relisten.tasks.transcribe import transcribe
from relisten.tasks.weights import save_weights
from tiny_speech import noise, tiny_ctc, tiny_whisper
from tiny_world import fill_cache

TEXTS = ("ab cd", "cd ab ab", "ab", "cd cd")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tiny models under the known names, and a manifest of eight short recordings."""
    folder = tmp_path_factory.mktemp("world")
    lines = []
    for i in range(8):
        samples = (noise(1.5 + 0.2 * i, i) * 20_000).astype("<i2")
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
        record = {"id": f"u{i}", "audio": f"{i}.wav", "reference": TEXTS[i % 4]}
        lines.append(json.dumps({**record, "speaker": f"s{i % 4}"}))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, folder / "models")
        yield folder


def config(world: Path, name: str, **options) -> PretrainConfig:
    manifest = str(world / "train.jsonl")
    options = {"lora_rank": 2, "ctc_steps": 2, **options}
    return PretrainConfig(
        output=str(world / name),
        manifests={manifest: 1.0},
        dev_manifests=(manifest,),
        cache=str(world / "cache"),
        units=8,
        projector_epochs=1,
        steps=2,
        batch_tokens=64,
        eval_every=2,
        dtype="float32",
        folds=2,
        **options,
    )


def scored(world: Path, name: str, components: tuple[str, ...], **options) -> np.ndarray:
    """Scores [utterance, component] of the one hypothesis of each."""
    lines = []
    for line in (world / "train.jsonl").read_text().splitlines():
        record = json.loads(line)
        n_words = len(record["reference"].split())
        ends = [0.4 * (i + 1) for i in range(n_words)]
        hypothesis = {"text": record["reference"], "word_ends_s": ends, "scores": {"asr": -1.0}}
        lines.append(json.dumps({**record, "hypotheses": [hypothesis]}))
    (world / "nbest.jsonl").write_text("\n".join(lines) + "\n")
    output = world / f"{name}-scored.jsonl"
    outcome = score(
        str(world / "nbest.jsonl"), str(output), str(world / name), components, **options
    )
    assert not outcome.refused
    lists = load_nbest(output)
    return np.array([[u.hypotheses[0].scores[c] for c in components] for u in lists])


@pytest.mark.parametrize("order", ["chunked", "interleaved", "speech_first"])
def test_a_bundle_that_hears(world, order):
    tasks = {order: 0.4, "text": 0.2, "text_first": 0.2, "speech": 0.2}
    dev_metrics = pretrain(config(world, order, tasks=tasks), lambda line: None)
    assert {order, f"{order}, wrong speech", "text"} <= set(dev_metrics)
    bundle = read_bundle(world / order)
    assert bundle.components == ("text_given_speech", "text", "speech_given_text")
    assert bundle.speech_order == order
    components = ("text", "text_given_speech", "speech_given_text")
    right = scored(world, order, components)
    assert (right < 0).all()
    wrong = scored(world, order, components, wrong_speech=True)
    np.testing.assert_allclose(wrong[:, 0], right[:, 0], atol=1e-4, err_msg="text hears nothing")


PAPERS_TASKS = {"speech_first": 0.25, "text_first": 0.25, "text": 0.25, "speech": 0.25}


@pytest.fixture(scope="module")
def encoders(world):
    """References of encoders that are not the first pass's."""
    return {
        "hubert": f"hubert:{tiny_ctc(world / 'tiny-hubert', 'hubert')}@2",
        "whisper": str(tiny_whisper(world / "other-whisper")),
    }


@pytest.mark.parametrize("kind", ["hubert", "whisper"])
def test_another_encoder_than_the_first_passs(world, encoders, kind):
    """The paper's way, arXiv:2409.16654: the encoder gives units, the first pass gives word ends."""
    manifest, encoder = str(world / "train.jsonl"), encoders[kind]
    report = make_codebook([manifest], str(world / f"{kind}-codebook"), encoder, units=8)
    assert load_frontend(str(world / f"{kind}-codebook")).encoder.id == report.codebook.encoder_id
    dev_metrics = pretrain(
        config(world, kind, tasks=PAPERS_TASKS, encoder=encoder), lambda line: None
    )
    assert set(PAPERS_TASKS) <= set(dev_metrics)
    bundle = read_bundle(world / kind)
    assert (bundle.encoder, bundle.first_pass) == (encoder, "whisper-tiny.en")
    assert bundle.encoder_id == load_encoder(encoder).id
    scores = scored(world, kind, (*bundle.components, "ctc"))
    assert np.unique(scores.round(3), axis=0).shape == scores.shape, "each heard for itself"
    ranked = str(world / f"{kind}-ranked.jsonl")
    rescore(str(world / f"{kind}-scored.jsonl"), ranked, bundle.weights)
    assert len(load_nbest(ranked)) == 8
    transcripts, _ = transcribe(
        [str(world / "0.wav")], str(world / kind), decoding=DecodingOptions(beam=2, n_best=2)
    )
    assert set(transcripts[0].seconds) == {"audio", "first_pass", "units", "scores"}


def test_a_ctc_head_with_layers_of_its_own(world, monkeypatch):
    """It hears otherwise than the one it grew from, and alike wherever it is asked."""
    options = {"tasks": {"chunked": 1.0}, "ctc_layers": 1, "ctc_layer_steps": 3}
    pretrain(config(world, "layers", **options), lambda line: None)
    frontend = load_frontend(str(world / "layers"))
    assert frontend.ctc_head is not None
    assert frontend.ctc_head.encoder_id.endswith("@1")
    assert frontend.words is not None
    references = [json.loads(line)["reference"] for line in (world / "train.jsonl").open()]
    assert Path(frontend.words).read_text().split() == sorted(set(" ".join(references).split()))
    given = {"decoding": DecodingOptions(beam=2, n_best=2)}
    second = SecondPassOptions(propose=3)
    audio, bundle = [str(world / "0.wav")], str(world / "layers")
    [transcript], _ = transcribe(audio, bundle, **given, options=second)
    [few] = transcript.segments
    second = SecondPassOptions(propose=3, margin=None)
    [transcript], _ = transcribe(audio, bundle, **given, options=second)
    assert set(transcript.seconds) >= {"proposals", "scores"}
    [stretch] = transcript.segments
    assert 2 < len(stretch.nbest.hypotheses) <= 5
    assert {h.text for h in few.nbest.hypotheses} < {h.text for h in stretch.nbest.hypotheses}, (
        "an untrained LM reads only what lies near the best"
    )
    assert all({"asr", "ctc"} <= h.scores.keys() for h in stretch.nbest.hypotheses)
    assert len(stretch.nbest.hypotheses[0].word_ends_s or ()) == len(stretch.text.split()) > 0
    samples = noise(1.5)
    by_ctc, whole = frontend.encode([samples], ["ctc"])[0], frontend.encode([samples])[0]
    np.testing.assert_array_equal(by_ctc.ctc_log_probs, whole.ctc_log_probs)
    assert len(by_ctc) == len(whole)
    assert by_ctc.frames is None
    plain = CTCHead.load(world / "layers" / STATE / "ctc_head.safetensors")
    assert np.abs(plain.log_probs(whole.frames) - whole.ctc_log_probs).max() > 0.01
    scores = scored(world, "layers", ("ctc",))
    both = scored(world, "layers", ("text_given_speech", "ctc"))
    np.testing.assert_allclose(scores[:, 0], both[:, 1], atol=1e-4)
    transcribe(
        [str(world / "0.wav")], str(world / "layers"), decoding=DecodingOptions(beam=2, n_best=2)
    )
    again: list[str] = []
    pretrain(config(world, "layers", **options), again.append)
    assert not any(line.startswith(("ctc", "projector")) for line in again)


def test_only_a_whispers_layers_can_be_the_heads_own(world, encoders):
    options = {"encoder": encoders["hubert"], "ctc_layers": 1}
    with pytest.raises(UsageError, match="only layers of a Whisper in CTranslate2 form"):
        pretrain(config(world, "hubert-layers", **options), lambda line: None)
    with pytest.raises(UsageError, match="ctc_steps is 0: there is none"):
        config(world, "none", ctc_layers=1, ctc_steps=0)


def test_word_ends_are_the_first_passs_whatever_the_encoder(world, encoders):
    """And what one CTC head heard is not taken for what another one heard."""
    first_pass = load_first_pass("whisper-tiny.en")
    hubert = load_encoder(encoders["hubert"])
    cached = [
        cache_manifest(
            str(world / "train.jsonl"), FeatureSpec(first_pass, encoder, 2), world / "encoders"
        )
        for encoder in (first_pass.encoder, hubert)
    ]
    for own, other in zip(*cached, strict=True):
        assert own.word_ends_s == other.word_ends_s
        assert not np.array_equal(own.frames, other.frames)
        assert len(own.frames) == len(other.frames)


def test_without_another_encoder_the_cache_of_before_serves(world):
    """One id, not two: hours of listening outlive the key `encoder`."""
    first_pass, manifest = load_first_pass("whisper-tiny.en"), world / "train.jsonl"
    cache_manifest(str(manifest), FeatureSpec(first_pass, first_pass.encoder, 2), world / "key")
    key = f"{manifest.resolve()}|{first_pass.encoder.id}|2"
    [folder] = (world / "key").iterdir()
    assert folder.name == f"train-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def test_text_and_untranscribed_speech_join_the_mixture(world):
    """Their weights far above the transcripts': the bundle is another than without them."""
    lines = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]
    for record in lines:
        del record["reference"]
    (world / "silent.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    (world / "prose.txt").write_text("Ab ab cd. Cd cd!\nAb\n")
    options = {"tasks": {"chunked": 0.4, "speech": 0.3, "text": 0.3}, "steps": 6}
    plain = replace(config(world, "transcripts"), **options)
    pretrain(plain, lambda line: None)
    silent, prose = str(world / "silent.jsonl"), str(world / "prose.txt")
    more = replace(
        plain,
        output=str(world / "mixture"),
        manifests={**plain.manifests, silent: 9.0},
        texts={prose: 9.0},
    )
    said: list[str] = []
    pretrain(more, said.append)
    assert any("silent.jsonl: 8 untranscribed utterances" in line for line in said)
    assert any("prose.txt: 3 sentences, 18 tokens" in line for line in said)
    adapters = [
        (world / name / "adapter_model.safetensors").read_bytes()
        for name in ("transcripts", "mixture")
    ]
    assert adapters[0] != adapters[1]


def test_what_nothing_can_serve_is_refused(world):
    silent = str(world / "untold.jsonl")
    Path(silent).write_text('{"id": "a", "audio": "0.wav"}\n')
    for name, tasks, what in (
        ("no", {"chunked": 1.0}, r"untold\.jsonl: no utterance with a reference and a readable"),
        ("no1", {"chunked": 0.5, "speech": 0.5}, "no source can serve the task chunked"),
    ):
        with pytest.raises(UsageError, match=what):
            pretrain(replace(config(world, name, tasks=tasks), manifests={silent: 1.0}), print)
    with pytest.raises(UsageError, match="needs some recordings with references"):
        pretrain(
            replace(config(world, "no2", tasks={"speech": 1.0}), manifests={silent: 1.0}), print
        )
    with pytest.raises(UsageError, match="texts serve the task text alone"):
        replace(config(world, "no3", tasks={"chunked": 1.0}), texts={"a.txt": 1.0})


def test_the_control_hears_the_one_before_at_its_own_length():
    """Units 0 1 2 3 and 7 8: the first hears 7 7 8 8, the second 0 2."""
    first, second = (
        Speech(np.array(codes, np.int32)[:, None], 0.04, np.array(codes, np.float32)[:, None])
        for codes in ([0, 1, 2, 3], [7, 8])
    )
    swapped = exchanged([first, second])
    assert [s.codes[:, 0].tolist() for s in swapped] == [[7, 7, 8, 8], [0, 2]]
    assert [s.frames[:, 0].tolist() for s in swapped] == [[7, 7, 8, 8], [0, 2]]
    with pytest.raises(UsageError, match="at least two"):
        exchanged([first])


def test_text_alone_makes_a_text_bundle(world, monkeypatch):
    """And opens no recording for it."""
    with monkeypatch.context() as deaf:
        deaf.delattr("relisten.tasks.pretrain.load_first_pass")
        dev_metrics = pretrain(config(world, "text", tasks={"text": 1.0}), lambda line: None)
    assert set(dev_metrics) == {"text"}
    assert not read_bundle(world / "text").has_speech
    assert (scored(world, "text", ("text",)) < 0).all()
    with pytest.raises(ModelError, match="text only"):
        scored(world, "text", ("text_given_speech",))


def test_all_of_the_lm_can_be_trained(world):
    """The bundle then holds it, and hears as the model that was trained did; a folder that moved
    takes it along."""
    tasks = {"chunked": 0.5, "text": 0.5}
    pretrain(config(world, "full", tasks=tasks, lora_rank=0), lambda line: None)
    (world / "full").rename(world / "moved")
    bundle = read_bundle(world / "moved")
    assert bundle.base == "lm"
    assert not (world / "moved" / "adapter_model.safetensors").exists()
    base, _ = load_causal_lm(resolve_model("smollm2-135m"))
    trained = load_rescorer(str(world / "moved"), dtype="float32").scorer.model.causal
    for (name, before), after in zip(base.named_parameters(), trained.parameters(), strict=True):
        assert torch.equal(before, after) == (name == "model.embed_tokens.weight"), name
    kept = load_file(world / "moved" / STATE / "checkpoint.safetensors")
    for name, parameter in trained.named_parameters():
        if name != "model.embed_tokens.weight":
            assert torch.equal(parameter, kept[f"parameter.causal.{name}"])
    assert (scored(world, "moved", ("text", "text_given_speech")) < 0).all()


def test_a_run_of_an_older_version_goes_on(world):
    """Its record lacks the keys that came later; they had their defaults' meaning."""
    settings = config(world, "older", tasks={"text": 1.0})
    pretrain(settings, lambda line: None)
    path = world / "older" / STATE / "config.json"
    record = json.loads(path.read_text())
    del record["accumulate"]
    path.write_text(json.dumps(record))
    pretrain(settings, lambda line: None)
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="other accumulate"):
        pretrain(replace(settings, accumulate=2), lambda line: None)


def test_what_a_bundle_did_not_learn_it_does_not_score(world):
    pretrain(config(world, "plain", tasks={"chunked": 1.0}), lambda line: None)
    with pytest.raises(ModelError, match="speech_given_text"):
        scored(world, "plain", ("speech_given_text",))


def test_a_second_run_hears_and_trains_nothing_again(world):
    options = {"tasks": {"chunked": 1.0}}
    said: list[str] = []
    pretrain(config(world, "again", **options), said.append)
    kept = sorted((world / "again" / STATE).glob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in kept]
    adapter = (world / "again" / "adapter_model.safetensors").read_bytes()
    said.clear()
    pretrain(config(world, "again", **options), said.append)
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert (world / "again" / "adapter_model.safetensors").read_bytes() == adapter
    assert not any(line.startswith(("step", "projector")) for line in said)
    with pytest.raises(UsageError, match="other lora_rank, seed; name another output"):
        pretrain(replace(config(world, "again", **options), lora_rank=3, seed=1), said.append)


def test_contradictions_are_named():
    with pytest.raises(UsageError, match="one order"):
        PretrainConfig("out", {"m": 1.0}, tasks={"chunked": 1.0, "speech_first": 1.0})
    with pytest.raises(UsageError, match="give some of"):
        PretrainConfig("out", {"m": 1.0}, tasks={"sing": 1.0})
    with pytest.raises(UsageError, match="at least one manifest"):
        PretrainConfig("out", {})
    with pytest.raises(UsageError, match="patience needs dev_manifests"):
        PretrainConfig("out", {"m": 1.0}, patience=2)


def test_tuned_weights_can_become_the_bundles_own(world):
    pretrain(config(world, "tuned", tasks={"chunked": 1.0}), lambda line: None)
    weights = Weights({"asr": 1.0, "text_given_speech": 0.7}, tuned_on=frozenset({"ab" * 8}))
    save_weights(weights, str(world / "tuned"))
    assert read_bundle(world / "tuned").weights == weights
    assert load_rescorer(str(world / "tuned")).weights == weights
