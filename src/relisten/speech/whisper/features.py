"""Log-mel features as Whisper was trained on, in numpy, computed only where there is sound.

transformers computes the whole 30 s window even for 3 s of speech: 0.12 s per utterance on one busy
core, a third of the encoder's time, and 2 s to import. Frames of padding are constant, so only the
others are computed here (0.002 s). A test holds this equal to `WhisperFeatureExtractor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from relisten.io.audio import RATE_HZ

WINDOW_S = 30
"""What Whisper's encoder reads at a time."""
FFT_SIZE = 400
HOP = 160
FLOOR = 1e-10


def log_mel(audio: Sequence[np.ndarray], window_s: float, n_mels: int = 80) -> np.ndarray:
    """Log-mel features, float32 [B, n_mels, window_s * 100], each recording padded with silence.

    audio: 16 kHz mono float [samples] each; what lies behind the window is left out. The dynamic
    range is 8 bels (base 10) below each recording's own loudest point, as in Whisper
    (arXiv:2212.04356).
    """
    n_frames = round(window_s * RATE_HZ) // HOP
    out = np.empty((len(audio), n_mels, n_frames), np.float32)
    filters = mel_filters(n_mels)
    for row, samples in zip(out, audio, strict=True):
        row[:] = np.log10(FLOOR)
        power = _power_spectra(np.asarray(samples, np.float32)[: n_frames * HOP], n_frames)
        row[:, : len(power)] = np.log10(np.maximum(filters @ power.T, FLOOR))
        np.maximum(row, row.max() - 8.0, out=row)
    return (out + 4.0) / 4.0


def cut_windows(samples: np.ndarray) -> list[np.ndarray]:
    """A recording [samples] in consecutive pieces of at most 30 s; an empty one has none."""
    size = WINDOW_S * RATE_HZ
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def _power_spectra(samples: np.ndarray, n_frames: int) -> np.ndarray:
    """|STFT|² [t, 201] of the frames that touch a sample; frame t is centred on sample t * HOP."""
    half = FFT_SIZE // 2
    n_samples = n_frames * HOP
    padded = np.zeros(n_samples + 2 * half, np.float32)
    padded[half : half + len(samples)] = samples
    padded[:half] = padded[half + 1 : 2 * half + 1][::-1]  # mirrored edges, as the STFT has them
    padded[-half:] = padded[n_samples - 1 : n_samples + half - 1][::-1]
    n_sounding = min(n_frames, -(-(len(samples) + half) // HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP][:n_sounding]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)
    return np.abs(np.fft.rfft(frames * hann.astype(np.float32), axis=1)) ** 2


@cache
def mel_filters(n_mels: int) -> np.ndarray:
    """Triangular filters [n_mels, 201] on Slaney's mel scale, each of unit area, 0 to 8 kHz.

    Slaney's scale is linear (3 mels per 200 Hz) up to 1 kHz and logarithmic above it (27 mels for
    a factor of 6.4).
    """
    step = np.log(6.4) / 27.0
    top = 15.0 + np.log(RATE_HZ / 2 / 1000.0) / step
    mels = np.linspace(0.0, top, n_mels + 2)
    corners = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp(step * (mels - 15.0)))
    bins = np.linspace(0.0, RATE_HZ / 2, FFT_SIZE // 2 + 1)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)
