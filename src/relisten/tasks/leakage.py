"""What the models that scored a file's utterances have seen of them in training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from relisten.core.leakage import Seen, TrainedOn, TrainingOverlap
from relisten.core.types import ModelError, NBest, Refusal
from relisten.io.bundle import CONFIG, read_trained_on, resolve_bundle, scoring_hash
from relisten.io.pinned import PINNED
from relisten.tasks.weights import SCORED_BY

REFERENCE_SEEN = "reference seen in training"
"""Key that `SeenByModels.marked` gives an utterance: yes or no."""


class SeenByModels:
    """Asks the bundles of the models that scored an utterance what they were trained on.

    models: further ones to ask for every utterance.
    """

    def __init__(self, models: Iterable[str] = ()) -> None:
        self._always = [(model, None) for model in models]
        self._known: dict[tuple[str, str | None], TrainedOn | None] = {}
        self._silent: dict[str, str] = {}
        self._counts: dict[Seen | None, int] = {"utterance": 0, "reference": 0, None: 0}

    def of(self, utterance: NBest) -> Seen | None:
        """What any of its models has seen of it."""
        seen = {
            known.has_seen(utterance)
            for model in (*self._always, *_models_of(utterance))
            if (known := self._training_of(model)) is not None
        }
        found: Seen | None = (
            "utterance" if "utterance" in seen else "reference" if "reference" in seen else None
        )
        self._counts[found] += 1
        return found

    def marked(self, utterance: NBest, seen: Seen | None) -> NBest:
        """The utterance with the key REFERENCE_SEEN, where any model says what it has seen."""
        if not any(known is not None for known in self._known.values()):
            return utterance
        mark = "yes" if seen else "no"
        return replace(utterance, extra={**utterance.extra, REFERENCE_SEEN: mark})

    def refusal(self, utterance: NBest) -> Refusal:
        """Of an utterance that a model was trained on."""
        names = " and ".join(self._names())
        return Refusal(utterance.id, f"{names} was trained on it")

    def overlap(self) -> TrainingOverlap:
        """The sums over the utterances so far."""
        n_references = self._counts["reference"]
        return TrainingOverlap(
            self._names(),
            dict(self._silent),
            self._counts["utterance"],
            n_references,
            n_references + self._counts[None],
        )

    def _names(self) -> tuple[str, ...]:
        known = (name for (name, _), one in self._known.items() if one is not None)
        return tuple(dict.fromkeys(known))

    def _training_of(self, model: tuple[str, str | None]) -> TrainedOn | None:
        if model not in self._known:
            try:
                self._known[model] = _read(*model)
            except ModelError as error:
                self._known[model] = None
                self._silent[model[0]] = f"what it was trained on is not known: {error}"
        return self._known[model]


def _models_of(utterance: NBest) -> Iterable[tuple[str, str | None]]:
    """(reference, hash) of each model that gave a score."""
    record = utterance.extra.get(SCORED_BY)
    given = record.values() if isinstance(record, dict) else ()
    named = [(one.get("model"), one.get("hash")) for one in given if isinstance(one, dict)]
    return dict.fromkeys((model, hash) for model, hash in named if isinstance(model, str))


def _read(model: str, hash: str | None) -> TrainedOn | None:
    """Raises ModelError where it cannot be known what a model was trained on."""
    if model in PINNED:
        raise ModelError("it is a published model")
    folder = resolve_bundle(model)
    if not (folder / CONFIG).is_file():
        raise ModelError("it is no bundle")
    if hash is not None and hash != (found := scoring_hash(folder)):
        raise ModelError(f"it is another now ({found}) than the one that gave the scores ({hash})")
    trained_on = read_trained_on(folder)
    if trained_on is None:
        raise ModelError("its bundle does not say")
    return trained_on
