"""What `pretrain --dry-run` says, held to hand arithmetic and to what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from click.testing import CliRunner

from relisten.apps.cli import main
from relisten.core.types import ModelError
from relisten.tasks.estimate import GPU_BYTES, SPEEDS, Estimate, Source, estimate
from relisten.tasks.pretrain import PretrainConfig
from relisten.tasks.training.codebook import CodebookConfig
from relisten.tasks.training.lm import LMConfig
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.training.trainable import add_lora
from tiny_models import tiny_causal_lm
from tiny_world import fill_cache

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    """A Llama of which nothing is there but its config.json, and one manifest of two."""
    tiny_causal_lm("llama").config.save_pretrained(tmp_path / "lm")
    (tmp_path / "a.jsonl").write_text(
        '{"id": "a", "reference": "x", "duration_s": 1800}\n'
        '{"id": "b", "reference": "x"}\n{"id": "c"}\n'
    )
    return PretrainConfig(
        output="out",
        manifests={str(tmp_path / "a.jsonl"): 1.0},
        dev_manifests=("nowhere.jsonl",),
        codebook=CodebookConfig(units=8),
        lm=LMConfig(base=str(tmp_path / "lm"), lora_rank=2, batch_tokens=100),
        schedule=Schedule(10, 5e-4, 50, 100),
    )


def with_lm(config: PretrainConfig, **options) -> PretrainConfig:
    return replace(config, lm=replace(config.lm, **options))


def test_by_hand(config: PretrainConfig) -> None:
    """V 64, H 32, feed-forward 48, 2 layers, 4 heads, keys 16 wide.

    A layer: q and o 32·32 each, k and v 32·16 each, three of 32·48, two norms of 32: 7,744.
    With the last norm (32), table and head (2,048 each): 19,616.
    LoRA of rank 2, a layer: 2·(64 + 48 + 48 + 64 + 80 + 80 + 80) = 928.
    Units: 8·32 in, 8·32 out, two markers in and out: 640. Kept: of a layer 40·32 + 4·16 + 10·48.
    """
    found = estimate(config)
    assert (found.n_parameters, found.n_trained, found.n_speech) == (19_616, 1_856, 640)
    floats = 4 * (1_856 + 640)
    assert found.weight_bytes == 2 * 19_616 + floats
    assert (found.gradient_bytes, found.optimiser_bytes) == (floats, 2 * floats)
    assert found.kept_bytes == 100 * (2 * (40 * 32 + 4 * 16 + 10 * 48) + 4 * 64)
    assert found.flops_per_token == 4 * (19_616 - 2_048 + 1_856) + 2 * 1_856
    assert found.flops == 10 * 100 * found.flops_per_token
    assert found.hours["A100 80 GB"] == found.flops / (0.4 * 312e12) / 3600
    assert found.n_gpus == 1
    path = next(iter(config.manifests))
    assert found.sources == (Source(path, 2, 1, 0.5), Source("nowhere.jsonl"))


def test_all_weights_trained_is_six_flops_each(config: PretrainConfig, tmp_path: Path) -> None:
    found = estimate(with_lm(config, lora_rank=0))
    assert found.n_trained == 19_616 - 2_048, "token embeddings stay"
    assert found.flops_per_token == 6 * found.n_trained


def test_a_text_lm_has_no_units(config: PretrainConfig) -> None:
    assert estimate(with_lm(config, tasks={"text": 1.0})).n_speech == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_autograd_keeps(config: PretrainConfig, dtype: str) -> None:
    """Saved tensors of a forward pass with LoRA: never more than said, in bfloat16 the same."""
    lm = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    lm.save_pretrained(config.lm.base)
    causal = transformers.LlamaForCausalLM(lm).to(getattr(torch, dtype)).train()
    add_lora(causal, 2, "x", 0)
    ours = {p.untyped_storage().data_ptr() for p in causal.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = torch.randn(1, 64, 128, dtype=getattr(torch, dtype), requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = causal.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    found = estimate(replace(with_lm(config, batch_tokens=64), dtype=dtype))
    said = found.kept_bytes - 64 * 4 * 64  # log-probabilities come later
    assert hidden.requires_grad
    assert 0.75 * said < sum(kept.values()) < 1.05 * said


def test_gpus_share_all_but_batches() -> None:
    """72 GB of each are filled; a batch takes 40, so 100 GB need four."""
    shared = {"weight_bytes": 60e9, "gradient_bytes": 20e9, "optimiser_bytes": 20e9}
    rest = ("llama", 1, 1, 1, 1, 1)
    some = Estimate(*rest, **shared, kept_bytes=40e9, flops_per_token=1.0)
    assert some.n_gpus == 4
    assert Estimate(*rest, **shared, kept_bytes=GPU_BYTES, flops_per_token=1.0).n_gpus is None


@pytest.mark.parametrize(
    ("name", "billions"), [("qwen3-1.7b", 1.72), ("qwen3-8b", 8.19)], ids=["1.7b", "8b"]
)
def test_shipped_architectures_are_as_large_as_they_say(
    config: PretrainConfig, name: str, billions: float
) -> None:
    base = str(RECIPES / "architectures" / name)
    found = estimate(with_lm(config, base=base))
    assert found.n_parameters / 1e9 == pytest.approx(billions, abs=0.005)


def test_the_command_prints_and_makes_nothing(config: PretrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("output: out\nmanifests: {a.jsonl: 1}\nbase: lm\n")
    done = CliRunner().invoke(main, ["pretrain", str(path), "--dry-run", "--steps", "3"])
    assert done.exit_code == 0, done.output
    assert "19,616 parameters" in done.stdout
    assert "3 of 1,024 tokens" in done.stdout
    assert "a.jsonl: 2 utterances, 0.5 hours of the 1 timed" in done.stdout
    assert all(name in done.stdout for name in SPEEDS)
    assert not (tmp_path / "out").exists()


def test_a_config_that_cannot_be_had_is_one_sentence(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Read when the library is imported: without it each file is asked for five times, with pauses.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"config\.json cannot be loaded"):
        estimate(with_lm(config, base="nobody/nothing"))


def test_an_adaptation_takes_what_a_pretraining_of_its_bundle_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default bundle knows text only: a LoRA of rank 2 more, and no units. Untranscribed
    recordings count."""
    fill_cache(monkeypatch, tmp_path / "models")
    (tmp_path / "new.jsonl").write_text('{"id": "a", "audio": "a.wav", "duration_s": 3600}\n')
    (tmp_path / "c.yaml").write_text(
        "output: out\nmanifests: {new.jsonl: 1}\nlora_rank: 2\nschedule: {steps: 7}\n"
    )
    done = CliRunner().invoke(main, ["adapt", str(tmp_path / "c.yaml"), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "1,856 (LoRA of rank 2), 0 of units and markers" in done.stdout
    assert "7 of 1,024 tokens" in done.stdout
    assert "new.jsonl: 1 utterances, 1.0 hours" in done.stdout
    assert not (tmp_path / "out").exists()
