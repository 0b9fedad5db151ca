"""A Whisper in torch, to be trained: the same model as the one that decodes, and it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from relisten.core.types import ModelError, NBest, UsageError
from relisten.io.ct2 import read_ct2_weights
from relisten.speech.load import load_first_pass
from relisten.speech.whisper.convert import as_ctranslate2
from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper
from relisten.speech.whisper.encoder import SHORT_WINDOWS, short_window_s
from relisten.speech.whisper.features import log_mel
from relisten.speech.whisper.model import WhisperModel
from relisten.tasks.streams import Refusal
from relisten.tasks.training.recogniser import RecogniserTraining, mask, played
from relisten.tasks.training.recordings import Recording, keep_recordings, kept_recordings
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule
from tiny_speech import noise, tiny_ct2_whisper, tiny_whisper
from tiny_world import write_noise

TEXTS = ("abcd", "dcba", "acac", "bdbd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("whisper")
    return tiny_ct2_whisper(tiny_whisper(root / "hf"), root / "ct2")


def recordings() -> list[Recording]:
    made = []
    for number, text in enumerate(TEXTS):
        tone = np.sin(2 * np.pi * 300 * 2**number * np.arange(16_000 + 4_000 * number) / 16_000)
        pcm = (tone * 8000).astype("<i2")
        made.append(Recording(f"u{number}", f"s{number}", text, pcm))
    return made


def short(folder: Path, tmp_path: Path) -> Path:
    """The recogniser as a folder whose configuration asks for short windows."""
    training = RecogniserTraining(folder, "en", "basic", recordings(), [], Run(tmp_path / "state"))
    training.write({}, tmp_path / "short")
    return tmp_path / "short"


def test_it_gives_what_the_decoding_model_gives(folder, tmp_path):
    """Teacher-forced in CTranslate2's form on a short window, and here."""
    whisper = CTranslate2Whisper(short(folder, tmp_path), "cpu", "float32")
    samples = noise(1.7, 5)
    scored = whisper.scorer(samples).score(["abcd"], timed=False)[0].scores["asr"]
    model = WhisperModel(folder).eval()
    window_s = short_window_s(len(samples) / 16_000, 0.5)
    assert window_s == 2.5
    ids = list(whisper.tokens("abcd"))
    prompt = [*whisper.prompt("en"), whisper.text_only]
    with torch.inference_mode():
        mels = torch.from_numpy(log_mel([samples], window_s))
        hidden = model(mels, torch.tensor([[*prompt, *ids]]))[0, len(prompt) - 1 :]
        log_probs = model.logits(hidden).log_softmax(-1)
    expected = log_probs[torch.arange(len(ids) + 1), torch.tensor([*ids, whisper.end])].sum()
    assert scored == pytest.approx(float(expected), abs=1e-3)


def test_a_short_window_does_not_depend_on_the_neighbours(folder, tmp_path):
    whisper = CTranslate2Whisper(short(folder, tmp_path), "cpu", "float32")
    audio = [noise(seconds, 7) for seconds in (0.7, 3.1, 0.9, 12.0)]
    together = whisper.decode(audio)
    for samples, result in zip(audio, together, strict=True):
        [alone] = whisper.decode([samples])
        assert [h.text for h in alone.hypotheses] == [h.text for h in result.hypotheses]
        np.testing.assert_allclose(alone.window, result.window, atol=1e-4)
        assert len(alone.window) == 50 * short_window_s(len(samples) / 16_000, 0.5)


def test_it_learns_what_it_is_taught_and_is_decoded_as_fast(folder, tmp_path):
    """Four recordings by heart: the texts come back from CTranslate2, out of the written folder."""
    said: list[str] = []
    run = Run(tmp_path / "state", 0, said.append)
    training = RecogniserTraining(folder, "en", "basic", recordings(), recordings(), run)
    before = training.wer(folder)
    figures = training.train(Schedule(120, 1e-2, warmup_steps=10, eval_every=120), tmp_path / "new")
    assert before > 90
    assert figures["WER"] <= 25, said
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config[SHORT_WINDOWS] == 0.5
    whisper = CTranslate2Whisper(tmp_path / "new", "cpu")
    found = [r.hypotheses[0].text for r in whisper.decode([r.samples() for r in recordings()])]
    assert sum(text == wanted for text, wanted in zip(found, TEXTS, strict=True)) >= 3, found


def test_a_stopped_run_goes_on_to_the_same_bits(folder, tmp_path, monkeypatch):
    schedule = Schedule(6, 1e-3, warmup_steps=2, eval_every=2)

    def trained(name: str, stop_after: int | None) -> dict[str, np.ndarray]:
        training = RecogniserTraining(
            folder,
            "en",
            "basic",
            recordings(),
            recordings(),
            Run(tmp_path / name, 0, lambda _: None),
        )
        draw, n_drawn = training._batch, 0

        def batch(*args):
            nonlocal n_drawn
            n_drawn += 1
            if stop_after is not None and n_drawn > stop_after:
                raise KeyboardInterrupt
            return draw(*args)

        training._batch = batch
        training.train(schedule, tmp_path / f"{name}-made")
        return read_ct2_weights(tmp_path / f"{name}-made" / "model.bin")

    whole = trained("whole", None)
    with pytest.raises(KeyboardInterrupt):
        trained("stopped", 3)
    resumed = trained("stopped", None)
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


def test_nothing_to_learn_is_said(folder, tmp_path):
    silent = [Recording("u", "s", "", np.zeros(16_000, "<i2"))]
    with pytest.raises(UsageError, match="transcript"):
        RecogniserTraining(folder, "en", "basic", silent, [], Run(tmp_path))


def test_faster_is_shorter_and_gaps_stay_inside():
    samples = noise(1.0)
    assert len(played(samples, 1.1)) == pytest.approx(16_000 / 1.1, abs=20)
    assert len(played(samples, 0.9)) == pytest.approx(16_000 / 0.9, abs=20)
    features = np.random.default_rng(0).normal(size=(80, 200)).astype(np.float32)
    masked = features.copy()
    mask(masked, np.random.default_rng(1))
    share = (masked != features).mean()
    assert 0 < share < 0.6
    assert masked.shape == features.shape


def test_recordings_are_kept_and_what_cannot_be_read_is_refused(tmp_path):
    write_noise(tmp_path / "a.wav", 0, 0.5)
    manifest = tmp_path / "m.jsonl"
    utterances = [
        NBest("a", audio="a.wav", reference="one", extra={"speaker": "x"}),
        NBest("b", audio="missing.wav", reference="two"),
        NBest("c", audio="a.wav", start_s=0.1, duration_s=0.2, reference="three"),
    ]
    found = list(keep_recordings(utterances, str(manifest), tmp_path / "kept.pcm"))
    assert [isinstance(one, Refusal) for one in found] == [False, True, False]
    kept = kept_recordings(utterances, tmp_path / "kept.pcm")
    assert [(r.id, r.speaker, r.text, len(r.pcm)) for r in kept] == [
        ("a", "x", "one", 8000),
        ("c", "c", "three", 3200),
    ]
    np.testing.assert_array_equal(kept[1].pcm, kept[0].pcm[1600:4800])
    assert not list(tmp_path.glob("*.part"))


def test_a_transformers_whisper_is_converted_once(tmp_path: Path) -> None:
    """To what its first pass says; another model, and weights that are pickled, are refused."""
    source = tiny_whisper(tmp_path / "hf")
    made = as_ctranslate2(source, tmp_path / "made")
    assert as_ctranslate2(made, tmp_path / "again") == made
    before = (made / "model.bin").stat().st_mtime_ns
    assert as_ctranslate2(source, tmp_path / "made") == made
    assert (made / "model.bin").stat().st_mtime_ns == before
    load_first_pass(str(made))
    weights = read_ct2_weights(made / "model.bin", "decoder/")
    tokens = load_file(source / "model.safetensors")["model.decoder.embed_tokens.weight"]
    np.testing.assert_allclose(weights["embeddings/weight"], tokens, atol=1e-3)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        as_ctranslate2(source, tmp_path / "third")
    (source / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(ModelError, match="no Whisper"):
        as_ctranslate2(source, tmp_path / "third")
