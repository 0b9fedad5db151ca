"""The recipes for whole corpora: their manifests by hand, and each one's run at toy size."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from relisten.apps.cli import main
from relisten.core.types import UsageError
from relisten.io.audio import load_audio
from relisten.io.nbest import load_nbest, resolve_audio, save_nbest
from relisten.tasks.finetune import FinetuneConfig
from relisten.tasks.pretrain import PretrainConfig
from relisten.tasks.training.config import read_config
from tiny_speech import noise, tiny_ct2_whisper, tiny_ctc, tiny_whisper
from tiny_world import tiny_text_lm

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
RATE_HZ = 16_000
STM_LABEL = "<o,f0,female>"


def prepare_of(recipe: str) -> ModuleType:
    return module_of(RECIPES / recipe / "prepare.py")


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_flac(path: Path, samples: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=RATE_HZ, layout="mono")
        pcm = (samples * 20_000).astype("<i2")[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def write_sphere(path: Path, samples: np.ndarray) -> None:
    """NIST SPHERE: a head of 1,024 bytes of text, then 16 bit samples."""
    lines = ["NIST_1A", "   1024", f"sample_count -i {len(samples)}", "sample_n_bytes -i 2"]
    lines += ["channel_count -i 1", "sample_byte_format -s2 01", f"sample_rate -i {RATE_HZ}"]
    head = "\n".join([*lines, "sample_coding -s3 pcm", "end_head", ""]).encode()
    path.write_bytes(head.ljust(1024, b"\n") + (samples * 20_000).astype("<i2").tobytes())


def make_librispeech(corpus: Path) -> None:
    sets = {"train-clean-100": 4, "train-clean-360": 2, "train-other-500": 2}
    sets |= dict.fromkeys(("dev-clean", "dev-other", "test-clean", "test-other"), 2)
    for s, (name, n_speakers) in enumerate(sets.items()):
        for speaker in range(100 * s + 1, 100 * s + 1 + n_speakers):
            chapter = corpus / name / str(speaker) / "7"
            chapter.mkdir(parents=True)
            lines = []
            for u, text in enumerate(("AB CD", "CD AB A")):
                id = f"{speaker}-7-{u:04d}"
                write_flac(chapter / f"{id}.flac", noise(1.0 + 0.25 * u, speaker + u))
                lines.append(f"{id} {text}\n")
            (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))


def make_tedlium(corpus: Path) -> None:
    for s, (name, n_talks) in enumerate((("train", 4), ("dev", 3), ("test", 2))):
        for kind in ("stm", "sph"):
            (corpus / "legacy" / name / kind).mkdir(parents=True)
        for t in range(n_talks):
            talk = f"Talk{s}{t}"
            write_sphere(corpus / "legacy" / name / "sph" / f"{talk}.sph", noise(6.0, 10 * s + t))
            rows = [(0.5, 1.75, "ab cd <unk>"), (2.5, 3.5, "it 's {NOISE} ab(2)"), (4, 4.5, "cd")]
            lines = [f"{talk} 1 {talk}_s {a} {b} {STM_LABEL} {text}" for a, b, text in rows]
            lines += [f"{talk} 1 inter_segment_gap 5 6 <o,,unknown> ignore_time_segment_in_scoring"]
            stm = corpus / "legacy" / name / "stm" / f"{talk}.stm"
            stm.write_text(";; a comment\n" + "\n".join(lines) + "\n")


def test_librispeech_manifest(tmp_path: Path) -> None:
    make_librispeech(tmp_path / "corpus")
    prepare, work = prepare_of("librispeech"), tmp_path / "work"
    work.mkdir()
    save_nbest(prepare.MANIFESTS["dev"](tmp_path / "corpus", work), work / "dev.jsonl")
    found = load_nbest(work / "dev.jsonl")
    assert [u.id for u in found[:3]] == ["301-7-0000", "301-7-0001", "302-7-0000"]
    assert len(found) == 8
    second = found[1]
    assert (second.reference, second.duration_s, second.extra) == (
        "CD AB A",
        1.25,
        {"speaker": "301"},
    )
    assert len(load_audio(resolve_audio(second, work / "dev.jsonl"))) == 1.25 * RATE_HZ
    with pytest.raises(UsageError, match=r"dev-clean: no SPEAKER"):
        list(prepare.MANIFESTS["dev"](tmp_path, work))


def test_tedlium_manifest(tmp_path: Path) -> None:
    """Each segment is cut out of its talk; what was not said, and gaps, are not in it."""
    make_tedlium(tmp_path / "corpus")
    prepare, work = prepare_of("tedlium"), tmp_path / "work"
    work.mkdir()
    save_nbest(prepare.MANIFESTS["dev"](tmp_path / "corpus", work), work / "dev.jsonl")
    found = load_nbest(work / "dev.jsonl")
    assert [u.reference for u in found[:3]] == ["ab cd", "it's ab", "cd"]
    assert len(found) == 9
    second = found[1]
    assert second.id == "Talk10-0000250-0000350"
    assert (second.start_s, second.duration_s) == (2.5, 1.0)
    assert second.extra == {"speaker": "Talk10_s"}
    cut = load_audio(resolve_audio(second, work / "dev.jsonl"), start_s=2.5, duration_s=1.0)
    talk = (noise(6.0, 10) * 20_000).astype("<i2") / 32_768
    np.testing.assert_allclose(cut, talk[40_000:56_000], atol=1e-6)
    assert len({u.id[:6] for u in prepare.MANIFESTS["mwer"](tmp_path / "corpus", work)}) == 1
    with pytest.raises(UsageError, match=r"no \*\.stm"):
        list(prepare.MANIFESTS["train"](tmp_path, work))


@pytest.mark.parametrize("recipe", ["librispeech", "tedlium"])
def test_steps_fit_together(recipe: str) -> None:
    """Every command parses, reads what one before it wrote, and fine-tuning is one of them."""
    folder, work = RECIPES / recipe, ROOT / "runs" / recipe
    paper, prepare = module_of(RECIPES / "paper.py"), prepare_of(recipe)
    tuned = read_config(FinetuneConfig, str(folder / "finetune.yaml"), {})
    lists = {str(Path(path).resolve()) for path in (*tuned.nbest, *tuned.dev_nbest)}
    # the bundle is a name until it is there
    model, output = (str((folder / path).resolve()) for path in (tuned.model, tuned.output))
    written = {str(work / f"{name}.jsonl") for name in prepare.MANIFESTS}
    config = read_config(PretrainConfig, str(folder / "pretrain.yaml"), {})
    for path in (*config.manifests, *config.dev_manifests):
        assert str(Path(path).resolve()) in written
    assert str(Path(config.output).resolve()) == model
    for made, (name, *arguments) in paper.steps(folder, work, ["dev"], False, []):
        if name == "finetune":
            assert arguments == [str(folder / "finetune.yaml")]
            assert {*lists, model} <= written
            written.add(output)
            continue
        options = main.commands[name].make_context(name, arguments).params
        inputs = {str(options.get(key)) for key in ("manifest", "nbest", "scored", "weights")}
        assert {one for one in inputs if one.startswith(str(work))} <= written
        if name == "pretrain":
            written.add(model)
        if name == "score":
            assert options["model"] == output
        written.add(str(made))


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes pretrain.yaml small: models by their folders, sizes, steps."""
    folder = tmp_path_factory.mktemp("toys")
    whisper = tiny_ct2_whisper(tiny_whisper(folder / "source"), folder / "whisper")
    options = {
        "first-pass": whisper,
        "encoder": f"hubert:{tiny_ctc(folder / 'hubert', 'hubert')}@2",
        "base": tiny_text_lm(folder / "lm"),
        "units": 8,
        "lora-rank": 2,
        "steps": 2,
        "batch-tokens": 128,
        "eval-every": 2,
        "dtype": "float32",
    }
    return [f"--{key}={value}" for key, value in options.items()]


@pytest.mark.parametrize(
    ("recipe", "make", "tests"),
    [
        ("librispeech", make_librispeech, ("test-clean", "test-other")),
        ("tedlium", make_tedlium, ("test",)),
    ],
)
def test_run(
    tmp_path: Path,
    toys: list[str],
    recipe: str,
    make,
    tests: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The recipe's own script and settings in a copy of the folder."""
    make(tmp_path / "corpus")
    shutil.copytree(RECIPES, tmp_path / "recipes")
    script = tmp_path / "recipes" / recipe / "run.py"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["run.py", str(tmp_path / "corpus"), "--skip-finetune", *toys])
        patch.setattr(sys, "path", [str(script.parent), *sys.path])
        for name in ("paper", "prepare"):  # each recipe has its own
            patch.delitem(sys.modules, name, raising=False)
        runpy.run_path(str(script), run_name="__main__")
    work = tmp_path / "runs" / recipe
    for name in tests:
        report = json.loads((work / f"{name}.report.json").read_text())
        scored = load_nbest(work / f"{name}.scored.jsonl")
        assert report["n_utterances"] == len(scored) > 0
        components = {"asr", "text", "text_given_speech", "speech_given_text"}
        assert all(set(h.scores) == components for u in scored for h in u.hypotheses)
        weights = json.loads((work / "weights.json").read_text())
        # Of toys no gain is certain, and then the first pass is kept.
        assert components <= set(weights["values"]) or weights["values"] == {"first_pass": 1.0}
    bundle = json.loads((work / "model" / "relisten.json").read_text())
    assert bundle["speech_order"] == "speech_first"
    assert bundle["encoder"].startswith("hubert:")
    assert "relisten finetune" not in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["librispeech", "tedlium"])
def test_a_script_starts_from_any_folder(tmp_path: Path, recipe: str) -> None:
    """In a process of its own, which says what to give it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(RECIPES / recipe / "run.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "python run.py CORPUS" in done.stdout
