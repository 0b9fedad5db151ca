"""tokenizer.json read without transformers is what transformers makes of it."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from relisten.lm.backend.tokenizer import load_plain_tokenizer
from relisten.lm.load import text_vocabulary
from relisten.lm.texts import TextEncoder
from tiny_world import tiny_text_lm

TEXT = "Mark is going  to see, an éléphant: 0351!"


@pytest.fixture
def folder(tmp_path):
    return tiny_text_lm(tmp_path)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("form", ["surface", "spoken"])
def test_the_same_tokens_words_and_id(folder, form):
    plain, theirs = load_plain_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    ours, other = TextEncoder(plain, form), TextEncoder(theirs, form)
    assert ours.words(TEXT) == other.words(TEXT)
    assert ours.id == other.id
    assert text_vocabulary(plain, 5) == text_vocabulary(theirs, 5)


def test_special_tokens_from_either_file(folder):
    """tokenizer_config.json has the last word; a token may be a record."""
    edit(folder / "tokenizer_config.json", bos_token={"content": "a", "lstrip": False})
    (folder / "special_tokens_map.json").write_text('{"bos_token": "b", "pad_token": "c"}')
    plain, theirs = load_plain_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert plain.convert_ids_to_tokens([plain.bos_token_id, plain.pad_token_id]) == ["a", "c"]
    assert plain.eos_token_id == theirs.eos_token_id == 0
    assert len(plain) == len(theirs)


def test_truncation_that_was_saved_cuts_nothing(folder):
    cut = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    edit(folder / "tokenizer.json", truncation=cut)
    words = TextEncoder(load_plain_tokenizer(folder)).words("one two three")
    assert sum(map(len, words)) > 3


@pytest.mark.parametrize(
    "changes", [{"tokenizer_class": "LlamaTokenizer"}, {"bos_token": "<not there>"}]
)
def test_what_transformers_would_change_is_left_to_it(folder, changes):
    edit(folder / "tokenizer_config.json", **changes)
    assert load_plain_tokenizer(folder) is None


def test_none_without_a_tokenizer_json(folder):
    (folder / "tokenizer.json").unlink()
    assert load_plain_tokenizer(folder) is None
