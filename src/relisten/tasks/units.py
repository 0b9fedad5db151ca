"""Recordings in, their speech units out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from relisten.core.types import NBest, UsageError
from relisten.io.bundle import resolve_bundle, scoring_hash
from relisten.io.nbest import read_nbest, rebase_audio
from relisten.io.provenance import Provenance, check_record, content_hash, write_record
from relisten.io.shards import shard_ids, shard_path, shards, write_shard
from relisten.lm.sequences import Speech
from relisten.speech.codebook import deduplicate
from relisten.tasks.defaults import MODEL
from relisten.tasks.frontend import load_frontend
from relisten.tasks.streams import (
    Outcome,
    Refusal,
    Tick,
    in_chunks,
    load_recording,
    no_tick,
    walk,
    work_on_accepted,
)

CHUNK_SIZE = 8
"""Utterances encoded at once."""
SHARD_SIZE = 1024
"""Utterances of a Parquet shard: 2 to 3 hours of read speech."""


def make_units(
    manifest: str,
    output: str,
    model: str = MODEL,
    deduplicate: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    resume: bool = False,
    tick: Tick = no_tick,
) -> Outcome:
    """What became of the utterances of `manifest`, written with their units to `output`.

    Adds to each line `unit_s`, the seconds that one unit spans, and `units`, a list of codes, or of
    lists of codes where the codebook has several levels. deduplicate: runs of equal units become
    one, with the length of each run in `unit_durations`.
    output: JSON lines; or, where it ends with a slash or is a folder, Parquet shards in it, which
    `io.shards.read_shards` reads. Raises UsageError where the folder holds some and resume is off.
    """
    frontend = load_frontend(model, device, dtype)

    def work(chunk: list[NBest]) -> list[NBest | Refusal]:
        recordings = [load_recording(utterance, manifest) for utterance in chunk]
        speeches = work_on_accepted(recordings, frontend.encode)
        return [
            speech if isinstance(speech, Refusal) else with_units(utterance, speech, deduplicate)
            for utterance, speech in zip(chunk, speeches, strict=True)
        ]

    made_by = {
        "command": "units",
        "model": scoring_hash(resolve_bundle(model)),
        "deduplicate": deduplicate,
        "dtype": dtype,
    }
    if output.endswith("/") or Path(output).is_dir():
        made_by["input"] = content_hash(manifest)
        return _walk_to_shards(manifest, Path(output), work, made_by, resume, tick)
    return walk(manifest, output, work, made_by, CHUNK_SIZE, resume=resume, tick=tick)


def _walk_to_shards(
    manifest: str,
    folder: Path,
    work: Callable[[list[NBest]], list[NBest | Refusal]],
    made_by: Provenance,
    resume: bool,
    tick: Tick,
) -> Outcome:
    """As `walk`, a shard at a time; a shard is made again unless all of it is finished."""
    if shards(folder) and not resume:
        raise UsageError(f"{folder}: holds shards already; add --resume, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "shards"
    if resume:
        check_record(record, made_by)
    write_record(record, made_by)
    n_done, refused = 0, []
    for number, some in enumerate(in_chunks(read_nbest(manifest), SHARD_SIZE)):
        path, ids = shard_path(folder, number), [utterance.id for utterance in some]
        found = shard_ids(path) if path.exists() else []
        if not set(found) <= set(ids):
            raise UsageError(f"{path}: was made from another manifest; name another folder")
        if found == ids:
            n_done += len(ids)
            tick(len(ids))
            continue
        made: list[NBest] = []
        for chunk in in_chunks(some, CHUNK_SIZE):
            for result in work(chunk):
                if isinstance(result, Refusal):
                    refused.append(result)
                else:
                    made.append(rebase_audio(result, manifest, folder / path.name))
            tick(len(chunk))
        write_shard(path, made)
        n_done += len(made)
    return Outcome(n_done, tuple(refused))


def with_units(utterance: NBest, speech: Speech, is_deduplicated: bool) -> NBest:
    """The utterance with the keys that `make_units` adds."""
    codes = speech.codes
    added: dict[str, object] = {"unit_s": speech.unit_s}
    if is_deduplicated:
        codes, durations = deduplicate(codes)
        added["unit_durations"] = durations.tolist()
    added["units"] = (codes[:, 0] if codes.shape[1] == 1 else codes).tolist()
    return replace(utterance, extra={**utterance.extra, **added})
