"""Libraries that not everybody needs: they come with an extra of the package."""

from __future__ import annotations

from importlib.util import find_spec

from relisten.core.types import UsageError


def need_extra(extra: str, what: str, *modules: str) -> None:
    """Raises UsageError, with the command that installs them, where a library is missing.

    extra: of the package, such as "train". what: needs the modules; the subject of the sentence.
    """
    if missing := [name for name in modules if find_spec(name) is None]:
        raise UsageError(
            f"{what} needs {', '.join(missing)}, not installed here; "
            f"run `pip install 'relisten[{extra}]'`"
        )


def need_transformers() -> None:
    """Raises UsageError, as `need_extra` does, where transformers is missing."""
    need_extra("models", "a model of this kind", "transformers")
