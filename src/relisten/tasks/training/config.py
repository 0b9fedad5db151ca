"""A YAML file, and what the command line says otherwise, as a frozen dataclass."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from relisten.core.types import UsageError

PATHS = (
    *("output", "manifests", "replay", "texts", "dev_manifests", "cache"),
    *("nbest", "dev_nbest", "folds_of"),
)
"""Keys that hold paths: those of a YAML file are relative to its folder."""
FOLDERS_OR_NAMES = ("base", "model", "first_pass", "encoder")
"""Keys that may hold one: a name, unless there is such a folder beside the YAML file."""
_REFERENCE = re.compile(r"((?:hubert|wav2vec2|wavlm):)?(.+?)(@-?\d+)?")
LOOKING_ON = ("output", "cache", "dev_manifests", "dev_nbest", "dev_utterances", "eval_every")
"""Keys that change nothing of what is trained."""
STATE = "state"
"""Folder in a bundle for what a stopped run goes on from; not part of the bundle."""
TRAIN_EXTRA = ("yaml", "peft", "pyarrow")

Config = TypeVar("Config")


def need_train_extra() -> None:
    """Raises UsageError, with the command that mends it, where a library of training is missing."""
    if missing := [name for name in TRAIN_EXTRA if find_spec(name) is None]:
        raise UsageError(
            f"training needs {', '.join(missing)}, not installed here; "
            "run `pip install 'relisten[train]'`"
        )


def keep_config(state: Path, config: Any) -> None:
    """Write a run's configuration, a dataclass, beside its state.

    Raises UsageError where that state is of a run with other settings; where they are only about
    looking on, it goes on.
    """
    path = state / "config.json"
    settings = json.loads(json.dumps(asdict(config)))
    if path.exists():
        # A key that an older version did not know had the meaning of its default.
        before = {**_defaults(type(config)), **json.loads(path.read_text())}
        changed = sorted(
            k for k in settings if settings[k] != before.get(k) and k not in LOOKING_ON
        )
        if changed:
            raise UsageError(
                f"{state} holds a run with other {', '.join(changed)}; "
                "name another output, or delete that folder to start anew"
            )
    path.write_text(json.dumps(settings, indent=1) + "\n")


def _defaults(kind: type) -> dict[str, Any]:
    """As a kept configuration holds them."""
    made = {
        key.name: key.default if key.default_factory is MISSING else key.default_factory()
        for key in fields(kind)
        if key.default is not MISSING or key.default_factory is not MISSING
    }
    return dict(json.loads(json.dumps(made)))


def read_config(kind: type[Config], path: str, overrides: Mapping[str, str]) -> Config:
    """What the YAML file `path` says, and `overrides`: key → value as typed on a command line.

    Relative paths of the file count from its folder, those of the command line from the working
    folder. Raises UsageError, which names file or option, for what does not fit.
    """
    written = _read_mapping(path)
    folder = Path(path).parent
    for key in PATHS:
        if key in written:
            written[key] = _moved(written[key], folder)
    for key in FOLDERS_OR_NAMES:
        if match := _REFERENCE.fullmatch(str(written.get(key) or "")):
            family, name, layer = match.groups("")
            if (folder / name).is_dir():  # a bundle is read from anywhere
                written[key] = f"{family}{(folder / name).resolve()}{layer}"
    types = get_type_hints(kind)
    typed = {
        key: _checked(_typed(text, types[key]), types[key], f"--{key.replace('_', '-')}")
        for key, text in overrides.items()
    }
    return from_mapping(kind, {**written, **typed}, path)


def from_mapping(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """The dataclass `kind` of `values`, each checked against the annotation of its field.

    Raises UsageError that begins with `where`: unknown or missing key, wrong type, or what the
    dataclass itself refuses.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(str(key) for key in set(values) - set(known)):
        raise UsageError(f"{where}: unknown keys {', '.join(unknown)}; known: {', '.join(known)}")
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise UsageError(f"{where}: needs {', '.join(missing)}; add it to the file")
    types = get_type_hints(kind)
    checked = {key: _checked(value, types[key], f"{where}: {key}") for key, value in values.items()}
    try:
        return kind(**checked)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _read_mapping(path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        sentence = " ".join(str(error).split())
        raise UsageError(f"{path}: is not YAML ({sentence})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: holds no keys; write a line `key: value` for each")
    return values


def _moved(value: Any, folder: Path) -> Any:
    """The paths in it, which counted from `folder`, as they count from the working folder."""
    if isinstance(value, str):
        return os.path.normpath(folder / value)
    if isinstance(value, list):
        return [_moved(item, folder) for item in value]
    if isinstance(value, dict):
        return {_moved(key, folder): item for key, item in value.items()}
    return value


def _typed(text: str, kind: Any) -> Any:
    """A word of the command line: JSON where the key holds no text, and JSON it is."""
    if kind is str or get_origin(kind) is Literal:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _checked(value: Any, kind: Any, where: str) -> Any:
    """`value` as `kind` has it; a list becomes a tuple, a whole number a float where one is due."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal and value in inner:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_checked(item, inner[0], where) for item in value)
    if origin is not None and origin is not tuple and isinstance(value, dict):
        return {
            _checked(key, inner[0], where): _checked(item, inner[1], f"{where}: {key}")
            for key, item in value.items()
        }
    if kind is float and (number := _as_float(value)) is not None:
        return number
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise UsageError(f"{where} is {value!r}; it must be {describe(kind)}")


def _as_float(value: Any) -> float | None:
    """A finite number; also a text like 5e-4, which YAML takes for one, wanting a dot."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def describe(kind: Any) -> str:
    """A type in words: "a whole number", "one of: surface, spoken"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of: {', '.join(map(str, inner))}"
    if origin is tuple:
        return "a list of texts"
    if origin is not None:
        return "a mapping to numbers"
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
