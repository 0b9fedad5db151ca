"""Development lists in, what is wrong with them out: is a small gain a bug or the limit?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from relisten.core.finite import finite_or_none
from relisten.core.text import cached_normaliser
from relisten.core.types import CONTEXT, LENGTH, Refusal, UsageError
from relisten.io.nbest import read_nbest
from relisten.io.rules import read_rules
from relisten.tasks.doctor.checks import (
    LONGER_LISTS,
    Check,
    Lists,
    check_choice,
    check_copies,
    check_lengths,
    check_references,
    check_training,
)
from relisten.tasks.doctor.gain import Gain, measure_gain
from relisten.tasks.doctor.score_checks import (
    check_direction,
    check_equal,
    check_others,
    check_presence,
    check_scale,
)


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All checks, what rescoring gains, and what follows.

    gain: None where something is broken, or it cannot be measured. verdict: a sentence or two.
    next_step: a command, or what to do. refused: utterances that cannot be read.
    """

    n_utterances: int
    checks: tuple[Check, ...]
    gain: Gain | None
    verdict: str
    next_step: str
    refused: tuple[Refusal, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether any check found something broken."""
        return any(check.status == "broken" for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """The report as `doctor --json` writes it; a number that is not finite is None."""
        gain = asdict(self.gain) | {"captured": self.gain.captured} if self.gain else None
        record = {
            "n_utterances": self.n_utterances,
            "is_broken": self.is_broken,
            "verdict": self.verdict,
            "next_step": self.next_step,
            "checks": [asdict(check) for check in self.checks],
            "gain": gain,
            "refused": [asdict(refusal) for refusal in self.refused],
        }
        return finite_or_none(record)


def doctor(
    nbest: str,
    model: str | None = None,
    normaliser: str = "english",
    seed: int = 0,
    rules: str | None = None,
    input_format: str = "auto",
    manifest: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> DoctorReport:
    """The checks of an N-best file, scored or not, with references or without.

    rules: a file of the user's own rules of what is the same text.
    model: a bundle or causal LM whose tokenizer is checked on these texts, too. Keeps all lists in
    memory. Raises UsageError where no utterance has hypotheses.
    """
    own, refused = read_rules(rules), list[Refusal]()
    utterances = list(read_nbest(nbest, input_format, manifest, refused.append))
    if not any(one.hypotheses for one in utterances):
        raise UsageError(f"{nbest}: no utterance has hypotheses; make them with `relisten nbest`")
    lists = Lists.of(utterances, cached_normaliser(normaliser, own), [model] if model else ())
    if lists.training.n_utterances and not any(one.hypotheses for one in lists.utterances):
        raise UsageError(
            f"{nbest}: {' and '.join(lists.training.models)} was trained on every utterance with "
            "hypotheses; take other development speech"
        )
    checks = check_lists(lists)
    path = shlex.quote(nbest)
    if model is not None:
        from relisten.tasks.doctor.model_checks import check_model

        checks += check_model(lists, model, device, dtype)
    checks = [replace(check, remedy=check.remedy.replace("FILE", path)) for check in checks]
    is_broken = any(check.status == "broken" for check in checks)
    gain = None if is_broken else measure_gain(lists, normaliser, seed, own)
    verdict, next_step = conclude(checks, gain, lists, path)
    return DoctorReport(len(utterances), tuple(checks), gain, verdict, next_step, tuple(refused))


def check_lists(lists: Lists) -> list[Check]:
    """The checks that need nothing but the lists."""
    with np.errstate(over="ignore"):  # placeholders such as -1e308 are told of
        return _checks(lists)


def _checks(lists: Lists) -> list[Check]:
    checks = (
        check_references(lists),
        check_training(lists),
        check_choice(lists),
        check_copies(lists),
        check_lengths(lists),
        check_presence(lists),
        check_equal(lists),
        check_direction(lists),
        check_scale(lists),
        *check_others(lists),
    )
    return [check for check in checks if check is not None]


def conclude(
    checks: Sequence[Check], gain: Gain | None, lists: Lists, path: str
) -> tuple[str, str]:
    """The verdict, and the next step; `path` is quoted for a shell."""
    for check in checks:
        if check.status == "broken":
            verdict = f"It is a bug ({check.name}): {check.meaning}. Correct it and run this again."
            return verdict, check.remedy
    if not lists.known:
        verdict = "Without references nothing broken is found, and the gain is not known."
        return verdict, f"relisten doctor {path} --manifest FILE_WITH_REFERENCES"
    if gain is None:
        verdict = "Nothing is broken, but there is no score to rank by."
        return verdict, f"relisten score {path} -o scored.jsonl"
    if _only_first_pass(gain):
        verdict = (
            "Nothing is broken, and so far there are only first-pass scores: add those of a model. "
            f"The oracle WER of the lists is {gain.oracle_wer:.2%}."
        )
        return verdict, f"relisten score {path} -o scored.jsonl"
    if gain.is_certain:
        verdict = (
            f"Healthy: tuned weights take the WER from {gain.first_pass_wer:.2%} to "
            f"{gain.tuned_wer:.2%} on utterances they were not tuned on."
        )
        return verdict, f"relisten tune {path} -o weights.json"
    return _no_gain(checks, gain, path)


def _no_gain(checks: Sequence[Check], gain: Gain, path: str) -> tuple[str, str]:
    """Where nothing is broken and no gain is certain: why, and what may help."""
    keep = "Nothing is broken, and no gain is certain: keep the first pass."
    if any(check.name == "choice" and check.status == "look here" for check in checks):
        return f"{keep} The lists contain too little to choose from.", LONGER_LISTS
    if gain.n_needed:
        verdict = (
            f"{keep} The measured gain ({gain.gain.absolute * 100:+.2f} points) would be certain "
            f"with about {gain.n_needed:,} utterances like these."
        )
        return verdict, "score more development speech, then run this again"
    verdict = f"{keep} These scores do not choose better than it does."
    return verdict, f"another model: relisten score {path} -o scored.jsonl --model BUNDLE"


def _only_first_pass(gain: Gain) -> bool:
    return all(part.component in (LENGTH, CONTEXT) for part in gain.parts)
