"""Speech and text as one sequence, in the orders a speech-text LM is trained and asked in.

    text           BOS [<text>] y EOS                              → log P(y)
    speech_first   BOS <speech> u <text> y EOS                     → log P(y|speech)
    interleaved    BOS <speech> u₁ <text> y₁ … <speech> r <text> EOS   → log P(y|speech), by words
    chunked        BOS <speech:u₁> y₁ … <speech:r> EOS             → the same, one vector a word
    text_first     BOS <text> y <speech> u <text>                  → log P(speech|y)
    speech         BOS <speech> u <text>                           → log P(speech), for training

A stretch is closed by the marker that opens the next; the last text by EOS, the last speech by
<text>. What closes a stretch is scored with it, so that "cat" and "cats" both say where they end.
u_i are the units up to the end of word i (SpiritLM, arXiv:2402.05755, cuts at words too), r what
follows the last word: EOS is predicted with r before it, so a hypothesis that stops halfway has
speech to explain away. In the chunked order units enter together, as one vector added to the marker
that opens them: 2.3 positions a word instead of 7.5.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

import numpy as np

from relisten.lm.vocabulary import Vocabulary

Order = Literal["text", "speech_first", "interleaved", "chunked", "text_first", "speech"]

UNSCORED, AS_TEXT, AS_SPEECH = 0, 1, 2
MAX_CHUNK_S = 1.28
"""Longest stretch of speech before a word; of a longer one (a pause before the word) the end is
kept, of the stretch after the last word the beginning."""
CHUNK_PARTS = 4
"""A chunk is described by the mean frame of each of its quarters."""
LETTER_SCALE = 4.0
"""Shares of letters lie in 0 to 1, frames within some units of 0."""
CHUNK_BITS = 8
"""A chunk's row is start << CHUNK_BITS | length, in units."""


@dataclass(frozen=True, slots=True)
class Speech:
    """One utterance on the unit grid.

    codes: int32 [U, levels], the codebook's indices. frames: float [U, D] pooled encoder frames
    where the LM hears frames, else None. letters: float [U, S, 1 + letters], log-probabilities of
    what a CTC head hears in each unit's S steps, where there is one. unit_s: seconds of a unit.
    """

    codes: np.ndarray
    unit_s: float
    frames: np.ndarray | None = None
    ctc_log_probs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def stretched(self, n_units: int) -> Speech:
        """The same speech slowed down or sped up to n_units, by repeating or leaving out units."""
        rows = np.arange(n_units) * len(self) // n_units
        frames, ctc_log_probs = (
            None if values is None else values[rows] for values in (self.frames, self.ctc_log_probs)
        )
        return Speech(self.codes[rows], self.unit_s, frames, ctc_log_probs)


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A sequence over the joint vocabulary, length L.

    ids: int64 [L]. rows: int64 [L], what of the utterance's `Speech` stands here: at a unit its
    index, at the marker of a chunk the chunk (see CHUNK_BITS), elsewhere -1. scored: int8 [L],
    UNSCORED, AS_TEXT (log-softmax over text and markers) or AS_SPEECH (over units and markers);
    position 0 is never scored.
    """

    ids: np.ndarray
    rows: np.ndarray
    scored: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class _Builder:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.ids: list[int] = [vocabulary.bos_id]
        self.rows: list[int] = [-1]
        self.scored: list[int] = [UNSCORED]

    def token(self, token_id: int, scored: int = UNSCORED, row: int = -1) -> None:
        self.ids.append(token_id)
        self.rows.append(row)
        self.scored.append(scored)

    def text(self, token_ids: Seq[int], scored: int) -> None:
        self.ids.extend(token_ids)
        self.rows.extend([-1] * len(token_ids))
        self.scored.extend([scored] * len(token_ids))

    def units(self, speech: Speech, start: int, stop: int, scored: int) -> None:
        first = self.vocabulary.n_text + 2
        self.ids.extend((speech.codes[start:stop, 0] + first).tolist())
        self.rows.extend(range(start, stop))
        self.scored.extend([scored] * (stop - start))

    def done(self) -> TokenSequence:
        return TokenSequence(
            np.asarray(self.ids, np.int64),
            np.asarray(self.rows, np.int64),
            np.asarray(self.scored, np.int8),
        )


def speech_chunks(word_ends_s: Seq[float], unit_s: float, n_units: int) -> list[tuple[int, int]]:
    """Half-open ranges of units: one a word, and one of what follows the last word.

    Each has at least one unit where any exist. Word ends are rounded to units first, so hypotheses
    that agree on a word to within rounding share its chunk.
    """
    longest = max(1, round(MAX_CHUNK_S / unit_s))
    chunks = []
    start = 0
    for end_s in word_ends_s:
        end = min(round(end_s / unit_s), n_units)
        stop = min(max(end, start + 1), n_units)
        chunks.append((max(min(start, n_units - 1), stop - longest, 0), stop))
        start = max(start, end)
    start = max(min(start, n_units - 1), 0)
    return [*chunks, (start, min(start + longest, n_units))]


def chunk_features(speech: Speech, rows: np.ndarray) -> np.ndarray:
    """Mean sound of each quarter of each chunk, log seconds: float32 [n, CHUNK_PARTS * D + 1].

    rows: int64 [n] as in `TokenSequence`. A sound is a frame, and the share of each letter where an
    CTC head has heard letters; D is the length of both. A quarter shorter than a unit is the unit it
    lies in.
    """
    if speech.frames is None or not len(rows):
        return np.empty((0, 0), np.float32)
    start, length = rows >> CHUNK_BITS, rows & ((1 << CHUNK_BITS) - 1)
    sounds = speech.frames
    if speech.ctc_log_probs is not None:
        shares = LETTER_SCALE * np.exp(speech.ctc_log_probs.astype(np.float32)).mean(1)
        sounds = np.concatenate([sounds, shares], 1)
    sums = np.cumsum(sounds, 0, np.float32)
    sums = np.concatenate([np.zeros_like(sums[:1]), sums])
    edges = start[:, None] + length[:, None] * np.arange(CHUNK_PARTS + 1) / CHUNK_PARTS
    lower = np.minimum(np.floor(edges[:, :-1]).astype(int), len(speech) - 1)
    upper = np.maximum(np.ceil(edges[:, 1:]).astype(int), lower + 1)
    means = (sums[upper] - sums[lower]) / (upper - lower)[..., None]
    log_s = np.log(np.maximum(length, 1) * speech.unit_s)
    return np.concatenate([means.reshape(len(rows), -1), log_s[:, None]], 1).astype(np.float32)


def speech_inputs(
    vocabulary: Vocabulary, ids: np.ndarray, rows: np.ndarray, speech: Speech
) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n_units, levels] and chunk features [n_chunks, F] at the positions that hold speech.

    ids, rows: int64 [L], as in `TokenSequence`; the order is theirs.
    """
    is_unit = ids >= vocabulary.n_text + 2
    return speech.codes[rows[is_unit]], chunk_features(speech, rows[~is_unit & (rows >= 0)])


def build_sequence(
    order: Order,
    vocabulary: Vocabulary,
    words: Seq[Seq[int]] = (),
    speech: Speech | None = None,
    word_ends_s: Seq[float] = (),
) -> TokenSequence:
    """The token sequence of one hypothesis in one order.

    words: text token ids of each whitespace-separated word (a word may have none). speech is needed
    in every order but `text`, word_ends_s (one a word, seconds) in those cut at words.
    """
    build = _Builder(vocabulary)
    if order == "text":
        if vocabulary.n_units:
            build.token(vocabulary.text_id)
        for word in words:
            build.text(word, AS_TEXT)
        build.token(vocabulary.eos_id, AS_TEXT)
        return build.done()
    assert speech is not None, f"the {order} order needs speech"
    if order == "text_first":
        build.token(vocabulary.text_id)
        for word in words:
            build.text(word, UNSCORED)
    if order in ("text_first", "speech"):
        build.token(vocabulary.speech_id)
        build.units(speech, 0, len(speech), AS_SPEECH)
        build.token(vocabulary.text_id, AS_SPEECH)
        return build.done()
    if order == "speech_first":
        build.token(vocabulary.speech_id)
        build.units(speech, 0, len(speech), UNSCORED)
        build.token(vocabulary.text_id)
        for word in words:
            build.text(word, AS_TEXT)
    else:
        assert len(words) == len(word_ends_s), "one word end a word"
        chunks = speech_chunks(word_ends_s, speech.unit_s, len(speech))
        for i, (word, (start, stop)) in enumerate(zip((*words, ()), chunks, strict=True)):
            closes = AS_TEXT if i else UNSCORED
            if order == "chunked":
                build.token(vocabulary.speech_id, closes, start << CHUNK_BITS | stop - start)
            else:
                build.token(vocabulary.speech_id, closes)
                build.units(speech, start, stop, UNSCORED)
                build.token(vocabulary.text_id)
            build.text(word, AS_TEXT)
    build.token(vocabulary.eos_id, AS_TEXT)
    return build.done()
