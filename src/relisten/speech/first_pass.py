"""The recogniser that proposes hypotheses: its role, and how one is loaded.

Every hypothesis carries its true summed log-probability (nats, EOS counted) and the end of each of
its words; the encoder's frames come along, since the recogniser has computed them anyway.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from relisten.core.types import Hypothesis, ModelError, UsageError
from relisten.speech.encoders import SAMPLES_PER_FRAME, SpeechEncoder
from relisten.speech.whisper.features import RATE_HZ

if TYPE_CHECKING:
    from torch import Tensor

FRAME_S = SAMPLES_PER_FRAME / RATE_HZ
MAX_ALIGNED_TOKENS = 440  # Whisper's decoder has 448 positions, prompt and end included
WHISPER_START = "<|startoftranscript|>"


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How a first pass searches for hypotheses. Raises UsageError if the options contradict."""

    beam: int = 10
    """Width of the beam search."""
    n_best: int = 10
    """Hypotheses of the beam that are kept, 1 to `beam`."""
    samples: int = 0
    """Hypotheses that are sampled from the model in addition to the beam."""
    temperature: float = 1.0
    """Of the sampling. `asr` is always the score at temperature 1, so all can be merged."""
    seed: int = 0
    """Of the sampling."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_best <= self.beam:
            raise UsageError(
                f"n_best {self.n_best}: a beam of {self.beam} gives 1 to {self.beam} hypotheses; "
                "ask for fewer, or widen the beam"
            )
        if self.samples < 0:
            raise UsageError(f"samples {self.samples}: give 0 or more")
        if not self.temperature > 0:
            raise UsageError(f"temperature {self.temperature}: give a number above 0")


@dataclass(frozen=True, slots=True)
class FirstPassResult:
    """What a first pass made of one recording.

    hypotheses: the beam's in the decoder's own order, then samples that the beam does not hold; no
        token sequence twice, but texts may repeat. Scores hold `asr`; word_ends_s is set where it
        was asked for.
    frames: the encoder's, float32 [T, dim], T = ceil(duration_s * 50).
    window: all that the decoder attended to, float32 [T', dim]: Whisper has frames of the silence
        up to 30 s, too. What `FirstPass.score` needs not to encode again.
    """

    hypotheses: tuple[Hypothesis, ...]
    frames: np.ndarray
    window: np.ndarray


class FirstPass(Protocol):
    """A recogniser that proposes hypotheses, rates given ones and says when their words end.

    max_duration_s: the longest recording it hears at once; cut longer ones with `split_audio`.
    encoder: what makes its frames, usable on its own; `encoder.id` ties codebooks to it.
    """

    @property
    def name(self) -> str: ...
    @property
    def max_duration_s(self) -> float: ...
    @property
    def encoder(self) -> SpeechEncoder: ...

    def decode(
        self,
        audio: Sequence[np.ndarray],
        options: DecodingOptions = DecodingOptions(),
        *,
        timed: bool = True,
    ) -> list[FirstPassResult]:
        """The N-best list of each recording.

        audio: 16 kHz mono float [samples] each. timed: whether word ends are wanted; to find them
        costs up to a fifth of the search. Raises UsageError for a recording past max_duration_s.
        """
        ...

    def align(
        self,
        audio: Sequence[np.ndarray],
        texts: Sequence[Sequence[str]],
        frames: Sequence[np.ndarray] | None = None,
    ) -> list[list[tuple[float, ...]]]:
        """When the words of given texts end, s: for each recording, for each of its texts.

        One entry per whitespace-separated word, as in `Hypothesis.word_ends_s`. frames: the
        encoder's of the same recordings, if they are at hand: nothing is encoded again. A text all
        in capitals is aligned in lower case, which recognisers know better.
        """
        ...

    def score(
        self,
        audio: Sequence[np.ndarray],
        texts: Sequence[Sequence[str]],
        windows: Sequence[np.ndarray] | None = None,
        timed: bool = True,
        context: int | None = None,
    ) -> list[tuple[Hypothesis, ...]]:
        """Given texts as if it had proposed them: one hypothesis each, for each recording.

        windows: `FirstPassResult.window` of the same recordings, if at hand: nothing is encoded again.
        timed: whether word ends are wanted. context: a recogniser to which reading is dear may take
        a text's ending to cost what it costs in a text before it, from the token on at which it has
        agreed with that for so many (history clustering: Liu et al., ICASSP 2014); None: it reads
        everything.

        `asr` is what `decode` would say of `tokens(text)`, by teacher forcing, and always finite:
        of a token that its decoder would suppress, the suppression is lifted there and then.
        word_ends_s as `decode` sets it. Texts are taken as they are written, capitals and all.
        """
        ...

    def tokens(self, text: str) -> tuple[int, ...]:
        """How it would write a text: two texts that it writes alike are one and the same to it."""
        ...


def load_first_pass(
    reference: str, device: str = "auto", dtype: str = "auto", language: str = "en"
) -> FirstPass:
    """The first pass a reference names, loaded: a known name, a folder or a hub id.

    CTranslate2 Whisper, or a transformers Whisper or CTC model; which one, the folder's files tell.
    Raises ModelError if it is none of them.
    """
    from relisten.io.sources import resolve_model

    folder = Path(resolve_model(reference))
    name = folder.name if Path(reference).is_dir() else reference
    if (folder / "model.bin").is_file():
        from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper

        return CTranslate2Whisper(folder, device, dtype, language, name)
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{reference}: no readable config.json in it") from error
    if config.get("model_type") == "whisper":
        from relisten.speech.whisper.transformers import TransformersWhisper

        return TransformersWhisper(folder, device, dtype, language, name)
    if any(str(kind).endswith("ForCTC") for kind in config.get("architectures") or ()):
        from relisten.speech.ctc.recogniser import TransformersCTC

        return TransformersCTC(folder, device, dtype, name)
    raise ModelError(f"{reference}: neither Whisper nor a CTC model; those are the first passes")


def check_durations(audio: Sequence[np.ndarray], max_duration_s: float) -> None:
    """Raises UsageError if a recording is longer than a first pass can decode at once."""
    for i, samples in enumerate(audio):
        if len(samples) > max_duration_s * RATE_HZ:
            raise UsageError(
                f"recording {i} lasts {len(samples) / RATE_HZ:.1f} s, at most {max_duration_s:g} s"
                " are heard at once; cut it with split_audio"
            )


def forced_logprobs(
    logits: Tensor,
    rows: np.ndarray,
    targets: np.ndarray,
    suppressed: Sequence[int],
    suppressed_first: Sequence[int],
) -> np.ndarray:
    """Log-probability, nats, float64 [K], of tokens targets[k] where row rows[k] of logits says.

    logits: [R, V], of which row 0 predicts the first token of a text, under Whisper's suppression
    lists: suppressed tokens (in row 0 those of suppressed_first, too) are taken out and the rest
    renormalised; a target among them stays, so that every text has a score.
    """
    import torch

    logits = logits.float()
    at, said = torch.from_numpy(rows), torch.from_numpy(targets)
    spoken = logits[at, said]
    allowed = logits.clone()
    allowed[:, list(suppressed)] = -torch.inf
    allowed[0, list(suppressed_first)] = -torch.inf
    log_z = torch.logsumexp(allowed, dim=-1)[at]
    return lifted(spoken, log_z, allowed[at, said] == -torch.inf).double().cpu().numpy()


def lifted(spoken: Tensor, log_z: Tensor, is_suppressed: Tensor) -> Tensor:
    """Log-probabilities [K] of logits `spoken` under log-sums `log_z` of all that is not suppressed;
    what is spoken counts among that all the same."""
    import torch

    return spoken - torch.where(is_suppressed, torch.logaddexp(log_z, spoken), log_z)


def aligned_form(text: str) -> str:
    """The text as it is aligned: lower case if it is all in capitals, word for word the same."""
    return text.lower() if text.isupper() else text
