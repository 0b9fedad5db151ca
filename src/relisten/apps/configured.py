"""A command whose options are the keys of a configuration, made when it is first asked for them."""

from __future__ import annotations

import json
from dataclasses import MISSING
from importlib import import_module
from typing import Any, Literal, get_origin

import click


class ConfiguredCommand(click.Command):
    """A command such as `relisten pretrain`: an option for each key of its dataclass, which is
    loaded when it runs.

    keys: "module:Dataclass". In the names of options, dashes and underscores are the same, and the
    former name of a key is as good as today's.
    """

    def __init__(self, *args: Any, keys: str, **kwargs: Any) -> None:
        settings = {"token_normalize_func": self._option_name}
        settings |= kwargs.pop("context_settings", None) or {}
        super().__init__(*args, context_settings=settings, **kwargs)
        self._dataclass = keys
        self._options: dict[str, list[click.Option]] | None = None

    @property
    def config_type(self) -> type:
        """The dataclass. Raises UsageError where a library of training is missing."""
        from relisten.tasks.training.config import need_train_extra

        need_train_extra()
        module, _, name = self._dataclass.partition(":")
        return getattr(import_module(module), name)

    @property
    def options_of_keys(self) -> dict[str, list[click.Option]]:
        """Title of a section → the options of its keys; "" for keys of no section."""
        if self._options is None:
            self._options = _options_of_keys(self.config_type)
        return self._options

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Arguments and own options, and the keys."""
        *own, help_option = super().get_params(ctx)
        keys = [option for options in self.options_of_keys.values() for option in options]
        return [*own, *keys, help_option]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options, then the keys, a heading for each section."""
        groups = {"Options": [p for p in super().get_params(ctx) if isinstance(p, click.Option)]}
        for title, options in self.options_of_keys.items():
            groups[title or "Keys"] = options
        for title, options in groups.items():
            with formatter.section(title):
                records = [o.get_help_record(ctx) for o in options]
                formatter.write_dl([record for record in records if record], col_max=34)

    def _option_name(self, name: str) -> str:
        from relisten.tasks.training.config import current_name
        from relisten.tasks.training.keys import keys_of

        return current_name(name.replace("-", "_"), keys_of(self.config_type)).replace("_", "-")


def _options_of_keys(kind: type) -> dict[str, list[click.Option]]:
    from relisten.tasks.training.keys import Key, keys_of, sections_of

    def option(name: str, key: Key) -> click.Option:
        metavar = {str: "TEXT", int: "INTEGER", float: "FLOAT", bool: "true|false"}
        shown = metavar.get(key.plain_kind, "JSON")
        if get_origin(key.kind) is Literal:
            shown = "|".join(map(str, key.kind.__args__))
        default = key.default
        # As one would type it: texts and numbers as they are, mappings and lists as JSON.
        typed = default if isinstance(default, str) or default is MISSING else json.dumps(default)
        ends = "[required in the file]" if default is MISSING else f"[default: {typed or 'none'}]"
        made = click.Option(
            [f"--{name.replace('_', '-')}", name.replace(".", "_")],
            metavar=shown,
            help=f"{key.help}  {ends}",
        )
        made.name = name  # dotted, which click accepts of no declaration
        return made

    titles = {
        name: (type(section).__doc__ or name).strip().rstrip(".")
        for name, section in sections_of(kind).items()
    }
    found: dict[str, list[click.Option]] = {"": []}
    for name, key in keys_of(kind).items():
        title = titles[name.partition(".")[0]] if "." in name else ""
        found.setdefault(title, []).append(option(name, key))
    return found
