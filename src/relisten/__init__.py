"""relisten: a second pass over a recogniser's N-best list that picks the right hypothesis."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from relisten.api import Rescorer
    from relisten.core.combine import Weights
    from relisten.core.types import Hypothesis, NBest, RelistenError
    from relisten.io.nbest import load_nbest, save_nbest
    from relisten.speech.first_pass import DecodingOptions
    from relisten.tasks.evaluation.evaluate import evaluate
    from relisten.tasks.second_pass import SecondPassOptions
    from relisten.tasks.tune import tune_weights
    from relisten.tasks.weights import load_weights

_HOMES = {
    "DecodingOptions": "relisten.speech.first_pass",
    "Hypothesis": "relisten.core.types",
    "NBest": "relisten.core.types",
    "RelistenError": "relisten.core.types",
    "Rescorer": "relisten.api",
    "SecondPassOptions": "relisten.tasks.second_pass",
    "Weights": "relisten.core.combine",
    "evaluate": "relisten.tasks.evaluation.evaluate",
    "load_nbest": "relisten.io.nbest",
    "load_weights": "relisten.tasks.weights",
    "save_nbest": "relisten.io.nbest",
    "tune_weights": "relisten.tasks.tune",
}

__all__ = [
    "DecodingOptions",
    "Hypothesis",
    "NBest",
    "RelistenError",
    "Rescorer",
    "SecondPassOptions",
    "Weights",
    "evaluate",
    "load_nbest",
    "load_weights",
    "save_nbest",
    "tune_weights",
]


def __getattr__(name: str) -> object:
    """Public names, each loaded when it is first asked for: `import relisten` stays light."""
    if name == "__version__":
        return import_module("importlib.metadata").version("relisten")
    if name not in _HOMES:
        raise AttributeError(f"module 'relisten' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
