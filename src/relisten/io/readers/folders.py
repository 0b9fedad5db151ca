"""N-best folders as ESPnet and Kaldi write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from relisten.core.types import ASR, FormatError, Hypothesis, NBest
from relisten.io.readers.common import number
from relisten.io.readers.tables import lines_of

KALDI_ACOUSTIC_SCALE = 0.1
"""Kaldi's lists hold unscaled acoustic costs; its recipes decode with 1/10 by default."""

_TENSOR = re.compile(r"tensor\(([^,)]+).*\)")


def is_espnet(folder: Path) -> bool:
    return bool(_espnet_folders(folder))


def _espnet_folders(folder: Path) -> list[Path]:
    """The folder itself, or the folders of decoding jobs below it, that hold `1best_recog`."""
    if (folder / "1best_recog" / "text").is_file():
        return [folder]
    texts = folder.glob("**/1best_recog/text")
    jobs = [text.parent.parent for text in texts if text.is_file()]
    return sorted(jobs, key=lambda job: (job.parent, len(job.name), job.name))


def read_espnet(folder: Path) -> Iterator[NBest]:
    """ESPnet's decoding folder: `1best_recog`, `2best_recog`, …, each with `text` and `score`.

    Folders of single jobs below it (`logdir/output.1`) are read one after the other. Score: the
    beam search's weighted sum of natural-log probabilities (decoder, CTC, LM), EOS counted, higher
    is better, also where it is written as `tensor(-1.5)`; taken as `asr` unchanged.
    """
    for job in _or_refuse(_espnet_folders(folder), folder, "1best_recog/text"):
        ranks: list[_Rank] = []
        while (job / f"{len(ranks) + 1}best_recog" / "text").is_file():
            ranks.append(_Rank(job / f"{len(ranks) + 1}best_recog"))
        while ranks[0].utterance_id is not None:
            utterance_id = ranks[0].utterance_id
            with_it = [rank for rank in ranks if rank.utterance_id == utterance_id]
            yield NBest(utterance_id, tuple(rank.take() for rank in with_it))
        for rank in ranks:
            if rank.utterance_id is not None:
                raise FormatError(
                    f"{rank.folder / 'text'}: '{rank.utterance_id}' is not where 1best_recog has "
                    "it; sort the text and score files of all folders by id"
                )


def _or_refuse(jobs: list[Path], folder: Path, wanted: str) -> list[Path]:
    """Raises FormatError where there are none."""
    if jobs:
        return jobs
    what = "a folder without the file" if folder.is_dir() else "no folder; name the one that holds"
    raise FormatError(f"{folder}: is {what} {wanted}")


class _Rank:
    """Reads the hypotheses of one rank, one utterance ahead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._texts = lines_of(folder / "text")
        self._scores = lines_of(folder / "score") if (folder / "score").is_file() else None
        self._advance()

    def _advance(self) -> None:
        n, line = next(self._texts, (0, ""))
        key, _, self._text = line.partition(" ")
        self.utterance_id = key if n else None

    def take(self) -> Hypothesis:
        scores = {}
        if self._scores is not None:
            n, line = next(self._scores, (0, ""))
            key, _, score = line.partition(" ")
            where = f"{self.folder / 'score'}:{n} '{key}'"
            if key != self.utterance_id:
                raise FormatError(
                    f"{where}: stands where text has '{self.utterance_id}'; "
                    "write text and score in one order"
                )
            tensor = _TENSOR.fullmatch(score.strip())
            scores[ASR] = number(tensor[1] if tensor else score, "score", where)
        hypothesis = Hypothesis(self._text.strip(), scores)
        self._advance()
        return hypothesis


def is_kaldi(folder: Path) -> bool:
    return bool(_kaldi_folders(folder))


def _kaldi_folders(folder: Path) -> list[Path]:
    names = ("words_text", "text")
    if any((folder / name).is_file() for name in names):
        return [folder]
    jobs = [job for job in folder.glob("archives.*") if (job / "words_text").is_file()]
    return sorted(jobs, key=lambda job: (len(job.name), job.name))


def read_kaldi(folder: Path) -> Iterator[NBest]:
    """Kaldi's N-best archives: `words_text` (or `text`) with keys `utt-1`, `utt-2`, …

    `archives.1`, `archives.2`, … below the folder are read one after the other. Beside the text,
    where they are: `lmwt.withlm` (or `lmwt`, `lmwt.nolm`), the graph costs, and `acwt`, the
    acoustic costs. Costs are negated natural logs, lower is better, so
    asr = −(graph cost + KALDI_ACOUSTIC_SCALE · acoustic cost); both costs are kept by name.
    """
    for job in _or_refuse(_kaldi_folders(folder), folder, "words_text or text"):
        text = job / "words_text" if (job / "words_text").is_file() else job / "text"
        graph = next(
            (job / n for n in ("lmwt.withlm", "lmwt", "lmwt.nolm") if (job / n).is_file()), None
        )
        acoustic = job / "acwt" if (job / "acwt").is_file() else None
        yield from _read_archive(text, graph, acoustic)


def _read_archive(text: Path, graph: Path | None, acoustic: Path | None) -> Iterator[NBest]:
    def hypotheses() -> Iterator[tuple[str, int, Hypothesis]]:
        graph_costs, acoustic_costs = _costs(graph), _costs(acoustic)
        for n, line in lines_of(text):
            key, _, words = line.partition(" ")
            utterance_id, dash, rank = key.rpartition("-")
            if not dash or not rank.isdecimal():
                raise FormatError(f"{text}:{n} '{key}': has no rank; keys are utt-1, utt-2, …")
            extra = {}
            if graph is not None:
                extra["graph_cost"] = _cost_of(key, graph_costs, graph)
            if acoustic is not None:
                extra["acoustic_cost"] = _cost_of(key, acoustic_costs, acoustic)
            cost = extra.get("graph_cost", 0.0)
            cost += KALDI_ACOUSTIC_SCALE * extra.get("acoustic_cost", 0.0)
            scores = {ASR: -cost} if extra else {}
            yield utterance_id, int(rank), Hypothesis(words.strip(), scores, extra=extra)

    for utterance_id, group in groupby(hypotheses(), key=lambda item: item[0]):
        by_rank = sorted(group, key=lambda item: item[1])  # sorted as text, 10 is before 2
        yield NBest(utterance_id, tuple(hypothesis for _, _, hypothesis in by_rank))


def _costs(path: Path | None) -> Iterator[tuple[int, str]]:
    return iter(()) if path is None else lines_of(path)


def _cost_of(key: str, costs: Iterator[tuple[int, str]], path: Path) -> float:
    n, line = next(costs, (0, ""))
    other, _, cost = line.partition(" ")
    if other != key:
        raise FormatError(
            f"{path}:{n} '{other}': stands where the text has '{key}'; sort both by key"
        )
    return number(cost.strip(), "cost", f"{path}:{n} '{key}'")
