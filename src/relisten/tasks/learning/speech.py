"""Speech of any form becomes one manifest, and the sentences that describe it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from relisten.core.types import FormatError, NBest, Refusal, UsageError
from relisten.io.corpora import Corpus, corpora_at, read_corpus
from relisten.io.nbest import rebase_audio, resolve_audio, save_nbest
from relisten.tasks.streams import Say
from relisten.tasks.weights import SCORED_BY

Named = tuple[str, Sequence[NBest]]
"""The name of a source and its utterances."""


def gather_speech(
    sources: Sequence[str], manifest: Path, say: Say
) -> tuple[int, tuple[Refusal, ...]]:
    """How many utterances of all sources were written to `manifest`, and what cannot be read.

    sources: files, folders, or "-", in any form that `relisten.io.corpora` reads. The order is
    theirs. An id that several sources use begins with the name of its source afterwards. Texts are
    NFC with single spaces, hypotheses are dropped, and a recording without a text is left out where
    another source gives it one. What was decided is said. An earlier manifest is unchanged where
    an error is raised.
    Raises FormatError for a source that is missing, has no known form, or of which nothing can be
    read; UsageError where the manifest cannot be written.
    """
    if not sources:
        raise UsageError("no speech was named; name a manifest, a table or a folder of recordings")
    refused: list[Refusal] = []
    gathered: list[Named] = []
    for corpus in _corpora(sources, say):
        utterances, refusals = _read(corpus, manifest, say)
        gathered.append((corpus.name, utterances))
        refused += refusals
    unique = _with_unique_ids(_without_copies(gathered, manifest, say), say)
    save_nbest(unique, manifest)
    return len(unique), tuple(refused)


def _corpora(sources: Sequence[str], say: Say) -> list[Corpus]:
    """Those of all sources, each once."""
    found: dict[Path, Corpus] = {}
    for source in sources:
        for corpus in corpora_at(source):
            place = corpus.file.parent.resolve() / corpus.file.name
            if place in found:
                say(f"{source}: {corpus.file} was named before; it is read once")
            found.setdefault(place, corpus)
    return [*found.values()]


def _read(corpus: Corpus, manifest: Path, say: Say) -> tuple[list[NBest], list[Refusal]]:
    """The utterances of a corpus as lines of `manifest`, and what cannot be read of it."""
    utterances: list[NBest] = []
    refused: list[Refusal] = []
    for one in read_corpus(corpus, say):
        try:
            if isinstance(one, NBest):
                resolve_audio(one, corpus.file)
                extra = {key: value for key, value in one.extra.items() if key != SCORED_BY}
                line = replace(one, hypotheses=(), reference=_clean(one.reference), extra=extra)
                utterances.append(rebase_audio(line, corpus.file, manifest))
            else:
                refused.append(one)
        except (FormatError, ValueError) as error:  # ValueError: a null byte in a path
            refused.append(Refusal(one.id, str(error)))
    if refused and not utterances:
        raise FormatError(refused[0].reason)
    n_texts = sum(utterance.reference is not None for utterance in utterances)
    unread = f"; {len(refused):,} could not be read" if refused else ""
    say(f"{corpus.file}: {_count(utterances, 'utterance')}, {n_texts:,} with a text{unread}")
    return utterances, refused


def _clean(text: str | None) -> str | None:
    """A text in composed letters (NFC), as recognisers write it, with single spaces."""
    return None if text is None else " ".join(unicodedata.normalize("NFC", text).split())


def _without_copies(gathered: Sequence[Named], manifest: Path, say: Say) -> list[Named]:
    """Without recordings that have no text in one source and have one in another: a list and the
    folder of its recordings were named."""
    folder = manifest.parent.resolve()
    sources: dict[str, set[int]] = defaultdict(set)
    for n, (_, some) in enumerate(gathered):
        for u in some:
            if u.reference is not None:
                sources[_place(u, folder)].add(n)
    kept: list[Named] = [
        (name, [u for u in some if u.reference is not None or sources[_place(u, folder)] <= {n}])
        for n, (name, some) in enumerate(gathered)
    ]
    n_copies = sum(len(some) for _, some in gathered) - sum(len(some) for _, some in kept)
    if n_copies:
        say(f"left out without a text, because another source gives them one: {n_copies:,}")
    return kept


def _place(utterance: NBest, folder: Path) -> str:
    """Where its recording lies, however the manifest in `folder` names it."""
    return os.path.normpath(folder / (utterance.audio or ""))


def _with_unique_ids(gathered: Sequence[Named], say: Say) -> list[NBest]:
    """The utterances in their order. An id of several begins with the name of its source; a name
    that several sources have is numbered."""
    counts = Counter(utterance.id for _, some in gathered for utterance in some)
    taken = {utterance_id for utterance_id, n in counts.items() if n == 1}
    names: Counter[str] = Counter()
    unique: list[NBest] = []
    example = ""
    for name, some in gathered:
        names[name] += 1
        prefix = name if names[name] == 1 else f"{name}-{names[name]}"
        for utterance in some:
            new = utterance.id
            if counts[new] > 1:
                new = f"{prefix}-{utterance.id}"
                while new in taken:
                    new += "'"
                taken.add(new)
                example = example or f"{utterance.id!r} is {new!r} now"
            unique.append(replace(utterance, id=new))
    if example:
        n_shared = sum(n > 1 for n in counts.values())
        say(f"ids of several sources begin with the source's name ({n_shared:,}): {example}")
    return unique


def describe_speech(
    learnt: Sequence[NBest], held_out: Sequence[NBest], left_out: Sequence[Refusal]
) -> list[str]:
    """What there is to learn from, in sentences: hours, texts, speakers, what is left out and why.

    Hours are those of the utterances that say how long they last.
    """
    sentences = [f"learnt from: {_amount(learnt)}", f"held out: {_amount(held_out)}"]
    reasons: dict[str, list[Refusal]] = {}
    for refusal in left_out:
        reasons.setdefault(_SPECIFIC.sub("…", refusal.reason), []).append(refusal)
    for some in sorted(reasons.values(), key=len, reverse=True):
        where = "" if f"'{some[0].id}'" in some[0].reason else f"{some[0].id!r}: "
        count = f"{len(some):,} left out, for example" if len(some) > 1 else "1 left out:"
        sentences.append(f"{count} {where}{some[0].reason}")
    return sentences


_SPECIFIC = re.compile(r"""'[^']*'|"[^"]*"|\S*[\d/]\S*|\S+\.\w+""")
"""What differs between reasons of one kind: quotes, numbers, paths."""


def _amount(utterances: Sequence[NBest]) -> str:
    timed = [u.duration_s for u in utterances if u.duration_s is not None]
    n_untimed = len(utterances) - len(timed)
    n_texts = sum(utterance.reference is not None for utterance in utterances)
    speakers = {utterance.speaker for utterance in utterances if utterance.speaker}
    parts = [_count(utterances, "utterance"), f"{n_texts:,} with a text"]
    if n_untimed < len(utterances):
        parts.insert(0, f"{sum(timed) / 3600:.2f} h")
    if n_untimed:
        parts.append(f"{n_untimed:,} of unknown duration")
    if speakers:
        parts.append(_count(speakers, "speaker"))
    return ", ".join(parts)


def _count(items: Collection[object], noun: str) -> str:
    return f"{len(items):,} {noun}{'' if len(items) == 1 else 's'}"
