"""Recordings in, the first pass's hypotheses out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from relisten.core.combine import merge_hypotheses
from relisten.core.text import normaliser as normaliser_named
from relisten.core.types import NBest, UsageError
from relisten.io.audio import RATE_HZ
from relisten.speech.first_pass import DecodingOptions, FirstPass
from relisten.speech.load import load_first_pass
from relisten.tasks.defaults import FIRST_PASS, MODEL
from relisten.tasks.hypotheses.join import check_names, join_lists
from relisten.tasks.streams import (
    Outcome,
    Refusal,
    Tick,
    load_recording,
    no_tick,
    walk,
    work_on_accepted,
)

if TYPE_CHECKING:
    from relisten.tasks.hypotheses.propose import Proposer

CHUNK_SIZE = 8
"""Utterances heard at once."""


def make_nbest(
    manifest: str,
    output: str,
    first_pass: tuple[str, ...] = (FIRST_PASS,),
    language: str = "en",
    beam: int = 10,
    n_best: int = 10,
    samples: int = 0,
    temperature: float = 1.0,
    propose: int = 0,
    model: str = MODEL,
    words: str | None = None,
    seed: int = 0,
    normaliser: str = "english",
    merge: bool = True,
    device: str = "auto",
    dtype: str = "auto",
    resume: bool = False,
    tick: Tick = no_tick,
) -> Outcome:
    """What became of the utterances of `manifest`, written with hypotheses to `output`.

    Hypotheses stand in the decoder's own order (samples after the beam), each with the time at
    which its words end; those whose texts are equal under `normaliser` are merged by log-sum-exp.
    first_pass: the recognisers; what those behind the first, `manifest` itself and the CTC head of the
    bundle `model` (propose: so many, of the words in the file `words` alone) add to the list is
    rated by the first: see `join_lists`. Texts equal to the letter are then one even unmerged.
    samples: drawn besides, from a seed of each utterance's own, so that a resumed run draws the
    same. Recordings that cannot be read, or last longer than a first pass hears at once, are
    refused. Raises UsageError for two recognisers of one name, or words with nothing to propose.
    """
    if words is not None and not propose:
        raise UsageError(f"words of {words}: nothing is spelled with them; add --propose 10")
    recognisers = [load_first_pass(name, device, dtype, language) for name in first_pass]
    check_names(recognisers)
    options = DecodingOptions(beam, n_best, samples, temperature, seed)
    proposer = None
    if propose:
        from relisten.tasks.frontend import load_frontend
        from relisten.tasks.hypotheses.propose import make_proposer

        frontend = load_frontend(model, device, "auto" if dtype == "int8" else dtype)
        proposer = make_proposer(frontend, propose, words)
    lister = _Lister(recognisers, proposer, normaliser, merge)

    def work(chunk: list[NBest]) -> list[NBest | Refusal]:
        chunk_seed = seed ^ crc32(chunk[0].id.encode()) if samples else seed
        chunk_options = replace(options, seed=chunk_seed)
        loaded = [_load(utterance, manifest, recognisers) for utterance in chunk]
        return work_on_accepted(loaded, lambda loaded: lister.lists(loaded, chunk_options))

    return walk(manifest, output, work, 1 if samples else CHUNK_SIZE, resume=resume, tick=tick)


def _load(
    utterance: NBest, manifest: str, recognisers: Sequence[FirstPass]
) -> tuple[NBest, np.ndarray] | Refusal:
    audio = load_recording(utterance, manifest)
    max_duration_s = min(recogniser.max_duration_s for recogniser in recognisers)
    if isinstance(audio, Refusal):
        return audio
    if len(audio) <= max_duration_s * RATE_HZ:
        return utterance, audio
    reason = (
        f"it lasts {len(audio) / RATE_HZ:.1f} s, and the first pass hears "
        f"{max_duration_s:g} s at once; cut it with start_s and duration_s"
    )
    return Refusal(utterance.id, reason)


@dataclass(frozen=True)
class _Lister:
    """Makes lists."""

    recognisers: Sequence[FirstPass]
    proposer: Proposer | None
    normaliser: str
    merge: bool

    def lists(
        self, loaded: Sequence[tuple[NBest, np.ndarray]], options: DecodingOptions
    ) -> list[NBest]:
        """Utterances with their hypotheses; what they have already are further candidates."""
        normalise = normaliser_named(self.normaliser)
        utterances, recordings = [u for u, _ in loaded], [audio for _, audio in loaded]
        decoded = [recogniser.decode(recordings, options) for recogniser in self.recognisers]
        lists = [result.hypotheses for result in decoded[0]]
        further = [list(utterance.hypotheses) for utterance in utterances]
        if self.proposer is not None:
            decoded_by = (recordings, self.recognisers[0], decoded[0])
            proposed = self.proposer.propose(*decoded_by, self.proposer.encode(*decoded_by))
            further = [given + new for given, new in zip(further, proposed, strict=True)]
        if len(self.recognisers) > 1 or any(further):
            key = normalise if self.merge else normaliser_named("none")
            lists = join_lists(recordings, self.recognisers, decoded, further, key)
        made = [
            replace(utterance, hypotheses=hypotheses)
            for utterance, hypotheses in zip(utterances, lists, strict=True)
        ]
        return [merge_hypotheses(one, normalise) for one in made] if self.merge else made
