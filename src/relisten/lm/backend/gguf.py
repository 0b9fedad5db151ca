"""A Llama in one GGUF file, written as the folder that transformers would make of it.

Layout: the specification in ggml's repository, docs/gguf.md, version 3. Blocks of quantised weights
become float16, which holds the values of blocks of 4 to 8 bits to within 5e-4 relative. What is not
known here (another architecture, another tokenizer, other blocks) is left to transformers.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relisten.core.types import ModelError
from relisten.io.files import write_text
from relisten.io.tensors import save_tensors

_SCALARS = ("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")
"""Format of a value by its type; 8 is a text, 9 an array."""
_TEXT, _ARRAY = 8, 9
_NORMAL, _CONTROL = 1, 3
"""Types of tokens; only these two are written by the converters of ByteLevel BPE."""
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Name of a tensor in the file, without block and ending → its name in transformers."""


def _eight_bits(blocks: np.ndarray) -> np.ndarray:
    return _half(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _four_bits(blocks: np.ndarray) -> np.ndarray:
    return _half(blocks[:, :2]) * (_nibbles(blocks[:, 2:]) - 8)


def _four_bits_and_minimum(blocks: np.ndarray) -> np.ndarray:
    return _half(blocks[:, :2]) * _nibbles(blocks[:, 4:]) + _half(blocks[:, 2:4])


def _half(two_bytes: np.ndarray) -> np.ndarray:
    return two_bytes.copy().view(np.float16).astype(np.float32)


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Of 16 bytes first all lower halves, then all upper ones, float32 [n, 32]."""
    return np.concatenate([packed & 15, packed >> 4], 1).astype(np.float32)


_BLOCKS: dict[int, tuple[int, int, Callable[[np.ndarray], np.ndarray]]] = {
    0: (1, 4, lambda blocks: blocks.copy().view(np.float32)),
    1: (1, 2, _half),
    2: (32, 18, _four_bits),
    3: (32, 20, _four_bits_and_minimum),
    8: (32, 34, _eight_bits),
}
"""Type of a tensor → values and bytes of a block, and how to read uint8 [n, bytes] as float32."""


class _Reader:
    """Reads the head of a file from its start."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def scalar(self, kind: str) -> Any:
        [value] = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def text(self) -> str:
        length = self.scalar("Q")
        if self.at + length > len(self.data):
            raise ValueError("a text runs past the end")
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            inner, length = self.scalar("I"), self.scalar("Q")
            return [self.value(inner) for _ in range(length)]
        return self.scalar(_SCALARS[kind])


def convert_llama(path: Path, made: Path) -> bool:
    """Write config.json, weights and tokenizer of a GGUF file to the folder `made`; False where it
    holds anything that is not known here.

    Raises ModelError where the file is damaged.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = _Reader(data)
            if data[:4] != b"GGUF":
                raise ValueError("it does not begin with GGUF")
            reader.at = 4
            if reader.scalar("I") != 3:
                return False
            n_tensors, n_values = reader.scalar("Q"), reader.scalar("Q")
            head = {reader.text(): reader.value(reader.scalar("I")) for _ in range(n_values)}
            places = {}
            for _ in range(n_tensors):
                name = reader.text()
                shape = [reader.scalar("Q") for _ in range(reader.scalar("I"))]
                places[name] = (shape[::-1], reader.scalar("I"), reader.scalar("Q"))
            if not _is_known(head, places):
                return False
            alignment = head.get("general.alignment", 32)
            start = -(-reader.at // alignment) * alignment
            tensors = {
                _name(name): _tensor(data, start + offset, shape, kind).astype(np.float16)
                for name, (shape, kind, offset) in places.items()
            }
    except (OSError, ValueError, IndexError, KeyError, struct.error) as error:
        raise ModelError(f"{path}: is damaged ({error}); copy it again") from error
    config = _config(head, is_tied="output.weight" not in places)
    _pair_up(tensors, config)
    save_tensors({n: torch.from_numpy(t) for n, t in tensors.items()}, made / "model.safetensors")
    for name, record in (("config.json", config), *_tokenizer(head).items()):
        write_text(made / name, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return True


def _is_known(head: dict[str, Any], places: dict[str, Any]) -> bool:
    kinds = set(head.get("tokenizer.ggml.token_type", ()))
    return (
        head.get("general.architecture") == "llama"
        and head.get("tokenizer.ggml.model") == "gpt2"
        and head.get("tokenizer.ggml.pre") in ("smollm", "gpt-2")
        and not head.get("tokenizer.ggml.add_bos_token")
        and kinds <= {_NORMAL, _CONTROL}
        and not any(key.startswith("llama.rope.scaling") for key in head)
        and all(kind in _BLOCKS and _name(name) for name, (_, kind, _) in places.items())
    )


def _name(name: str) -> str:
    """The name in transformers; "" where there is none."""
    parts = name.split(".")
    if parts[-1] != "weight":
        return ""
    if parts[0] == "blk" and len(parts) == 4 and parts[2] in _NAMES:
        return f"model.layers.{parts[1]}.{_NAMES[parts[2]]}.weight"
    return f"{_NAMES[parts[0]]}.weight" if len(parts) == 2 and parts[0] in _NAMES else ""


def _tensor(data: mmap.mmap, start: int, shape: list[int], kind: int) -> np.ndarray:
    values, size, read = _BLOCKS[kind]
    n_blocks = int(np.prod(shape)) // values
    if start + n_blocks * size > len(data):
        raise ValueError("its weights run past the end")
    blocks = np.frombuffer(data, np.uint8, n_blocks * size, start).reshape(n_blocks, size)
    return read(blocks).reshape(shape)


def _config(head: dict[str, Any], is_tied: bool) -> dict[str, Any]:
    n_heads, hidden = head["llama.attention.head_count"], head["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": head["llama.feed_forward_length"],
        "num_hidden_layers": head["llama.block_count"],
        "num_attention_heads": n_heads,
        "num_key_value_heads": head.get("llama.attention.head_count_kv", n_heads),
        "head_dim": head.get("llama.attention.key_length", hidden // n_heads),
        "max_position_embeddings": head["llama.context_length"],
        "rms_norm_eps": head["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {
            "rope_theta": head.get("llama.rope.freq_base", 10_000.0),
            "rope_type": "default",
        },
        "vocab_size": len(head["tokenizer.ggml.tokens"]),
        "bos_token_id": head.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": head.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": head.get("tokenizer.ggml.padding_token_id"),
        "tie_word_embeddings": is_tied,
        "dtype": "float16",
    }


def _pair_up(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Rows of queries and keys in transformers' order. A GGUF file has the two rows that a rotation
    mixes beside each other; transformers has all first ones of a head, then all second ones."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for name, rows in tensors.items():
        if (kind := name.split(".")[-2]) in heads:
            pairs = rows.reshape(config[heads[kind]], -1, 2, rows.shape[1])
            tensors[name] = np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def _tokenizer(head: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """tokenizer.json of a byte-level BPE, and tokenizer_config.json."""
    tokens, kinds = head["tokenizer.ggml.tokens"], head["tokenizer.ggml.token_type"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special = [
        {"id": id, "content": token, **plain, "special": True}
        for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == _CONTROL
    ]
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "vocab": {token: id for id, token in enumerate(tokens)},
        "merges": [merge.split(" ", 1) for merge in head["tokenizer.ggml.merges"]],
    }
    ids = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    names = {
        name: tokens[head[key]]
        for name, of in ids.items()
        if (key := f"tokenizer.ggml.{of}_token_id") in head
    }
    return {
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": special,
            "pre_tokenizer": {**byte_level, "add_prefix_space": False},
            "decoder": {**byte_level, "add_prefix_space": True},
            "model": model,
        },
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **names},
    }
