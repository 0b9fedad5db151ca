"""Decoders that are read without transformers give the values of transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from relisten.core.types import ModelError
from relisten.lm.backend.llama import LlamaLM
from relisten.lm.backend.llama_folder import MODEL_TYPES, load_llama
from relisten.lm.load import load_causal_lm, load_for_scoring, merge_adapter
from tiny_models import tiny_causal_lm
from tiny_world import tiny_text_lm

LENGTH = 20


def logits(causal, mask, positions):
    ids = torch.arange(2 * LENGTH).reshape(2, LENGTH)
    with torch.inference_mode():
        hidden = causal.base_model(
            inputs_embeds=causal.get_input_embeddings()(ids),
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
        )
        return causal.get_output_embeddings()(hidden.last_hidden_state)


def tree_mask() -> torch.Tensor:
    """Two branches behind a common prefix of eight: neither sees the other."""
    allowed = torch.ones(LENGTH, LENGTH).tril().bool()
    allowed[14:, 8:14] = False
    return torch.zeros(2, 1, LENGTH, LENGTH).masked_fill(~allowed, -1e9)


def saved(folder: Path, architecture: str, **options) -> Path:
    tiny_causal_lm(architecture).save_pretrained(folder, **options)
    return folder


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def assert_same(folder: Path) -> None:
    """Causal and tree attention, by our decoder and by transformers' from the same folder."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = load_llama(folder, torch.float32)
    assert isinstance(ours, LlamaLM)
    flat = torch.arange(LENGTH).expand(2, LENGTH)
    branched = torch.cat([torch.arange(14), torch.arange(8, 14)]).expand(2, LENGTH)
    for mask, positions in ((None, flat), (tree_mask(), branched)):
        torch.testing.assert_close(
            logits(ours, mask, positions), logits(theirs, mask, positions), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("architecture", MODEL_TYPES)
def test_each_family_is_transformers_own(tmp_path, architecture):
    assert_same(saved(tmp_path, architecture))


def test_shards_tied_embeddings_and_halves(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
    )
    whole = LlamaForCausalLM(config).half()
    for name, parameter in whole.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    whole.save_pretrained(tmp_path, max_shard_size="12KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"hidden_act": "gelu"},
        {"logit_scale": 0.5},
        {"model_type": "granite"},
        {"sliding_window": 8},
    ],
)
def test_what_is_not_known_is_left_to_transformers(tmp_path, changes):
    edit_config(saved(tmp_path, "llama"), **changes)
    assert load_llama(tmp_path, torch.float32) is None


def test_a_qwen_with_a_window_is_left_to_transformers(tmp_path):
    edit_config(saved(tmp_path, "qwen2"), sliding_window=8, use_sliding_window=True)
    assert load_llama(tmp_path, torch.float32) is None


def test_layers_of_another_kind_are_left_to_transformers(tmp_path):
    from safetensors.torch import load_file, save_file

    path = saved(tmp_path, "llama") / "model.safetensors"
    extra = {"model.layers.0.mlp.experts.0.weight": torch.ones(2)}
    save_file({**load_file(path), **extra}, path)
    assert load_llama(tmp_path, torch.float32) is None


def test_another_architecture_is_loaded_by_transformers(tmp_path):
    tiny_text_lm(tmp_path)
    saved(tmp_path, "gpt2")
    causal, _ = load_for_scoring(tmp_path)
    assert type(causal).__name__ == "GPT2LMHeadModel"


def test_weights_that_do_not_fit_are_refused(tmp_path):
    edit_config(saved(tmp_path, "llama"), intermediate_size=40)
    with pytest.raises(ModelError, match=r"mlp.down_proj.weight is \(32, 48\) in the weights"):
        load_llama(tmp_path, torch.float32)
    edit_config(tmp_path, intermediate_size=48, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"model\.layers\.2.* is missing"):
        load_llama(tmp_path, torch.float32)


def test_an_adapter_changes_the_model_not_its_file(tmp_path):
    """Weights in the type in which they are stored are a view of the file."""
    from safetensors.torch import save_file

    folder = tiny_text_lm(tmp_path / "lm")
    before = (folder / "model.safetensors").read_bytes()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    torch.manual_seed(2)
    name = "base_model.model.model.layers.1.self_attn.k_proj.lora_{}.weight"
    factors = {name.format("A"): torch.randn(3, 32), name.format("B"): torch.randn(16, 3)}
    save_file(factors, adapter / "adapter_model.safetensors")
    record = {"peft_type": "LORA", "r": 3, "lora_alpha": 6}
    (adapter / "adapter_config.json").write_text(json.dumps(record))
    ours, theirs = load_for_scoring(folder)[0], load_causal_lm(folder)[0]
    assert isinstance(ours, LlamaLM)
    weight = ours.model.layers[1].self_attn.k_proj.weight
    expected = weight + 2.0 * factors[name.format("B")] @ factors[name.format("A")]
    for causal in (ours, theirs):
        merge_adapter(causal, adapter)
        torch.testing.assert_close(
            causal.get_submodule("model.layers.1.self_attn.k_proj").weight.data, expected
        )
    assert (folder / "model.safetensors").read_bytes() == before


def test_scoring_does_not_import_transformers(tmp_path):
    """Importing it takes longer than to load the model and to score."""
    folder = tiny_text_lm(tmp_path)
    program = f"""
import sys
from relisten.lm.scorer import ScoringInput
from relisten.tasks.loading import load_rescorer
rescorer = load_rescorer({str(folder)!r}, "cpu")
print(rescorer.score([ScoringInput(("a word", "a ward"))], "text")[0].shape)
print([name for name in ("transformers", "peft", "scipy", "sklearn") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["(2,)", "[]"]
