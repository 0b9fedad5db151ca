"""Text corpora: what counts as a sentence, and that tokenising is done once."""

from __future__ import annotations

from pathlib import Path

import pytest

from relisten.core.types import FormatError, UsageError
from relisten.lm.texts import TextEncoder
from relisten.tasks.training import text_corpus
from relisten.tasks.training.text_corpus import read_texts
from tiny_world import tiny_text_lm


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_text_lm(tmp_path_factory.mktemp("lm")))


@pytest.fixture
def texts(tokenizer) -> TextEncoder:
    return TextEncoder(tokenizer, "spoken")


def read(path: Path, texts: TextEncoder, content: str) -> list[str]:
    """The sentences of a file as the LM reads them, a letter a token."""
    path.write_text(content)
    examples = read_texts(str(path), texts, path.parent / "cache")
    assert all(e.serves("text") and not e.serves("speech") for e in examples)
    return [texts.tokenizer.decode(e.words[0]).strip() for e in examples]


def test_an_example_is_a_sentence(tmp_path, texts):
    quoted = 'He saw Mr. Bo. Dr. A. Bo said: "No!" So? well, no.'
    assert read(tmp_path / "a.txt", texts, f"{quoted}\n\n  \nNo stop here\nALL UP. YES\n") == [
        "he saw mister bo",
        "doctor a bo said no",
        "so well no",
        "no stop here",
        "all up",
        "yes",
    ]


def test_json_lines(tmp_path, texts):
    content = '{"text": "One two. Six."}\n\n{"reference": "ten", "id": 3}\n'
    assert read(tmp_path / "a.jsonl", texts, content) == ["one two", "six", "ten"]
    for line, what in (("[]", "holds no text"), ('{"text": 1}', "holds no text"), ("{", "not one")):
        with pytest.raises(FormatError, match=rf"b\.jsonl:2: .*{what}"):
            read(tmp_path / "b.jsonl", texts, f'{{"text": "a"}}\n{line}\n')


def test_long_sentences_are_cut_between_words(tmp_path, texts, monkeypatch):
    """ " abc" is 4 letters: two of them fit 9, a word of 12 stands alone."""
    monkeypatch.setattr(text_corpus, "MAX_SENTENCE_TOKENS", 9)
    assert read(tmp_path / "a.txt", texts, "abc abc abc abcdefghijk abc") == [
        "abc abc",
        "abc",
        "abcdefghijk",
        "abc",
    ]


def test_tokenised_once_and_again_when_something_changed(tmp_path, tokenizer, monkeypatch):
    """Shards of two sentences; one that a kill left out is made again, the others are kept."""
    monkeypatch.setattr(text_corpus, "SENTENCES_PER_SHARD", 2)
    calls: list[str] = []
    encode = TextEncoder.words
    monkeypatch.setattr(
        TextEncoder, "words", lambda self, text: calls.append(text) or encode(self, text)
    )
    spoken, surface = TextEncoder(tokenizer, "spoken"), TextEncoder(tokenizer, "surface")
    path = tmp_path / "a.txt"
    first = read(path, spoken, "one\ntwo\nsix\nten\n")
    assert (first, len(calls)) == (["one", "two", "six", "ten"], 4)
    assert read(path, spoken, "one\ntwo\nsix\nten\n") == first
    assert len(calls) == 4
    [folder] = (tmp_path / "cache").iterdir()
    (folder / "00001.parquet").unlink()
    assert read(path, spoken, "one\ntwo\nsix\nten\n") == first
    assert calls[4:] == ["six", "ten"]
    assert read(path, spoken, "one\ntwo\nsix\nsix\n")[-1] == "six", "other content"
    read(path, surface, "one\ntwo\nsix\nten\n")
    assert len(calls) == 14, "another form is tokenised anew"


def test_nothing_to_read_is_said(tmp_path, texts):
    with pytest.raises(UsageError, match=r"a\.txt: holds no text"):
        read(tmp_path / "a.txt", texts, "\n \n")
    with pytest.raises(UsageError, match=r"no\.txt: cannot be read"):
        read_texts(str(tmp_path / "no.txt"), texts, tmp_path)
    (tmp_path / "b.txt").write_bytes(b"ok\n\xff\n")
    with pytest.raises(FormatError, match=r"b\.txt:2: is not UTF-8"):
        read_texts(str(tmp_path / "b.txt"), texts, tmp_path)
