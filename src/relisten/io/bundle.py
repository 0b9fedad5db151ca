"""A model bundle: a folder with all parts of a rescorer; it pins the parts that it does not hold.

    relisten.json            what belongs together (`BundleConfig`)
    extension.safetensors    embeddings and output rows of markers and units, projector of chunks
    codebook.safetensors     the units
    ctc_head.safetensors, words.txt   the CTC head, if any, and the words that it may propose
    adapter_model.safetensors, adapter_config.json    LoRA weights in peft's layout, if any
    lm/                      the LM itself, where all of it was trained
    other_speech.safetensors   what other speech is like, to know a user's own from it, if any
    recogniser/              the first pass taught the user's speech, if any: a CTranslate2 Whisper
    familiarity.safetensors  what tells that speech from other speech, which it does not hear
    trained_on.safetensors   fingerprints of what any part was trained on (`core.leakage`)

A text-only bundle is relisten.json alone: a pinned LM and tuned weights.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from relisten.core.combine import Weights
from relisten.core.leakage import TrainedOn
from relisten.core.types import COMPONENTS, FormatError, ModelError
from relisten.io.files import file_hash, read_object, write_text
from relisten.io.sources import resolve_model, weights_hash
from relisten.io.tensors import read_arrays, save_tensors

FORMAT = 2
CONFIG = "relisten.json"
EXTENSION = "extension.safetensors"
CODEBOOK = "codebook.safetensors"
CTC_HEAD = "ctc_head.safetensors"
FORMER_CTC_HEAD = "ear.safetensors"
WORDS = "words.txt"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
LM = "lm"
OTHER_SPEECH = "other_speech.safetensors"
RECOGNISER = "recogniser"
FAMILIARITY = "familiarity.safetensors"
TRAINED_ON = "trained_on.safetensors"
SHIPPED = Path(str(resources.files("relisten") / "bundles"))
"""The bundles that come with relisten, one folder each."""


def _versions() -> dict[str, str]:
    found = {}
    for name in ("relisten", "torch", "transformers"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@dataclass(frozen=True, slots=True)
class BundleConfig:
    """The content of relisten.json.

    base: reference of the LM (a folder, a known name, a hub id); base_hash: of its weights.
    first_pass: the recogniser the weights were tuned with. language: of the speech, an ISO code.
    text_form: how the LM reads text
    (`lm.texts.TextForm`). components: the scores it was trained to give. speech_order: how
    `text_given_speech` is asked (`lm.scorer.SpeechOrder`).
    encoder, encoder_id: the speech encoder's reference, and the id its codebook must have; both
    None in a text-only bundle. weights: of the combination, with what they were tuned on.
    Unknown keys are refused.
    """

    base: str
    base_hash: str
    text_form: str
    weights: Weights
    components: tuple[str, ...] = ("text",)
    first_pass: str = "whisper-tiny.en"
    language: str = "en"
    speech_order: str = "chunked"
    encoder: str | None = None
    encoder_id: str | None = None
    versions: dict[str, str] = field(default_factory=_versions)

    @property
    def has_speech(self) -> bool:
        """Whether the bundle holds a speech-text model, not an LM alone."""
        return self.encoder is not None


def read_bundle(folder: Path) -> BundleConfig:
    """The configuration of a bundle. Raises ModelError where it or a part is missing or broken."""
    path = folder / CONFIG
    record = read_object(path, "a bundle")
    if record.pop("format", None) != FORMAT:
        raise ModelError(
            f"{path}: not a bundle of format {FORMAT}; make it again with this version"
        )
    known = {f.name for f in fields(BundleConfig)}
    unknown, missing = (
        set(record) - known,
        {"base", "base_hash", "text_form", "weights", "components"} - set(record),
    )
    if unknown or missing:
        raise ModelError(
            f"{path}: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}; "
            "it was made by another version"
        )
    _check_types(path, record)
    try:
        weights = Weights.from_json(record["weights"])
    except FormatError as error:
        raise ModelError(f"{path}: {error}") from error
    components = tuple(record["components"])
    config = BundleConfig(**{**record, "weights": weights, "components": components})
    for name in (EXTENSION, CODEBOOK) if config.has_speech else ():
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing from this bundle; copy the whole folder")
    return config


def _check_types(path: Path, record: dict[str, Any]) -> None:
    """Raises ModelError for a value of another type than its key has."""
    texts = ("base", "base_hash", "text_form", "first_pass", "language", "speech_order")
    wrong = [name for name in texts if not isinstance(record.get(name, ""), str)]
    nullable = ("encoder", "encoder_id")
    wrong += [name for name in nullable if not isinstance(record.get(name), str | None)]
    components = record["components"]
    if not isinstance(components, list) or not set(map(str, components)) <= set(COMPONENTS):
        wrong.append("components")
    if wrong:
        given = ", ".join(f"{name} {record[name]!r}" for name in wrong)
        raise ModelError(
            f"{path}: has {given[:200]}; components are some of {', '.join(COMPONENTS)}, all else "
            "is text; copy the bundle again"
        )


def scoring_hash(folder: Path) -> str:
    """12 hexadecimal digits that change with whatever changes a score: every part of a bundle but
    its weights and versions (of these the user's rules count, by which its LM reads texts); of a
    model that is no bundle, its weights files."""
    if not (folder / CONFIG).is_file():
        return weights_hash(folder)
    config = read_bundle(folder)
    named = (config.base_hash, config.text_form, config.components, config.speech_order)
    rules = config.weights.rules.pairs
    named = (*named, config.encoder_id, *([rules] if rules else []))
    digest = hashlib.sha256(repr(named).encode())
    taught = (f"{RECOGNISER}/model.bin", f"{RECOGNISER}/{CTC_HEAD}")
    parts = (EXTENSION, CODEBOOK, ADAPTER, ADAPTER_CONFIG, *taught)
    for path in (*(folder / name for name in parts), ctc_head_path(folder)):
        if path is not None and path.is_file():
            digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()[:12]


def write_bundle(folder: Path, config: BundleConfig) -> None:
    """Write relisten.json; the other parts are written by those who make them."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"format": FORMAT, **asdict(config), "weights": config.weights.to_json()}
    write_text(folder / CONFIG, json.dumps(record, indent=1) + "\n")


def read_trained_on(folder: Path) -> TrainedOn | None:
    """What the parts of a bundle were trained on; None where it does not say.

    Raises ModelError where the file is damaged.
    """
    path = folder / TRAINED_ON
    if not path.is_file():
        return None
    arrays = read_arrays(path)
    columns = [arrays.get(name) for name in ("utterances", "texts")]
    if any(column is None or column.dtype != np.int64 or column.ndim != 1 for column in columns):
        raise ModelError(f"{path}: holds no fingerprints; copy the bundle again")
    return TrainedOn(*(np.sort(column) for column in columns if column is not None))


def add_trained_on(folder: Path, trained_on: TrainedOn) -> None:
    """Write what the parts of a bundle were trained on, with what the bundle says already."""
    from torch import from_numpy

    whole = (read_trained_on(folder) or TrainedOn()) | trained_on
    columns = {"utterances": from_numpy(whole.utterances), "texts": from_numpy(whole.texts)}
    save_tensors(columns, folder / TRAINED_ON)


def ctc_head_path(folder: Path) -> Path | None:
    """The file of a bundle's CTC head, also under its former name; None where it has none."""
    paths = (folder / name for name in (CTC_HEAD, FORMER_CTC_HEAD))
    return next((path for path in paths if path.is_file()), None)


def shipped_bundle(name: str) -> Path | None:
    """The folder of a bundle that comes with relisten; None where it has none of that name."""
    folder = SHIPPED / name
    return folder if (folder / CONFIG).is_file() else None


def resolve_bundle(reference: str) -> Path:
    """The folder of a bundle or model: one shipped with relisten, by name, or `resolve_model`'s."""
    return shipped_bundle(reference) or resolve_model(reference)


def resolve_base(folder: Path, config: BundleConfig) -> Path:
    """The folder of a bundle's LM. Raises ModelError where it is not the one it was made on.

    A relative path in `base` is relative to the bundle.
    """
    beside = folder / config.base
    base = beside if beside.is_dir() else resolve_model(config.base)
    found = weights_hash(base)
    if found != config.base_hash:
        raise ModelError(
            f"{folder}: made for the LM {config.base} with weights {config.base_hash}, "
            f"but {base} holds {found}; adapter and LM do not belong together"
        )
    return base
