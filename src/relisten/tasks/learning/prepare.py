"""The first stage of `learn`: what is learnt from, what is watched, and what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relisten.core.types import NBest, Refusal, UsageError
from relisten.io.audio import RATE_HZ
from relisten.io.nbest import read_nbest, save_nbest
from relisten.tasks.learning.cut import cut_untranscribed
from relisten.tasks.learning.held_out import hold_out, seen_references
from relisten.tasks.learning.speech import describe_speech, gather_speech
from relisten.tasks.learning.suitable import check_utterance, count_scripts
from relisten.tasks.streams import Say, Tick
from relisten.tasks.training.recordings import keep_recordings, kept_recordings

HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 250
"""Of the transcribed speech; more utterances cost time and tell little more."""
WATCHED_SHARE, FEWEST_WATCHED, MOST_WATCHED = 0.05, 25, 60
"""Of what is left: training stops by their errors, so they tell nothing in the end."""
SPEECH, LEARNT, WATCHED = "speech.jsonl", "learnt.jsonl", "watched.jsonl"
UNTRANSCRIBED, HELD_OUT = "untranscribed.jsonl", "held-out.jsonl"
RECORDINGS, DEV_RECORDINGS = "recordings.pcm", "dev.pcm"


@dataclass(frozen=True)
class Prepared:
    """The user's speech. Manifests lie in `folder` under the names above.

    watched: empty where there is too little speech to spare. seen: ids of held-out utterances whose
    reference is one of those learnt from. refused: what cannot be learnt from.
    """

    folder: Path
    learnt: list[NBest]
    watched: list[NBest]
    held_out: list[NBest]
    untranscribed: list[NBest]
    seen: frozenset[str]
    refused: tuple[Refusal, ...] = ()

    @property
    def recordings(self) -> Path:
        """The samples of all that is learnt from or watched."""
        return self.folder / RECORDINGS

    @property
    def held_out_recordings(self) -> Path:
        """The samples of what is held out."""
        dev = self.folder / DEV_RECORDINGS
        return dev if dev.exists() else self.recordings


def prepare(
    sources: Sequence[str], dev: Sequence[str], folder: Path, seed: int, say: Say, tick: Tick
) -> Prepared:
    """Gather the speech of `sources`, check it, and divide it; dev: held out, instead of a part.

    Raises UsageError where nothing is left to learn from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refused: list[Refusal] = []
    usable = _usable(sources, folder / SPEECH, folder / RECORDINGS, refused, say, tick)
    transcribed = [u for u in usable if u.reference]
    untranscribed = [u for u in usable if not u.reference]
    if dev:
        held_out = _usable(dev, folder / "dev.jsonl", folder / DEV_RECORDINGS, refused, say, tick)
        held_out = [u for u in held_out if u.reference]
        learnt = transcribed
    elif transcribed:
        learnt, held_out = hold_out(transcribed, HELD_OUT_SHARE, MOST_HELD_OUT, seed)
    else:
        learnt, held_out = [], []
    held_speakers = {u.speaker for u in held_out if u.speaker}
    if not dev and held_speakers.isdisjoint(u.speaker for u in learnt):  # whole speakers
        n_all = len(untranscribed)
        untranscribed = [u for u in untranscribed if u.speaker not in held_speakers]
        if left_out := n_all - len(untranscribed):
            say(f"{left_out} recordings without a transcript are of speakers who are held out")
    watched: list[NBest] = []
    if WATCHED_SHARE * len(learnt) >= FEWEST_WATCHED:
        learnt, watched = hold_out(learnt, WATCHED_SHARE, MOST_WATCHED, seed)
    if not learnt and not untranscribed:
        first = f": {refused[0].id}: {refused[0].reason}" if refused else ""
        raise UsageError(f"{', '.join(sources)}: nothing to learn from{first}")
    parts = (LEARNT, learnt), (WATCHED, watched), (HELD_OUT, held_out)
    for name, some in (*parts, (UNTRANSCRIBED, untranscribed)):
        save_nbest(some, folder / name)
    for sentence in describe_speech([*learnt, *watched, *untranscribed], held_out, refused):
        say(sentence)
    seen = frozenset(seen_references(held_out, [*learnt, *watched]))
    parted = learnt, watched, held_out, untranscribed
    return Prepared(folder, *parted, seen, tuple(refused))


def _usable(
    sources: Sequence[str],
    manifest: Path,
    recordings: Path,
    refused: list[Refusal],
    say: Say,
    tick: Tick,
) -> list[NBest]:
    """The utterances that can be learnt from, with their durations; the others join `refused`."""
    before = manifest.read_bytes() if manifest.exists() else None
    _, unreadable = gather_speech(sources, manifest, say)
    refused += unreadable
    cut = manifest.with_suffix(".cut.jsonl")
    if before is not None and manifest.read_bytes() != before:
        if (manifest.parent / LEARNT).exists():
            manifest.write_bytes(before)
            raise UsageError(
                f"{manifest}: this run began with other speech than {', '.join(sources)}; name "
                "another output"
            )
        for path in (cut, recordings):  # nothing was learnt from them
            path.unlink(missing_ok=True)
    if not cut.exists():
        save_nbest(cut_untranscribed(read_nbest(str(manifest)), str(manifest), say), cut)
    utterances = list(read_nbest(str(cut)))
    is_resumed = recordings.exists()
    if not is_resumed:
        for one in keep_recordings(utterances, str(cut), recordings):
            if isinstance(one, Refusal):
                refused.append(one)
            tick(1)
    usable = []
    scripts = count_scripts(utterances)
    kept = {one.id: one for one in kept_recordings(utterances, recordings)}
    for utterance in utterances:
        if (recording := kept.get(utterance.id)) is None:
            if is_resumed:
                reason = "its recording could not be read when this run began"
                refused.append(Refusal(utterance.id, reason))
            continue
        duration_s = len(recording.pcm) / RATE_HZ
        reason = check_utterance(utterance, duration_s, scripts)
        if reason:
            refused.append(Refusal(utterance.id, reason))
        else:
            usable.append(replace(utterance, duration_s=int(1000 * duration_s) / 1000))
    return usable
