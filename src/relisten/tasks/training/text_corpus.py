"""Text corpora as an LM is trained on them: sentences, tokenised once and kept.

A `.txt` file holds one paragraph per line (hard-wrapped prose: join its lines first), a `.jsonl`
file one text per line, under the key `text` or `reference`. An example is one sentence, as an
utterance is one: the spoken form has no full stops, so in longer pieces the LM would learn to run
on where a hypothesis ends.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from relisten.core.text import lower_if_capitals
from relisten.core.types import FormatError, UsageError
from relisten.io.nbest import read_nbest
from relisten.io.parquet import read_flat_lists, write_table
from relisten.lm.texts import TextEncoder
from relisten.tasks.streams import in_chunks
from relisten.tasks.training.examples import Example
from relisten.tasks.training.features import CachedUtterance

SENTENCES_PER_SHARD = 16_384
"""Sentences of a shard: some seconds of tokenising, 1 MB."""
MAX_SENTENCE_TOKENS = 100
"""Most tokens of an example; longer sentences, 1 in 100 of prose, are cut between words."""
KEYS = ("text", "reference")
_BETWEEN_SENTENCES = re.compile(
    r"(?:(?<=[.!?…।])|(?<=[.!?…।][\"'”’)\]]))"  # after a full stop, and what closes with it
    r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\b[A-Z]\.)"
    r"\s+(?=[\"'“‘(\[]*[^\W_a-z])"
)
_NO_SPEECH = CachedUtterance("", "", "", (), np.empty((0, 0), np.float16), 0.0)


class TextExamples(Sequence[Example]):
    """Sentences that serve the order `text`, made when they are drawn: 4 bytes per token are held.

    tokens: int32, of all sentences; ends: int64 [n], where each one ends in them. The words of an
    example are not told apart.
    """

    def __init__(self, tokens: np.ndarray, ends: np.ndarray) -> None:
        self.tokens, self._bounds = tokens, np.append(0, ends)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, i: int) -> Example:  # type: ignore[override]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        start, stop = self._bounds[i % len(self)], self._bounds[i % len(self) + 1]
        return Example(_NO_SPEECH, [self.tokens[start:stop].tolist()], _NO_SPEECH.speech)


def read_references(manifest: str, texts: TextEncoder) -> list[Example | None]:
    """The references of a manifest, for the order `text`; None for one without a word."""
    found: list[Example | None] = []
    for utterance in read_nbest(manifest):
        if utterance.reference:
            words = texts.words(lower_if_capitals(utterance.reference))
            no_speech = replace(_NO_SPEECH, id=utterance.id, text=utterance.reference)
            example = Example(no_speech, words, _NO_SPEECH.speech)
            found.append(example if any(words) else None)
    return found


def read_texts(path: str, texts: TextEncoder, cache: Path) -> TextExamples:
    """The sentences of a file, tokenised as `texts` does.

    The file is read as a stream; shards that `cache` holds already, of this content and tokeniser,
    are not made again. Raises FormatError for a line that holds no text, UsageError where there is
    nothing to read.
    """
    try:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    key = f"{content}|{texts.id}|{MAX_SENTENCE_TOKENS}"
    folder = cache / f"{Path(path).stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    tokens, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for number, chunk in enumerate(in_chunks(read_sentences(path), SENTENCES_PER_SHARD)):
        shard = folder / f"{number:05d}.parquet"
        if not shard.exists():
            pieces = [piece for s in chunk for piece in _pieces(texts.words(s))]
            write_table(shard, {"tokens": ("list<int32>", pieces)})
        some_tokens, some_lengths = read_flat_lists(shard, "tokens")
        tokens.append(some_tokens)
        lengths.append(some_lengths)
    examples = TextExamples(np.concatenate(tokens), np.cumsum(np.concatenate(lengths)))
    if not examples:
        raise UsageError(f"{path}: holds no text")
    return examples


def read_sentences(path: str) -> Iterator[str]:
    """The sentences of a file, read as a stream; lower case where a text is all capitals."""
    for text in _texts(path):
        sentences = _BETWEEN_SENTENCES.split(text)
        yield from [s.lower() for s in sentences] if text.isupper() else sentences


def _texts(path: str) -> Iterator[str]:
    is_json = Path(path).suffix == ".jsonl"
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode().strip()
            except UnicodeDecodeError as error:
                raise FormatError(
                    f"{path}:{number}: is not UTF-8 ({error.reason}); convert the file"
                ) from error
            if text:
                yield _text_of(text, f"{path}:{number}") if is_json else text


def _text_of(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise FormatError(f"{where}: is not one JSON object ({error})") from error
    found = [record[key] for key in KEYS if key in record] if isinstance(record, dict) else []
    if not found or not isinstance(found[0], str):
        raise FormatError(f"{where}: holds no text; give each line a key {' or '.join(KEYS)}")
    return found[0]


def _pieces(words: Iterable[list[int]]) -> Iterator[list[int]]:
    """The tokens of a sentence, cut between words where they are more than MAX_SENTENCE_TOKENS."""
    piece: list[int] = []
    for word in words:
        if piece and len(piece) + len(word) > MAX_SENTENCE_TOKENS:
            yield piece
            piece = []
        piece = piece + word
    if piece:
        yield piece
