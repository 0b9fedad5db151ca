"""Recordings in, the first pass's hypotheses out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from relisten.core.types import NBest, UsageError
from relisten.io.audio import RATE_HZ
from relisten.io.bundle import FAMILIARITY, resolve_bundle, scoring_hash
from relisten.io.provenance import content_hash
from relisten.speech.first_pass import DecodingOptions, FirstPass
from relisten.tasks.defaults import MODEL
from relisten.tasks.loading import load_listeners
from relisten.tasks.second_pass import SecondPass, SecondPassOptions
from relisten.tasks.streams import (
    Outcome,
    Refusal,
    Tick,
    load_recording,
    no_tick,
    walk,
    work_on_accepted,
)

CHUNK_SIZE = 8
"""Utterances decoded at once."""


def make_nbest(
    manifest: str,
    output: str,
    first_pass: tuple[str, ...] = (),
    language: str | None = None,
    decoding: DecodingOptions = DecodingOptions(),
    propose: int | None = None,
    words: str | None = None,
    model: str = MODEL,
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
    first_pass: the recognisers, by default those of the bundle `model`; what those behind the first
    and `manifest` itself add to the list is rated by the first: see `join_lists`. language: None
    for the bundle's. propose, words: see `SecondPassOptions`; the CTC head is the bundle's, and
    adds nothing unless told to.
    Recordings that cannot be read, or last longer than a first pass decodes at once, are refused.
    Raises UsageError for two recognisers of one name, and for samples together with `resume` where
    a recogniser has `samples_follow_seed = False`.
    """
    propose = propose or 0
    options = SecondPassOptions(propose, words)
    listeners = load_listeners(model, first_pass, language, device, dtype)
    recognisers, bundle = listeners.first_passes, resolve_bundle(model)
    if resume and decoding.samples:
        _check_seeds(recognisers)
    frontend, proposer = None, None
    if propose:
        from relisten.tasks.frontend import load_frontend
        from relisten.tasks.hypotheses.propose import make_proposer

        frontend = load_frontend(model, device, "auto" if dtype == "int8" else dtype)
        proposer = make_proposer(frontend, propose, words)
    second_pass = SecondPass(
        recognisers, decoding, options, None, frontend, proposer, normaliser, merge, listeners.guard
    )

    def expanded(loaded: Sequence[tuple[NBest, np.ndarray]]) -> list[NBest]:
        utterances, recordings = [u for u, _ in loaded], [audio for _, audio in loaded]
        return second_pass.expand(utterances, recordings).utterances if loaded else []

    return walk(
        manifest,
        output,
        lambda chunk: work_on_accepted([_load(u, manifest, recognisers) for u in chunk], expanded),
        {
            "command": "nbest",
            "first pass": [[one.name, one.encoder.id] for one in recognisers],
            "guard": content_hash(str(bundle / FAMILIARITY)) if listeners.guard else None,
            "language": language,
            "decoding": asdict(decoding),
            "propose": propose,
            "words": content_hash(words),
            "model": scoring_hash(bundle) if propose else None,
            "normaliser": normaliser,
            "merge": merge,
            "dtype": dtype,
        },
        CHUNK_SIZE,
        resume=resume,
        tick=tick,
    )


def _check_seeds(recognisers: Sequence[FirstPass]) -> None:
    for recogniser in recognisers:
        if not getattr(recogniser, "samples_follow_seed", True):
            raise UsageError(
                f"samples of {recogniser.name} depend on all that was drawn before them, so such a "
                "run cannot be resumed; leave out --resume, or --samples"
            )


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
        f"it lasts {len(audio) / RATE_HZ:.1f} s, and the first pass decodes at most "
        f"{max_duration_s:g} s at once; cut it with start_s and duration_s"
    )
    return Refusal(utterance.id, reason)
