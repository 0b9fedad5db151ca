"""The second pass: hypotheses are expanded, scored in stages, ranked and timed, here and only here.

`transcribe` and `relisten.Rescorer` run all four steps. `nbest`, `score` and `rescore` run one each
and keep its result in a file, so that the three together choose what `transcribe` chooses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from relisten.core.biasing import Biasing, Phrase, parse_phrases
from relisten.core.combine import (
    Weights,
    merge_hypotheses,
    with_context,
)
from relisten.core.decide import Decision
from relisten.core.pruning import prune_by_margin
from relisten.core.rules import NO_RULES, Rules
from relisten.core.text import Normaliser
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import (
    ADAPTED,
    ASR,
    CTC,
    CTC_ADAPTED,
    SPEECH_GIVEN_TEXT,
    TEXT,
    TEXT_GIVEN_SPEECH,
    Hypothesis,
    NBest,
    UsageError,
)
from relisten.tasks.ranking import (
    add_scores,
    marked_strange,
    rank,
)
from relisten.tasks.streams import all_accepted

if TYPE_CHECKING:
    from relisten.lm.sequences import Speech
    from relisten.speech.first_pass import DecodingOptions, FirstPass, FirstPassResult
    from relisten.speech.guard import Guard
    from relisten.tasks.frontend import SpeechFrontend
    from relisten.tasks.hypotheses.propose import Proposer
    from relisten.tasks.loading import Listeners, LoadedRescorer

STAGES = ((CTC, CTC_ADAPTED), (ADAPTED,), (TEXT, TEXT_GIVEN_SPEECH), (SPEECH_GIVEN_TEXT,))
"""Scores by what they cost. The last reads all units behind every text and shares none of them."""
MARGIN = 8.0
"""Nats below the best hypothesis, by the scores known so far, at which one gets no more expensive
scores. Of 1,240 lists with samples and proposals (speechocean dev) it leaves 8.7 of 21.6 texts to
`text`, and 99.2 % of the choices: WER 22.31 instead of 22.35. Not measured for `speech_given_text`.
"""
PROPOSALS = 10
"""Hypotheses that a CTC head adds where its score counts."""


@dataclass(frozen=True, slots=True)
class SecondPassOptions:
    """What happens to the hypotheses of a first pass. Raises UsageError for options that clash."""

    propose: int | None = None
    """Hypotheses that the model's CTC head adds to each list. None: `PROPOSALS` where the model has
    such a head for the language and the weights count its score."""
    words: str | None = None
    """A text file: proposals are spelled with its words alone. None: with those that the CTC head
    was trained on."""
    phrases: tuple[Phrase | str, ...] = ()
    """Names and terms that are likely to be said: a bonus for hypotheses that hold them, and
    hypotheses with a phrase in the place of what sounds like it."""
    weights: Weights | None = None
    """What each score counts for. None: the model's own."""
    decision: Decision = "map"
    """How the combined scores choose; see `relisten.core.decide`."""
    confidence: bool = True
    """Whether the chosen text gets a confidence for each of its words."""
    margin: float | None = MARGIN
    """Nats; see `MARGIN`. None: every hypothesis gets every score."""

    def __post_init__(self) -> None:
        if self.propose is not None and self.propose < 0:
            raise UsageError(f"propose {self.propose}: give 0 or more")
        if self.words is not None and self.propose == 0:
            raise UsageError(
                f"words of {self.words}: nothing is spelled with them; set propose, to 10 say"
            )

    @property
    def phrase_list(self) -> tuple[Phrase, ...]:
        """The phrases, each with its weight."""
        return tuple(Phrase(one) if isinstance(one, str) else one for one in self.phrases)


class Clock:
    """Seconds spent in each stage: `with clock("scores"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: time.perf_counter() - start})

    def add(self, seconds: Mapping[str, float], share: float = 1.0) -> None:
        """Count a share of another clock's seconds here too."""
        for stage, spent in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + share * spent


@dataclass(frozen=True, slots=True)
class Expanded:
    """Utterances with their hypotheses, and what scoring and timing need of them.

    recordings: 16 kHz float32 [T] each. results: of the first recogniser, decoded_by. speeches:
    units and CTC log-probabilities, None where no score asks for them.
    """

    utterances: list[NBest]
    recordings: Sequence[np.ndarray]
    results: Sequence[FirstPassResult]
    speeches: Sequence[Speech | None]
    decoded_by: Sequence[FirstPass]


@dataclass(frozen=True)
class SecondPass:
    """Everything behind the first pass, with its models loaded.

    first_passes: recognisers; the first one rates what the others add. decoding: how they search.
    rescorer: scores and weighs the hypotheses; None where lists are only made. frontend: encodes
    speech and proposes; the rescorer's where there is one. normaliser: texts equal under it are one
    hypothesis, unless merge is off; the weights' own where there is a rescorer. guard: of a taught
    recogniser, which then is the only one; strange speech goes to the one it was before.
    """

    first_passes: Sequence[FirstPass]
    decoding: DecodingOptions
    options: SecondPassOptions
    rescorer: LoadedRescorer | None = None
    frontend: SpeechFrontend | None = None
    proposer: Proposer | None = None
    normaliser: str = "english"
    merge: bool = True
    guard: Guard | None = None
    rules: Rules = NO_RULES

    @classmethod
    def of(
        cls,
        rescorer: LoadedRescorer,
        listeners: Listeners,
        decoding: DecodingOptions,
        options: SecondPassOptions,
    ) -> SecondPass:
        """All four steps with the model's frontend and weights, or those of the options.

        Raises ModelError where the model has no CTC head to propose with.
        """
        weights = options.weights or rescorer.weights
        frontend, proposer, propose = rescorer.frontend, None, options.propose
        if propose is None:
            counts = CTC in rescorer.components and CTC in weights.to_score
            propose = PROPOSALS if counts and listeners.language == rescorer.language else 0
        if propose:
            from relisten.tasks.hypotheses.propose import make_proposer

            proposer = make_proposer(rescorer.need_frontend(), propose, options.words)
        return cls(
            listeners.first_passes,
            decoding,
            options,
            rescorer,
            frontend,
            proposer,
            weights.normaliser,
            guard=listeners.guard,
            rules=weights.rules,
        )

    @property
    def weights(self) -> Weights:
        """What each score counts for."""
        assert self.rescorer is not None, "lists are only made here, not ranked"
        return self.options.weights or self.rescorer.weights

    @property
    def _to_score(self) -> set[str]:
        """The scores that count and that no first pass gives."""
        return set(self.weights.to_score) - {f"{ASR}.{one.name}" for one in self.first_passes}

    @property
    def max_duration_s(self) -> float:
        """The longest recording that all recognisers take at once."""
        return min(one.max_duration_s for one in self.first_passes)

    def run(
        self,
        utterances: Sequence[NBest],
        recordings: Sequence[np.ndarray],
        clock: Clock | None = None,
    ) -> list[NBest]:
        """The utterances with ranked hypotheses, the chosen one first, with the times of its words.

        recordings: 16 kHz float32 [T] each, none longer than `max_duration_s`.
        """
        clock = clock or Clock()
        expanded = self.expand(utterances, recordings, self._needs_word_ends, clock)
        with clock("scores"):
            scored = self.score(expanded)
            ranked = [
                rank(one, self.weights, self.options.decision, self.options.confidence)
                for one in scored
            ]
        return self.time(expanded, ranked, clock)

    @property
    def _needs_word_ends(self) -> bool:
        """Whether all hypotheses need them, to be scored; else those of the chosen one will do."""
        return TEXT_GIVEN_SPEECH in self.weights.to_score

    def expand(
        self,
        utterances: Sequence[NBest],
        recordings: Sequence[np.ndarray],
        timed: bool = True,
        clock: Clock | None = None,
    ) -> Expanded:
        """The utterances with the first passes' hypotheses, proposals, those that they had already,
        and phrases; equal texts merged. Nothing joins where the first recogniser finds no speech.
        timed: whether all hypotheses get the times of their words.
        """
        clock = clock or Clock()
        if self.guard is None:
            return self._expanded(utterances, recordings, timed, clock)
        with clock("first_pass"):
            are_strange = self.guard.are_strange(recordings)
        before = replace(self, first_passes=[self.guard.untaught]) if any(are_strange) else self
        utterances = list(map(marked_strange, utterances, are_strange))
        parts: list[tuple[list[int], Expanded]] = []
        for second_pass, is_strange in ((self, False), (before, True)):
            if rows := [row for row, found in enumerate(are_strange) if found == is_strange]:
                some = [utterances[row] for row in rows], [recordings[row] for row in rows]
                parts.append((rows, second_pass._expanded(*some, timed, clock)))
        return _in_order(parts)

    def _expanded(
        self,
        utterances: Sequence[NBest],
        recordings: Sequence[np.ndarray],
        timed: bool,
        clock: Clock,
    ) -> Expanded:
        with clock("first_pass"):
            decoded = [
                self._decode(one, utterances, recordings, timed) for one in self.first_passes
            ]
        speeches: Sequence[Speech | None] = [None] * len(recordings)
        components = self._to_score if self.rescorer else set()
        components |= {CTC} if self.proposer else set()
        if components - {TEXT}:
            with clock("units"):
                heard = None
                if self.guard is not None and self.first_passes[0] is not self.guard.untaught:
                    heard = [result.window for result in decoded[0]]
                speeches = self._encode(sorted(components), recordings, heard)
        if self.proposer is not None:
            with clock("proposals"):
                decoded[0] = self._with_proposals(recordings, decoded[0], speeches, timed)
        lists = [result.hypotheses for result in decoded[0]]
        normalise = normaliser_named(self.normaliser, self.rules)
        given = [utterance.hypotheses for utterance in utterances]
        if len(self.first_passes) > 1 or any(given):
            from relisten.tasks.hypotheses.join import join_lists

            key = normalise if self.merge else normaliser_named("none")
            lists = join_lists(recordings, self.first_passes, decoded, given, key, timed)
        lists = [
            its if result.is_speech or its_given else result.hypotheses
            for its, result, its_given in zip(lists, decoded[0], given, strict=True)
        ]
        expanded = [
            replace(utterance, hypotheses=its)
            for utterance, its in zip(utterances, lists, strict=True)
        ]
        if self.merge:
            expanded = [merge_hypotheses(one, normalise) for one in expanded]
        expanded = with_phrases(expanded, self.options, normalise)
        expanded = [
            replace(one, hypotheses=with_word_starts(one.hypotheses, recording))
            for one, recording in zip(expanded, recordings, strict=True)
        ]
        by = [self.first_passes[0]] * len(expanded)
        return Expanded(expanded, recordings, decoded[0], speeches, by)

    def _decode(
        self,
        first_pass: FirstPass,
        utterances: Sequence[NBest],
        recordings: Sequence[np.ndarray],
        timed: bool,
    ) -> list[FirstPassResult]:
        """Samples are drawn utterance by utterance, each from a seed of its own."""
        if not self.decoding.samples:
            return first_pass.decode(recordings, self.decoding, timed=timed)
        seeds = [self.decoding.seed ^ crc32(utterance.id.encode()) for utterance in utterances]
        return [
            first_pass.decode([recording], replace(self.decoding, seed=seed), timed=timed)[0]
            for recording, seed in zip(recordings, seeds, strict=True)
        ]

    def _encode(
        self,
        components: Sequence[str],
        recordings: Sequence[np.ndarray],
        heard: Sequence[np.ndarray | None] | None,
    ) -> list[Speech]:
        """As `score` encodes them. heard: what a taught recogniser heard of its own speech. The
        frames of another first pass would save work, too, but they are of a 30 s window, and models
        are trained on shorter ones: scores differed by nats."""
        if self.rescorer is not None:
            return self.rescorer.encode(recordings, components, heard)
        assert self.frontend is not None, "proposals need a frontend"
        return self.frontend.encode(recordings, components)

    def _with_proposals(
        self,
        recordings: Sequence[np.ndarray],
        results: Sequence[FirstPassResult],
        speeches: Sequence[Speech | None],
        timed: bool,
    ) -> list[FirstPassResult]:
        """The first recogniser's results with the proposed hypotheses, which it has rated too."""
        assert self.proposer is not None
        encoded = [speech for speech in speeches if speech is not None]
        proposed = self.proposer.propose(recordings, self.first_passes[0], results, encoded)
        if timed:
            by = [self.first_passes[0]] * len(recordings)
            proposed = _aligned(recordings, results, by, proposed)
        return [
            replace(result, hypotheses=(*result.hypotheses, *(new if result.is_speech else ())))
            for result, new in zip(results, proposed, strict=True)
        ]

    def score(self, expanded: Expanded) -> list[NBest]:
        """The utterances with all scores that count. What costs most is asked only of hypotheses
        that may still win, once there is much of it: see `MARGIN`."""
        assert self.rescorer is not None
        weights = with_context(self.weights)
        unknown = self._to_score
        lists = expanded.utterances
        for stage in STAGES:
            asked = [component for component in stage if component in unknown]
            is_long = self.proposer is not None and not {CTC, CTC_ADAPTED} & {*asked}
            if (
                asked
                and self.options.margin is not None
                and (SPEECH_GIVEN_TEXT in asked or is_long)
            ):
                lists = [
                    prune_by_margin(one, weights, self.options.margin, unknown) for one in lists
                ]
            if asked:
                scored = add_scores(self.rescorer, lists, expanded.speeches, asked)
                lists = all_accepted(scored)
            unknown.difference_update(asked)
        return lists

    def time(
        self, expanded: Expanded, ranked: Sequence[NBest], clock: Clock | None = None
    ) -> list[NBest]:
        """The same, the chosen hypothesis with the times of its words where it has none yet."""
        untimed = [[h for h in one.hypotheses[:1] if h.word_ends_s is None] for one in ranked]
        if not any(untimed):
            return list(ranked)
        with (clock or Clock())("word_ends"):
            timed = _aligned(expanded.recordings, expanded.results, expanded.decoded_by, untimed)
        return [
            replace(one, hypotheses=(*chosen, *one.hypotheses[len(chosen) :]))
            for one, chosen in zip(ranked, timed, strict=True)
        ]


def _in_order(parts: Sequence[tuple[Sequence[int], Expanded]]) -> Expanded:
    """The utterances of all parts, each at its row."""
    order = np.argsort([row for rows, _ in parts for row in rows])
    columns = [
        [one for _, part in parts for one in getattr(part, column.name)]
        for column in fields(Expanded)
    ]
    return Expanded(*([column[place] for place in order] for column in columns))


def _aligned(
    recordings: Sequence[np.ndarray],
    results: Sequence[FirstPassResult],
    decoded_by: Sequence[FirstPass],
    lists: Sequence[Sequence[Hypothesis]],
) -> list[list[Hypothesis]]:
    """The hypotheses with the times of their words, by the recogniser of each recording."""
    timed = []
    for recording, result, recogniser, hypotheses in zip(
        recordings, results, decoded_by, lists, strict=True
    ):
        texts = [hypothesis.text for hypothesis in hypotheses]
        [ends] = recogniser.align([recording], [texts], [result.frames])
        ended = [replace(h, word_ends_s=its) for h, its in zip(hypotheses, ends, strict=True)]
        timed.append(list(with_word_starts(ended, recording)))
    return timed


def with_word_starts(
    hypotheses: Sequence[Hypothesis], recording: np.ndarray
) -> tuple[Hypothesis, ...]:
    """The hypotheses, those whose word ends alone are known with the starts of their words, too."""
    from relisten.speech.alignment import find_pauses, word_starts

    if all(h.word_ends_s is None or h.word_starts_s is not None for h in hypotheses):
        return tuple(hypotheses)
    pauses = find_pauses(recording)
    return tuple(
        replace(h, word_starts_s=word_starts(h.text, h.word_ends_s, pauses))
        if h.word_ends_s is not None and h.word_starts_s is None
        else h
        for h in hypotheses
    )


def with_phrases(
    utterances: Sequence[NBest], options: SecondPassOptions, normalise: Normaliser
) -> list[NBest]:
    """The utterances with a bonus for the expected phrases, and with hypotheses that hold them."""
    if not options.phrases:
        return list(utterances)
    shared = Biasing(options.phrase_list, normalise)
    return [biasing_of(one, shared).apply(one, inject=True) for one in utterances]


def biasing_of(utterance: NBest, shared: Biasing) -> Biasing:
    """The phrases for one utterance: its own key `context`, one phrase a line, and those of all."""
    if not utterance.context:
        return shared
    own = parse_phrases(utterance.context, f"{utterance.id!r}: context")
    return Biasing((*shared.phrases, *own), shared.normalise)
