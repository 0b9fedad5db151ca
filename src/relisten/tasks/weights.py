"""Weights: read, written, and found for a list by the model that scored it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from relisten.core.agreement import default_votes, is_agreement
from relisten.core.combine import DEFAULT_LENGTH_WEIGHT, DEFAULT_WEIGHTS, Weights
from relisten.core.types import (
    ASR,
    COMPONENTS,
    CONTEXT,
    FIRST_PASS_CHOICE,
    LENGTH,
    PACE,
    TEXT,
    FormatError,
    ModelError,
    NBest,
    UsageError,
)
from relisten.io.bundle import (
    CONFIG,
    read_bundle,
    resolve_bundle,
    scoring_hash,
    shipped_bundle,
    write_bundle,
)
from relisten.io.files import write_text
from relisten.io.pinned import PINNED
from relisten.tasks.streams import Say, say_nothing

SCORED_BY = "scored_by"
"""Key of an utterance: score → which model gave it (`ModelIdentity`)."""
UNTUNED_TEXT_WEIGHTS = Weights({ASR: 1.0, TEXT: 0.3, LENGTH: DEFAULT_LENGTH_WEIGHT})
"""Of a text LM that nobody tuned; SmolLM2-135M earns 0.28 for `text` on 600 utterances of read
sentences."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model: its reference as one can type it, and a hash that changes where its scores would.

    wrong_speech: the scores are a control, made with other speech than the utterance's.
    """

    model: str
    hash: str
    wrong_speech: bool = False

    def to_json(self) -> dict[str, object]:
        """What a line of an N-best file says of it."""
        return {key: value for key, value in asdict(self).items() if value is not False}


def identify(reference: str, folder: Path | None = None) -> ModelIdentity:
    """Which model a reference names; a local folder by its whole path, so that it can be found from
    anywhere. folder: where it is, if known. Raises ModelError where it cannot be had."""
    folder = folder or resolve_bundle(reference)
    is_local = shipped_bundle(reference) is None and Path(reference).is_dir()
    return ModelIdentity(str(folder.resolve()) if is_local else reference, scoring_hash(folder))


def with_scored_by(utterance: NBest, identity: ModelIdentity, components: Sequence[str]) -> NBest:
    """The utterance with a record of the model that gave these scores."""
    before = utterance.extra.get(SCORED_BY)
    record = dict(before) if isinstance(before, dict) else {}
    record |= {component: identity.to_json() for component in components}
    return replace(utterance, extra={**utterance.extra, SCORED_BY: record})


def load_weights(reference: str | Path) -> Weights:
    """The weights of a file that `relisten tune` wrote, or a bundle's own: its folder or name.

    Raises FormatError for another layout, UsageError where there is no such file or bundle.
    """
    path = Path(reference)
    if folder := shipped_bundle(str(reference)):
        return read_bundle(folder).weights
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise UsageError(f"{reference}: this folder is no bundle; name one that holds {CONFIG}")
        return read_bundle(path).weights
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{reference}: no weights can be read there ({error}); name a file that `relisten "
            "tune` wrote, or a bundle"
        ) from error
    try:
        return Weights.from_json(json.loads(text))
    except (ValueError, RecursionError, FormatError) as error:
        raise FormatError(f"{reference}: {error}; make it with `relisten tune`") from error


def save_weights(weights: Weights, output: str) -> None:
    """Write weights to a file, "-" for standard output; into relisten.json where `output` is a
    bundle's folder."""
    folder = Path(output)
    if folder.is_dir():
        bundle = read_bundle(folder)
        tuned_on = weights.tuned_on | bundle.weights.tuned_on  # also what its LM was trained on
        write_bundle(folder, replace(bundle, weights=replace(weights, tuned_on=tuned_on)))
        return
    text = json.dumps(weights.to_json(), indent=2) + "\n"
    write_text(output, text)


def held_scores(utterance: NBest) -> frozenset[str]:
    """The scores that all hypotheses of an utterance have."""
    names = [frozenset(hypothesis.scores) for hypothesis in utterance.hypotheses]
    return frozenset.intersection(*names) if names else frozenset()


def _names_in_order(utterance: NBest) -> list[str]:
    """The scores of the first hypothesis, in the order of the file."""
    return list(utterance.hypotheses[0].scores) if utterance.hypotheses else []


def fit_to(weights: Weights, held: frozenset[str], say: Say = say_nothing) -> Weights:
    """The weights without those of scores that a list does not hold.

    held: the scores it has. Without `asr` nothing is left: a list whose first pass gave no score
    keeps its order, since no model here knows better than the recogniser alone.
    """
    weighed = {name for name, value in weights.values.items() if value}
    missing = sorted(weighed - held - {LENGTH, PACE, CONTEXT, FIRST_PASS_CHOICE})
    if ASR in missing:
        say(
            f"the first pass gave no scores ({ASR}), so its order is kept; tune weights for such "
            "lists with `relisten tune`, and name them with --weights"
        )
        return replace(weights, values={}, domains={})
    if missing:
        say(f"ranked without {', '.join(missing)}, which the lists do not hold")
    return replace(
        weights,
        values=_without(weights.values, missing),
        domains={name: _without(own, missing) for name, own in weights.domains.items()},
    )


def _without(values: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name not in names}


class OwnWeights:
    """For each utterance the weights that belong to the model that scored it.

    Where none belong, the first pass's scores alone rank. say: told of each choice once.
    """

    def __init__(self, say: Say = say_nothing) -> None:
        self._known: dict[object, Weights] = {}
        self._say, self._said = say, set[str]()

    def __call__(self, utterance: NBest) -> Weights:
        held = held_scores(utterance)
        votes = [name for name in _names_in_order(utterance) if is_agreement(name)]
        if votes and ASR not in held:
            return self._vote(tuple(votes))
        record = utterance.extra.get(SCORED_BY)
        scored = sorted(held & set(COMPONENTS))
        models = {name: record.get(name) for name in scored} if isinstance(record, dict) else {}
        key = (held, json.dumps(models, sort_keys=True))
        if key not in self._known:
            self._known[key] = self._find(scored, models, held)
        return self._known[key]

    def _vote(self, votes: tuple[str, ...]) -> Weights:
        """The untuned weights of combined lists."""
        if votes not in self._known:
            values = default_votes(votes)
            self._known[votes] = Weights(values)
            counted = ", ".join(f"{name} {value:g}" for name, value in values.items())
            self._tell(
                f"nobody tuned these lists: ranked by the vote of the systems, {counted}; weights "
                "that fit your speech come from `relisten tune` on lists with references"
            )
        return self._known[votes]

    def _find(
        self, scored: Sequence[str], models: Mapping[str, object], held: frozenset[str]
    ) -> Weights:
        if not scored:
            if held:
                self._tell(
                    "no model has scored these lists: ranked by the first pass and length alone; "
                    "add scores with `relisten score NBEST -o SCORED`"
                )
            return fit_to(DEFAULT_WEIGHTS, held, self._tell)
        try:
            weights = self._weights_of(models)
        except (UsageError, ModelError) as error:
            self._tell(
                f"{error}: ranked by the first pass and length alone; name the weights with "
                "--weights FILE|BUNDLE"
            )
            return fit_to(DEFAULT_WEIGHTS, held, self._tell)
        fitted = fit_to(weights, held, self._tell)
        if fitted.values:
            counted = ", ".join(f"{name} {value:g}" for name, value in fitted.values.items())
            model = next(iter(models.values()))
            name = model["model"] if isinstance(model, dict) else ""
            self._tell(f"ranked with the weights of {name}: {counted}")
        return fitted

    def _weights_of(self, models: Mapping[str, object]) -> Weights:
        """Raises UsageError or ModelError where no model's weights belong to these scores."""
        records = [one for one in models.values() if isinstance(one, dict)]
        named = {(one.get("model"), one.get("hash")) for one in records}
        if len(records) < max(1, len(models)):
            raise UsageError("which model gave the scores is not recorded in the lists")
        if len(named) > 1:
            raise UsageError(
                f"the scores are of several models ({', '.join(sorted(str(m) for m, _ in named))})"
            )
        [(reference, hash)] = named
        weights, found = model_weights(str(reference))
        if found is not None and found != hash:
            raise UsageError(
                f"the scores are of {reference} as it was ({hash}), and it is another now ({found})"
            )
        return weights

    def _tell(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say(sentence)


def model_weights(reference: str) -> tuple[Weights, str | None]:
    """A model's weights and hash, nothing loaded; of a known LM that is no bundle, whose weights
    are always the same, None.

    Raises ModelError where the model cannot be had.
    """
    if reference in PINNED:
        return UNTUNED_TEXT_WEIGHTS, None
    folder = resolve_bundle(reference)
    is_bundle = (folder / CONFIG).is_file()
    return (read_bundle(folder).weights if is_bundle else UNTUNED_TEXT_WEIGHTS), scoring_hash(
        folder
    )
