"""A tokenizer.json read without transformers, whose import takes longer than all of our own."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

_UNCHANGED = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""transformers' classes that use tokenizer.json unchanged; the others rebuild parts of it."""


class PlainTokenizer:
    """The part of the interface of a fast transformers tokenizer that is used here.

    backend: a `tokenizers.Tokenizer`. special: special tokens by name, as in tokenizer_config.json
    ("bos_token": "<s>").
    """

    is_fast = True

    def __init__(self, backend: Tokenizer, special: dict[str, str]) -> None:
        self.backend_tokenizer = backend
        self._special = special

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    @cached_property
    def bos_token_id(self) -> int | None:
        return self._special_id("bos_token")

    @cached_property
    def eos_token_id(self) -> int | None:
        return self._special_id("eos_token")

    @cached_property
    def pad_token_id(self) -> int | None:
        return self._special_id("pad_token")

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        return [self.backend_tokenizer.id_to_token(token_id) for token_id in ids]

    def _special_id(self, name: str) -> int | None:
        token = self._special.get(name)
        return None if token is None else self.backend_tokenizer.token_to_id(token)


def load_plain_tokenizer(folder: Path) -> PlainTokenizer | None:
    """The tokenizer of a model folder; None where transformers must load it."""
    try:
        record = _read(folder / "tokenizer_config.json")
        if record.get("tokenizer_class") not in _UNCHANGED:
            return None
        special = {**_special(_read(folder / "special_tokens_map.json")), **_special(record)}
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # tokenizers raises plain Exception
        return None
    if any(backend.token_to_id(token) is None for token in special.values()):
        return None  # transformers would add the token
    backend.no_truncation()
    backend.no_padding()
    return PlainTokenizer(backend, special)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _special(record: dict[str, Any]) -> dict[str, str]:
    """Special tokens by name; in the file each is a string, or a record with its `content`."""
    found = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        token = record.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None:
            found[name] = token
    return found
