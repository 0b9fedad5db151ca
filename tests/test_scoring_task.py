"""From recordings and an LM to scores and transcripts, with tiny random models."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import relisten
from relisten.core.combine import Weights
from relisten.core.types import LM_COMPONENTS, AudioError, Hypothesis, ModelError, NBest, UsageError
from relisten.io.audio import load_audio
from relisten.io.bundle import BundleConfig, write_bundle
from relisten.io.nbest import load_nbest, save_nbest
from relisten.io.shards import read_shards, shard_ids, shards
from relisten.io.sources import weights_hash
from relisten.lm.backend.llama import LlamaLM
from relisten.lm.load import save_extension
from relisten.lm.model import SpeechExtension, SpeechShape
from relisten.lm.scorer import ScoringInput
from relisten.speech.codebook import Codebook
from relisten.speech.first_pass import DecodingOptions, FirstPassResult
from relisten.tasks.frontend import SpeechFrontend, load_frontend, save_codebook
from relisten.tasks.loading import load_rescorer
from relisten.tasks.nbest import make_nbest
from relisten.tasks.score import score
from relisten.tasks.transcribe import transcribe
from relisten.tasks.units import make_units
from tiny_models import tiny_causal_lm
from tiny_world import take_noise_for_speech, transcripts_of

DIM, POOL = 8, 2


class FakeEncoder:
    """Frames that count the samples: one for each 320, all ones times the loudest of them."""

    id, frame_rate_hz, dim = "fake", 50.0, DIM

    def encode(self, audio: list[np.ndarray]) -> list[np.ndarray]:
        return [np.tile(np.abs(a[::320, None]), (1, DIM)).astype(np.float32) for a in audio]


class FakeFirstPass:
    """Hears the same three hypotheses everywhere; the third is the first, written otherwise."""

    name, max_duration_s, encoder = "fake", 2.0, FakeEncoder()

    def __init__(self) -> None:
        self.cached: list[tuple[int, int]] = []

    def decode(
        self,
        audio: list[np.ndarray],
        options: DecodingOptions = DecodingOptions(),
        *,
        timed: bool = True,
    ) -> list[FirstPassResult]:
        self.cached.append((len(audio), options.seed))
        hypotheses = tuple(
            Hypothesis(text, {"asr": asr}, tuple(0.3 * (i + 1) for i in range(len(text.split()))))
            for text, asr in (("a b", -1.0), ("c d", -1.5), ("A, b!", -2.0))
        )
        return [
            FirstPassResult(hypotheses, frames, frames) for frames in self.encoder.encode(audio)
        ]


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    tiny_causal_lm("llama").save_pretrained(folder)
    ctc_log_probs = {letter: n for n, letter in enumerate(["</s>", "?", *"abcdefghij"])}
    tokenizer = Tokenizer(models.WordLevel(ctc_log_probs, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="?"
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def bundle(tmp_path: Path, lm_folder: Path) -> Path:
    """A bundle that hears: units of 40 ms, words as chunks."""
    folder = tmp_path / "bundle"
    weights = Weights({"asr": 1.0, "text_given_speech": 100.0})
    config = BundleConfig(
        str(lm_folder),
        weights_hash(lm_folder),
        "spoken",
        weights,
        components=LM_COMPONENTS,
        speech_order="interleaved",
        encoder="fake",
        encoder_id="fake",
    )
    write_bundle(folder, config)
    extension = SpeechExtension(SpeechShape(5, 1), 32, 32)
    for parameter in extension.parameters():
        parameter.data.normal_()
    save_extension(extension, folder / "extension.safetensors")
    centroids = np.linspace(0, 1, 5, dtype=np.float32)[None, :, None].repeat(DIM, 2)
    Codebook(centroids, POOL, "fake").save(folder / "codebook.safetensors")
    return folder


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeFirstPass:
    first_pass = FakeFirstPass()
    monkeypatch.setattr("relisten.tasks.frontend.load_encoder", lambda *_: FakeEncoder())
    monkeypatch.setattr("relisten.tasks.loading.load_first_pass", lambda *_: first_pass)
    take_noise_for_speech(monkeypatch)
    return first_pass


def write_wav(path: Path, seconds: float) -> Path:
    """A tone that grows louder."""
    n = round(16_000 * seconds)
    samples = np.linspace(0, 0.9, n) * np.sin(np.arange(n) / 5)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, n, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Eleven recordings, one of them missing, one too long for the first pass."""
    for i in range(11):
        write_wav(tmp_path / f"{i}.wav", 3.0 if i == 5 else 1.0)
    (tmp_path / "3.wav").unlink()
    path = tmp_path / "manifest.jsonl"
    save_nbest([NBest(f"u{i}", audio=f"{i}.wav") for i in range(11)], path)
    return path


def test_nbest_refuses_what_it_cannot_hear(tmp_path: Path, manifest: Path) -> None:
    outcome = make_nbest(str(manifest), str(tmp_path / "out"))
    assert outcome.n_done == 9
    assert [refusal.id for refusal in outcome.refused] == ["u3", "u5"]
    assert "no such file" in outcome.refused[0].reason
    assert "lasts 3.0 s" in outcome.refused[1].reason
    first = load_nbest(tmp_path / "out")[0]
    assert [h.text for h in first.hypotheses] == ["a b", "c d"]
    merged = np.logaddexp(-1.0, -2.0)
    assert first.hypotheses[0].scores["asr"] == pytest.approx(merged, abs=1e-6)
    assert first.hypotheses[0].word_ends_s == (0.3, 0.6)


def test_nbest_unmerged_keeps_all(tmp_path: Path, manifest: Path) -> None:
    make_nbest(str(manifest), str(tmp_path / "out"), merge=False)
    assert [len(u.hypotheses) for u in load_nbest(tmp_path / "out")] == [3] * 9


def test_samples_have_a_seed_of_their_own(
    tmp_path: Path, manifest: Path, fakes: FakeFirstPass
) -> None:
    """One utterance at a time, each with its own seed, so that resuming draws the same."""
    make_nbest(str(manifest), str(tmp_path / "out"), decoding=DecodingOptions(samples=2))
    cached = [call for call in fakes.cached if call[0]]
    assert [n for n, _ in cached] == [1] * 9
    assert len({seed for _, seed in cached}) == 9
    make_nbest(str(manifest), str(tmp_path / "beam"))
    assert fakes.cached[-2:] == [(6, 0), (3, 0)]


def scored_lists(tmp_path: Path) -> Path:
    path = tmp_path / "nbest.jsonl"
    texts = [("a b c", "a b", ""), ("d",), (), ("e f", "e g h")]
    save_nbest([NBest(f"u{i}", tuple(map(Hypothesis, some))) for i, some in enumerate(texts)], path)
    return path


def test_score_text_is_what_the_scorer_says(tmp_path: Path, lm_folder: Path) -> None:
    path, output = scored_lists(tmp_path), tmp_path / "scored"
    assert score(str(path), str(output), model=str(lm_folder)).n_done == 4
    scorer = load_rescorer(str(lm_folder)).scorer
    for utterance in load_nbest(output):
        texts = tuple(h.text for h in utterance.hypotheses)
        alone = scorer.score([ScoringInput(texts)], "text")[0]
        assert [h.scores["text"] for h in utterance.hypotheses] == pytest.approx(alone, abs=1e-4)


def test_a_text_too_long_for_an_lm_refuses_its_utterance_alone(
    tmp_path: Path, lm_folder: Path
) -> None:
    """20,000 words would take 39 GB."""
    lists = [
        NBest("long", (Hypothesis("a b " * 10_000, {"asr": -1.0}),)),
        NBest("u", (Hypothesis("a b", {"asr": -1.0}), Hypothesis("b", {"asr": -2.0}))),
    ]
    save_nbest(lists, tmp_path / "lists.jsonl")
    output = tmp_path / "scored.jsonl"
    for named in (("text",), ()):  # by default, the scores that count
        outcome = score(str(tmp_path / "lists.jsonl"), str(output), str(lm_folder), named)
        assert [refusal.id for refusal in outcome.refused] == ["long"]
        assert "20,000 words" in outcome.refused[0].reason
    [scored] = [one for one in load_nbest(output) if one.id == "u"]
    assert all("text" in hypothesis.scores for hypothesis in scored.hypotheses)


def test_a_text_model_does_not_listen(tmp_path: Path, lm_folder: Path) -> None:
    path = scored_lists(tmp_path)
    with pytest.raises(ModelError, match="text only"):
        score(str(path), str(tmp_path / "o"), str(lm_folder), ("text", "text_given_speech"))
    with pytest.raises(UsageError, match="asr"):
        score(str(path), str(tmp_path / "o"), str(lm_folder), ("asr",))
    with pytest.raises(ModelError, match="holds no codebook"):
        load_frontend(str(lm_folder))


def test_score_listens(tmp_path: Path, manifest: Path, bundle: Path) -> None:
    """Every component; the utterance whose word ends are unknown is refused, others go on."""
    cached, lame, output = tmp_path / "heard", tmp_path / "lame", tmp_path / "scored"
    make_nbest(str(manifest), str(cached))
    first, second, *rest = load_nbest(cached)
    unknown = replace(second.hypotheses[0], word_ends_s=None)
    save_nbest([first, replace(second, hypotheses=(unknown,)), *rest], lame)
    components = ("text", "text_given_speech", "speech_given_text")
    outcome = score(str(lame), str(output), str(bundle), components)
    assert outcome.n_done == 8
    assert [refusal.id for refusal in outcome.refused] == ["u1"]
    assert "word end" in outcome.refused[0].reason
    scored = load_nbest(output)[0]
    rescorer = load_rescorer(str(bundle))
    speech = rescorer.need_frontend().encode([load_audio(tmp_path / "0.wav")])[0]
    assert len(speech) == 25
    texts = tuple(h.text for h in scored.hypotheses)
    ends = tuple(h.word_ends_s for h in scored.hypotheses)
    for component in components:
        alone = rescorer.scorer.score([ScoringInput(texts, ends, speech)], component)[0]
        assert [h.scores[component] for h in scored.hypotheses] == pytest.approx(alone, abs=1e-4)


def test_a_bundle_scores_as_it_does_through_transformers(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its adapter; the LM is read without transformers, or, where it is not ours, with it."""
    torch.manual_seed(0)
    layer = "base_model.model.model.layers.0.mlp.down_proj.lora_{}.weight"
    factors = {layer.format("A"): torch.randn(2, 48), layer.format("B"): torch.randn(32, 2)}
    save_file(factors, bundle / "adapter_model.safetensors")
    record = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (bundle / "adapter_config.json").write_text(json.dumps(record))
    ours = load_rescorer(str(bundle), "cpu", "float32")
    monkeypatch.setattr("relisten.lm.load.load_llama", lambda *_: None)
    theirs = load_rescorer(str(bundle), "cpu", "float32")
    assert isinstance(ours.scorer.model.causal, LlamaLM)
    assert isinstance(theirs.scorer.model.causal, LlamaForCausalLM)
    assert ours.scorer.texts.id == theirs.scorer.texts.id
    speech = ours.need_frontend().encode([np.linspace(0, 1, 16_000, dtype=np.float32)])[0]
    texts, ends = ("a b", "a c", "i i i"), ((0.3, 0.6), (0.3, 0.6), (0.3, 0.6, 0.9))
    for component in LM_COMPONENTS:
        scores = [
            r.score([ScoringInput(texts, ends, speech)], component)[0] for r in (ours, theirs)
        ]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_bundle_of_strangers_is_refused(bundle: Path) -> None:
    Codebook(np.zeros((1, 7, DIM), np.float32), POOL, "fake").save(bundle / "codebook.safetensors")
    with pytest.raises(ModelError, match="do not belong together"):
        load_rescorer(str(bundle))
    Codebook(np.zeros((1, 5, DIM), np.float32), POOL, "other").save(bundle / "codebook.safetensors")
    with pytest.raises(ModelError, match="frames of other"):
        load_rescorer(str(bundle))


def test_units(tmp_path: Path, manifest: Path, bundle: Path) -> None:
    outcome = make_units(str(manifest), str(tmp_path / "units"), str(bundle), deduplicate=True)
    assert outcome.n_done == 10
    assert outcome.refused[0].id == "u3"
    for utterance in load_nbest(tmp_path / "units"):
        seconds = sum(utterance.extra["unit_durations"]) * utterance.extra["unit_s"]
        assert seconds == pytest.approx(3.0 if utterance.id == "u5" else 1.0)
        units = utterance.extra["units"]
        assert all(a != b for a, b in pairwise(units))


@pytest.mark.parametrize("deduplicate", [False, True])
def test_units_as_shards(
    tmp_path: Path, manifest: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, deduplicate: bool
) -> None:
    """What they hold is what the JSON lines hold; a second run makes only what is missing."""
    monkeypatch.setattr("relisten.tasks.units.SHARD_SIZE", 4)
    lines, folder = str(tmp_path / "units"), f"{tmp_path / 'shards'}/"
    make_units(str(manifest), lines, str(bundle), deduplicate)
    outcome = make_units(str(manifest), folder, str(bundle), deduplicate)
    assert (outcome.n_done, [r.id for r in outcome.refused]) == (10, ["u3"])
    relative = {u.audio: u.audio and f"../{u.audio}" for u in load_nbest(lines)}
    expected = [replace(u, audio=relative[u.audio]) for u in load_nbest(lines)]
    assert list(read_shards(folder)) == expected
    files = shards(folder)
    assert [len(shard_ids(path)) for path in files] == [3, 4, 3]
    with pytest.raises(UsageError, match="add --resume"):
        make_units(str(manifest), folder, str(bundle), deduplicate)
    files[1].unlink()
    before = [files[0].stat().st_mtime_ns, files[2].stat().st_mtime_ns]
    ticks: list[int] = []
    outcome = make_units(
        str(manifest), folder, str(bundle), deduplicate, resume=True, tick=ticks.append
    )
    assert (outcome.n_done, sum(ticks)) == (10, 11)
    assert list(read_shards(folder)) == expected
    after = [files[0].stat().st_mtime_ns, files[2].stat().st_mtime_ns]
    assert after[0] > before[0], "it lacks an utterance, which may be readable by now"
    assert after[1] == before[1]
    text = manifest.read_text()
    manifest.write_text(text.replace('{"id"', '{"corrected": true, "id"', 1))
    with pytest.raises(UsageError, match="shards: was made with other input"):
        make_units(str(manifest), folder, str(bundle), deduplicate, resume=True)
    manifest.write_text(text)
    save_nbest([NBest("other")], tmp_path / "other.jsonl")
    with pytest.raises(UsageError, match="was made with other"):
        make_units(str(tmp_path / "other.jsonl"), folder, str(bundle), resume=True)


def test_a_codebook_finds_its_encoder_from_any_folder(tmp_path: Path, monkeypatch) -> None:
    """A relative path held only in the folder where the codebook was made."""
    (tmp_path / "encoder").mkdir()
    monkeypatch.chdir(tmp_path)
    codebook = Codebook(np.zeros((1, 3, DIM), np.float32), 1, "fake")
    for typed, kept in (
        ("encoder", f"{tmp_path}/encoder"),
        ("hubert:encoder@-2", f"hubert:{tmp_path}/encoder@-2"),
        ("hubert:owner/name@main@6", "hubert:owner/name@main@6"),
        ("whisper-tiny.en", "whisper-tiny.en"),
    ):
        save_codebook(codebook, typed, "cb")
        assert load_frontend("cb").encoder_reference == kept


def test_a_codebook_knows_its_encoder(tmp_path: Path, bundle: Path) -> None:
    codebook = Codebook(np.zeros((1, 3, DIM), np.float32), 1, "fake")
    save_codebook(codebook, "whisper-tiny.en", str(tmp_path / "cb"))
    frontend = load_frontend(str(tmp_path / "cb"))
    assert frontend.encoder_reference == "whisper-tiny.en"
    assert frontend.encoder.id == "fake"
    with pytest.raises(UsageError, match="another folder"):
        save_codebook(codebook, "whisper-tiny.en", str(bundle))
    stranger = SpeechFrontend(
        Codebook(np.zeros((1, 3, DIM), np.float32), 1, "x"), "whisper-tiny.en"
    )
    with pytest.raises(ModelError, match="fitted on frames of x"):
        stranger.encode([np.zeros(400, np.float32)])


def test_transcribe_long_recordings_in_pieces(tmp_path: Path, bundle: Path) -> None:
    """5 s in pieces of 2 s at most; the weights let the LM decide, whatever it says."""
    path = str(write_wav(tmp_path / "long.wav", 5.0))
    [transcript] = transcripts_of([path], str(bundle))
    n_pieces = len(transcript.segments)
    assert n_pieces >= 3
    assert transcript.duration_s == 5.0
    assert transcript.segments[0].start_s == 0
    assert transcript.segments[-1].end_s == pytest.approx(5.0)
    assert all(s.end_s - s.start_s <= 2.0 for s in transcript.segments)
    assert transcript.first_pass_text == " ".join(["a b"] * n_pieces)
    for words in (segment.to_json()["words"] for segment in transcript.segments):
        assert all(0.0 <= word["start_s"] <= word["end_s"] <= 5.0 for word in words)
    for stretch in transcript.segments:
        best = max(stretch.nbest.hypotheses, key=lambda h: h.scores["text_given_speech"])
        assert stretch.text == best.text
    assert set(transcript.seconds) == {"audio", "first_pass", "units", "scores"}
    assert transcript.render("text") == f"{transcript.text}\n"
    assert f'"text": "{transcript.text}"' in transcript.render("json")
    assert transcript.render("vtt").startswith("WEBVTT")
    assert transcript.render("srt").count("-->") == n_pieces


def test_transcribe_goes_on_behind_what_it_cannot_read(tmp_path: Path, bundle: Path) -> None:
    path, output = str(write_wav(tmp_path / "a.wav", 2.0)), tmp_path / "a.txt"
    options = relisten.SecondPassOptions(propose=0)
    done = transcribe(["nowhere.wav", path], str(output), model=str(bundle), options=options)
    assert [refusal.id for refusal in done.refused] == ["nowhere.wav"]
    assert done.n_done == 1
    assert output.read_text().startswith(f"{path}\ta b")
    with pytest.raises(AudioError, match="nowhere"):
        transcribe(["nowhere.wav"], str(tmp_path / "b.txt"), model=str(bundle))
    assert sorted(one.name for one in tmp_path.glob("[ab].*")) == ["a.txt", "a.wav"]


def test_rescorer_object(tmp_path: Path, lm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is scored, what is there is kept, the inputs stay as they were."""
    rescorer = relisten.Rescorer.from_pretrained(str(lm_folder))
    texts = ("a b", "c")
    plain = NBest("u", tuple(Hypothesis(t, {"asr": -float(n)}) for n, t in enumerate(texts)))
    scored = rescorer.score([plain])[0]
    assert [set(h.scores) for h in scored.hypotheses] == [{"asr", "text"}] * 2
    assert [set(h.scores) for h in plain.hypotheses] == [{"asr"}] * 2
    options = relisten.SecondPassOptions(weights=Weights({"asr": 1.0, "text": 1.0}))
    assert rescorer.rescore([plain], options=options) == rescorer.rescore([scored], options=options)
    kept = replace(
        scored,
        hypotheses=tuple(
            replace(h, scores={"asr": 0.0, "text": float(n)})
            for n, h in enumerate(plain.hypotheses)
        ),
    )
    by_text = relisten.SecondPassOptions(weights=Weights({"text": 1.0}))
    best = rescorer.rescore([kept], options=by_text)[0].hypotheses[0]
    assert (best.text, best.scores["text"]) == ("c", 1.0)
    assert "text" in rescorer.weights.values
    recogniser = SimpleNamespace(name="tiny", max_duration_s=30.0)
    monkeypatch.setattr("relisten.tasks.loading.load_first_pass", lambda *_: recogniser)
    with pytest.raises(AudioError):
        rescorer.transcribe(tmp_path / "nowhere.wav")
