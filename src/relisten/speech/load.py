"""From a reference to a recogniser or a speech encoder."""

from __future__ import annotations

from pathlib import Path

from relisten.core.types import ModelError, UsageError
from relisten.io.files import read_object
from relisten.io.sources import resolve_model
from relisten.speech.first_pass import FirstPass
from relisten.speech.frames import SpeechEncoder


def load_first_pass(
    reference: str, device: str = "auto", dtype: str = "auto", language: str = "en"
) -> FirstPass:
    """The first pass that a reference names, loaded.

    reference: a known name, a folder or a hub id of a CTranslate2 Whisper, or of a transformers
    Whisper or CTC model; the files in the folder tell which. Raises ModelError if it is none,
    UsageError for a language that it does not know.
    """
    folder = resolve_model(reference)
    name = folder.name if Path(reference).is_dir() else reference
    if (folder / "model.bin").is_file():
        from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper

        whisper = CTranslate2Whisper(folder, device, dtype, language, name)
        return _checked(whisper, whisper.model.is_multilingual, language)
    config = read_object(folder / "config.json", "a recogniser's configuration")
    if config.get("model_type") == "whisper":
        from relisten.speech.whisper.transformers import TransformersWhisper

        transformers_whisper = TransformersWhisper(folder, device, dtype, language, name)
        return _checked(transformers_whisper, transformers_whisper.is_multilingual, language)
    architectures = config.get("architectures")
    if isinstance(architectures, list) and any(str(a).endswith("ForCTC") for a in architectures):
        from relisten.speech.ctc.recogniser import TransformersCTC

        return TransformersCTC(folder, device, dtype, name)
    raise ModelError(f"{reference}: neither Whisper nor a CTC model; those are the first passes")


def _checked(recogniser: FirstPass, is_multilingual: bool, language: str) -> FirstPass:
    """The recogniser. Raises UsageError where it knows English alone, and another is asked for."""
    if not is_multilingual and language not in ("en", "auto"):
        raise UsageError(
            f"{recogniser.name} knows English alone, not {language!r}; name a multilingual "
            "recogniser, such as whisper-base"
        )
    return recogniser


def load_encoder(reference: str, device: str = "auto", dtype: str = "auto") -> SpeechEncoder:
    """The speech encoder that a reference names, loaded.

    reference: KIND:MODEL@LAYER with KIND one of hubert, wav2vec2, wavlm; or what
    `load_first_pass` takes, for the encoder of that recogniser. Raises ModelError or UsageError
    with the remedy.
    """
    kind, _, rest = reference.partition(":")
    if kind not in ("hubert", "wav2vec2", "wavlm"):
        folder = resolve_model(reference)
        if (folder / "model.bin").is_file():
            from relisten.speech.whisper.encoder import WhisperEncoder

            return WhisperEncoder(folder, device, dtype)
        return load_first_pass(str(folder), device, dtype).encoder
    model, _, layer = rest.rpartition("@")
    if not model or not layer.lstrip("-").isdigit():
        raise UsageError(f"encoder {reference!r}: name its layer, as in {kind}:MODEL@9")
    from relisten.speech.hubert import HFEncoder

    return HFEncoder(resolve_model(model), int(layer), device, dtype)
