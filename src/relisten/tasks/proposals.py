"""Hypotheses off the list: what a bundle's ear spells, and mixtures of that and the list's own.

The right text may not be on the list; word by word, though, it mostly stands somewhere, in a
hypothesis or in what the ear spells. So texts exchange stretches in which they differ, and compete
by what the first pass and the ear say of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from relisten.core.recombination import Words, recombinations
from relisten.core.text import spoken
from relisten.core.types import ASR, LETTERS, Hypothesis, ModelError, UsageError
from relisten.lm.sequences import Speech
from relisten.speech.beam import Spelling, ctc_beam
from relisten.speech.ear import BLANK, Ear
from relisten.speech.first_pass import FirstPass, Listening
from relisten.tasks.joined import written_like
from relisten.tasks.loading import Listener

BEAM = 64
"""Spellings kept while an utterance is spelled, at least; more where more are asked for."""
N_SPELLED = 20
"""Spellings, the likeliest, that are mixed with the list's hypotheses."""
ROUNDS, N_BASES, N_DONORS, N_MIXED = 2, 3, 30, 25
"""How often texts are mixed; how many, the best so far, take words; how many give some; and how
many of the new ones, the likeliest to the ear, the first pass is asked about."""
LETTERS_WEIGHT, LENGTH_WEIGHT = 0.3, 0.45
"""Of log P(letters | speech) and of a word beside the first pass's score, while texts compete."""


@dataclass(frozen=True)
class Proposer:
    """Spells what an ear hears. n: texts that it proposes for a recording. spelling: the words it
    may use; None: any letters."""

    listener: Listener
    ear: Ear
    n: int
    spelling: Spelling | None

    def propose(
        self,
        recordings: Sequence[np.ndarray],
        first_pass: FirstPass,
        listenings: Sequence[Listening],
        speeches: Sequence[Speech],
    ) -> list[list[Hypothesis]]:
        """The n best texts off the list of each recording, best first, without scores.

        listenings, speeches: what the first pass made of the recordings, and what `hear` did.
        """
        return [
            self._propose(recording, first_pass, listening, speech)
            for recording, listening, speech in zip(recordings, listenings, speeches, strict=True)
        ]

    def _propose(
        self, recording: np.ndarray, first_pass: FirstPass, listening: Listening, speech: Speech
    ) -> list[Hypothesis]:
        letters = speech.letters
        assert letters is not None
        own = [h.text for h in listening.hypotheses]

        def by_ear(texts: Sequence[Words]) -> np.ndarray:
            return self.ear.score(letters, [" ".join(words) for words in texts])

        def by_first_pass(texts: Sequence[Words]) -> np.ndarray:
            written = [written_like(" ".join(words), own) for words in texts]
            [given] = first_pass.score([recording], [written], [listening.window], timed=False)
            return np.array([hypothesis.scores[ASR] for hypothesis in given])

        on_list = {tuple(spoken(text).split()): None for text in own}
        found = search([*on_list], self._spell(letters), by_first_pass, by_ear)
        new = [words for words in found if words not in on_list]
        return [Hypothesis(" ".join(words)) for words in new[: self.n]]

    def hear(
        self,
        recordings: Sequence[np.ndarray],
        first_pass: FirstPass,
        listenings: Sequence[Listening],
    ) -> list[Speech]:
        """The letters in recordings of which the first pass has made listenings."""
        return self.listener.hear_beside(first_pass, (LETTERS,), recordings, listenings)

    def _spell(self, letters: np.ndarray) -> list[Words]:
        """The likeliest spellings, best first."""
        n = max(self.n, N_SPELLED)
        log_probs = letters.reshape(-1, letters.shape[-1])
        found = ctc_beam(log_probs, max(BEAM, n), BLANK, self.spelling)
        texts = ("".join(self.ear.alphabet[i - 1] for i in ids).split() for ids in found)
        return [words for words in dict.fromkeys(map(tuple, texts)) if words][:n]


def search(
    own: Sequence[Words],
    spelled: Sequence[Words],
    by_first_pass: Callable[[Sequence[Words]], np.ndarray],
    by_ear: Callable[[Sequence[Words]], np.ndarray],
) -> list[Words]:
    """Texts of a list, spelled ones and mixtures of all, best first.

    by_first_pass, by_ear: the log-probabilities of texts, nats, float64 [N].
    """
    values: dict[Words, float] = {}

    def rate(texts: Sequence[Words], heard: np.ndarray) -> None:
        lengths = np.array([len(words) for words in texts])
        rated = by_first_pass(texts) + LETTERS_WEIGHT * heard + LENGTH_WEIGHT * lengths
        values.update(zip(texts, rated.tolist(), strict=True))

    first = list(dict.fromkeys([*own, *spelled]))
    if first:
        rate(first, by_ear(first))
    seen = set(first)
    for _ in range(ROUNDS):
        best = sorted(values, key=values.__getitem__, reverse=True)
        mixed = [m for base in best[:N_BASES] for m in recombinations(base, best[:N_DONORS])]
        new = [words for words in dict.fromkeys(mixed) if words not in seen]
        if not new:
            break
        seen.update(new)
        heard = by_ear(new)
        kept = np.argsort(-heard, kind="stable")[:N_MIXED]
        rate([new[i] for i in kept], heard[kept])
    return sorted(values, key=values.__getitem__, reverse=True)


def make_proposer(listener: Listener, n: int, words: str | None = None) -> Proposer:
    """A proposer of n texts. words: a file of text; only its words are spelled.

    By default those that the ear was trained on; any letters where nobody wrote them down.
    Raises ModelError where there is no ear, UsageError where the file has no word for it.
    """
    ear = listener.ear
    if ear is None:
        raise ModelError("this model has no ear to propose by; `relisten pretrain` trains one")
    words = words or listener.words
    return Proposer(listener, ear, n, None if words is None else _spelling(words, ear))


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
