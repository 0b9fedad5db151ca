"""What made a file: the record that `--resume` compares before it goes on with the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relisten.core.types import UsageError
from relisten.io.files import file_hash, is_stream, write_text

Provenance = Mapping[str, Any]
"""A command with its options, models and inputs, as JSON has it."""


def content_hash(path: str | Path | None) -> str | None:
    """16 hexadecimal digits that change with the content of a file, or of the files of a folder.

    None where there is nothing to compare: no path, a pipe, a file that does not exist.
    """
    if path is None or is_stream(path) or not Path(path).exists():
        return None
    files = sorted(p for p in Path(path).rglob("*") if p.is_file()) or [Path(path)]
    named = [[str(file.relative_to(path)), file_hash(file)] for file in files if file.is_file()]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


def record_path(path: Path) -> Path:
    """Where it stands what made the file `path`: PATH.run.json."""
    return path.with_name(f"{path.name}.run.json")


def write_record(path: Path, made_by: Provenance) -> None:
    """Write what makes the file `path`. Raises UsageError where it cannot be written."""
    write_text(record_path(path), json.dumps(made_by, indent=1) + "\n")


def check_record(path: Path, made_by: Provenance) -> None:
    """Raises UsageError where the file `path` was made by another run, by what is recorded."""
    try:
        before = json.loads(record_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        before = None
    now = json.loads(json.dumps(made_by))
    if not isinstance(before, dict):
        raise UsageError(
            f"{record_path(path)}: is damaged, so nobody knows what made {path.name}; delete it to "
            "go on all the same, or run without --resume"
        )
    if changed := sorted(k for k in {*before, *now} if before.get(k) != now.get(k)):
        raise UsageError(
            f"{path}: was made with other {', '.join(changed)}; run without --resume to start "
            "anew, or name another output"
        )
