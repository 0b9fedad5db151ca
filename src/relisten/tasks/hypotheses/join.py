"""Hypotheses of several recognisers, and of none, in one list on the scale of the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from relisten.core.text import Normaliser, spoken_words
from relisten.core.types import ASR, Hypothesis, UsageError
from relisten.speech.first_pass import FirstPass, FirstPassResult

CLOSING = ".!?"

Groups = dict[str, list[str]]
"""Normalised text → the ways it is written on the list, no two the same; in the list's order."""


def join_lists(
    recordings: Sequence[np.ndarray],
    recognisers: Sequence[FirstPass],
    decoded: Sequence[Sequence[FirstPassResult]],
    further: Sequence[Sequence[Hypothesis]],
    normalise: Normaliser,
    timed: bool = True,
) -> list[tuple[Hypothesis, ...]]:
    """One list a recording: the first recogniser's, then the others', then `further`.

    decoded: of each recogniser, one a recording. further: hypotheses of any origin, a list a
    recording; of these only text and extra count, and scores they have are dropped.
    Texts that `normalise` makes equal are one hypothesis. Its `asr` is its log-probability under
    the first recogniser, `asr.NAME` that under each other one: each the log-sum-exp over the ways
    the text is written on the list, as far as they differ to that recogniser (`tokens`). What a
    recogniser proposed has the score it gave; all else is teacher-forced. Text and word ends are
    the first recogniser's own where it proposed the text, and else its word ends for the text as
    it came; one that is all in one case is written like the first recogniser's (`written_like`).
    timed: whether what is teacher-forced gets word ends.
    """
    groups = [
        _groups([results[u].hypotheses for results in decoded], further[u], normalise)
        for u in range(len(recordings))
    ]
    columns = [
        _ratings(recordings, recogniser, results, groups, normalise, timed)
        for recogniser, results in zip(recognisers, decoded, strict=True)
    ]
    names = [ASR, *(f"{ASR}.{recogniser.name}" for recogniser in recognisers[1:])]
    joined = []
    for u, its_groups in enumerate(groups):
        own = [h.text for h in decoded[0][u].hypotheses]
        extra: dict[str, dict[str, object]] = {}
        for given in further[u]:
            extra.setdefault(normalise(written_like(given.text, own)), {}).update(given.extra)
        hypotheses = []
        for key in its_groups:
            rated = [column[u][key] for column in columns]
            scores = {
                name: float(np.logaddexp.reduce([h.scores[ASR] for h in its]))
                for name, its in zip(names, rated, strict=True)
            }
            first = rated[0][0]
            hypotheses.append(
                Hypothesis(first.text, scores, first.word_ends_s, extra=extra.get(key, {}))
            )
        joined.append(tuple(hypotheses))
    return joined


def check_names(recognisers: Sequence[FirstPass]) -> None:
    """Raises UsageError where two recognisers would keep their scores under one name."""
    for name, n in Counter(recogniser.name for recogniser in recognisers).items():
        if n > 1:
            raise UsageError(f"{n} first passes are called {name!r}; name each of them once")


def written_like(text: str, models: Sequence[str]) -> str:
    """A text all in one case, written as in `models`, texts of the same recording, best first.

    Each word takes the form that it has most often in them, the first word a capital and the last
    the closing mark of the best one. Other texts, and all where there is no model, stay as they
    are.
    """
    if not models or not models[0] or not (text.islower() or text.isupper()):
        return text
    inner, opening = _forms(tuple(models))
    fallback = str.upper if models[0].isupper() else str.lower
    forms = [
        inner[spoken_word] if spoken_word in inner else opening.get(spoken_word, fallback(word))
        for word, spoken_word in zip(text.split(), spoken_words(text), strict=True)
    ]
    written = " ".join(forms)
    if models[0][0].isupper():
        written = written[:1].upper() + written[1:]
    mark = models[0][len(models[0].rstrip(CLOSING)) :]
    return written.rstrip(CLOSING) + mark


@lru_cache(maxsize=16)
def _forms(models: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """How words are written most often inside texts, and the first of them at the beginning.

    Kept: the texts of one recording are asked about many times.
    """
    seen: dict[str, Counter[str]] = {}
    opening: dict[str, str] = {}
    for model in models:
        words = model.rstrip(CLOSING).split()
        for place, (word, spoken_word) in enumerate(
            zip(words, spoken_words(" ".join(words)), strict=True)
        ):
            if place:
                seen.setdefault(spoken_word, Counter())[word] += 1
            else:  # its capital may be the sentence's
                opening.setdefault(spoken_word, word)
    return {spoken_word: forms.most_common(1)[0][0] for spoken_word, forms in seen.items()}, opening


def _groups(
    lists: Sequence[Sequence[Hypothesis]], further: Sequence[Hypothesis], normalise: Normaliser
) -> Groups:
    own = [h.text for h in lists[0]]
    others = [h.text for some in (*lists[1:], further) for h in some]
    groups: Groups = {}
    for text in dict.fromkeys([*own, *(written_like(text, own) for text in others)]):
        groups.setdefault(normalise(text), []).append(text)
    return groups


def _ratings(
    recordings: Sequence[np.ndarray],
    recogniser: FirstPass,
    results: Sequence[FirstPassResult],
    groups: Sequence[Groups],
    normalise: Normaliser,
    timed: bool,
) -> list[dict[str, list[Hypothesis]]]:
    """For each recording, under each key of its groups: the recogniser's own hypotheses, then what
    else is written there, teacher-forced; no token sequence twice, and never none."""
    rated: list[dict[str, list[Hypothesis]]] = []
    missing: list[list[tuple[str, str]]] = []
    for result, its_groups in zip(results, groups, strict=True):
        own: dict[str, list[Hypothesis]] = {key: [] for key in its_groups}
        for hypothesis in result.hypotheses:
            # A text that was rewritten to join the list may stand under another key there.
            own.setdefault(normalise(hypothesis.text), []).append(hypothesis)
        lacking = []
        for key, texts in its_groups.items():
            known = {recogniser.tokens(hypothesis.text) for hypothesis in own[key]}
            for text in texts:
                if (tokens := recogniser.tokens(text)) not in known:
                    known.add(tokens)
                    lacking.append((key, text))
        rated.append(own)
        missing.append(lacking)
    for recording, result, own, lacking in zip(recordings, results, rated, missing, strict=True):
        scorer = recogniser.scorer(recording, result.window)
        forced = scorer.score([text for _, text in lacking], timed=timed)
        for (key, _), hypothesis in zip(lacking, forced, strict=True):
            own[key].append(hypothesis)
    return rated
