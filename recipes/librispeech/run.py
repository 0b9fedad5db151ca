"""LibriSpeech, from the unpacked corpus to error rates: python recipes/librispeech/run.py CORPUS"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from paper import run  # noqa: E402
from prepare import MANIFESTS  # noqa: E402

if __name__ == "__main__":
    run(HERE, MANIFESTS, tests=["test-clean", "test-other"])
