"""From recordings to a bundle and its scores, on tiny models: the whole path of `pretrain`."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from relisten.core.combine import Weights
from relisten.core.types import ModelError, NBest, Refusal, UsageError
from relisten.io.bundle import read_bundle, read_trained_on
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
from relisten.tasks.training.codebook import CodebookConfig
from relisten.tasks.training.config import STATE
from relisten.tasks.training.ctc import CTCConfig
from relisten.tasks.training.features import FeaturesConfig, FeatureSpec, cache_manifest
from relisten.tasks.training.lm import LMConfig
from relisten.tasks.training.projector import ProjectorConfig
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.weights import save_weights
from tiny_speech import noise, tiny_ctc, tiny_whisper
from tiny_world import fill_cache, small_ctc_batches, transcripts_of

TEXTS = ("ab cd", "cd ab ab", "ab", "cd cd")
SHORT_CTC = CTCConfig(steps=2)


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
        small_ctc_batches(patch)
        yield folder


def config(
    world: Path,
    name: str,
    tasks: dict[str, float],
    lora_rank: int = 2,
    steps: int = 2,
    ctc: CTCConfig = SHORT_CTC,
    encoder: str = "",
    **options,
) -> PretrainConfig:
    manifest = str(world / "train.jsonl")
    given = {
        "output": str(world / name),
        "manifests": {manifest: 1.0},
        "dev_manifests": (manifest,),
        "cache": str(world / "cache"),
        "features": FeaturesConfig(encoder=encoder),
        "ctc": ctc,
        "projector": ProjectorConfig(epochs=1),
        "codebook": CodebookConfig(units=8),
        "lm": LMConfig(tasks=tasks, lora_rank=lora_rank, batch_tokens=64),
        "schedule": Schedule(steps, 5e-4, 50, 2),
        "folds": 2,
        "dtype": "float32",
    }
    return PretrainConfig(**{**given, **options})


def quiet(line: str) -> None:
    pass


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
    dev_metrics = pretrain(config(world, order, tasks), quiet)
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
    """As in arXiv:2409.16654: the encoder gives units, the first pass gives word ends."""
    manifest, encoder = str(world / "train.jsonl"), encoders[kind]
    report = make_codebook([manifest], str(world / f"{kind}-codebook"), encoder, units=8)
    assert load_frontend(str(world / f"{kind}-codebook")).encoder.id == report.codebook.encoder_id
    dev_metrics = pretrain(config(world, kind, PAPERS_TASKS, encoder=encoder), quiet)
    assert set(PAPERS_TASKS) <= set(dev_metrics)
    bundle = read_bundle(world / kind)
    assert (bundle.encoder, bundle.first_pass) == (encoder, "whisper-tiny.en")
    assert bundle.encoder_id == load_encoder(encoder).id
    scores = scored(world, kind, (*bundle.components, "ctc"))
    assert np.unique(scores.round(3), axis=0).shape == scores.shape, "each heard for itself"
    ranked = str(world / f"{kind}-ranked.jsonl")
    rescore(str(world / f"{kind}-scored.jsonl"), ranked, bundle.weights)
    assert len(load_nbest(ranked)) == 8
    transcripts = transcripts_of(
        [str(world / "0.wav")], str(world / kind), decoding=DecodingOptions(beam=2, n_best=2)
    )
    stages = {"audio", "first_pass", "units", "proposals", "scores"}
    assert set(transcripts[0].seconds) == stages


def test_a_ctc_head_with_layers_of_its_own(world, monkeypatch):
    """It hears otherwise than the one it grew from, and alike wherever it is asked."""
    options = {"tasks": {"chunked": 1.0}, "ctc": CTCConfig(steps=2, layers=1, layer_steps=3)}
    pretrain(config(world, "layers", **options), quiet)
    frontend = load_frontend(str(world / "layers"))
    assert frontend.ctc_head is not None
    assert frontend.ctc_head.encoder_id.endswith("@1")
    assert frontend.words is not None
    references = [json.loads(line)["reference"] for line in (world / "train.jsonl").open()]
    assert Path(frontend.words).read_text().split() == sorted(set(" ".join(references).split()))
    given = {"decoding": DecodingOptions(beam=2, n_best=2)}
    second = SecondPassOptions(propose=3)
    audio, bundle = [str(world / "0.wav")], str(world / "layers")
    [transcript] = transcripts_of(audio, bundle, **given, options=second)
    [few] = transcript.segments
    second = SecondPassOptions(propose=3, margin=None)
    [transcript] = transcripts_of(audio, bundle, **given, options=second)
    assert set(transcript.seconds) >= {"proposals", "scores"}
    [segment] = transcript.segments
    assert 2 < len(segment.nbest.hypotheses) <= 5
    assert {h.text for h in few.nbest.hypotheses} < {h.text for h in segment.nbest.hypotheses}, (
        "an untrained LM reads only what lies near the best"
    )
    assert all({"asr", "ctc"} <= h.scores.keys() for h in segment.nbest.hypotheses)
    # Random weights may choose the empty text: the word ends of every hypothesis are looked at.
    timed = [h for h in segment.nbest.hypotheses if h.word_ends_s is not None]
    assert all(len(h.word_ends_s) == len(h.text.split()) for h in timed)
    assert any(h.text for h in timed)
    assert segment.text == segment.nbest.hypotheses[0].text
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
    transcripts_of(
        [str(world / "0.wav")], str(world / "layers"), decoding=DecodingOptions(beam=2, n_best=2)
    )
    again: list[str] = []
    pretrain(config(world, "layers", **options), again.append)
    assert not any(line.startswith(("ctc", "projector")) for line in again)


def test_only_a_whispers_layers_can_be_the_heads_own(world, encoders):
    options = {"encoder": encoders["hubert"], "ctc": CTCConfig(steps=2, layers=1)}
    with pytest.raises(UsageError, match="only layers of a Whisper in CTranslate2 form"):
        pretrain(config(world, "hubert-layers", {"chunked": 1.0}, **options), quiet)
    with pytest.raises(UsageError, match=r"ctc\.steps is 0: there is none"):
        CTCConfig(steps=0, layers=1)


def test_word_ends_are_the_first_passs_whatever_the_encoder(world, encoders):
    """And the frames of one encoder are not taken for another's."""
    first_pass = load_first_pass("whisper-tiny.en")
    hubert = load_encoder(encoders["hubert"])
    cached = [
        cache_manifest(
            str(world / "train.jsonl"), FeatureSpec(first_pass, encoder, 2), world / "encoders"
        ).utterances
        for encoder in (first_pass.encoder, hubert)
    ]
    for own, other in zip(*cached, strict=True):
        assert own.word_ends_s == other.word_ends_s
        assert not np.array_equal(own.frames, other.frames)
        assert len(own.frames) == len(other.frames)


def test_what_is_cached_is_known_by_its_content(world):
    """A manifest whose lines are replaced is encoded anew, be its path the same; a copy of it under
    another name is other shards of the same content."""
    first_pass, manifest = load_first_pass("whisper-tiny.en"), world / "changing.jsonl"
    spec = FeatureSpec(first_pass, first_pass.encoder, 2)
    lines = (world / "train.jsonl").read_text().splitlines(keepends=True)

    def read(*some: str) -> list[tuple[str, str, str]]:
        manifest.write_text("".join(some))
        found = cache_manifest(str(manifest), spec, world / "by-content")
        assert not found.refused
        return [(one.id, one.speaker, one.text) for one in found.utterances]

    assert read(*lines[:2]) == [("u0", "s0", "ab cd"), ("u1", "s1", "cd ab ab")]
    [shard] = (world / "by-content").iterdir()
    before = shard.stat().st_mtime_ns
    assert read(*lines[:2])[0][0] == "u0"
    assert shard.stat().st_mtime_ns == before, "encoded once"
    other = [lines[0].replace('"ab cd"', '"cd"'), lines[3].replace('"s3"', '"s9"')]
    assert read(*other) == [("u0", "s0", "cd"), ("u3", "s9", "cd cd")]


def test_one_encoder_is_one_id(world):
    """Not two: the key of a shard does not depend on whether the encoder was named."""
    first_pass = load_first_pass("whisper-tiny.en")
    assert FeatureSpec(first_pass, first_pass.encoder, 2).key == f"{first_pass.encoder.id}|2"


def test_what_cannot_be_read_is_counted(world):
    """And read as soon as it is there."""
    lines = (world / "train.jsonl").read_text()
    manifest = world / "missing.jsonl"
    manifest.write_text(lines.replace("0.wav", "late.wav").replace("7.wav", "no.wav"))
    said: list[str] = []
    refused: list[Refusal] = []
    settings = config(world, "missing", {"speech": 1.0}, manifests={str(manifest): 1.0})
    pretrain(settings, said.append, refused.append)
    assert [one.id for one in refused] == ["u0", "u7"]
    counted = f"{manifest}: 6 of 8 utterances, 12 words; 2 refused, the first is 'u0': "
    assert any(line.startswith(counted) and "late.wav" in line for line in said), said
    (world / "late.wav").write_bytes((world / "0.wav").read_bytes())
    pretrain(replace(settings, output=str(world / "found")), said.append)
    assert any(f"{manifest}: 7 of 8 utterances, 14 words; 1 refused" in line for line in said)


def test_text_and_untranscribed_speech_join_the_mixture(world):
    """Their weights far above the transcripts': the bundle is another than without them."""
    lines = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]
    for record in lines:
        del record["reference"]
    (world / "silent.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    (world / "prose.txt").write_text("Ab ab cd. Cd cd!\nAb\n")
    tasks = {"chunked": 0.4, "speech": 0.3, "text": 0.3}
    plain = config(world, "transcripts", tasks, steps=4)
    pretrain(plain, quiet)
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
            pretrain(config(world, name, tasks, manifests={silent: 1.0}), print)
    with pytest.raises(UsageError, match="texts serve the task text alone"):
        config(world, "no3", {"chunked": 1.0}, texts={"a.txt": 1.0})


def test_speech_alone_makes_a_bundle(world):
    """Units of recordings that nobody transcribed: nothing is guessed, and nothing is spelled."""
    lines = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]
    bare = [{key: one[key] for key in ("id", "audio", "speaker")} for one in lines]
    manifest = world / "speech.jsonl"
    manifest.write_text("".join(json.dumps(one) + "\n" for one in bare))
    settings = config(
        world, "speech", {"speech": 1.0}, manifests={str(manifest): 1.0}, dev_manifests=()
    )
    pretrain(settings, quiet)
    bundle = read_bundle(world / "speech")
    assert bundle.has_speech
    assert bundle.components == ()
    kept = {path.name for path in (world / "speech" / STATE).glob("*.safetensors")}
    assert kept == {"checkpoint.safetensors"}
    assert load_rescorer(str(world / "speech")).scorer.model.extension.unit_head.any()


def test_text_alone_needs_no_manifest(world):
    prose = world / "alone.txt"
    prose.write_text("Ab ab cd. Cd cd!\nAb\n")
    options = {"manifests": {}, "texts": {str(prose): 1.0}, "dev_manifests": ()}
    pretrain(config(world, "prose", {"text": 1.0}, **options), quiet)
    assert read_bundle(world / "prose").components == ("text",)
    for tasks in ({"text": 0.5, "speech": 0.5}, {"text": 1.0}):
        with pytest.raises(UsageError, match="needs at least one manifest"):
            config(world, "nothing", tasks, **{**options, "texts": {}})


def test_a_projector_is_trained_where_chunks_are(world):
    """The orders that take units have no use for it."""
    for name, tasks in (("units", {"speech_first": 1.0}), ("chunks", {"chunked": 1.0})):
        pretrain(config(world, name, tasks), quiet)
        kept = {path.name for path in (world / name / STATE).glob("projector*.safetensors")}
        assert bool(kept) == (name == "chunks")


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
        deaf.delattr("relisten.tasks.training.features.load_first_pass")
        dev_metrics = pretrain(config(world, "text", {"text": 1.0}), quiet)
    assert set(dev_metrics) == {"text"}
    assert not read_bundle(world / "text").has_speech
    assert (scored(world, "text", ("text",)) < 0).all()
    with pytest.raises(ModelError, match="text only"):
        scored(world, "text", ("text_given_speech",))


def test_all_of_the_lm_can_be_trained(world):
    """The bundle then holds it, and hears as the model that was trained did; a folder that moved
    takes it along."""
    tasks = {"chunked": 0.5, "text": 0.5}
    pretrain(config(world, "full", tasks, lora_rank=0), quiet)
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
    """Its record has former names, no sections, and lacks the keys that came later; they had their
    defaults' meaning."""
    settings = config(world, "older", {"text": 1.0})
    pretrain(settings, quiet)
    path = world / "older" / STATE / "config.json"
    record = json.loads(path.read_text())
    lm, schedule = record.pop("lm"), record.pop("schedule")
    ctc = {f"ear_{name}": value for name, value in record.pop("ctc").items()}
    schedule["schedule"] = schedule.pop("decay")
    del schedule["accumulate"]
    path.write_text(json.dumps({**record, **lm, **schedule, **ctc}))
    pretrain(settings, quiet)
    path.write_text(json.dumps({**record, **lm, **schedule, **ctc}))
    with pytest.raises(UsageError, match=r"other schedule\.accumulate"):
        pretrain(replace(settings, schedule=replace(settings.schedule, accumulate=2)), quiet)


def test_what_a_bundle_did_not_learn_it_does_not_score(world):
    pretrain(config(world, "plain", {"chunked": 1.0}), quiet)
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
    with pytest.raises(UsageError, match=r"other lm\.lora_rank, seed; name another output"):
        pretrain(config(world, "again", lora_rank=3, seed=1, **options), said.append)


def test_contradictions_are_named():
    with pytest.raises(UsageError, match="one order"):
        LMConfig(tasks={"chunked": 1.0, "speech_first": 1.0})
    with pytest.raises(UsageError, match="give some of"):
        LMConfig(tasks={"sing": 1.0})
    with pytest.raises(UsageError, match="at least one manifest"):
        PretrainConfig("out", {})
    with pytest.raises(UsageError, match="patience needs dev_manifests"):
        PretrainConfig("out", {"m": 1.0}, schedule=Schedule(1, 0.1, 0, 1, patience=2))


def test_tuned_weights_can_become_the_bundles_own(world):
    """What the LM was trained on stays known: nothing is evaluated on it."""
    (world / "sentences.txt").write_text("Ab cd. Ab ab cd!\n")
    texts = {str(world / "sentences.txt"): 1.0}
    pretrain(config(world, "tuned", {"chunked": 1.0, "text": 1.0}, texts=texts), quiet)
    weights = Weights({"asr": 1.0, "text_given_speech": 0.7}, tuned_on=frozenset({"ab" * 8}))
    save_weights(weights, str(world / "tuned"))
    learnt = read_trained_on(world / "tuned")
    lists = load_nbest(world / "train.jsonl")
    assert [learnt.has_seen(one) for one in lists] == ["utterance"] * len(lists)
    assert learnt.has_seen(NBest("new", reference="ab ab cd")) == "reference"
    assert learnt.has_seen(NBest("new", reference="ab cd ab ab")) is None
    assert read_bundle(world / "tuned").weights == weights
    assert load_rescorer(str(world / "tuned")).weights == weights
