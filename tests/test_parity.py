"""Error counts and intervals held against the tools that the field reports by."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein
from scipy.stats import bootstrap

from relisten.core.bootstrap import paired_bootstrap
from relisten.core.error_rates import ErrorCounts, word_errors
from relisten.core.text import normaliser
from relisten.io.nbest import load_nbest

NBEST = Path(__file__).parent.parent / "benchmarks" / "data" / "nbest.jsonl"
WORDS = ["a", "the", "hat", "cat", "हाँ", "sat", "été", "on", "猫"]


def random_pairs(n: int, seed: int) -> list[tuple[str, str]]:
    """References and hypotheses: by turns unrelated, and the reference with errors made in it."""
    rng = random.Random(seed)
    pairs = []
    for k in range(n):
        reference = rng.choices(WORDS, k=rng.randint(1, 12))
        heard = rng.choices(WORDS, k=rng.randint(0, 12))
        if k % 2:
            kinds = rng.choices(["keep", "drop", "change", "add"], [8, 1, 2, 1], k=len(reference))
            heard = [
                said
                for word, kind in zip(reference, kinds, strict=True)
                for said in {
                    "keep": [word],
                    "drop": [],
                    "change": [rng.choice(WORDS)],
                    "add": [word, rng.choice(WORDS)],
                }[kind]
            ]
        pairs.append((" ".join(reference), " ".join(heard)))
    return pairs


def real_pairs() -> list[tuple[str, str]]:
    """References with their hypotheses, and hypotheses with their neighbours on the list."""
    english = normaliser("english")
    pairs = []
    for nbest in load_nbest(NBEST):
        texts = [english(h.text) for h in nbest.hypotheses]
        pairs += [(english(nbest.reference or ""), text) for text in texts]
        pairs += list(pairwise(texts))
    return [(reference, heard) for reference, heard in pairs if reference]


PAIRS = {"random": random_pairs(4_000, seed=0), "real": real_pairs()}


def test_there_are_pairs_to_compare() -> None:
    assert len(PAIRS["real"]) > 100
    assert sum(word_errors(*pair).errors for pair in PAIRS["real"]) > 100


@pytest.mark.parametrize("kind", PAIRS)
def test_every_count_is_jiwers(kind: str) -> None:
    for reference, heard in PAIRS[kind]:
        theirs = jiwer.process_words(reference, heard)
        assert word_errors(reference, heard) == ErrorCounts(
            theirs.hits,
            theirs.substitutions,
            theirs.deletions,
            theirs.insertions,
            n_reference=theirs.hits + theirs.substitutions + theirs.deletions,
        )
    total = sum((word_errors(*pair) for pair in PAIRS[kind]), ErrorCounts())
    assert total.rate == pytest.approx(jiwer.wer(*map(list, zip(*PAIRS[kind], strict=True))))


def sclite_command() -> list[str]:
    """How sclite is called here: by its own name, or by Debian's `sctk`."""
    if shutil.which("sclite"):
        return ["sclite"]
    if shutil.which("sctk"):
        return ["sctk", "sclite"]
    pytest.skip("NIST sclite is not installed; Debian's package is called sctk")


_SCORES = re.compile(r"id: \(u_(\d+)\)\s*Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)")


def sclite_counts(pairs: list[tuple[str, str]], folder: Path) -> list[ErrorCounts]:
    """What sclite counts for each pair."""
    for name, texts in zip(("ref", "hyp"), zip(*pairs, strict=True), strict=True):
        lines = (f"{text} (u_{k})\n" for k, text in enumerate(texts))
        (folder / name).write_text("".join(lines), encoding="utf-8")
    files = ["-r", "ref", "trn", "-h", "hyp", "trn"]
    done = subprocess.run(
        [*sclite_command(), *files, "-i", "rm", "-s", "-e", "utf-8", "-o", "pralign", "stdout"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    report = done.stdout.decode("utf-8", errors="replace")
    found = {int(k): [int(n) for n in counts] for k, *counts in _SCORES.findall(report)}
    assert len(found) == len(pairs), report[:2000]
    return [ErrorCounts(*found[k], n_reference=sum(found[k][:3])) for k in range(len(pairs))]


@pytest.mark.parametrize("kind", PAIRS)
def test_errors_are_sclites(kind: str, tmp_path: Path) -> None:
    """sclite aligns by 4 a substitution and 3 a deletion or insertion, and counts what comes out;
    we, and jiwer, take the alignment of fewest errors. So on a pair sclite counts as many, or,
    where it trades substitutions for hits, more; its own cost is no higher than that of ours."""
    theirs = sclite_counts(PAIRS[kind], tmp_path)
    for (reference, heard), their in zip(PAIRS[kind], theirs, strict=True):
        ours = word_errors(reference, heard)
        assert their.n_reference == ours.n_reference
        cost = 4 * their.substitutions + 3 * (their.deletions + their.insertions)
        assert cost == Levenshtein.distance(reference.split(), heard.split(), weights=(3, 3, 4))
        assert their.errors >= ours.errors
        if their.errors > ours.errors:
            assert their.hits > ours.hits
            assert cost <= 4 * ours.substitutions + 3 * (ours.deletions + ours.insertions)
    n_ours = sum(word_errors(*pair).errors for pair in PAIRS[kind])
    n_theirs = sum(their.errors for their in theirs)
    if kind == "real":
        assert n_theirs == n_ours
    else:
        assert n_theirs == pytest.approx(n_ours, rel=0.003)


def test_the_bootstrap_interval_is_scipys() -> None:
    """Speakers drawn whole, percentile intervals; both draw at random, so up to their noise."""
    rng = np.random.default_rng(0)
    n_speakers, n_each = 60, 8
    n_words = rng.integers(3, 15, (n_speakers, n_each))
    hard = rng.beta(2, 6, (n_speakers, 1))
    a = rng.binomial(n_words, hard)
    b = rng.binomial(n_words, 0.8 * hard)
    speakers = np.repeat([f"s{k}" for k in range(n_speakers)], n_each)
    ours = paired_bootstrap(a.ravel(), b.ravel(), n_words.ravel(), speakers, n_resamples=20_000)

    def relative(a, b, n, axis=-1):
        return (a.sum(axis) - b.sum(axis)) / a.sum(axis)

    def absolute(a, b, n, axis=-1):
        return (a.sum(axis) - b.sum(axis)) / n.sum(axis)

    sums = (a.sum(axis=1), b.sum(axis=1), n_words.sum(axis=1))
    for statistic, found in (
        (relative, (ours.relative_low, ours.relative_high)),
        (absolute, (ours.absolute_low, ours.absolute_high)),
    ):
        theirs = bootstrap(
            sums,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=20_000,
            method="percentile",
            rng=np.random.default_rng(1),
        ).confidence_interval
        width = theirs.high - theirs.low
        assert found == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)
