"""A command whose options are the keys of a configuration, made when it is first asked for them."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from importlib import import_module
from typing import Any, Literal, get_origin, get_type_hints

import click


class ConfiguredCommand(click.Command):
    """`relisten pretrain`, say: an option for each key of its dataclass, loaded when it runs.

    keys: "module:Dataclass". Dashes and underscores are the same in the names of options.
    """

    def __init__(self, *args: Any, keys: str, **kwargs: Any) -> None:
        settings = {"token_normalize_func": lambda name: name.replace("_", "-")}
        settings |= kwargs.pop("context_settings", None) or {}
        super().__init__(*args, context_settings=settings, **kwargs)
        self._dataclass = keys
        self._keys: list[click.Parameter] | None = None

    @property
    def config_type(self) -> type:
        """The dataclass."""
        module, _, name = self._dataclass.partition(":")
        return getattr(import_module(module), name)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Arguments and own options, and the keys."""
        if self._keys is None:
            self._keys = _options_of_keys(self.config_type)
        *own, help_option = super().get_params(ctx)
        return [*own, *self._keys, help_option]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the command does, then what the keys mean, as their dataclass says it."""
        super().format_help_text(ctx, formatter)
        _, _, meaning = (self.config_type.__doc__ or "").partition("\n\n")
        with formatter.section("Keys"):
            formatter.write_text(" ".join(meaning.split()))


def _options_of_keys(kind: type) -> list[click.Parameter]:
    from relisten.tasks.training.config import describe

    types = get_type_hints(kind)
    found: list[click.Parameter] = []
    for field in fields(kind):
        kind = types[field.name]
        metavar = {str: "TEXT", int: "INTEGER", float: "FLOAT"}.get(kind, "JSON")
        choices = ""
        if get_origin(kind) is Literal:
            metavar, choices = "TEXT", f"{describe(kind).capitalize()}.  "
        default = field.default if field.default_factory is MISSING else field.default_factory()
        # As one would type it: texts and numbers as they are, mappings and lists as JSON.
        typed = default if isinstance(default, str) or default is MISSING else json.dumps(default)
        shown = "[needed in the file]" if default is MISSING else f"[default: {typed}]"
        name = f"--{field.name.replace('_', '-')}"
        found.append(click.Option([name, field.name], metavar=metavar, help=choices + shown))
    return found
