"""Proposed hypotheses: spellings of a bundle's CTC head, and mixtures of these and the list's own.

The right text may not be on the list; word by word, though, it mostly stands somewhere, in a
hypothesis or in a spelling. So texts exchange the words in which they differ, and compete by the
scores that the first pass and the CTC head give them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np

from relisten.core.recombination import Change, Words, recombinations
from relisten.core.text import spoken
from relisten.core.types import ASR, Hypothesis, ModelError, UsageError
from relisten.lm.sequences import Speech
from relisten.speech.ctc.beam import Spelling, ctc_beam
from relisten.speech.ctc.head import BLANK, CTCHead
from relisten.speech.first_pass import FirstPass, FirstPassResult
from relisten.tasks.frontend import SpeechFrontend
from relisten.tasks.hypotheses.join import written_like

BEAM = 64
"""Least width of the beam search over spellings; wider where more proposals are asked for."""
N_SPELLED = 10
"""How many spellings, the likeliest, are mixed with the list's hypotheses."""
ROUNDS, N_BASES, N_DONORS, N_MIXED = 2, 3, 30, 25
"""Rounds of mixing; how many texts, the best so far, take words in each; how many give words; and
how many of the new texts, the likeliest to the CTC head, are scored by the first pass."""
HISTORY_TOKENS = 2
"""Tokens after a difference that the first pass scores before texts that end alike share the rest
of their scores: with 2, 4 and all, proposals for 120 utterances of speechocean dev are as good."""
CTC_WEIGHT, LENGTH_WEIGHT = 0.3, 0.45
"""What the CTC score and a word count for beside the first pass's score, while texts compete."""


@dataclass(frozen=True)
class Proposer:
    """Proposes n hypotheses for a recording. spelling: the words to use; None: any letters."""

    frontend: SpeechFrontend
    ctc_head: CTCHead
    n: int
    spelling: Spelling | None

    def propose(
        self,
        recordings: Sequence[np.ndarray],
        first_pass: FirstPass,
        decoded: Sequence[FirstPassResult],
        speeches: Sequence[Speech],
    ) -> list[list[Hypothesis]]:
        """The n best texts that are not on each recording's list, best first, written like it.

        Their `asr` is the first pass's score, to within what `HISTORY_TOKENS` leaves out; they have
        no word ends. decoded, speeches: results of the first pass and of the frontend.
        """
        return [
            self._propose(recording, first_pass, result, speech)
            for recording, result, speech in zip(recordings, decoded, speeches, strict=True)
        ]

    def _propose(
        self, recording: np.ndarray, first_pass: FirstPass, result: FirstPassResult, speech: Speech
    ) -> list[Hypothesis]:
        ctc_log_probs = speech.ctc_log_probs
        assert ctc_log_probs is not None
        own = [h.text for h in result.hypotheses]
        rated: dict[Words, Hypothesis] = {}
        scorer = first_pass.scorer(recording, result.window, HISTORY_TOKENS)
        ends = cache(partial(self.ctc_head.label_ends, ctc_log_probs))

        def by_first_pass(texts: Sequence[Words]) -> np.ndarray:
            written = [written_like(" ".join(words), own) for words in texts]
            given = scorer.score(written, timed=False)
            rated.update(zip(texts, given, strict=True))
            return np.array([hypothesis.scores[ASR] for hypothesis in given])

        on_list = {tuple(spoken(text).split()): None for text in own}
        found = search(
            [*on_list],
            self._spell(ctc_log_probs),
            by_first_pass,
            lambda texts: self.ctc_head.score(ctc_log_probs, [" ".join(words) for words in texts]),
            lambda base, changes: self.ctc_head.score_changes(
                ctc_log_probs, base, ends(base), changes
            ),
        )
        new = [words for words in found if words not in on_list]
        return [rated[words] for words in new[: self.n]]

    def _spell(self, ctc_log_probs: np.ndarray) -> list[Words]:
        """The likeliest spellings, best first."""
        n = max(self.n, N_SPELLED)
        log_probs = ctc_log_probs.reshape(-1, ctc_log_probs.shape[-1])
        found = ctc_beam(log_probs, max(BEAM, n), BLANK, self.spelling)
        texts = ("".join(self.ctc_head.alphabet[i - 1] for i in ids).split() for ids in found)
        return [words for words in dict.fromkeys(map(tuple, texts)) if words][:n]


def search(
    own: Sequence[Words],
    spelled: Sequence[Words],
    by_first_pass: Callable[[Sequence[Words]], np.ndarray],
    by_ctc: Callable[[Sequence[Words]], np.ndarray],
    by_ctc_changed: Callable[[Words, Sequence[Change]], np.ndarray],
) -> list[Words]:
    """Texts of a list, spelled ones and mixtures of all, best first.

    by_first_pass, by_ctc: the log-probabilities of texts, nats, float64 [N]; by_ctc_changed: what
    changes add to that of a text.
    """
    values: dict[Words, float] = {}
    ctc_scores: dict[Words, float] = {}

    def rate(texts: Sequence[Words]) -> None:
        for words, nats in zip(texts, by_first_pass(texts).tolist(), strict=True):
            values[words] = nats + CTC_WEIGHT * ctc_scores[words] + LENGTH_WEIGHT * len(words)

    first = list(dict.fromkeys([*own, *spelled]))
    if first:
        ctc_scores.update(zip(first, by_ctc(first).tolist(), strict=True))
        rate(first)
    for _ in range(ROUNDS):
        best = sorted(values, key=values.__getitem__, reverse=True)
        new: dict[Words, float] = {}
        for base in best[:N_BASES]:
            mixed = recombinations(base, best[:N_DONORS])
            known = ctc_scores | new
            mixed = {words: how for words, how in mixed.items() if words not in known}
            added = by_ctc_changed(base, list(mixed.values()))
            new.update(zip(mixed, (ctc_scores[base] + added).tolist(), strict=True))
        if not new:
            break
        ctc_scores.update(new)
        rate(sorted(new, key=new.__getitem__, reverse=True)[:N_MIXED])
    return sorted(values, key=values.__getitem__, reverse=True)


def make_proposer(frontend: SpeechFrontend, n: int, words: str | None = None) -> Proposer:
    """A proposer of n texts. words: a file of text; only its words are spelled.

    By default those that the CTC head was trained on; any letters where the bundle does not list
    them.
    Raises ModelError where there is no CTC head, UsageError where the file has no word for it.
    """
    ctc_head = frontend.ctc_head
    if ctc_head is None:
        raise ModelError(
            "this model has no CTC head to propose with; train one: `relisten pretrain`"
        )
    path = words or frontend.words
    spelling = None if path is None else _spelling(_words_of(path), ctc_head.alphabet)
    if path is not None and spelling is None:
        raise UsageError(f"{path}: it holds no word that the CTC head has letters for")
    return Proposer(frontend, ctc_head, n, spelling)


def _words_of(path: str) -> frozenset[str]:
    """The words of a text file, as they are spoken."""
    try:
        with open(path, encoding="utf-8") as file:
            return frozenset(word for line in file for word in spoken(line).split())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error})") from error


@lru_cache(maxsize=4)
def _spelling(words: frozenset[str], alphabet: str) -> Spelling | None:
    """What spells these words; None where the alphabet has no letters for any. Kept: a bundle's
    some thousand words take 0.4 s."""
    spelled = sorted(word for word in words if set(word) <= set(alphabet))
    if not spelled or " " not in alphabet:
        return None
    labels = [[1 + alphabet.index(letter) for letter in word] for word in spelled]
    return Spelling.of_words(labels, 1 + alphabet.index(" "), 1 + len(alphabet), BLANK)
