"""Speech and text as one token sequence, in the orders that a speech-text LM knows.

    text           BOS [<text>] y EOS                                  → log P(y)
    speech_first   BOS <speech> u <text> y EOS                         → log P(y|speech)
    interleaved    BOS <speech> u₁ <text> y₁ … <speech> r <text> EOS   → log P(y|speech), by words
    chunked        BOS <speech:u₁> y₁ … <speech:r> EOS                 → the same, a vector per word
    text_first     BOS <text> y <speech> u <text>                      → log P(speech|y)
    speech         BOS <speech> u <text>                               → log P(speech), for training

A segment of text or speech is closed by the marker that opens the next one; the last text by EOS,
the last speech by <text>. The token that closes a segment is scored with it, so that "cat" and
"cats" both state where they end. u_i are the units up to the end of word i (SpiritLM,
arXiv:2402.05755, also cuts at words), r those after the last word: EOS is predicted with r before
it, so that a hypothesis that stops halfway leaves speech unexplained. In the chunked order the
units of a word enter together, as one vector added to the marker that opens them: 2.3 positions per
word instead of 7.5.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from relisten.core.quarters import quarter_means
from relisten.lm.vocabulary import Vocabulary

Order = Literal["text", "speech_first", "interleaved", "chunked", "text_first", "speech"]

UNSCORED, AS_TEXT, AS_SPEECH = 0, 1, 2
MAX_CHUNK_S = 1.28
"""Longest chunk. Of a longer one the end is kept (what goes before is a pause before the word), of
the one after the last word the beginning."""
CTC_PROBABILITY_SCALE = 4.0
"""CTC probabilities lie in 0 to 1, encoder frames within a few units of 0."""


@dataclass(frozen=True, slots=True)
class Speech:
    """One utterance of T units.

    codes: int32 [T, levels], the codebook's indices. unit_s: seconds of a unit. frames: float
    [T, D], pooled encoder frames, where the LM takes them, else None. ctc_log_probs: float
    [T, S, 1 + labels], the CTC head's log-probabilities at each unit's S steps, where there is a
    head, else None. window: float32 [T', D'], what an adapted recogniser's decoder attends to;
    is_strange: whether it was taught other speech.
    """

    codes: np.ndarray
    unit_s: float
    frames: np.ndarray | None = None
    ctc_log_probs: np.ndarray | None = None
    window: np.ndarray | None = None
    is_strange: bool = False

    def __len__(self) -> int:
        return len(self.codes)

    def stretched(self, n_units: int) -> Speech:
        """The same speech slowed down or sped up to n_units, by repeating or dropping units; the
        window stays as it is."""
        rows = np.arange(n_units) * len(self) // n_units
        frames, ctc_log_probs = (
            None if values is None else values[rows] for values in (self.frames, self.ctc_log_probs)
        )
        return replace(self, codes=self.codes[rows], frames=frames, ctc_log_probs=ctc_log_probs)

    def chunks(self, word_ends_s: Seq[float]) -> np.ndarray:
        """Half-open ranges of units, int64 [W + 1, 2]: one per word, one for what follows them.

        word_ends_s: W, seconds. Each range has at least one unit where the utterance has any. Word
        ends are rounded to units first, so that hypotheses that agree on a word to within rounding
        share its chunk.
        """
        n_units, longest = len(self), max(1, round(MAX_CHUNK_S / self.unit_s))
        spans = []
        start = 0
        for end_s in word_ends_s:
            end = min(round(end_s / self.unit_s), n_units)
            stop = min(max(end, start + 1), n_units)
            spans.append((max(min(start, n_units - 1), stop - longest, 0), stop))
            start = max(start, end)
        start = max(min(start, n_units - 1), 0)
        spans.append((start, min(start + longest, n_units)))
        return np.array(spans, np.int64)


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A sequence over the joint vocabulary, length L.

    ids: int64 [L]. spans: int64 [L, 2], the half-open range of the utterance's units that enters at
    a position: that unit where a unit stands, a chunk at the marker of a chunk, elsewhere (-1, -1).
    scored: int8 [L], UNSCORED, AS_TEXT (log-softmax over text and markers) or AS_SPEECH (over
    markers and units); position 0 is never scored.
    """

    ids: np.ndarray
    spans: np.ndarray
    scored: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of_text(cls, ids: Seq[int], n_given: int = 1) -> TokenSequence:
        """Text tokens without speech, BOS first; all but the first n_given are scored."""
        scored = np.full(len(ids), AS_TEXT, np.int8)
        scored[:n_given] = UNSCORED
        return cls(np.asarray(ids, np.int64), np.full((len(ids), 2), -1, np.int64), scored)


class _Builder:
    """Columns of a `TokenSequence` under way; BOS stands first."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.ids: list[int] = [vocabulary.bos_id]
        self.starts: list[int] = [-1]
        self.stops: list[int] = [-1]
        self.scored: list[int] = [UNSCORED]

    def tokens(self, token_ids: Seq[int], scored: int = UNSCORED) -> None:
        """Tokens at which no speech enters."""
        self.ids.extend(token_ids)
        self.starts.extend([-1] * len(token_ids))
        self.stops.extend([-1] * len(token_ids))
        self.scored.extend([scored] * len(token_ids))

    def chunk(self, start: int, stop: int, scored: int) -> None:
        """The marker of a chunk."""
        self.ids.append(self.vocabulary.speech_id)
        self.starts.append(start)
        self.stops.append(stop)
        self.scored.append(scored)

    def units(self, speech: Speech, start: int, stop: int, scored: int = UNSCORED) -> None:
        self.ids.extend((speech.codes[start:stop, 0] + self.vocabulary.first_unit_id).tolist())
        self.starts.extend(range(start, stop))
        self.stops.extend(range(start + 1, stop + 1))
        self.scored.extend([scored] * (stop - start))

    def done(self) -> TokenSequence:
        return TokenSequence(
            np.asarray(self.ids, np.int64),
            np.stack([self.starts, self.stops], 1),
            np.asarray(self.scored, np.int8),
        )


def chunk_features(speech: Speech, spans: np.ndarray) -> np.ndarray:
    """What a projector is given of chunks: float32 [n, N_QUARTERS * D + 1].

    spans: int64 [n, 2], half-open ranges of units. The mean of each quarter, then the logarithm of
    the chunk's seconds. What is averaged are the frames, joined by the CTC head's mean probability
    of each label where there is a head; D is the length of both. [0, 0] without frames.
    """
    if speech.frames is None or not len(spans):
        return np.empty((0, 0), np.float32)
    frames = speech.frames
    if speech.ctc_log_probs is not None:
        probabilities = np.exp(speech.ctc_log_probs.astype(np.float32)).mean(1)
        frames = np.concatenate([frames, CTC_PROBABILITY_SCALE * probabilities], 1)
    starts, stops = spans.T
    log_s = np.log(np.maximum(stops - starts, 1) * speech.unit_s).astype(np.float32)
    return np.concatenate([quarter_means(frames, starts, stops), log_s[:, None]], 1)


def speech_inputs(
    vocabulary: Vocabulary, ids: np.ndarray, spans: np.ndarray, speech: Speech
) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n_units, levels] and chunk features [n_chunks, F] of the positions that hold speech.

    ids: int64 [L], spans: int64 [L, 2], as in `TokenSequence`; the order is theirs.
    """
    is_unit = ids >= vocabulary.first_unit_id
    is_chunk = ~is_unit & (spans[:, 0] >= 0)
    return speech.codes[spans[is_unit, 0]], chunk_features(speech, spans[is_chunk])


def build_sequence(
    order: Order,
    vocabulary: Vocabulary,
    words: Seq[Seq[int]] = (),
    speech: Speech | None = None,
    word_ends_s: Seq[float] = (),
) -> TokenSequence:
    """The token sequence of one hypothesis in one order.

    words: text token ids of each whitespace-separated word (a word may have none). speech is needed
    in every order but `text`; word_ends_s (one per word, seconds) in the interleaved and chunked
    orders.
    """
    speech_id, text_id = [vocabulary.speech_id], [vocabulary.text_id]
    text = [token for word in words for token in word]
    build = _Builder(vocabulary)
    if order == "text":
        build.tokens(text_id if vocabulary.n_units else [])
        build.tokens([*text, vocabulary.eos_id], AS_TEXT)
        return build.done()
    assert speech is not None, f"the {order} order needs speech"
    if order == "text_first":
        build.tokens(text_id + text)
    if order in ("text_first", "speech"):
        build.tokens(speech_id)
        build.units(speech, 0, len(speech), AS_SPEECH)
        build.tokens(text_id, AS_SPEECH)
        return build.done()
    if order == "speech_first":
        build.tokens(speech_id)
        build.units(speech, 0, len(speech))
        build.tokens(text_id)
        build.tokens(text, AS_TEXT)
    else:
        assert len(words) == len(word_ends_s), "one word end per word"
        spans = speech.chunks(word_ends_s).tolist()
        for i, (word, (start, stop)) in enumerate(zip((*words, ()), spans, strict=True)):
            closes = AS_TEXT if i else UNSCORED
            if order == "chunked":
                build.chunk(start, stop, closes)
            else:
                build.tokens(speech_id, closes)
                build.units(speech, start, stop)
                build.tokens(text_id)
            build.tokens(word, AS_TEXT)
    build.tokens([vocabulary.eos_id], AS_TEXT)
    return build.done()
