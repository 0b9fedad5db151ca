"""What is heard in a speaker's words by those that never heard the speaker (cross-fitting)."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from relisten.core.types import UsageError
from relisten.lm.model import SpeechTextLM
from relisten.lm.training import projector_guesses
from relisten.speech.ear import Ear
from relisten.tasks.corpus import frames_for
from relisten.tasks.examples import Example, fold_of


class HeldOut:
    """The ears and projectors of the folds of the run that made a bundle.

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
        self._ears = [Ear.load(path) for path in sorted(folder.glob("ear-fold*.safetensors"))]

    def ear(self, speaker: str) -> Ear | None:
        """The ear that never heard the speaker; None where the bundle has none."""
        return self._ears[fold_of(speaker, len(self._ears))] if self._ears else None

    def guesses(self, chunks: np.ndarray, speaker: str | None) -> np.ndarray:
        """What is guessed for the speaker's chunks [n, F]: float32 [n, E]; by the bundle's own
        projector for None, somebody that none has heard."""
        projector = self._own
        if speaker is not None:
            projector = self._projectors[fold_of(speaker, len(self._projectors))]
        return projector_guesses(projector, self._table, chunks)


def listen(example: Example, ear: Ear | None) -> None:
    """Give an example's speech the letters that the ear hears in it, if there is one."""
    if ear is not None:
        example.hear_letters(ear.hear(frames_for(ear, example.heard)))
