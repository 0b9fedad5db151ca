"""Tells a bundle what other speech is like, so that one learnt from it knows its user's own.

    python recipes/other_speech.py BUNDLE KIND.jsonl [KIND.jsonl ...]

Each manifest is one kind of speech: recordings of like microphones, voices and style. Statistics of
frames are kept, no recording.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

from relisten.core.familiarity import OtherSpeech
from relisten.io.bundle import OTHER_SPEECH, read_bundle
from relisten.io.nbest import read_nbest
from relisten.speech.guard import frame_means, save_statistics
from relisten.speech.load import load_encoder
from relisten.tasks.streams import load_recording

RECORDINGS_OF_A_KIND = 100


def main(bundle: str, manifests: list[str]) -> None:
    """Write `other_speech.safetensors` to the bundle."""
    config = read_bundle(Path(bundle))
    assert config.encoder is not None, "a bundle without a speech encoder"
    encoder, kinds = load_encoder(config.encoder), []
    for manifest in manifests:
        utterances = list(read_nbest(manifest))
        some = random.Random(0).sample(utterances, min(RECORDINGS_OF_A_KIND, len(utterances)))
        loaded = [load_recording(one, manifest) for one in some]
        means = frame_means(encoder, [one for one in loaded if isinstance(one, np.ndarray)])
        kinds.append(np.array([one for one in means if one is not None]))
        print(f"{manifest}: {len(kinds[-1])} recordings")
    save_statistics(OtherSpeech.of(kinds, config.encoder), Path(bundle) / OTHER_SPEECH)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(f"{__doc__}two kinds at least")
    main(sys.argv[1], sys.argv[2:])
