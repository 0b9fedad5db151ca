"""Cross-fitting by speaker: what a CTC head and a projector that were not trained on a speaker make
of that speaker's words.

The bundle's own have been trained on its training speakers and are too good on them: an LM that was
shown their guesses would trust them too much on anybody else.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from relisten.core.types import UsageError
from relisten.lm.model import SpeechTextLM
from relisten.lm.training import projector_guesses
from relisten.speech.ctc.head import CTCHead
from relisten.tasks.training.examples import Example
from relisten.tasks.training.features import frames_for

FORMER_CTC_FOLDS = "ear-fold*.safetensors"
"""The CTC heads of the folds under the name that an earlier version gave them."""


def fold_of(speaker: str, folds: int) -> int:
    """The fold that a speaker is held out in."""
    return int(hashlib.sha256(speaker.encode()).hexdigest(), 16) % folds


def add_ctc_log_probs(example: Example, ctc_head: CTCHead | None) -> None:
    """Give an example's speech the log-probabilities of a CTC head, if there is one."""
    if ctc_head is not None:
        example.set_ctc_log_probs(ctc_head.log_probs(frames_for(ctc_head, example.cached)))


class CrossFitted:
    """The CTC heads and projectors of the folds of the run that made a bundle.

    folder: the run's state. model: the bundle's; where it has a projector, the folds must have
    theirs. Raises UsageError where it is the state of another bundle's run.
    """

    def __init__(self, folder: Path, model: SpeechTextLM) -> None:
        paths = sorted(folder.glob("ctc-fold*.safetensors"))
        paths = paths or sorted(folder.glob(FORMER_CTC_FOLDS))
        self._ctc_heads = [CTCHead.load(path) for path in paths]
        own = model.extension.projector if model.extension else None
        paths = sorted(folder.glob("projector-fold*.safetensors")) if own else []
        if not (paths if own else self._ctc_heads):
            raise UsageError(
                f"{folder}: no {'projectors' if own else 'CTC heads'} of folds for this bundle; "
                "name the folder `state` of the run of `relisten pretrain` that made it, or leave "
                "folds_of out"
            )
        self._table = model.text_embedding.weight.detach().float().cpu()
        self._own = copy.deepcopy(own).cpu().eval() if own else None
        self._projectors = []
        for path in paths:
            projector = copy.deepcopy(self._own)
            assert projector is not None
            projector.load_state_dict(load_file(path))
            self._projectors.append(projector.eval())

    def ctc_head(self, speaker: str) -> CTCHead | None:
        """The CTC head that was not trained on the speaker; None where the bundle has none."""
        return self._ctc_heads[fold_of(speaker, len(self._ctc_heads))] if self._ctc_heads else None

    def guesses(self, chunks: np.ndarray, speaker: str | None) -> np.ndarray:
        """What is guessed for the speaker's chunks [n, F]: float32 [n, E]; by the bundle's own
        projector for None, somebody that none was trained on."""
        projector = self._own
        if speaker is not None:
            projector = self._projectors[fold_of(speaker, len(self._projectors))]
        assert projector is not None, "this bundle has no projector"
        return projector_guesses(projector, self._table, chunks)
