"""Where there is speech: silero-vad as its package has it, on real speech and on what is none."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from real_speech import SETS, sounds, utterances
from relisten.io.sources import resolve_model
from relisten.speech.segmentation import (
    LEAST_SPEECH_FRAMES,
    PAD_S,
    speech_segments,
)
from relisten.speech.vad import VAD_FRAME, VAD_WEIGHTS, VoiceActivityDetector

PACKAGED = (
    "pypi:silero-vad==6.2.3/silero_vad/data/silero_vad.jit"
    "#sha256=e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720"
)


def test_the_weights_are_those_that_were_measured():
    digest = hashlib.sha256(VAD_WEIGHTS.read_bytes()).hexdigest()
    assert digest == "78b97ee18b6509fee7764f4e56cb7ce75c33324f32b50f77db3dbd93899946b2"


def vowel(seconds: float) -> np.ndarray:
    """A buzz of 120 Hz through two resonances, on and off three times a second: near to speech."""
    t = np.arange(round(seconds * 16_000)) / 16_000
    buzz = sum(
        np.exp(-(((120 * h - f) / 150) ** 2)) * np.sin(2 * np.pi * 120 * h * t)
        for h in range(1, 40)
        for f in (600, 1_200)
    )
    return (0.2 * buzz * (np.sin(2 * np.pi * 3 * t) > 0)).astype(np.float32)


GOLDEN = {1: 0.1649, 5: 0.0471, 10: 0.1261, 31: 0.5697, 32: 0.3401, 36: 0.2169, 45: 0.0031}
"""Frame → probability."""


def test_golden_probabilities():
    """Those of the package's own TorchScript model on the same second and a half."""
    found = VoiceActivityDetector()(vowel(1.5))
    np.testing.assert_allclose(found[[*GOLDEN]], [*GOLDEN.values()], atol=2e-4)


def test_pieces_change_nothing():
    samples = vowel(2.0)
    detector = VoiceActivityDetector()
    cut = 7 * VAD_FRAME
    parts = [detector(samples[:cut]), detector(samples[cut:cut]), detector(samples[cut:])]
    np.testing.assert_allclose(np.concatenate(parts), VoiceActivityDetector()(samples), atol=1e-5)


@pytest.mark.slow
def test_it_is_the_packages_own_model():
    import torch

    folder = resolve_model(PACKAGED)
    model = torch.jit.load(folder / "silero_vad.jit")
    for _, samples, _ in utterances("speechocean", 5):
        padded = np.pad(samples, (0, -len(samples) % VAD_FRAME)).reshape(-1, VAD_FRAME)
        model.reset_states()
        wanted = [model(torch.from_numpy(frame), 16_000).item() for frame in padded]
        np.testing.assert_allclose(VoiceActivityDetector()(samples), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", sorted({name.split()[0] for name in sounds()}))
def test_what_is_no_speech_gives_no_segment(kind):
    for name, samples in sounds().items():
        if name.split()[0] == kind:
            assert [*speech_segments([samples])] == [], name


def test_20_ms_of_speech_are_none():
    for _, samples, _ in utterances("ljspeech", 5):
        middle = len(samples) // 2
        assert [*speech_segments([samples[middle : middle + 320]])] == []


@pytest.mark.parametrize("name", SETS)
def test_real_utterances_are_found_whole(name):
    """With their edges: what lies before the first word and behind the last one is kept."""
    n_found = 0
    for _, samples, _ in utterances(name, 10):
        spoken = np.flatnonzero(VoiceActivityDetector()(samples) >= 0.5)
        if len(spoken) < LEAST_SPEECH_FRAMES:
            continue
        segments = [*speech_segments([samples])]
        n_found += bool(segments)
        begins, ends = segments[0].start_s, segments[-1].end_s
        assert begins <= max(0.0, spoken[0] * VAD_FRAME / 16_000 - PAD_S + 0.02)
        assert ends >= min(
            len(samples) / 16_000, (spoken[-1] + 1) * VAD_FRAME / 16_000 + PAD_S - 0.02
        )
    assert n_found >= 9
