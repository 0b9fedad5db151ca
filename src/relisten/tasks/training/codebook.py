"""Fourth stage: the codebook, whose units the speech of every example gets. Its artefact is the
bundle's codebook.safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relisten.io.bundle import CODEBOOK
from relisten.speech.codebook import Codebook, fit_codebook
from relisten.tasks.training.examples import Example
from relisten.tasks.training.features import FeatureSpec
from relisten.tasks.training.keys import key


@dataclass(frozen=True)
class CodebookConfig:
    """Codebook of speech units."""

    units: int = key(500, "Codes of each level.")
    levels: int = key(1, "Levels of residual quantisation.")


def codebook_of(
    config: CodebookConfig,
    output: Path,
    examples: Sequence[Example],
    spec: FeatureSpec,
    seed: int,
) -> Codebook:
    """The codebook in the folder `output`, fitted on the examples where there is none yet."""
    path = output / CODEBOOK
    if not path.exists():
        frames = (e.speech.frames for e in examples if e.speech.frames is not None)
        fitted = fit_codebook(frames, spec.encoder.id, config.units, config.levels, seed=seed)
        # Fitted on frames that are pooled already, used on frames that are not.
        replace(fitted, pool=spec.pool).save(path)
    return Codebook.load(path)


def add_codes(examples: Sequence[Example], codebook: Codebook) -> None:
    """Give each example's speech its units; its frames are pooled already."""
    of_pooled = replace(codebook, pool=1)
    for example in examples:
        assert example.speech.frames is not None
        example.speech = replace(example.speech, codes=of_pooled.units(example.speech.frames))
