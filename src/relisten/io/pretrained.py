"""transformers' models and tokenizers from disk: code that lies with them is never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relisten.core.types import ModelError


def from_pretrained(kind: Any, source: Path | str, **options: Any) -> Any:
    """What `kind.from_pretrained` makes of a folder or a hub id.

    kind: a class of transformers, such as `AutoTokenizer`. A model that needs Python code of its
    own is refused without asking anybody.
    Raises ModelError with the reason where the folder holds something else, or is damaged.
    """
    try:
        return kind.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # damaged files raise whatever the line raises that stumbles
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else repr(error)
        if "trust_remote_code" in str(error):
            reason = (
                "it needs Python code of its own, which relisten never runs; name a model whose "
                "architecture transformers has"
            )
        raise ModelError(f"{source}: cannot be loaded by {kind.__name__} ({reason})") from error
