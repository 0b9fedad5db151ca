"""Voice activity detection: how likely each 32 ms of a recording are speech, by silero-vad.

`silero_vad.safetensors` holds the weights of the package's TorchScript model for 16 kHz (silero-vad
6.2.3, MIT, `silero_vad.LICENSE`). torch, which is there anyway, runs them: neither ONNX Runtime nor
pickled code is needed, and nothing is fetched. A test holds the result to the package's own model.
An hour takes 13 s of one core, since all but the LSTM works on many frames at once.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from relisten.io.audio import RATE_HZ

VAD_FRAME = 512
"""Samples that one probability is for."""
VAD_FRAME_S = VAD_FRAME / RATE_HZ
VAD_WEIGHTS = Path(__file__).with_name("silero_vad.safetensors")

_CONTEXT, _FFT, _HOP = 64, 256, 128


class VoiceActivityDetector:
    """silero-vad at 16 kHz over one recording, which comes in pieces; it remembers what was."""

    def __init__(self) -> None:
        self._network = _network()
        self._state: tuple[torch.Tensor, torch.Tensor] | None = None
        self._context = np.zeros(_CONTEXT, np.float32)

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The probability of speech in each frame of the next samples, float32 [T / VAD_FRAME].

        samples: float32 [T]; T a multiple of VAD_FRAME but for the last piece of a recording, which
        is filled up with silence.
        """
        padded = np.pad(samples, (0, -len(samples) % VAD_FRAME))
        if not len(padded):
            return np.zeros(0, np.float32)
        joined = np.concatenate([self._context, padded])
        self._context = joined[-_CONTEXT:]
        frames = np.lib.stride_tricks.sliding_window_view(joined, _CONTEXT + VAD_FRAME)[::VAD_FRAME]
        probabilities, self._state = self._network(torch.from_numpy(frames.copy()), self._state)
        return probabilities.numpy()


class _Network(nn.Module):
    """Spectrogram, four convolutions over a frame, an LSTM over frames, a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, _FFT + 2, _FFT, stride=_HOP, bias=False)
        self.encoder = nn.ModuleList(
            [
                nn.Conv1d(_FFT // 2 + 1, 128, 3, padding=1),
                nn.Conv1d(128, 64, 3, stride=2, padding=1),
                nn.Conv1d(64, 64, 3, stride=2, padding=1),
                nn.Conv1d(64, 128, 3, padding=1),
            ]
        )
        self.lstm = nn.LSTM(128, 128)
        self.output = nn.Conv1d(128, 1, 1)

    def forward(
        self, frames: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """frames [T, 576] → probabilities [T], and the LSTM's state behind the last one."""
        padded = nn.functional.pad(frames[:, None], (0, _CONTEXT), "reflect")
        real, imaginary = self.stft(padded).chunk(2, dim=1)
        hidden = (real.square() + imaginary.square()).sqrt()
        for layer in self.encoder:
            hidden = layer(hidden).relu()
        hidden, state = self.lstm(hidden.squeeze(-1), state)
        return self.output(hidden.relu()[..., None]).sigmoid().flatten(), state


@cache
def _network() -> _Network:
    """The network with its weights, on the CPU: it is far too small for anything else."""
    from safetensors.torch import load_file

    network = _Network().eval()
    network.load_state_dict(load_file(VAD_WEIGHTS))
    return network
