"""Any container, rate and channel count is loaded as the same 16 kHz mono signal."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from relisten.core.types import AudioError
from relisten.io.audio import load_audio

SECONDS = 4.0


def tone(rate_hz: int, seconds: float = SECONDS) -> np.ndarray:
    """A sine that glides from 200 to 600 Hz, so that every part of it sounds different."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.4 * np.sin(2 * np.pi * (200 + 50 * t) * t)).astype(np.float32)


def write_audio(path: Path, channels: list[np.ndarray], rate_hz: int, codec: str) -> Path:
    """The channels encoded by FFmpeg into the container that the file name asks for."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        context = stream.codec_context
        frame = av.AudioFrame.from_ndarray(np.stack(channels), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        fitted = av.AudioResampler(
            context.format.name, layout, rate_hz, frame_size=context.frame_size or 0
        )
        for part in (*fitted.resample(frame), *fitted.resample(None), None):
            container.mux(stream.encode(part))
    return path


def write_pcm(path: Path, samples: np.ndarray) -> Path:
    """int16 [T, channels] at 16 kHz, written without FFmpeg."""
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


LOSSLESS = [("wav", "pcm_s16le"), ("flac", "flac")]
LOSSY = [("ogg", "libopus", 48_000), ("mp3", "libmp3lame", 22_050), ("m4a", "aac", 32_000)]


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 44_100])
@pytest.mark.parametrize(("extension", "codec"), LOSSLESS)
def test_lossless_files_give_the_signal_back(tmp_path, extension, codec, rate_hz):
    path = write_audio(tmp_path / f"a.{extension}", [tone(rate_hz)], rate_hz, codec)
    loaded = load_audio(path)
    assert loaded.dtype == np.float32
    assert abs(len(loaded) - SECONDS * 16_000) <= 1
    # The ends ring where a band-limited filter meets the cut; 16 bit steps are 3e-5.
    inner = slice(800, len(loaded) - 800)
    np.testing.assert_allclose(loaded[inner], tone(16_000)[inner], atol=2e-4)


@pytest.mark.parametrize(("extension", "codec", "rate_hz"), LOSSY)
def test_lossy_files_stay_in_time(tmp_path, extension, codec, rate_hz):
    path = write_audio(tmp_path / f"a.{extension}", [tone(rate_hz)], rate_hz, codec)
    loaded = load_audio(path)
    assert len(loaded) == pytest.approx(
        SECONDS * 16_000, abs=1_600
    )  # the last codec frame is padded
    inner = slice(3_200, 57_600)
    # One sample (1/16 ms) of delay at 600 Hz would already cost 3 % of the correlation's distance.
    assert np.corrcoef(loaded[inner], tone(16_000)[inner])[0, 1] > 0.995


@pytest.mark.parametrize("n_channels", [2, 6])
def test_channels_are_averaged(tmp_path, n_channels):
    """One channel holds n times the tone, the others nothing: the average is the tone."""
    quiet = tone(16_000) / 4
    channels = [quiet * n_channels, *[np.zeros_like(quiet)] * (n_channels - 1)]
    path = write_audio(tmp_path / "a.wav", channels, 16_000, "pcm_f32le")
    np.testing.assert_allclose(load_audio(path), np.clip(quiet, -1, 1), atol=1e-6)


def test_a_channel_count_without_a_name_is_read_too(tmp_path):
    samples = np.array([[3, 6, 9], [-300, 0, 600]], dtype=np.int16)
    loaded = load_audio(write_pcm(tmp_path / "a.wav", samples))
    np.testing.assert_allclose(loaded, np.array([6, 100]) / 32_768, atol=1e-7)


def test_a_tone_above_half_the_rate_is_filtered_out(tmp_path):
    t = np.arange(48_000) / 48_000
    path = write_audio(
        tmp_path / "a.wav", [np.sin(2 * np.pi * 12_000 * t).astype(np.float32)], 48_000, "pcm_s16le"
    )
    assert np.abs(load_audio(path)[800:-800]).max() < 1e-2


@pytest.mark.parametrize(
    ("extension", "codec", "rate_hz"), [*[(*kind, 16_000) for kind in LOSSLESS], *LOSSY]
)
@pytest.mark.parametrize("start_s", [0.5, 3.0])  # 3.0 jumps in the file where it can, 0.5 does not
def test_a_segment_equals_the_same_part_of_the_whole(tmp_path, extension, codec, rate_hz, start_s):
    path = write_audio(tmp_path / f"a.{extension}", [tone(rate_hz)], rate_hz, codec)
    whole = load_audio(path)
    part = load_audio(path, start_s=start_s, duration_s=0.75)
    first = int(start_s * 16_000)
    assert len(part) == 12_000
    np.testing.assert_allclose(part[400:-400], whole[first:][400:11_600], atol=2e-3)


def test_a_segment_longer_than_the_file_ends_with_it(tmp_path):
    path = write_audio(tmp_path / "a.wav", [tone(16_000)], 16_000, "pcm_s16le")
    assert len(load_audio(path, start_s=3.5, duration_s=10.0)) == 8_000
    assert len(load_audio(path, start_s=3.5)) == 8_000


def test_other_output_rates(tmp_path):
    path = write_audio(tmp_path / "a.wav", [tone(16_000)], 16_000, "pcm_s16le")
    np.testing.assert_allclose(
        load_audio(path, rate_hz=8_000)[400:-400], tone(8_000)[400:-400], atol=2e-4
    )


def test_what_cannot_be_loaded_is_named_in_one_sentence(tmp_path):
    text = tmp_path / "a.wav"
    text.write_text("this is not audio")
    empty = write_pcm(tmp_path / "b.wav", np.zeros((0, 1), np.int16))
    short = write_audio(tmp_path / "c.wav", [tone(16_000, 1.0)], 16_000, "pcm_s16le")
    broken = write_audio(
        tmp_path / "d.wav", [np.full(160, np.nan, np.float32)], 16_000, "pcm_f32le"
    )
    for arguments, words in [
        ((tmp_path / "none.wav",), "no such file"),
        ((text,), "cannot be decoded"),
        ((empty,), "holds no audio"),
        ((broken,), "not numbers"),
        ((short, 16_000, 2.0), "ends at 1.00 s, before 2.00 s"),
        ((short, 16_000, -1.0), "start of at least 0"),
        ((short, 16_000, 0.0, 0.0), "duration above 0"),
    ]:
        with pytest.raises(AudioError, match=words) as error:
            load_audio(*arguments)
        assert str(arguments[0]) in str(error.value)
        assert "\n" not in str(error.value)
