"""The truth about what was learnt: every choice a user has, on speakers of whom nothing was learnt.

All weights are cross-validated by speaker: an utterance is judged by weights that were tuned on
others.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from relisten.core.arrays import IntArray
from relisten.core.bootstrap import BootstrapInterval, paired_bootstrap
from relisten.core.combine import Weights
from relisten.core.error_rates import errors_matrix
from relisten.core.finite import finite_or_none
from relisten.core.scored_lists import speaker_groups
from relisten.core.text import cached_normaliser
from relisten.core.tune import TuningResult, fit_weights, held_out_errors
from relisten.core.types import ASR, CTC, CTC_ADAPTED, LENGTH, TEXT, Hypothesis, NBest
from relisten.io.audio import RATE_HZ
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.load import load_first_pass
from relisten.tasks.loading import load_listeners, load_rescorer
from relisten.tasks.ranking import FAMILIARITY_KEY, STRANGE, rank
from relisten.tasks.second_pass import SecondPass, SecondPassOptions
from relisten.tasks.streams import load_recording

TIMED_UTTERANCES = 16
"""On which real-time factors are measured."""


@dataclass(frozen=True)
class Choice:
    """One way to transcribe, on the held-out speakers. wer: a fraction. gain: over the first pass,
    None of itself. unseen_wer: without references that were also learnt from."""

    name: str
    wer: float
    gain: BootstrapInterval | None
    unseen_wer: float


@dataclass(frozen=True)
class CurvePoint:
    """What a part of the speech gives. duration_s: of what was learnt from. adapted_wer, wer: of
    the recogniser alone, and of the bundle, fractions."""

    duration_s: float
    adapted_wer: float
    wer: float


@dataclass(frozen=True)
class LearningReport:
    """What `learn` found; rates are fractions.

    choices: the first pass, the recogniser as it is now, then each score added, the last one being
    the bundle. over_adapted: gain of the bundle over the adapted recogniser alone. better, worse:
    shares of utterances with fewer and with more errors than the first pass. oracle_wer: of the
    best hypotheses of the lists. real_time_factors: choice → seconds of work per second of speech.
    curve: what parts of the speech give, where it was asked for.
    """

    n_utterances: int
    n_words: int
    n_groups: int
    n_seen: int
    n_strange: int
    choices: tuple[Choice, ...]
    over_adapted: BootstrapInterval
    better: float
    worse: float
    oracle_wer: float
    real_time_factors: dict[str, float]
    tuning: TuningResult
    curve: tuple[CurvePoint, ...] = ()

    @property
    def is_certain(self) -> bool:
        """Whether the bundle is better than the first pass, its whole interval above zero."""
        gain = self.choices[-1].gain
        return gain is not None and gain.absolute_low > 0

    def to_json(self) -> dict[str, object]:
        """The report as learning.json holds it: a rate that is not finite is None."""
        record = {
            "n_utterances": self.n_utterances,
            "n_words": self.n_words,
            "n_groups": self.n_groups,
            "n_seen_references": self.n_seen,
            "n_strange": self.n_strange,
            "choices": [asdict(choice) for choice in self.choices],
            "over_adapted": asdict(self.over_adapted),
            "better": self.better,
            "worse": self.worse,
            "oracle_wer": self.oracle_wer,
            "real_time_factors": self.real_time_factors,
            "weights": dict(self.tuning.weights.values),
            "curve": [asdict(point) for point in self.curve],
        }
        return finite_or_none(record)


def judge(
    scored: Sequence[NBest],
    first_pass: Sequence[NBest],
    adapted: Sequence[NBest],
    seen: Collection[str],
    fallback: Weights,
    seed: int,
) -> LearningReport:
    """The report on held-out lists with all scores; real-time factors are not measured here.

    first_pass, adapted: of the same utterances, what each recogniser decodes by itself. fallback:
    weights for the lists that are marked strange; they are the first pass's own.
    """
    normaliser = fallback.normaliser
    normalise = cached_normaliser(normaliser)
    alone = [{one.id: one for one in lists} for lists in (first_pass, adapted)]
    judged = [
        one
        for one in scored
        if one.hypotheses and one.reference and all(one.id in lists for lists in alone)
    ]
    groups = speaker_groups(judged)

    def fewest_errors(lists: Iterable[Iterable[Hypothesis]]) -> IntArray:
        counts = []
        for utterance, hypotheses in zip(judged, lists, strict=True):
            reference = normalise(utterance.reference or "")
            counts.append(errors_matrix(reference, [normalise(h.text) for h in hypotheses]).min())
        return np.array(counts, np.int64)

    first, taught = (
        fewest_errors([lists[one.id].hypotheses[:1] for one in judged]) for lists in alone
    )
    columns = {"first pass": first, "recogniser fine-tuned, alone": taught}
    is_strange = np.array([one.extra.get(FAMILIARITY_KEY) == STRANGE for one in judged])
    by_fallback = fewest_errors([rank(one, fallback).hypotheses[:1] for one in judged])
    familiar = [one for one, strange in zip(judged, is_strange, strict=True) if not strange]
    known = [
        name
        for name in (TEXT, CTC, CTC_ADAPTED)
        if all(name in h.scores for one in familiar for h in one.hypotheses)
    ]
    tuning = fit_weights(familiar, normaliser, (ASR, *known, LENGTH), seed=seed)
    for n in range(1, len(known) + 1):
        named, chosen = (ASR, *known[:n], LENGTH), by_fallback.copy()
        is_whole = n == len(known)
        chosen[~is_strange] = (
            tuning.held_out_errors
            if is_whole
            else held_out_errors(familiar, normaliser, named, seed=seed)
        )
        label = " + ".join((ASR, *known[:n]))
        columns[f"the bundle: {label}" if is_whole else f"its list by {label}"] = chosen
    n_words = np.array([len(normalise(one.reference or "").split()) for one in judged], np.int64)
    is_new = np.array([one.id not in seen for one in judged])

    def choice(name: str, errors: IntArray) -> Choice:
        gain = None if errors is first else paired_bootstrap(first, errors, n_words, groups)
        return Choice(name, _rate(errors, n_words), gain, _rate(errors[is_new], n_words[is_new]))

    return LearningReport(
        n_utterances=len(judged),
        n_words=int(n_words.sum()),
        n_groups=len(set(groups)),
        n_seen=int((~is_new).sum()),
        n_strange=int(is_strange.sum()),
        choices=tuple(choice(name, errors) for name, errors in columns.items()),
        over_adapted=paired_bootstrap(taught, chosen, n_words, groups),
        better=float((chosen < first).mean()),
        worse=float((chosen > first).mean()),
        oracle_wer=_rate(fewest_errors([one.hypotheses for one in judged]), n_words),
        real_time_factors={},
        tuning=tuning,
    )


def real_time_factors(bundle: str, utterances: Sequence[NBest], source: str) -> dict[str, float]:
    """Seconds of work per second of speech: the first pass, the adapted recogniser, the bundle.

    utterances: of the file `source`; some of them are transcribed by each, models being loaded.
    """
    step = max(1, len(utterances) // TIMED_UTTERANCES)
    some = list(utterances)[::step][:TIMED_UTTERANCES]
    audio = [one for u in some if isinstance(one := load_recording(u, source), np.ndarray)]
    total_s = sum(map(len, audio)) / RATE_HZ
    rescorer = load_rescorer(bundle)
    first = load_first_pass(rescorer.first_pass, language=rescorer.language)
    listeners = load_listeners(bundle)
    second_pass = SecondPass.of(rescorer, listeners, DecodingOptions(), SecondPassOptions())
    bare = [NBest(str(number)) for number in range(len(audio))]
    works = {"first pass": lambda: first.decode(audio, timed=False)}
    [adapted] = listeners.first_passes
    works["recogniser fine-tuned, alone"] = lambda: adapted.decode(audio, timed=False)
    works["the bundle"] = lambda: second_pass.run(bare, audio)  # type: ignore[dict-item,return-value]
    factors = {}
    for name, work in works.items():
        start = time.perf_counter()
        work()
        factors[name] = (time.perf_counter() - start) / max(total_s, 1e-9)
    return factors


def _rate(errors: IntArray, n_words: IntArray) -> float:
    return float(errors.sum()) / max(1, int(n_words.sum()))
