"""Which token belongs to which word."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from relisten.core.rules import Rules
from relisten.lm.texts import TextEncoder


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level BPE, trained on a few words, as GPT-2's or SmolLM2's are."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    corpus = ["Mark is going to see an elephant", "mark is zero three five one"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=bpe)


def decoded(encoder, text):
    return [encoder.tokenizer.decode(word) for word in encoder.words(text)]


def test_surface_words_are_the_text_cut_at_spaces(tokenizer):
    words = decoded(TextEncoder(tokenizer), "Mark is going to see, an elephant!")
    assert words == ["Mark", " is", " going", " to", " see,", " an", " elephant!"]


def test_tokens_are_those_of_the_whole_text(tokenizer):
    text = "Mark is going  to\tsee unknown éléphants"
    words = TextEncoder(tokenizer).words(text)
    assert len(words) == len(text.split())
    whole = tokenizer(" ".join(text.split()), add_special_tokens=False)["input_ids"]
    assert [token for word in words for token in word] == whole


def test_spoken_words_read_alike_wherever_they_stand(tokenizer):
    encoder = TextEncoder(tokenizer, "spoken")
    assert decoded(encoder, "Mark is 0351!") == [" mark", " is", " zero three five one"]
    assert encoder.words("Mark")[0] == encoder.words("is mark")[1]
    assert encoder.words("0351") == [[t for w in encoder.words("zero three five one") for t in w]]


def test_a_word_that_is_not_spoken_has_no_tokens(tokenizer):
    encoder = TextEncoder(tokenizer, "spoken")
    assert decoded(encoder, "... Mark -- is !") == ["", " mark", "", " is", ""]
    assert encoder.words("...") == [[]]
    assert encoder.words("") == []


def test_the_language_model_reads_by_the_rules(tokenizer) -> None:
    plain = TextEncoder(tokenizer, "spoken")
    ruled = TextEncoder(tokenizer, "spoken", Rules((("euh", ""), ("gonna", "going to"))))
    words = ruled.words("Euh, I'm gonna go")
    assert words[0] == []
    assert [t for word in words for t in word] == [
        t for word in plain.words("I'm going to go") for t in word
    ]
    assert len(words) == 4
    assert plain.id != ruled.id, "what is cached for one is not the other's"
