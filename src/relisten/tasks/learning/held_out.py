"""Which utterances are held out, so that what was learnt can be proved on speech that is new."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from relisten.core.text import cached_normaliser
from relisten.core.types import NBest, UsageError
from relisten.io.corpora.common import natural_order
from relisten.tasks.streams import in_chunks

MIN_SPEAKERS = 5
"""Fewer are not representative of those who will speak: recordings are held out instead."""
MAX_RUN = 10
"""Recordings of a run: neighbours in name order, often neighbouring lines of a story."""
RUNS = 4
"""Runs that the held-out part has at least, where recordings are enough: one may be special."""
N_DRAWS = 100
"""Random mixtures of which the best is taken."""

_Groups = Sequence[Sequence[NBest]]
"""Utterances that are held out together."""


def hold_out(
    utterances: Sequence[NBest], share: float, at_most: int, seed: int
) -> tuple[list[NBest], list[NBest]]:
    """(learnt from, held out), both in the order of `utterances`, each of which is in one of them.

    Held out are whole speakers where at least MIN_SPEAKERS are known, most utterances name theirs,
    and one has several; else whole recordings, in runs of neighbours by name, and of these only
    recordings whose texts occur in no other, where enough are such. Of several mixtures, it is the
    one that comes nearest to the share and has the fewest texts that are also learnt from.
    Utterances without a reference are never held out, whoever speaks. Of recordings that are all
    too long for `at_most`, neighbouring segments are held out.
    share: of the duration of the utterances with a reference, where all say theirs, else of their
    number. at_most: utterances, strictly. seed: the same gives the same.
    Raises UsageError where the references are not of two recordings at least.
    """
    if not 0 < share < 1 or at_most < 1:
        raise UsageError(
            f"cannot hold out {share:g} of the speech and at most {at_most} utterances; give a "
            "share between 0 and 1, and at least one utterance"
        )
    candidates = [utterance for utterance in utterances if utterance.reference is not None]
    most = min(at_most, len(candidates) - 1)
    share = min(share, at_most / max(len(candidates), 1))
    texts = {utterance.id: _text(utterance) for utterance in candidates}
    draw = random.Random(seed)
    for groups in (_speakers(candidates), _runs(candidates, texts, share, most)):
        if held := _best_mixture(groups, candidates, texts, share, most, draw):
            learnt = [utterance for utterance in utterances if utterance.id not in held]
            return learnt, [utterance for utterance in utterances if utterance.id in held]
    n = len(_by_recording(candidates))
    raise UsageError(
        f"nothing can be held out of {n} transcribed recording{'' if n == 1 else 's'}: it takes "
        "two, one to learn from and one to prove it; name more speech"
    )


def seen_references(held_out: Iterable[NBest], learnt: Iterable[NBest]) -> set[str]:
    """The ids of held-out utterances whose reference is one of those learnt from, but for case and
    punctuation."""
    known = {_text(utterance) for utterance in learnt} - {""}
    return {utterance.id for utterance in held_out if _text(utterance) in known}


def _text(utterance: NBest) -> str:
    return cached_normaliser("basic")(utterance.reference or "")


def _speakers(candidates: Sequence[NBest]) -> _Groups:
    """The utterances of each speaker; none where too few speakers are known, or all speak once:
    then neighbours in runs are as new, and names may be those of utterances."""
    groups: dict[str, list[NBest]] = defaultdict(list)
    for utterance in candidates:
        if utterance.speaker:
            groups[utterance.speaker].append(utterance)
    n_known = sum(map(len, groups.values()))
    is_known = MIN_SPEAKERS <= len(groups) < n_known and 2 * n_known >= len(candidates)
    return [*groups.values()] if is_known else []


def _runs(
    candidates: Sequence[NBest], texts: Mapping[str, str], share: float, most: int
) -> _Groups:
    """Runs of neighbouring recordings; none where there is only one recording.

    texts: id → normalised reference. Recordings are left out of their run that have a text of
    another one, unless too few remain then. One of more than `most` utterances counts as several,
    each of neighbouring segments.
    """
    by_name = _by_recording(candidates)
    if len(by_name) < 2:
        return []
    recordings: list[list[NBest]] = []
    for name in sorted(by_name, key=natural_order):
        some = sorted(by_name[name], key=lambda utterance: utterance.start_s)
        size = len(some) if len(some) <= most else math.ceil(most / RUNS)
        recordings += in_chunks(some, size)
    occurs = Counter(text for some in recordings for text in {texts[u.id] for u in some} - {""})
    are_own = [all(occurs[texts[u.id]] < 2 for u in some) for some in recordings]
    n_own = sum(len(some) for some, is_own in zip(recordings, are_own, strict=True) if is_own)
    if n_own < 2 * share * len(candidates):
        are_own = [True] * len(recordings)
    length = min(MAX_RUN, max(1, int(share * len(recordings) / RUNS)))
    runs = []
    for first in range(0, len(recordings), length):
        run = zip(recordings[first : first + length], are_own[first : first + length], strict=True)
        runs.append([utterance for some, is_own in run if is_own for utterance in some])
    return [run for run in runs if run]


def _by_recording(candidates: Sequence[NBest]) -> dict[str, list[NBest]]:
    """Name of a recording → its utterances."""
    found: dict[str, list[NBest]] = defaultdict(list)
    for utterance in candidates:
        found[utterance.audio or utterance.id].append(utterance)
    return found


def _best_mixture(
    groups: _Groups,
    candidates: Sequence[NBest],
    texts: Mapping[str, str],
    share: float,
    most: int,
    draw: random.Random,
) -> set[str]:
    """The ids of the best of N_DRAWS random mixtures of groups; none where all are too large.

    texts: id → normalised reference. most: utterances of a mixture.
    """
    is_timed = all(utterance.duration_s for utterance in candidates)

    def size(utterances: Iterable[NBest]) -> float:
        return sum(u.duration_s or 0.0 if is_timed else 1.0 for u in utterances)

    target = share * size(candidates)
    small = [(group, size(group)) for group in groups if len(group) <= most]
    occurs = Counter(texts.values())
    best: list[NBest] = []
    least = math.inf
    for _ in range(N_DRAWS if small else 0):
        held: list[NBest] = []
        total = 0.0
        for group, more in draw.sample(small, len(small)):
            is_nearer = abs(total + more - target) < abs(total - target)
            if len(held) + len(group) <= most and (is_nearer or not held):
                held += group
                total += more
        within = Counter(texts[utterance.id] for utterance in held)
        n_seen = sum(within[text] for text in within if text and within[text] < occurs[text])
        cost = abs(total - target) / target + n_seen / len(held)
        if cost < least:
            best, least = held, cost
    return {utterance.id for utterance in best}
