"""Silence, hiss and tones have no text, whatever a recogniser writes for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from relisten.core.types import Hypothesis, NBest
from relisten.speech.ctc.recogniser import TransformersCTC
from relisten.speech.first_pass import DecodingOptions, FirstPassResult
from relisten.speech.no_speech import holds_speech, loudest_dbfs
from relisten.speech.whisper import ctranslate2, transformers
from relisten.tasks.second_pass import SecondPass, SecondPassOptions
from tiny_speech import noise, tiny_ct2_whisper, tiny_ctc, tiny_whisper

LOUD = noise(0.5)


@pytest.mark.parametrize(
    ("text", "no_speech_prob", "mean_logprob", "expected"),
    [
        ("Thank you.", 0.97, -1.4, False),  # silence
        ("I'm going to take a look.", 0.673, -1.84, False),  # hiss
        ("Thank you.", 0.97, -0.2, True),  # a sure text stays
        ("called no", 0.268, -1.36, True),  # the least sure utterance of those measured
        (". . .", 0.0, 0.0, False),
        ("♪♪", 0.0, 0.0, False),
        ("…", 0.0, 0.0, False),
        ("", 0.0, 0.0, True),
        ("7", 0.0, 0.0, True),
        ("はい", 0.0, 0.0, True),
        ("हाँ", 0.0, 0.0, True),
    ],
)
def test_texts_that_are_speech(text, no_speech_prob, mean_logprob, expected):
    assert holds_speech(LOUD, text, no_speech_prob, mean_logprob) is expected


def test_energy():
    """An RMS of 0.001 is -60 dBFS; the loudest 20 ms count, the last ones included."""
    assert loudest_dbfs(np.zeros(0, np.float32)) == loudest_dbfs(np.zeros(99)) == -np.inf
    quiet = np.zeros(1_600, np.float32)
    quiet[-320:] = 0.001
    assert loudest_dbfs(quiet) == pytest.approx(-60)
    assert holds_speech(quiet, "yes")
    assert not holds_speech(quiet * 0.05, "yes")  # -86 dBFS


@pytest.fixture(scope="module")
def recognisers(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    whisper = tiny_whisper(root / "hf")
    return {
        "ct2": ctranslate2.CTranslate2Whisper(
            tiny_ct2_whisper(whisper, root / "ct2"), "cpu", "float32"
        ),
        "hf": transformers.TransformersWhisper(whisper, "cpu", "float32"),
        "ctc": TransformersCTC(tiny_ctc(root / "ctc"), "cpu", "float32"),
    }


@pytest.mark.parametrize("name", ["ct2", "hf", "ctc"])
def test_a_recogniser_has_one_empty_text_for_silence(recognisers, name):
    """Zeros among others, at any length; the score is that of the empty text."""
    recogniser, silence = recognisers[name], np.zeros(8_000, np.float32)
    options = DecodingOptions(4, 4, samples=2)
    short, speech, long = recogniser.decode([silence[:1_440], LOUD, silence], options)
    assert speech.is_speech
    for result, audio in ((short, silence[:1_440]), (long, silence)):
        assert not result.is_speech
        assert [(h.text, h.word_ends_s) for h in result.hypotheses] == [("", ())]
        (scored,) = recogniser.scorer(audio, result.window).score([""])
        assert result.hypotheses[0].scores == pytest.approx(scored.scores, abs=1e-3)


def test_both_back_ends_ask_the_token_for_no_speech(recognisers, monkeypatch):
    asked = {}
    for module, name in ((ctranslate2, "ct2"), (transformers, "hf")):

        def note(recording, text, no_speech_prob, mean_logprob, name=name):
            asked[name] = (text, no_speech_prob, mean_logprob)
            return True

        monkeypatch.setattr(module, "holds_speech", note)
        recognisers[name].decode([LOUD], DecodingOptions(1, 1))
    assert asked["ct2"][0].strip() == asked["hf"][0].strip()
    assert asked["ct2"][1:] == pytest.approx(asked["hf"][1:], abs=2e-3)
    assert 0 < asked["ct2"][1] < 0.5


@dataclass
class SilentFirstPass:
    """Finds no speech; whatever else is proposed for it is rated higher."""

    name: str = "silent"
    is_speech: bool = False
    text: str = ""
    max_duration_s: float = 30.0

    def decode(self, audio, options=DecodingOptions(), *, timed=True):
        frames = np.zeros((1, 2), np.float32)
        hypothesis = Hypothesis(self.text, {"asr": -9.0}, ())
        return [FirstPassResult((hypothesis,), frames, frames, self.is_speech) for _ in audio]

    def scorer(self, recording, window=None, context=None):
        return self

    def score(self, texts, *, timed=True):
        return tuple(Hypothesis(text, {"asr": -1.0}, None) for text in texts)

    def tokens(self, text):
        return tuple(map(ord, text))


def test_nothing_else_joins_a_list_without_speech():
    """Neither a second recogniser nor expected phrases add a text."""
    silent = SilentFirstPass()
    talking = replace(silent, name="talking", is_speech=True, text="Thank you.")
    options = SecondPassOptions(phrases=("Thank you",))
    second_pass = SecondPass([silent, talking], DecodingOptions(), options)
    (utterance,) = second_pass.expand([NBest("a")], [LOUD]).utterances
    assert [h.text for h in utterance.hypotheses] == [""]
