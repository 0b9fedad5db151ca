"""The checks of `relisten doctor` on references and texts, and the lists that it checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from relisten.core.arrays import FloatArray, IntArray
from relisten.core.biasing import is_injected
from relisten.core.combine import in_first_pass_order, merge_hypotheses
from relisten.core.error_rates import errors_matrix
from relisten.core.leakage import Seen, TrainingOverlap
from relisten.core.length_bounds import is_loop, is_too_fast, within_length_bounds
from relisten.core.list_statistics import errors_of_best
from relisten.core.text import Normaliser
from relisten.core.types import NBest
from relisten.tasks.leakage import SeenByModels

Status = Literal["ok", "look here", "broken", "cannot tell"]

FEW_DISTINCT = 2.0  # texts per list on average; below it there is little choice
SMALL_HEADROOM = 0.1  # of the first pass's errors that an oracle would avoid
STILL_GROWING = 0.1  # of the headroom that comes from the second half of the list
MANY_COPIES = 0.05  # of all hypotheses

LONGER_LISTS = "make longer lists: relisten nbest MANIFEST -o NBEST --beam 20 --n-best 20"


@dataclass(frozen=True, slots=True)
class Check:
    """One question about the lists and its answer.

    finding: what was measured, with its numbers. meaning: what follows from it, "" where nothing
    is wrong. remedy: what to do, or a command; FILE stands for the file that was read. statistics:
    the numbers by name; NaN where one cannot be computed.
    """

    name: str
    status: Status
    finding: str
    meaning: str = ""
    remedy: str = ""
    statistics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Lists:
    """N-best lists in first-pass order, without hypotheses that were injected later.

    merged: the same, with texts that are equal under `normalise` merged, as they are ranked.
    training: what the models that scored them have seen of them; those that a model was trained on
    are left out. seen: ids of those whose reference a model was trained on.
    """

    utterances: Sequence[NBest]
    merged: Sequence[NBest]
    normalise: Normaliser
    training: TrainingOverlap = field(default_factory=TrainingOverlap)
    seen: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, utterances: Iterable[NBest], normalise: Normaliser, models: Iterable[str] = ()
    ) -> Lists:
        """models: those to ask what they were trained on, besides those that gave the scores."""
        seen_by, found = SeenByModels(models), dict[str, Seen | None]()
        ordered = []
        for one in utterances:
            if (seen := seen_by.of(one)) != "utterance":
                ordered.append(in_first_pass_order(_without_injected(one)))
                found[one.id] = seen
        merged = [merge_hypotheses(one, normalise) for one in ordered]
        seen_ids = frozenset(id for id, seen in found.items() if seen)
        return cls(ordered, merged, normalise, seen_by.overlap(), seen_ids)

    @cached_property
    def known(self) -> list[NBest]:
        """The merged lists whose reference is known."""
        return [one for one in self.merged if one.reference is not None]

    @cached_property
    def best_errors(self) -> IntArray:
        """The fewest errors among the first n of each known list, int64 [U, N]."""
        texts = [self.texts(one) for one in self.known]
        return errors_of_best(texts, [self.normalise(one.reference or "") for one in self.known])

    @cached_property
    def n_words(self) -> IntArray:
        """Reference words of the known lists, int64 [U]."""
        counts = [len(self.normalise(one.reference or "").split()) for one in self.known]
        return np.array(counts, dtype=np.int64)

    @cached_property
    def wer_at(self) -> FloatArray:
        """WER of the best among the first n, float64 [N]: the first pass's … the oracle's."""
        return np.asarray(self.best_errors.sum(axis=0) / max(1, int(self.n_words.sum())))

    def texts(self, utterance: NBest) -> list[str]:
        """The normalised texts of its hypotheses."""
        return [self.normalise(hypothesis.text) for hypothesis in utterance.hypotheses]

    def errors(self, utterance: NBest) -> IntArray:
        """Word errors of each of its hypotheses, int64 [N]."""
        return errors_matrix(self.normalise(utterance.reference or ""), self.texts(utterance))

    def scored(self, component: str) -> list[tuple[NBest, FloatArray]]:
        """The utterances with two or more hypotheses that all have the score; and its values."""
        return [
            (one, np.array([h.scores[component] for h in one.hypotheses], dtype=np.float64))
            for one in self.utterances
            if len(one.hypotheses) > 1 and all(component in h.scores for h in one.hypotheses)
        ]


def _without_injected(utterance: NBest) -> NBest:
    kept = tuple(h for h in utterance.hypotheses if not is_injected(h))
    return replace(utterance, hypotheses=kept)


def check_references(lists: Lists) -> Check:
    """Are there references to count errors by?"""
    n, n_known = len(lists.utterances), len(lists.known)
    counts = {"utterances": float(n), "with_reference": float(n_known)}
    finding = f"{n_known:,} of {n:,} utterances have one"
    if n_known == n:
        speakers = {one.speaker for one in lists.known} - {None}
        finding += f", by {len(speakers):,} speakers" if len(speakers) > 1 else ", speakers unknown"
        return Check("references", "ok", finding, statistics=counts)
    remedy = "add the key `reference` to the lines, or name a file that has it: --manifest MANIFEST"
    if n_known:
        meaning = "errors are counted on those alone"
        return Check("references", "look here", finding, meaning, remedy, counts)
    meaning = (
        "the oracle error rate, whether scores prefer fewer errors, and the gain of rescoring "
        "cannot be computed"
    )
    return Check("references", "cannot tell", finding, meaning, remedy, counts)


def check_training(lists: Lists) -> Check | None:
    """Have the models that scored the lists seen them in training? None where none says."""
    overlap = lists.training
    if not overlap.models and not overlap.silent:
        return None
    finding = "; ".join(overlap.sentences())
    if not overlap.models:
        return Check("training", "cannot tell", finding)
    statistics = {
        "trained_on_utterances": float(overlap.n_utterances),
        "seen_references": float(overlap.n_references),
    }
    if overlap.n_utterances:
        meaning = "what a model was trained on says nothing of other speech; it is left out here"
        remedy = "take other development speech"
        return Check("training", "look here", finding, meaning, remedy, statistics)
    if overlap.n_references:
        meaning = "a language model knows sentences that it was trained on; see the rates without"
        return Check("training", "look here", finding, meaning, "", statistics)
    return Check("training", "ok", finding, statistics=statistics)


def check_choice(lists: Lists) -> Check:
    """Is there enough to choose from?"""
    n_distinct = np.array([len(one.hypotheses) for one in lists.merged])
    n_written = float(np.mean([len(one.hypotheses) for one in lists.utterances]))
    distinct, single = float(n_distinct.mean()), float((n_distinct < 2).mean())
    statistics = {"distinct_per_list": distinct, "share_of_single": single}
    finding = (
        f"{distinct:.1f} different texts per list (of {n_written:.1f} written); {single:.0%} of "
        "the lists offer no choice"
    )
    is_poor, is_growing = distinct < FEW_DISTINCT, False
    if lists.known:
        wers = lists.wer_at
        is_listed = [
            lists.normalise(one.reference or "") in lists.texts(one) for one in lists.known
        ]
        finding += (
            f"; the oracle WER is {wers[-1]:.2%}, the first pass's {wers[0]:.2%}, and "
            f"{np.mean(is_listed):.0%} contain the reference"
        )
        avoided, late = wers[0] - wers[-1], wers[(len(wers) - 1) // 2] - wers[-1]
        is_poor = is_poor or bool(avoided < SMALL_HEADROOM * wers[0])
        is_growing = bool(avoided and late >= STILL_GROWING * avoided)
        statistics["headroom"] = float(avoided / wers[0]) if wers[0] else 0.0
        statistics["reference_on_list"] = float(np.mean(is_listed))
        statistics |= {f"oracle_wer_at_{n}": float(wer) for n, wer in enumerate(wers, 1)}
    if is_poor:
        meaning = "too little to choose from"
        return Check("choice", "look here", finding, meaning, LONGER_LISTS, statistics)
    if is_growing:
        finding += "; longer lists would contain more still"
    return Check("choice", "ok", finding, statistics=statistics)


def check_copies(lists: Lists) -> Check:
    """Are lists padded with copies?"""
    n_all = n_different = 0
    for one in lists.utterances:
        n_all += len(one.hypotheses)
        n_different += len({(h.text, tuple(sorted(h.scores.items()))) for h in one.hypotheses})
    share = 1 - n_different / max(1, n_all)
    finding = f"{share:.1%} of the hypotheses repeat an earlier one, text and scores"
    statistics = {"share_of_copies": share}
    if share < MANY_COPIES:
        return Check("copies", "ok", finding, statistics=statistics)
    meaning = "lists are padded with copies, and merging counts k copies as k times as probable"
    remedy = "export each hypothesis once; short lists are welcome"
    return Check("copies", "broken", finding, meaning, remedy, statistics)


def check_lengths(lists: Lists) -> Check:
    """Do hypotheses repeat a phrase over and over, or hold more words than anybody can say?"""
    n_all = n_loops = n_fast = n_chosen = n_far = 0
    examples: list[str] = []
    for one in lists.utterances:
        loops = [is_loop(h.text) for h in one.hypotheses]
        fast = [is_too_fast(h.text, one.duration_s) for h in one.hypotheses]
        n_all, n_loops, n_fast = n_all + len(loops), n_loops + sum(loops), n_fast + sum(fast)
        n_far += int((~within_length_bounds(one)).sum())
        n_chosen += any(loops[:1]) or any(fast[:1])
        examples += [one.id] if any(loops) or any(fast) else []
    finding = (
        f"{n_loops:,} of {n_all:,} hypotheses are repetition loops, {n_fast:,} have more words "
        f"than can be said in their time, {n_far:,} are out of bounds for their list"
    )
    counts = {"loops": n_loops, "too_fast": n_fast, "first": n_chosen, "out_of_bounds": n_far}
    statistics = {name: float(n) for name, n in counts.items()}
    if not examples:
        return Check("lengths", "ok", finding, statistics=statistics)
    meaning = (
        f"the recogniser loops, first in {', '.join(map(repr, examples[:3]))}; in {n_chosen:,} "
        "lists it is its own choice; without a score of the speech such texts are ranked last"
    )
    remedy = (
        "export the lists anew without conditioning on the text before, or with a bound on "
        "repeated n-grams; a score of the speech tells loops, too: relisten score FILE -o SCORED"
    )
    return Check("lengths", "look here", finding, meaning, remedy, statistics)
