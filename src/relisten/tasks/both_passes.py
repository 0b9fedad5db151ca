"""Both passes, loaded: the recognisers, what scores behind them, and another server before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from relisten.core.combine import Weights
from relisten.core.types import FIRST_PASS_CHOICE
from relisten.io.audio_api import AudioAPI
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.upstream import Upstream
from relisten.tasks.defaults import MODEL
from relisten.tasks.loading import Listeners, load_listeners, load_rescorer
from relisten.tasks.second_pass import SecondPass, SecondPassOptions

UPSTREAM_MARGIN = 4.0
"""Nats by which another text must win to replace that of an upstream server. Whisper base before
tiny.en, 32 utterances of ljspeech dev: 2.2 % WER alone; behind it with 0, 2, 4, 8 and 20 nats 2.2,
1.4, 2.0, 1.8 and 2.2. Too few to choose by; none is worse than alone."""


def load_both_passes(
    model: str = MODEL,
    first_pass: Sequence[str] = (),
    language: str | None = None,
    decoding: DecodingOptions = DecodingOptions(),
    options: SecondPassOptions = SecondPassOptions(),
    device: str = "auto",
    dtype: str = "auto",
    upstream: str | None = None,
    upstream_model: str | None = None,
) -> SecondPass:
    """What `relisten transcribe` and `relisten serve` work with.

    first_pass: recognisers; by default the one that the model's weights are for. language: of
    multilingual ones, by default the model's. upstream: the address of a server with OpenAI's audio
    API, whose text comes first on every list; upstream_model: as it calls its model.
    Raises UpstreamError, before anything is loaded, where the server does not answer as one.
    """
    api = AudioAPI.connect(upstream, upstream_model) if upstream else None
    rescorer = load_rescorer(model, device, dtype)
    listeners = load_listeners(model, first_pass, language, device, dtype)
    if api is not None:
        spoken = language or rescorer.language
        api = replace(api, language=None if spoken == "auto" else spoken)
        listeners = _behind(api, listeners)
        options = replace(options, weights=_trusting(options.weights or rescorer.weights))
    return SecondPass.of(rescorer, listeners, decoding, options)


def _behind(api: AudioAPI, listeners: Listeners) -> Listeners:
    """The same recognisers, the server's text before the first one's."""
    first, *others = listeners.first_passes
    guard = listeners.guard
    if guard is not None:
        load = guard.load_untaught
        guard = replace(guard, load_untaught=lambda: Upstream(api, load()))
    return replace(listeners, first_passes=[Upstream(api, first), *others], guard=guard)


def _trusting(weights: Weights) -> Weights:
    """The weights, with `UPSTREAM_MARGIN` for the first pass's choice where they have none: they
    were tuned on the lists of a local recogniser."""
    if FIRST_PASS_CHOICE in weights.values:
        return weights
    margin = {FIRST_PASS_CHOICE: UPSTREAM_MARGIN}
    domains = {name: {**margin, **values} for name, values in weights.domains.items()}
    return replace(weights, values={**weights.values, **margin}, domains=domains)
