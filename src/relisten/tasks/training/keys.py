"""The keys of a configuration: default, explanation and meaning of each stand where it is declared.

A configuration is a frozen dataclass whose fields are keys (`key`) or sections (`section`), frozen
dataclasses of keys themselves. A key's dotted name is the same in a YAML file and on the command
line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

FilePath = Annotated[str, "path"]
"""A path; in a YAML file it is relative to that file's folder."""
ModelReference = Annotated[str, "model"]
"""A model's name, unless there is such a folder beside the YAML file."""


def key(default: Any, help: str, *, affects_training: bool = True) -> Any:
    """The field of a key.

    default: MISSING where the file must give it. affects_training: False where a run goes on as
    before although the key has changed.
    """
    metadata = {"help": help, "affects_training": affects_training}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(kind: type, **defaults: Any) -> Any:
    """The field of a section, a frozen dataclass of keys; defaults: where not the class's own."""
    return field(default=kind(**defaults))


@dataclass(frozen=True)
class Key:
    """What is known of a key. kind: its annotation; default: MISSING where there is none."""

    kind: Any
    default: Any
    help: str
    affects_training: bool

    @property
    def plain_kind(self) -> Any:
        """Its type, of a path or a model plain text."""
        return get_args(self.kind)[0] if get_origin(self.kind) is Annotated else self.kind


def keys_of(kind: type, section: Any = None, prefix: str = "") -> dict[str, Key]:
    """Dotted name → key, in the order of declaration.

    section: an instance that gives the defaults, which are otherwise those of the fields.
    """
    types = get_type_hints(kind, include_extras=True)
    found: dict[str, Key] = {}
    for one in fields(kind):
        default = getattr(section, one.name) if section is not None else _default(one)
        if is_dataclass(default):
            found |= keys_of(type(default), default, f"{prefix}{one.name}.")
        else:
            affects = one.metadata.get("affects_training", True)
            explained = one.metadata.get("help", "")
            found[prefix + one.name] = Key(types[one.name], default, explained, affects)
    return found


def sections_of(kind: type) -> dict[str, Any]:
    """Name → the default of each section."""
    found = {one.name: _default(one) for one in fields(kind)}
    return {name: default for name, default in found.items() if is_dataclass(default)}


def _default(one: Any) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def describe(kind: Any) -> str:
    """A type in words: "a whole number", "one of: surface, spoken"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return describe(inner[0])
    if origin is Literal:
        return f"one of: {', '.join(map(str, inner))}"
    if origin is tuple:
        return "a list of texts"
    if origin is not None:
        return "a mapping to numbers"
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
