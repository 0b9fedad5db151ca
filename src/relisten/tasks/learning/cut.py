"""Long recordings that nobody transcribed, cut at pauses into what can be learnt from at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from relisten.core.types import AudioError, NBest
from relisten.io.audio import RATE_HZ, probe_audio, stream_audio
from relisten.io.nbest import resolve_audio
from relisten.speech.segmentation import SpeechSegment, speech_segments
from relisten.tasks.learning.suitable import LONGEST_S
from relisten.tasks.streams import Say


def cut_untranscribed(utterances: Iterable[NBest], source: str, say: Say) -> list[NBest]:
    """The utterances of the file `source`, in their order, each recording without a text that lasts
    longer than LONGEST_S as the segments of it that hold speech.

    What cannot be read, or not whole, stays as it is, to be refused where recordings are read.
    """
    kept: list[NBest] = []
    n_cut = n_segments = 0
    for one in utterances:
        segments = _segments(one, source)
        kept += segments
        if segments != [one]:
            n_cut, n_segments = n_cut + 1, n_segments + len(segments)
    if n_cut:
        say(f"cut at pauses: {n_cut:,} long without a text into {n_segments:,} segments")
    return kept


def _segments(utterance: NBest, source: str) -> list[NBest]:
    if utterance.reference is not None or utterance.audio is None:
        return [utterance]
    path = resolve_audio(utterance, source)
    try:
        duration_s = utterance.duration_s
        if duration_s is None and (whole_s := probe_audio(path).duration_s) is not None:
            duration_s = whole_s - utterance.start_s
        if duration_s is not None and duration_s <= LONGEST_S:
            return [utterance]
        blocks = stream_audio(path, RATE_HZ, utterance.start_s, utterance.duration_s)
        return [_part(utterance, segment) for segment in speech_segments(blocks, LONGEST_S)]
    except AudioError:
        return [utterance]


def _part(utterance: NBest, segment: SpeechSegment) -> NBest:
    start_s = utterance.start_s + segment.start_s
    duration_s = segment.end_s - segment.start_s
    return replace(
        utterance, id=f"{utterance.id}-{start_s:g}", start_s=start_s, duration_s=duration_s
    )
