"""From audio to frames: the speech encoders that units are made of.

A frame is one vector for 20 ms of speech (50 Hz). `WhisperEncoder` is the encoder the Whisper first
pass runs anyway, so its frames are free there; `HFEncoder` reads any layer of HuBERT, wav2vec 2.0
or WavLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from relisten.core.types import ModelError, UsageError
from relisten.io.sources import resolve_model, weights_hash
from relisten.speech.whisper.features import RATE_HZ, log_mel

FRAME_RATE_HZ = 50.0
SAMPLES_PER_FRAME = 320
BATCH_SIZE = 8
WHISPER_WINDOW_S = 30


class SpeechEncoder(Protocol):
    """Turns 16 kHz audio into frames.

    id names the weights and the layer: a codebook fits frames of one id only.
    """

    @property
    def id(self) -> str: ...
    @property
    def frame_rate_hz(self) -> float: ...
    @property
    def dim(self) -> int: ...
    def encode(self, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames, float32 [T, dim] each, T = ceil(duration_s * frame_rate_hz).

        audio: 16 kHz mono float [samples] each, of any length. A recording's frames do not depend
        on its neighbours in the list.
        """
        ...


def n_frames(samples: np.ndarray) -> int:
    """How many frames a 16 kHz recording [samples] has at 50 Hz, the last one partial."""
    return -(-len(samples) // SAMPLES_PER_FRAME)


class WhisperEncoder:
    """The encoder of a Whisper model in CTranslate2 form.

    On its own it pads to the next 5 s (10 to 30 s) instead of Whisper's 30 s: on 10 s it costs a
    fifth or less, and the frames have cosine 0.96 to 0.99 with those of the full window.
    Recordings past 30 s are encoded window by window.
    """

    frame_rate_hz = FRAME_RATE_HZ

    def __init__(self, folder: Path | str, device: str = "auto", dtype: str = "auto") -> None:
        """Load the model; raises ModelError if the folder holds none, UsageError for a bad dtype.

        dtype: auto (int8 on CPU, float16 on CUDA), float32, bfloat16, int8.
        """
        import ctranslate2

        self.folder = Path(folder)
        if not (self.folder / "model.bin").is_file():
            raise ModelError(f"{folder}: no model.bin here; name a CTranslate2 Whisper folder")
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        if dtype == "auto":
            dtype = "int8" if device == "cpu" else "float16"
        try:
            self.model = ctranslate2.models.Whisper(
                str(self.folder), device=device, compute_type=dtype
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{folder}: CTranslate2 cannot load it on {device}: {error}"
            ) from error
        self.id = f"whisper-{weights_hash(self.folder)}"

    @cached_property
    def dim(self) -> int:
        """Width of a frame: 384 for tiny, 512 for base."""
        return int(self.to_numpy(self.encode_window([np.zeros(0, np.float32)], 1)).shape[-1])

    def encode_window(self, audio: Sequence[np.ndarray], window_s: int) -> Any:
        """The encoder's output on padded recordings: a CTranslate2 view [B, window_s * 50, dim]."""
        import ctranslate2

        features = log_mel(audio, window_s, self.model.n_mels)
        return self.model.encode(ctranslate2.StorageView.from_array(features))

    def to_numpy(self, view: Any) -> np.ndarray:
        """A CTranslate2 view of any type and device as float32 array."""
        import ctranslate2

        on_cpu = view.to_device(ctranslate2.Device.cpu)
        return np.array(on_cpu.to(ctranslate2.DataType.float32), np.float32)

    def encode(self, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames, float32 [T, dim] each; see `SpeechEncoder.encode`."""
        pieces = [
            (i, samples[start : start + WHISPER_WINDOW_S * RATE_HZ])
            for i, samples in enumerate(audio)
            for start in range(0, len(samples), WHISPER_WINDOW_S * RATE_HZ)
        ]
        frames: list[list[np.ndarray]] = [[] for _ in audio]
        encoded: dict[int, np.ndarray] = {}
        for window_s in sorted({_window_s(samples) for _, samples in pieces}):
            same = [p for p, (_, samples) in enumerate(pieces) if _window_s(samples) == window_s]
            for batch in batches(same):
                view = self.encode_window([pieces[p][1] for p in batch], window_s)
                for p, output in zip(batch, self.to_numpy(view), strict=True):
                    encoded[p] = output[: n_frames(pieces[p][1])].copy()
        for p, (i, _) in enumerate(pieces):
            frames[i].append(encoded[p])
        empty = np.zeros((0, self.dim), np.float32)
        return [np.concatenate(parts) if parts else empty for parts in frames]


def _window_s(samples: np.ndarray) -> int:
    return max(10, 5 * -(-len(samples) // (5 * RATE_HZ)))


class HFEncoder:
    """One hidden layer of HuBERT, wav2vec 2.0 or WavLM, through transformers.

    Recordings run one at a time: the base models normalise over time, so padding in a batch would
    change every frame.
    """

    frame_rate_hz = FRAME_RATE_HZ

    def __init__(
        self,
        folder: Path | str,
        layer: int,
        device: str = "auto",
        dtype: str = "auto",
        model: Any = None,
    ) -> None:
        """Load the model; layer 0 is the input of the first transformer layer, -1 the last output.

        model: the folder's base model if it is loaded already. Raises ModelError if the model has
        no such layer.
        """
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

        self.device, torch_dtype = torch_placement(device, dtype)
        config = AutoConfig.from_pretrained(folder)
        n_layers = config.num_hidden_layers
        if not -1 <= layer <= n_layers:
            raise ModelError(f"{folder}: layer {layer} asked for, it has 0 to {n_layers}")
        self.layer = n_layers if layer == -1 else layer
        if model is None:
            model = AutoModel.from_pretrained(folder, dtype=torch_dtype, use_safetensors=True)
        # Layers above are never run; one more is kept because some models norm the last output.
        model.encoder.layers = model.encoder.layers[: self.layer + 1]
        self.model = model.to(self.device).eval()
        self.prepare = AutoFeatureExtractor.from_pretrained(folder)
        self.dim = int(config.hidden_size)
        name = weights_hash(Path(folder)) if Path(folder).is_dir() else str(folder)
        self.id = f"{config.model_type}-{name}@{self.layer}"

    def encode(self, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames, float32 [T, dim] each; see `SpeechEncoder.encode`."""
        return [self._encode_one(samples) for samples in audio]

    def _encode_one(self, samples: np.ndarray) -> np.ndarray:
        import torch

        if not len(samples):
            return np.zeros((0, self.dim), np.float32)
        values = self.prepare(samples, sampling_rate=RATE_HZ).input_values[0]
        # The convolutions see 400 samples and hop 320: pad so that every started hop has a frame.
        padded = np.zeros(n_frames(samples) * SAMPLES_PER_FRAME + 80, np.float32)
        padded[: len(values)] = values
        inputs = torch.from_numpy(padded)[None].to(self.device, self.model.dtype)
        with torch.inference_mode():
            hidden = self.model(inputs, output_hidden_states=True).hidden_states[self.layer]
        return hidden[0].float().cpu().numpy()


def load_encoder(reference: str, device: str = "auto", dtype: str = "auto") -> SpeechEncoder:
    """The encoder a reference names, loaded.

    reference: KIND:MODEL@LAYER with KIND one of hubert, wav2vec2, wavlm, or a recogniser that
    `load_first_pass` takes (known name, folder or hub id), whose encoder it then is. Raises
    ModelError or UsageError with the remedy.
    """
    kind, _, rest = reference.partition(":")
    if kind not in ("hubert", "wav2vec2", "wavlm"):
        folder = resolve_model(reference)
        if (folder / "model.bin").is_file():
            return WhisperEncoder(folder, device, dtype)
        from relisten.speech.first_pass import load_first_pass

        return load_first_pass(str(folder), device, dtype).encoder
    model, _, layer = rest.rpartition("@")
    if not model or not layer.lstrip("-").isdigit():
        raise UsageError(f"encoder {reference!r}: name its layer, as in {kind}:MODEL@9")
    return HFEncoder(resolve_model(model), int(layer), device, dtype)


def batches(items: Sequence[Any], size: int = BATCH_SIZE) -> Iterator[Sequence[Any]]:
    """The items in runs of at most size."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def torch_placement(device: str, dtype: str) -> tuple[str, Any]:
    """Device name and torch dtype for the options auto|cpu|cuda and auto|float32|bfloat16.

    auto is float32 on CPU, bfloat16 on CUDA. Raises UsageError for int8: whole models of
    torch do not run in it.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"dtype {dtype}: a transformers model runs in float32 or bfloat16")
    return device, getattr(torch, dtype)
