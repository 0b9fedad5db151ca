"""The outputs of several recognisers, whichever they are, as one list an utterance.

Every distinct text is a hypothesis, with its agreement with each system (`core.agreement`); so what
one of them alone said can be weighed against all others without the score of any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from relisten.core.agreement import agreement_name, agreement_with
from relisten.core.decide import word_keys
from relisten.core.recombination import mixtures
from relisten.core.text import Normaliser, cached_normaliser
from relisten.core.types import (
    ASR,
    COMPONENTS,
    SYSTEMS,
    Hypothesis,
    NBest,
    Refusal,
    UsageError,
)
from relisten.io.nbest import NBestWriter, read_nbest, rebase_audio
from relisten.tasks.streams import Outcome, Say, Tick, no_tick, say_nothing

MAX_MIXED = 8
"""Texts that mixing adds to a list; with 20 nothing is gained (four sets of five systems)."""
ID, AUDIO = "id", "audio"


def combine(
    systems: Mapping[str, str],
    output: str,
    mix: bool = False,
    key: str = ID,
    normaliser: str = "english",
    input_format: str = "auto",
    tick: Tick = no_tick,
    say: Say = say_nothing,
) -> Outcome:
    """What became of the utterances of several recognisers, written as one file of N-best lists.

    systems: name → file of its texts or N-best lists, in any layout that can be read. The first one
    is the first pass: its text stands first and stays where nothing is better, so name the best.
    mix: also texts that take over one stretch from another text. key: what makes two lines one
    utterance: `id`, `audio` (path and start), or a key of the utterances.
    An utterance that some systems lack is joined from the others; `say` is told how many. Refused
    are utterances that cannot be read or that no system has a text of. Memory grows only where the
    files have their utterances in different order, or lack some.
    Raises UsageError where fewer than two systems are named, or no utterance is in two files.
    """
    if len(systems) < 2:
        raise UsageError(f"{len(systems)} system: name two or more, NAME=FILE each")
    join = _Join(systems, key, input_format)
    normalise = cached_normaliser(normaliser)
    n_done = n_joined = 0
    refused: list[Refusal] = join.refused
    clashing: list[str] = []
    missing: dict[str, list[str]] = {name: [] for name in systems}
    with NBestWriter(output) as writer:
        for parts in join:
            rebased = {n: rebase_audio(one, systems[n], output) for n, one in parts.items()}
            joined = combine_utterance(rebased, list(systems), normalise, mix)
            references = {normalise(u.reference) for u in parts.values() if u.reference is not None}
            if len(references) > 1:
                clashing.append(joined.id)
            tick(1)
            if not joined.hypotheses:
                refused.append(Refusal(joined.id, "no system has a text of it"))
                continue
            said = joined.extra[SYSTEMS]
            n_joined += len(said) > 1
            for name in systems:
                if name not in said:
                    missing[name].append(joined.id)
            writer.write(joined)
            n_done += 1
        if not n_joined:
            raise UsageError(
                f"no utterance is in two of the files {', '.join(systems.values())} by {key!r}; "
                "name what they share with --key KEY (audio: the recording)"
            )
    for name, ids in missing.items():
        if ids:
            say(f"{name} has no text of {len(ids):,} of {n_done:,} utterances ({_some(ids)})")
    if clashing:
        say(
            f"{len(clashing):,} utterances have different references in different files; the first "
            f"file's is kept ({_some(clashing)})"
        )
    return Outcome(n_done, tuple(refused))


def combine_utterance(
    parts: Mapping[str, NBest], systems: Sequence[str], normalise: Normaliser, mix: bool = False
) -> NBest:
    """One utterance of all systems' texts, those of the first system first.

    parts: system → what it has of the utterance; those without stay out. systems: the names of all.
    A text is kept as the first system that has it writes it, with `agreement.NAME` of all `systems`
    and `asr.NAME` of those that scored it: the log-sum-exp over its ways to write the text.
    """
    present = [(name, parts[name]) for name in systems if name in parts]
    spoken = {name: one for name, one in present if one.hypotheses}
    said = {
        name: [normalise(h.text).split() for h in one.hypotheses] for name, one in spoken.items()
    }
    listed: dict[str, Hypothesis] = {}
    for name, one in spoken.items():
        for hypothesis, words in zip(one.hypotheses, said[name], strict=True):
            text = " ".join(words)
            first = listed.setdefault(text, replace(hypothesis, scores={}, first_pass_rank=None))
            scores = _joined_scores(first.scores, hypothesis.scores, f"{ASR}.{name}")
            listed[text] = replace(first, scores=scores)
    if mix:
        for text in _mixed([h.text for h in listed.values()], normalise):
            listed.setdefault(normalise(text), Hypothesis(text))
    hypotheses = []
    for text, hypothesis in listed.items():
        votes = {
            agreement_name(name): agreement_with(text.split(), said.get(name, []))
            for name in systems
        }
        hypotheses.append(
            replace(
                hypothesis,
                scores={**votes, **hypothesis.scores},
                posterior=None,
                word_confidence=None,
            )
        )
    return _joined(present, tuple(hypotheses))


def _joined(present: Sequence[tuple[str, NBest]], hypotheses: tuple[Hypothesis, ...]) -> NBest:
    """The utterance of these systems: each fact from the first file that has it."""
    utterances = [one for _, one in present]
    extra: dict[str, object] = {}
    for one in reversed(utterances):
        extra |= one.extra
    extra[SYSTEMS] = {name: one.hypotheses[0].text for name, one in present if one.hypotheses}
    recorded = next((one for one in utterances if one.audio is not None), utterances[0])
    return replace(
        recorded,
        id=utterances[0].id,
        hypotheses=hypotheses,
        reference=next((u.reference for u in utterances if u.reference is not None), None),
        context=next((u.context for u in utterances if u.context is not None), None),
        extra=extra,
    )


def _joined_scores(
    known: Mapping[str, float], given: Mapping[str, float], asr_name: str
) -> dict[str, float]:
    """The scores with a further way to write the text: its `asr` under the system's name, and those
    of relisten's own models where there are none yet."""
    scores = {name: score for name, score in given.items() if name in COMPONENTS} | dict(known)
    if ASR in given:
        scores[asr_name] = float(np.logaddexp(known.get(asr_name, -np.inf), given[ASR]))
    return scores


def _mixed(texts: Sequence[str], normalise: Normaliser) -> Iterator[str]:
    """New texts that take over a stretch from another one, words compared as normalised."""
    written: dict[str, str] = {}
    keys = []
    for text in texts:
        keys.append(tuple(word_keys(text, normalise)))
        for key, word in zip(keys[-1], text.split(), strict=True):
            written.setdefault(key, word)
    for words in mixtures(keys, MAX_MIXED):
        yield " ".join(written[word] for word in words)


@dataclass
class _Join:
    """The utterances of several files, joined: system → utterance, as soon as all have one.

    In the order in which the files, read side by side, first name them.
    """

    systems: Mapping[str, str]
    key: str
    input_format: str
    refused: list[Refusal] = field(default_factory=list)

    def __iter__(self) -> Iterator[dict[str, NBest]]:
        files = {
            name: read_nbest(path, self.input_format, refuse=self.refused.append)
            for name, path in self.systems.items()
        }
        waiting: dict[str, dict[str, NBest]] = {}
        finished: set[str] = set()
        while files:
            for name in list(files):
                one = next(files[name], None)
                if one is None:
                    del files[name]
                    continue
                key = self._key_of(one, name)
                parts = waiting.setdefault(key, {})
                if name in parts or key in finished:
                    raise UsageError(
                        f"{self.systems[name]}: two utterances have the {self.key} {key!r}; name a "
                        "key that tells them apart with --key"
                    )
                parts[name] = one
            while waiting and len(waiting[first := next(iter(waiting))]) == len(self.systems):
                finished.add(first)
                yield waiting.pop(first)
        yield from waiting.values()

    def _key_of(self, utterance: NBest, name: str) -> str:
        if self.key == ID:
            return utterance.id
        value = utterance.audio if self.key == AUDIO else utterance.extra.get(self.key)
        if value is None:
            raise UsageError(
                f"{self.systems[name]}: '{utterance.id}': has no {self.key!r} to join it by; name "
                "a key that all utterances have with --key"
            )
        return f"{value}@{utterance.start_s:g}" if self.key == AUDIO else str(value)


def _some(ids: Sequence[str]) -> str:
    more = ", …" if len(ids) > 3 else ""
    return ", ".join(map(repr, ids[:3])) + more
