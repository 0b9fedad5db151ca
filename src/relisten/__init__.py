"""relisten: listen again to a recogniser's N-best list and pick the right one."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relisten.api import Rescorer
    from relisten.core.tune import tune_weights
    from relisten.core.types import Hypothesis, NBest, RelistenError
    from relisten.io.nbest import load_nbest, save_nbest
    from relisten.tasks.evaluation.evaluate import evaluate

_HOMES = {
    "Hypothesis": "relisten.core.types",
    "NBest": "relisten.core.types",
    "RelistenError": "relisten.core.types",
    "Rescorer": "relisten.api",
    "evaluate": "relisten.tasks.evaluation.evaluate",
    "load_nbest": "relisten.io.nbest",
    "save_nbest": "relisten.io.nbest",
    "tune_weights": "relisten.core.tune",
}

__all__ = [
    "Hypothesis",
    "NBest",
    "RelistenError",
    "Rescorer",
    "evaluate",
    "load_nbest",
    "save_nbest",
    "tune_weights",
]


def __getattr__(name: str) -> object:
    """Public names, each loaded when it is first asked for: `import relisten` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'relisten' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
