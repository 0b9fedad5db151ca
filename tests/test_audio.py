"""Any container, rate and channel count is loaded as the same 16 kHz mono signal."""

import io
import os
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from relisten.core.types import AudioError
from relisten.io import audio as audio_module
from relisten.io.audio import from_samples, load_audio, probe_audio, stream_audio

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


def write_pcm(path: Path, samples: np.ndarray, rate_hz: int = 16_000) -> Path:
    """int16 [T, channels], written without FFmpeg."""
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], 2, rate_hz, 0, "NONE", ""))
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


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("n_channels", [8, 9, 16, 33, 64])
def test_any_number_of_channels_is_averaged(tmp_path, n_channels, rate_hz):
    """FFmpeg's resampler ended the process for more than 8 channels. Channel c holds (c + 1) · 100:
    the average is (n + 1) / 2 · 100."""
    samples = np.tile(np.arange(1, n_channels + 1, dtype=np.int16) * 100, (rate_hz // 10, 1))
    loaded = load_audio(write_pcm(tmp_path / "a.wav", samples, rate_hz))
    assert len(loaded) == 1_600
    np.testing.assert_allclose(loaded[400:-400], (n_channels + 1) * 50 / 32_768, rtol=1e-3)


@pytest.mark.parametrize(
    ("codec", "bits"), [("pcm_u8", 8), ("pcm_s24le", 24), ("pcm_s64le", 64), ("pcm_f64le", 64)]
)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_every_sample_type_has_the_same_scale(tmp_path, codec, bits, n_channels):
    path = tmp_path / "a.wav"
    layout = {1: "mono", 2: "stereo"}[n_channels]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16_000, layout=layout)
        signal = np.stack([tone(16_000, 0.5)] * n_channels)
        frame = av.AudioFrame.from_ndarray(signal, format="fltp", layout=layout)
        frame.sample_rate = 16_000
        wanted = av.AudioResampler(stream.codec_context.format.name, layout, 16_000)
        for part in (*wanted.resample(frame), None):
            container.mux(stream.encode(part))
    np.testing.assert_allclose(load_audio(path), tone(16_000, 0.5), atol=2.0 ** (1 - min(bits, 16)))


@pytest.mark.parametrize(("second", "channel"), [(-1.0, 1), (-0.8, 1), (-1.2, 2)])
def test_channels_that_cancel_are_not_averaged(tmp_path, second, channel):
    """A microphone with reversed wires made every recording silent. The louder channel is kept."""
    one = (tone(44_100, 1.0) * 20_000).astype(np.int16)
    both = np.stack([one, (one * second).astype(np.int16)], axis=1)
    path = write_pcm(tmp_path / "a.wav", both, 44_100)
    kept = both[:, channel - 1] / 32_768
    for load in (
        lambda: load_audio(path),
        lambda: load_audio(io.BytesIO(path.read_bytes())),
        lambda: from_samples(both.T, 44_100),
    ):
        with pytest.warns(UserWarning, match=f"cancel each other; channel {channel} alone"):
            loaded = load()
        assert np.abs(loaded).max() == pytest.approx(np.abs(kept).max(), rel=1e-2)


def test_unrelated_and_silent_channels_are_averaged_without_a_word(tmp_path, recwarn):
    samples = np.zeros((1_600, 64), np.int16)
    load_audio(write_pcm(tmp_path / "silent.wav", samples))
    samples[:, 40] = 6_400
    loaded = load_audio(write_pcm(tmp_path / "one.wav", samples))
    np.testing.assert_allclose(loaded, 100 / 32_768, atol=1e-7)
    assert not recwarn.list


@pytest.mark.parametrize(
    "name", ["12:30 talk.wav", "concat:a.wav", "pipe:0", "a%03d.wav", "é ü.wav"]
)
def test_a_name_is_a_name_and_no_protocol(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_pcm(tmp_path / name, np.ones((1_600, 1), np.int16))
    assert len(load_audio(name)) == 1_600


PLAYLISTS = {
    "a.ffconcat": "ffconcat version 1.0\nfile secret.wav\n",
    "a.wav": "ffconcat version 1.0\nfile secret.wav\n",
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n",
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_pcm(tmp_path / "secret.wav", np.ones((1_600, 1), np.int16))
    Path(name).write_text(PLAYLISTS[name])
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_audio(name)


def test_a_path_that_cannot_be_opened_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in [
        ("a" * 5_000, "too long"),
        ("a\0b", "null byte"),
        (tmp_path / "pipe", "not a plain file"),  # opening it would wait for a writer
        (tmp_path, "not a plain file"),
        ("/dev/zero", "not a plain file"),
        (tmp_path / "a.wav" / "b.wav", "no such file"),
    ]:
        with pytest.raises(AudioError, match=words):
            load_audio(path)


def test_times_out_of_every_proportion(tmp_path):
    path = write_pcm(tmp_path / "a.wav", np.ones((16_000, 1), np.int16))
    for start_s in (5.0, 5e9, 1e308):
        with pytest.raises(AudioError, match=r"ends at 1\.00 s, before"):
            load_audio(path, start_s=start_s)
    with pytest.raises(AudioError, match="start of at least 0"):
        load_audio(path, start_s=float("nan"))
    with pytest.raises(AudioError, match="no sample"):
        load_audio(path, duration_s=1e-9)
    assert len(load_audio(path, duration_s=1e308)) == 16_000


@pytest.mark.parametrize("rate_hz", [1, 999, 1_000_000])
def test_a_rate_that_no_recorder_has_is_refused(tmp_path, rate_hz):
    """8 KB at 1 Hz took 2.2 GB."""
    path = write_pcm(tmp_path / "a.wav", np.ones((4_000, 1), np.int16), rate_hz)
    with pytest.raises(AudioError, match=f"rate is {rate_hz} Hz; 1000 to 768000 Hz"):
        load_audio(path)
    with pytest.raises(AudioError, match=f"rate is {rate_hz} Hz"):
        from_samples(np.ones(4_000), rate_hz)


def test_a_recording_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_module, "MAX_DURATION_S", 1.0)
    path = write_pcm(tmp_path / "a.wav", np.ones((40_000, 1), np.int16))
    with pytest.raises(AudioError, match=r"lasts more than .* h; cut it"):
        load_audio(path)
    assert len(load_audio(path, start_s=1.5, duration_s=0.5)) == 8_000


def test_memory_is_that_of_the_result(tmp_path):
    """Five minutes of 44.1 kHz stereo are 19 MB at 16 kHz; resampled as one frame they took 400 MB.

    Measured in a process of its own, against one that loads a tenth of a second.
    """
    path = write_pcm(tmp_path / "a.wav", np.full((13_230_000, 2), 99, np.int16), 44_100)
    code = (
        "import resource, sys; from relisten.io.audio import load_audio;"
        "load_audio(sys.argv[1], duration_s=float(sys.argv[2]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    kib = [
        int(subprocess.check_output([sys.executable, "-c", code, str(path), seconds]))
        for seconds in ("0.1", "300")
    ]
    assert kib[1] - kib[0] < 50_000


def test_a_stream_is_the_array_in_blocks(tmp_path):
    path = write_audio(
        tmp_path / "a.flac", [tone(44_100, 30.0), tone(44_100, 30.0)], 44_100, "flac"
    )
    for options in ({}, {"start_s": 3.0, "duration_s": 20.5}, {"channel": 1}):
        blocks = [*stream_audio(path, **options)]
        assert len(blocks) > 5
        assert np.array_equal(np.concatenate(blocks), load_audio(path, **options))


def test_one_channel_alone(tmp_path):
    left, right = tone(16_000, 1.0), tone(16_000, 1.0)[::-1]
    path = write_audio(tmp_path / "a.wav", [left, right], 16_000, "pcm_f32le")
    np.testing.assert_allclose(load_audio(path, channel=0), left, atol=1e-6)
    np.testing.assert_allclose(load_audio(path, channel=1), right, atol=1e-6)
    np.testing.assert_allclose(
        from_samples(np.stack([left, right]), 16_000, channel=1), right, atol=1e-6
    )
    with pytest.raises(AudioError, match="has 2 channels and no channel 3"):
        load_audio(path, channel=2)


def test_channels_that_cancel_for_a_while_are_noticed_there(tmp_path):
    """The second minute has reversed wires: the first channel counts there, the mix before."""
    one = (tone(16_000, 120.0) * 20_000).astype(np.int16)
    other = np.concatenate([one[: 60 * 16_000] // 2, -one[60 * 16_000 :]])
    path = write_pcm(tmp_path / "a.wav", np.stack([one, other], axis=1))
    with pytest.warns(UserWarning, match="channel 1 alone"):
        loaded = load_audio(path)
    assert np.abs(loaded[:16_000]).max() == pytest.approx(0.75 * 0.4 * 20_000 / 32_768, rel=0.01)
    assert np.abs(loaded[-16_000:]).max() == pytest.approx(0.4 * 20_000 / 32_768, rel=0.01)


def test_the_head_of_a_recording(tmp_path):
    path = write_audio(tmp_path / "a.mp3", [tone(22_050), tone(22_050)], 22_050, "libmp3lame")
    for source in (path, io.BytesIO(path.read_bytes())):
        info = probe_audio(source)
        assert info.n_channels == 2
        assert info.duration_s == pytest.approx(SECONDS, abs=0.1)
    with pytest.raises(AudioError, match="no such file"):
        probe_audio(tmp_path / "none.wav")
