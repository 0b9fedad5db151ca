"""A transformers Whisper in CTranslate2 form."""

from __future__ import annotations

from pathlib import Path

from relisten.core.types import ModelError
from relisten.io.files import read_object

COPIED = ("tokenizer.json", "preprocessor_config.json", "tokenizer_config.json")


def as_ctranslate2(folder: Path, converted: Path) -> Path:
    """The folder of a Whisper in CTranslate2 form: `folder`, or, of a transformers Whisper, what is
    made of it, float16, in `converted`, unless it is there.

    Raises ModelError for another model, or weights that are not safetensors.
    """
    if (folder / "model.bin").is_file():
        return folder
    config = read_object(folder / "config.json", "a recogniser's configuration")
    if config.get("model_type") != "whisper":
        raise ModelError(f"{folder}: no Whisper; name one of CTranslate2 or of transformers")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no *.safetensors here; convert the weights to safetensors")
    if not (converted / "model.bin").is_file():
        from ctranslate2.converters import TransformersConverter

        copied = [name for name in COPIED if (folder / name).is_file()]
        try:
            converter = TransformersConverter(str(folder), copy_files=copied, load_as_float16=True)
            converter.convert(str(converted), quantization="float16", force=True)
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(f"{folder}: CTranslate2 cannot convert it: {error}") from error
    return converted
