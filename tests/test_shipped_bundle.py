"""The bundle that comes with relisten fits the models that it names."""

from __future__ import annotations

from relisten.core.types import NBest
from relisten.io.bundle import (
    CODEBOOK,
    SHIPPED,
    ctc_head_path,
    read_bundle,
    read_trained_on,
    scoring_hash,
)
from relisten.speech.codebook import Codebook
from relisten.tasks.defaults import MODEL


def test_it_says_what_it_was_trained_on() -> None:
    trained_on = read_trained_on(SHIPPED / MODEL)
    assert trained_on is not None
    assert (len(trained_on.utterances), len(trained_on.texts)) == (11_767, 9_865)
    read = NBest("new", reference="We call it 'bear'.")
    assert trained_on.has_seen(read) == "reference"


def test_names_of_weights_never_change() -> None:
    """Stored bundles and codebooks hold them: when the way to compute them changed, the default
    model could not be loaded any more."""
    folder = SHIPPED / MODEL
    config = read_bundle(folder)
    assert (config.base, config.base_hash) == ("smollm2-135m", "ff72325fe298")
    assert config.encoder_id == "whisper-e7123a0485c3"
    assert Codebook.load(folder / CODEBOOK).encoder_id == config.encoder_id
    assert ctc_head_path(folder) is not None
    assert len(scoring_hash(folder)) == 12
