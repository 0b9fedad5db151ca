"""A GGUF file becomes the model that transformers makes of it, to the bit, without transformers."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from relisten.core.types import ModelError, UsageError
from relisten.lm.backend.gguf import convert_llama
from relisten.lm.load import load_for_scoring

N_HEADS, N_KV, HIDDEN, INNER, N_LAYERS = 4, 2, 64, 96, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BYTES = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ"]
MERGES = ["t h", "th e", "Ġ the", "c a", "ca t"]
TOKENS = [*SPECIAL, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
Q4_0, Q4_1, Q8_0, Q4_K = (
    getattr(gguf.GGMLQuantizationType, name) for name in ("Q4_0", "Q4_1", "Q8_0", "Q4_K")
)


def write_gguf(
    path: Path,
    kind: gguf.GGMLQuantizationType = Q4_1,
    is_tied: bool = True,
    architecture: str = "llama",
) -> Path:
    """A random Llama with two key heads for four query heads, its matrices in blocks of `kind`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer, rng = gguf.GGUFWriter(path, architecture), np.random.default_rng(0)
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    shapes = {"attn_q": (HIDDEN, HIDDEN), "attn_output": (HIDDEN, HIDDEN)}
    shapes |= dict.fromkeys(("attn_k", "attn_v"), (HIDDEN * N_KV // N_HEADS, HIDDEN))
    shapes |= dict.fromkeys(("ffn_gate", "ffn_up"), (INNER, HIDDEN))
    shapes |= {"ffn_down": (HIDDEN, INNER)}
    matrices = {"token_embd": (len(TOKENS), HIDDEN)}
    matrices |= {} if is_tied else {"output": (len(TOKENS), HIDDEN)}
    norms = ["output_norm"]
    for layer in range(N_LAYERS):
        matrices |= {f"blk.{layer}.{name}": shape for name, shape in shapes.items()}
        norms += [f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm"]
    for name, shape in matrices.items():
        blocks = gguf.quants.quantize(rng.normal(size=shape).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
    for name in norms:
        writer.add_tensor(f"{name}.weight", rng.normal(1, 0.1, HIDDEN).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("kind", "is_tied"), [(Q4_1, True), (Q8_0, False), (Q4_0, True)])
def test_it_is_what_transformers_makes_of_it(tmp_path: Path, kind, is_tied: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, made = write_gguf(tmp_path / "model" / "m.gguf", kind, is_tied), tmp_path / "made"
    made.mkdir()
    assert convert_llama(path, made)
    theirs = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float16
    )
    ours = load_file(made / "model.safetensors")
    state = {name: t for name, t in theirs.state_dict().items() if not is_tied or "lm_" not in name}
    assert ours.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(ours[name], tensor), name
    causal, tokenizer = load_for_scoring(path.parent)
    tokens = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    text = "the cat<|im_end|>that the\ncat"
    ids = tokens(text, add_special_tokens=False)["input_ids"]
    assert Tokenizer.from_file(str(made / "tokenizer.json")).encode(text).ids == ids
    assert len(ids) < len(text) - len("<|im_end|>")
    for name in ("bos", "eos", "pad"):
        assert getattr(tokenizer, f"{name}_token_id") == getattr(tokens, f"{name}_token_id")
    config = json.loads((made / "config.json").read_text())
    assert config["tie_word_embeddings"] is is_tied
    assert sum(p.numel() for p in causal.parameters()) == sum(t.numel() for t in ours.values())


def test_what_is_not_known_is_left_to_transformers(tmp_path: Path, monkeypatch) -> None:
    """And without transformers the sentence says what to install."""
    assert not convert_llama(write_gguf(tmp_path / "a.gguf", architecture="falcon"), tmp_path)
    folder = write_gguf(tmp_path / "b" / "b.gguf", architecture="falcon").parent
    monkeypatch.setattr("relisten.io.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs transformers, gguf.*relisten\[models\]"):
        load_for_scoring(folder)


@pytest.mark.parametrize("cut", [3, 10, 60, 700, 9_000, -1])
def test_a_torn_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="is damaged"):
        convert_llama(path, tmp_path)
