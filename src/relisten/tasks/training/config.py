"""A YAML file, and what the command line says otherwise, as a frozen dataclass."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from relisten.core.types import ModelError, UsageError
from relisten.io.extras import need_extra
from relisten.io.files import read_object, write_text
from relisten.io.provenance import content_hash, record_path, write_record
from relisten.tasks.training.keys import (
    FilePath,
    Key,
    ModelReference,
    describe,
    keys_of,
    sections_of,
)

STATE = "state"
"""Folder in a bundle for what a stopped run goes on from; not part of the bundle."""
TRAIN_EXTRA = ("accelerate", "peft", "pyarrow", "sklearn", "transformers", "yaml")
FORMER = {
    **{name: f"features.{name}" for name in ("first_pass", "encoder", "pool")},
    **{name: f"ctc.{name[4:]}" for name in ("ctc_steps", "ctc_layers", "ctc_layer_steps")},
    **{name: f"ctc.{name[4:]}" for name in ("ear_steps", "ear_layers", "ear_layer_steps")},
    "projector_epochs": "projector.epochs",
    **{name: f"codebook.{name}" for name in ("units", "levels")},
    **{name: f"lm.{name}" for name in ("base", "text_form", "tasks", "lora_rank", "batch_tokens")},
    **{name: f"schedule.{name}" for name in ("steps", "learning_rate", "warmup_steps")},
    **{name: f"schedule.{name}" for name in ("eval_every", "accumulate", "patience")},
    "schedule": "schedule.decay",
}
"""Former name of a key → today's, wherever a configuration has the one and not the other."""
_REFERENCE = re.compile(r"((?:hubert|wav2vec2|wavlm):)?(.+?)(@-?\d+)?")

Config = TypeVar("Config")


def need_train_extra() -> None:
    """Raises UsageError, with the command that installs it, where a library of training is
    missing."""
    need_extra("train", "training", *TRAIN_EXTRA)


def keep_config(state: Path, config: Any) -> None:
    """Write a run's configuration, a dataclass, beside its state, and what its files held.

    Raises UsageError where that state is of a run with other settings, or a file that they name has
    changed since; a change of keys that do not affect training is accepted.
    """
    path, known = state / "config.json", keys_of(type(config))
    settings = json.loads(json.dumps(asdict(config)))
    contents = _contents(settings, known)
    if path.exists():
        _check_contents(state, contents)
        # A key that an older version did not know had the meaning of its default.
        defaults = {name: key.default for name, key in known.items() if key.default is not MISSING}
        before = json.loads(json.dumps(defaults))
        before |= _dotted(_kept(path), known, str(path))
        now = _dotted(settings, known, str(path))
        if changed := sorted(
            name
            for name, key in known.items()
            if key.affects_training and now[name] != before.get(name)
        ):
            raise UsageError(
                f"{state} holds a run with other {', '.join(changed)}; "
                "name another output, or delete that folder to start anew"
            )
    write_record(path, contents)
    write_text(path, json.dumps(settings, indent=1) + "\n")


def _contents(settings: dict[str, Any], known: Mapping[str, Key]) -> dict[str, str | None]:
    """Files that the keys name which affect training → a hash of their contents."""
    now = _dotted(settings, known, "the configuration")
    names = [
        name for name, key in known.items() if key.affects_training and FilePath in _types(key.kind)
    ]
    paths = (path for name in names for path in _texts(now[name]))
    return {path: content_hash(path) for path in paths if Path(path).is_file()}


def _types(kind: Any) -> list[Any]:
    return [kind, *(inner for one in get_args(kind) for inner in _types(one))]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return list(value)
    return [value] if isinstance(value, str) else list(value or ())


def _check_contents(state: Path, contents: Mapping[str, str | None]) -> None:
    """Raises UsageError where a file of the run was another one when it began."""
    try:
        before = json.loads(record_path(state / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # a run of an earlier version did not write it
    changed = [p for p, hash in contents.items() if before.get(p, hash) != hash]
    if changed:
        raise UsageError(
            f"{', '.join(changed)}: changed since the run in {state} began; name another output, "
            "or delete that folder to start anew"
        )


def _kept(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, "the configuration of a run")
    except ModelError as error:
        raise UsageError(f"{error}; delete the folder {path.parent} to start anew") from error


def current_name(name: str, known: Mapping[str, Key]) -> str:
    """Today's name of a key that may be given by its former one."""
    former = FORMER.get(name, name)
    return former if name not in known and former in known else name


def read_config(kind: type[Config], path: str, overrides: Mapping[str, str]) -> Config:
    """What the YAML file `path` says, and `overrides`: key → value as typed on a command line.

    Relative paths of the file are relative to its folder, those of the command line to the working
    folder. Raises UsageError, which names file or option, for what does not fit.
    """
    known, folder = keys_of(kind), Path(path).parent
    written = _dotted(_read_mapping(path), known, path)
    typed = {current_name(name, known): text for name, text in overrides.items()}
    if unknown := sorted({*written, *typed} - set(known)):
        raise UsageError(f"{path}: unknown keys {', '.join(unknown)}; known: {', '.join(known)}")
    missing = [name for name, key in known.items() if key.default is MISSING]
    if missing := [name for name in missing if name not in {*written, *typed}]:
        raise UsageError(f"{path}: needs {', '.join(missing)}; add it to the file")
    values = {
        name: _checked(value, known[name].kind, f"{path}: {name}", folder)
        for name, value in written.items()
        if name not in typed
    }
    for name, text in typed.items():
        option, key = f"--{name.replace('_', '-')}", known[name]
        values[name] = _checked(_typed(text, key.kind), key.kind, option, None)
    try:
        return _built(kind, values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _built(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """The dataclass of these values by dotted name; its defaults for the others."""
    own = {one.name: values[one.name] for one in fields(kind) if one.name in values}  # type: ignore[arg-type]
    for name, section in sections_of(kind).items():
        inner = {one.name: f"{name}.{one.name}" for one in fields(section)}
        given = {short: values[long] for short, long in inner.items() if long in values}
        own[name] = replace(section, **given)
    return kind(**own)


def _dotted(values: Mapping[str, Any], known: Mapping[str, Key], where: str) -> dict[str, Any]:
    """Values by the dotted names of today, of a mapping that may nest its sections or use former
    names. Raises UsageError where one key is given twice."""
    sections = {name.partition(".")[0] for name in known if "." in name}
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        if name in sections and isinstance(value, dict):
            pairs += [(f"{name}.{inner}", one) for inner, one in value.items()]
        else:
            pairs.append((current_name(str(name), known), value))
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(f"{where}: {name} is given twice, once by a former name; keep one")
        found[name] = value
    return found


def _read_mapping(path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError) as error:
        sentence = " ".join(str(error).split())
        raise UsageError(f"{path}: is not YAML ({sentence})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: holds no keys; write a line `key: value` for each")
    return values


def _typed(text: str, kind: Any) -> Any:
    """A word of the command line: JSON where the key holds no text, and JSON it is."""
    if kind in (str, FilePath, ModelReference) or get_origin(kind) is Literal:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _checked(value: Any, kind: Any, where: str, folder: Path | None) -> Any:
    """`value` as `kind` has it; a list becomes a tuple, a whole number a float where one is due.

    folder: what paths in it are relative to; None for the working folder.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal and value in inner:
        return value
    if origin is Annotated:
        text = _checked(value, inner[0], where, folder)
        return _located(text, kind, folder) if folder is not None else text
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_checked(item, inner[0], where, folder) for item in value)
    if origin not in (None, tuple) and isinstance(value, dict):
        return {
            _checked(name, inner[0], where, folder): _checked(
                item, inner[1], f"{where}: {name}", folder
            )
            for name, item in value.items()
        }
    if kind is float and (number := _as_float(value)) is not None:
        return number
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise UsageError(f"{where} is {value!r}; it must be {describe(kind)}")


def _located(text: str, kind: Any, folder: Path) -> str:
    """A path or a model that a file in `folder` names, as it is named from the working folder."""
    if kind == FilePath:
        return os.path.normpath(folder / text) if text else text
    if match := _REFERENCE.fullmatch(text):
        family, name, layer = match.groups("")
        if (folder / name).is_dir():
            # Absolute, so that a bundle that keeps it can be read from any working folder.
            return f"{family}{(folder / name).resolve()}{layer}"
    return text


def _as_float(value: Any) -> float | None:
    """A finite number; also a text like 5e-4, which YAML takes for one, wanting a dot."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
