"""What is heard in a speaker's words by those that never heard the speaker (cross-fitting)."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from relisten.core.types import UsageError
from relisten.lm.model import SpeechTextLM
from relisten.lm.training import projector_guesses
from relisten.speech.ctc.head import CTCHead
from relisten.tasks.training.cache import frames_for
from relisten.tasks.training.examples import Example, fold_of

FORMER_FOLDS = "ear-fold*.safetensors"
"""The CTC heads of the folds under the name that an earlier version gave them."""


class CrossFitted:
    """The CTC heads and projectors of the folds of the run that made a bundle.

    The bundle's own have heard its training speakers and are too good on them: an LM that was shown
    their guesses would trust them too much on anybody else.
    folder: the run's state. model: the bundle's. Raises UsageError where it is another's.
    """

    def __init__(self, folder: Path, model: SpeechTextLM) -> None:
        from safetensors.torch import load_file

        paths = sorted(folder.glob("projector-fold*.safetensors"))
        if not paths or model.extension is None or model.extension.projector is None:
            raise UsageError(
                f"{folder}: no projectors of folds for this bundle; name the folder `state` of the "
                "run of `relisten pretrain` that made it, or leave folds_of out"
            )
        self._table = model.text_embedding.weight.detach().float().cpu()
        self._own = copy.deepcopy(model.extension.projector).cpu().eval()
        self._projectors = []
        for k in range(len(paths)):
            projector = copy.deepcopy(self._own)
            projector.load_state_dict(load_file(folder / f"projector-fold{k}.safetensors"))
            self._projectors.append(projector.eval())
        paths = [*folder.glob("ctc-fold*.safetensors")] or [*folder.glob(FORMER_FOLDS)]
        self._ctc_heads = [CTCHead.load(path) for path in sorted(paths)]

    def ctc_head(self, speaker: str) -> CTCHead | None:
        """The CTC head that never heard the speaker; None where the bundle has none."""
        return self._ctc_heads[fold_of(speaker, len(self._ctc_heads))] if self._ctc_heads else None

    def guesses(self, chunks: np.ndarray, speaker: str | None) -> np.ndarray:
        """What is guessed for the speaker's chunks [n, F]: float32 [n, E]; by the bundle's own
        projector for None, somebody that none has heard."""
        projector = self._own
        if speaker is not None:
            projector = self._projectors[fold_of(speaker, len(self._projectors))]
        return projector_guesses(projector, self._table, chunks)


def add_ctc_log_probs(example: Example, ctc_head: CTCHead | None) -> None:
    """Give an example's speech the letters that the CTC head hears in it, if there is one."""
    if ctc_head is not None:
        example.set_ctc_log_probs(ctc_head.log_probs(frames_for(ctc_head, example.cached)))
