"""Word error rates of the decisions MAP, MBR and ROVER, cross-validated on scored lists.

    python benchmarks/decisions.py scored-dev.jsonl

Speakers are split into folds. Each fold is ranked with the weights, temperature and ceiling that
`fit_weights` finds on the other folds, so no figure is of utterances that anything was fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click
import numpy as np

from relisten.core.bootstrap import paired_bootstrap
from relisten.core.combine import Weights
from relisten.core.decide import DECISIONS, Decision
from relisten.core.error_rates import errors_matrix
from relisten.core.scored_lists import assign_folds, speaker_groups
from relisten.core.text import normaliser
from relisten.core.tune import fit_weights
from relisten.core.types import NBest
from relisten.io.nbest import load_nbest
from relisten.tasks.evaluation.evaluate import EvaluationReport, evaluate
from relisten.tasks.ranking import rank

NORMALISER = "english"


@click.command()
@click.argument("scored")
@click.option("--components", default="", help="As `relisten tune` takes them.")
@click.option("--folds", default=5, show_default=True)
def main(scored: str, components: str, folds: int) -> None:
    """WER of each decision, its gain over MAP with a 95 % interval, and calibration."""
    nbests = [one for one in load_nbest(scored) if one.reference is not None]
    groups = speaker_groups(nbests)
    assignment, _ = assign_folds(groups, folds, seed=0)
    names = components.split(",") if components else None
    tuned = [
        fit_weights(held_in, NORMALISER, names).weights
        for fold in np.unique(assignment)
        for held_in in [[n for n, f in zip(nbests, assignment, strict=True) if f != fold]]
    ]
    click.echo(f"{len(nbests)} utterances, {len(set(groups))} speakers or utterances, {scored}")
    for fold, weights in enumerate(tuned):
        values = ", ".join(f"{name} {value:.3f}" for name, value in weights.values.items())
        click.echo(
            f"  without fold {fold}: {values}; temperature {weights.temperature:.2f}, "
            f"ceiling {weights.ceiling:.3f}"
        )
    raw = [replace(weights, temperature=1.0, ceiling=1.0) for weights in tuned]
    likeliest = _errors(_decided(nbests, assignment, tuned, "map"))
    for label, by_fold in (("fitted temperature, ceiling", tuned), ("both 1", raw)):
        for decision in DECISIONS:
            ranked = _decided(nbests, assignment, by_fold, decision)
            report = evaluate(ranked, NORMALISER, n_resamples=10)
            gain = paired_bootstrap(likeliest, _errors(ranked), _n_words(nbests), groups)
            click.echo(
                f"{label:28} {decision:6} WER {report.rescored.words.rate:.2%}, below MAP by "
                f"{gain.absolute * 100:+.2f} points [{gain.absolute_low * 100:+.2f}, "
                f"{gain.absolute_high * 100:+.2f}]; {_confidence(report)}"
            )
    click.echo(f"first pass {report.first_pass.words.rate:.2%}, oracle {report.oracle.rate:.2%}")


def _decided(
    nbests: Sequence[NBest], assignment: np.ndarray, by_fold: Sequence[Weights], decision: Decision
) -> list[NBest]:
    """Each utterance decided with weights that were not tuned on its fold."""
    return [
        rank(nbest, by_fold[fold], decision) for nbest, fold in zip(nbests, assignment, strict=True)
    ]


def _errors(ranked: Sequence[NBest]) -> np.ndarray:
    normalise = normaliser(NORMALISER)
    return np.array(
        [
            errors_matrix(
                normalise(one.reference or ""),
                [normalise(h.text) for h in one.hypotheses[:1]] or [""],
            )[0]
            for one in ranked
        ]
    )


def _n_words(nbests: Sequence[NBest]) -> np.ndarray:
    normalise = normaliser(NORMALISER)
    return np.array([len(normalise(one.reference or "").split()) for one in nbests])


def _confidence(report: EvaluationReport) -> str:
    one = report.confidence
    return "no words" if one is None else f"ECE {one.ece:.3f}, Brier {one.brier:.3f}"


if __name__ == "__main__":
    main()
