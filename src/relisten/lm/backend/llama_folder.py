"""Decoders of the Llama family from disk: config.json and safetensors, mapped into memory.

A configuration with a key or a value that is not known here is left to transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relisten.core.types import ModelError
from relisten.io.files import read_object
from relisten.lm.backend.llama import LlamaConfig, LlamaLM

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
_SHAPE_KEYS = {
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_parameters",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_sliding_window",
    "vocab_size",
}
_IRRELEVANT = {
    "_model_name_or_path",  # written by transformers when it converts a GGUF file
    "_name_or_path",
    "architectures",
    "attention_bias",  # a bias is among the weights or is not
    "attention_dropout",
    "dtype",
    "initializer_range",
    "is_llama_config",
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "mlp_bias",
    "model_type",
    "pretraining_tp",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "use_cache",
}
_FIXED = {"hidden_act": "silu", "rope_interleaved": False, "rope_scaling": None}
"""Optional keys, each with the only value that is supported here."""
_KNOWN = _SHAPE_KEYS | _IRRELEVANT | set(_FIXED)
_TENSORS_PER_MAP = 32


def read_llama_config(folder: Path) -> LlamaConfig | None:
    """The configuration of a model folder; None where it has anything that is not known here, or
    lacks a key for which transformers has a default."""
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return _config(record) if _is_known(record) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        return None  # transformers says what is wrong with it
    except RecursionError as error:
        raise ModelError(f"{folder / 'config.json'}: is nested too deeply") from error


def _is_known(record: dict[str, Any]) -> bool:
    if record["model_type"] not in MODEL_TYPES or not set(record) <= _KNOWN:
        return False
    rope = {"rope_type": "default", **(record.get("rope_parameters") or {})}
    if not set(rope) <= {"rope_type", "rope_theta"} or rope["rope_type"] != "default":
        return False
    if record["model_type"] != "mistral" and _window(record) is not None:
        return False  # the window may differ between Qwen's layers
    return all(record.get(key, value) == value for key, value in _FIXED.items())


def _window(record: dict[str, Any]) -> int | None:
    if record["model_type"] == "mistral":
        return record["sliding_window"]
    return record.get("sliding_window") if record.get("use_sliding_window", True) else None


def _config(record: dict[str, Any]) -> LlamaConfig:
    n_heads, head_dim = record["num_attention_heads"], record.get("head_dim")
    if head_dim is None:
        head_dim = record["hidden_size"] // n_heads
    return LlamaConfig(
        vocab_size=record["vocab_size"],
        hidden_size=record["hidden_size"],
        intermediate_size=record["intermediate_size"],
        num_hidden_layers=record["num_hidden_layers"],
        num_attention_heads=n_heads,
        num_key_value_heads=record["num_key_value_heads"],
        head_dim=record["head_dim"] if record["model_type"] == "qwen3" else head_dim,
        rms_norm_eps=record["rms_norm_eps"],
        rope_theta=(record.get("rope_parameters") or record)["rope_theta"],
        tie_word_embeddings=record.get("tie_word_embeddings", False),
        sliding_window=_window(record),
        **{name: record.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )


def load_llama(folder: Path, dtype: torch.dtype, device: str = "cpu") -> LlamaLM | None:
    """The decoder of a folder (config.json, safetensors), for scoring; None where transformers must
    load it.

    Weights that are stored in `dtype` stay on disk, mapped into memory. Raises ModelError where
    config.json and weights do not fit.
    """
    config = read_llama_config(folder)
    if config is None:
        return None
    files = _weight_files(folder)
    names = {name for where in files.values() for name in where}
    try:
        with torch.device("meta"):
            causal = LlamaLM(config, names)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise ModelError(f"{folder}: config.json describes no LM ({error})") from error
    if config.tie_word_embeddings:
        causal.lm_head.weight = causal.model.embed_tokens.weight
    wanted = set(dict(causal.named_parameters()))
    if not names - {"lm_head.weight"} <= wanted:
        return None  # layers of another kind
    if missing := sorted(wanted - names):
        raise ModelError(f"{folder}: {missing[0]} is missing from its weights; copy them again")
    for name, tensor in _tensors(files):
        if name in wanted:
            _place(causal, name, tensor.to(device, dtype))
    if config.tie_word_embeddings:
        causal.lm_head.weight = causal.model.embed_tokens.weight
    return causal.eval()


def _place(causal: LlamaLM, name: str, tensor: Tensor) -> None:
    owner, _, last = name.rpartition(".")
    module = causal.get_submodule(owner)
    if (shape := getattr(module, last).shape) != tensor.shape:
        raise ModelError(
            f"{name} is {tuple(tensor.shape)} in the weights, {tuple(shape)} by config.json"
        )
    setattr(module, last, nn.Parameter(tensor, requires_grad=False))


def _weight_files(folder: Path) -> dict[Path, list[str]]:
    """The names of the tensors in each safetensors file of a model."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    found = [folder / "model.safetensors"]
    if index.is_file():
        shards = read_object(index, "the index of weights").get("weight_map")
        if not isinstance(shards, dict) or not all(_is_file_name(s) for s in shards.values()):
            raise ModelError(f"{index}: weight_map must map tensors to files beside it")
        found = sorted({folder / shard for shard in shards.values()})
    names = {}
    for path in found:
        try:
            with safe_open(path, "pt") as file:
                names[path] = list(file.keys())
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read: {error}") from error
    return names


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _tensors(files: dict[Path, list[str]]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its name, a view of the mapped file.

    A file is mapped again for every 32 tensors, so that pages are released once they have been
    converted; else they stay resident, 257 MiB for 135M parameters in half precision.
    """
    from safetensors import safe_open

    for path, names in files.items():
        left = iter(names)
        while some := list(islice(left, _TENSORS_PER_MAP)):
            with safe_open(path, "pt") as file:
                for name in some:
                    yield name, file.get_tensor(name)
