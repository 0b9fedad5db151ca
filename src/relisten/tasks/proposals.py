"""Hypotheses that a bundle's ear spells by itself, so that the answer may lie off the list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relisten.core.text import spoken
from relisten.core.types import Hypothesis, ModelError, UsageError
from relisten.speech.beam import Spelling, ctc_beam
from relisten.speech.ear import BLANK, Ear
from relisten.speech.encoders import SpeechEncoder
from relisten.tasks.loading import Listener, load_listener

BEAM = 64
"""Spellings kept while an utterance is spelled, at least; more where more are asked for."""


@dataclass(frozen=True)
class Proposer:
    """Spells what an ear hears. spelling: the words it may use; None: any letters."""

    listener: Listener
    ear: Ear
    n: int
    spelling: Spelling | None

    def propose(
        self,
        recordings: Sequence[np.ndarray],
        encoder: SpeechEncoder,
        frames: Sequence[np.ndarray],
    ) -> list[list[Hypothesis]]:
        """The n likeliest texts of each recording, best first, spoken form, without scores.

        frames: of the recordings, by `encoder`; not used where the ear is for another one's.
        """
        is_own = encoder.id == self.listener.codebook.encoder_id
        proposed = []
        for speech in self.listener.hear(recordings, frames if is_own else None):
            assert speech.letters is not None
            found = ctc_beam(
                speech.letters.reshape(-1, speech.letters.shape[-1]),
                max(BEAM, self.n),
                BLANK,
                self.spelling,
            )
            texts = ("".join(self.ear.alphabet[i - 1] for i in letters) for letters in found)
            distinct = dict.fromkeys(" ".join(text.split()) for text in texts)
            proposed.append([Hypothesis(text) for text in list(distinct)[: self.n]])
        return proposed


def load_proposer(
    model: str, n: int, words: str | None = None, device: str = "auto", dtype: str = "auto"
) -> Proposer:
    """The proposer of a bundle. words: a file of text; only its words are spelled.

    Raises ModelError where the bundle has no ear, UsageError where the file has no word for it.
    """
    listener = load_listener(model, device, "auto" if dtype == "int8" else dtype)
    ear = listener.ear
    if ear is None:
        raise ModelError(f"{model}: it has no ear to propose by; `relisten pretrain` trains one")
    spelling = None
    if words is not None:
        spelling = _spelling(words, ear)
    return Proposer(listener, ear, n, spelling)


def _spelling(path: str, ear: Ear) -> Spelling:
    try:
        with open(path, encoding="utf-8") as file:
            known = {word for line in file for word in spoken(line).split()}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    spelled = sorted(word for word in known if set(word) <= set(ear.alphabet))
    if not spelled or " " not in ear.alphabet:
        raise UsageError(f"{path}: no word in it that the ear has letters for")
    labels = [[1 + ear.alphabet.index(letter) for letter in word] for word in spelled]
    return Spelling.of_words(labels, 1 + ear.alphabet.index(" "), 1 + len(ear.alphabet), BLANK)
