"""The rescorer as a Python object; the commands do the same to files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from relisten.core.combine import Weights
from relisten.core.decide import Decision
from relisten.core.types import TEXT, NBest
from relisten.speech.first_pass import DecodingOptions
from relisten.speech.load import load_first_pass
from relisten.tasks.defaults import MODEL
from relisten.tasks.loading import LoadedRescorer, load_rescorer
from relisten.tasks.rescore import rank
from relisten.tasks.score import CHUNK_SIZE, check_components, score_chunk
from relisten.tasks.streams import all_accepted, in_chunks
from relisten.tasks.transcribe import Transcript, transcribe_one


class Rescorer:
    """A language model that listens again.

    rescorer = Rescorer.from_pretrained()
    print(rescorer.transcribe("talk.mp3").text)
    ranked = rescorer.rescore(relisten.load_nbest("nbest.jsonl"))
    """

    def __init__(self, loaded: LoadedRescorer, device: str = "auto", dtype: str = "auto") -> None:
        self._loaded = loaded
        self._device = device
        self._dtype = dtype

    @classmethod
    def from_pretrained(
        cls, model: str = MODEL, device: str = "auto", dtype: str = "auto"
    ) -> Rescorer:
        """The rescorer of a bundle, of a causal LM's folder, of a known name or of a hub id.

        Raises ModelError where it cannot be had, or its parts do not belong together.
        """
        return cls(load_rescorer(model, device, dtype), device, dtype)

    @property
    def weights(self) -> Weights:
        """What each score counts for where `rescore` is given no other weights."""
        return self._loaded.weights

    def transcribe(
        self,
        audio: str | Path,
        first_pass: str | None = None,
        language: str = "en",
        beam: int = 10,
        n_best: int = 10,
        samples: int = 0,
        propose: int = 0,
    ) -> Transcript:
        """The transcript of one recording of any length.

        first_pass: by default the one that the model's weights are for. samples, propose:
        hypotheses that it draws, and that the model's CTC head finds, besides its beam.
        `.text` is what was chosen, `.first_pass_text` what the first pass alone would have said.
        Raises AudioError where the recording cannot be read.
        """
        recogniser = load_first_pass(
            first_pass or self._loaded.first_pass, self._device, self._dtype, language
        )
        options = DecodingOptions(beam, n_best, samples)
        return transcribe_one(str(audio), recogniser, self._loaded, options, propose)

    def score(
        self,
        nbests: Iterable[NBest],
        components: Sequence[str] = (TEXT,),
        audio_beside: str | Path = "-",
    ) -> list[NBest]:
        """The utterances with `components` added to every hypothesis, in nats; new objects.

        audio_beside: the file that audio paths are relative to; "-": the working folder.
        Raises UsageError where an utterance lacks what a component needs.
        """
        check_components(components)
        return [
            scored
            for chunk in in_chunks(nbests, CHUNK_SIZE)
            for scored in all_accepted(
                score_chunk(self._loaded, chunk, components, str(audio_beside))
            )
        ]

    def rescore(
        self,
        nbests: Iterable[NBest],
        weights: Weights | None = None,
        audio_beside: str | Path = "-",
        decision: Decision = "map",
    ) -> list[NBest]:
        """The utterances, chosen text first; missing scores that are weighed are added.

        Each hypothesis has its `posterior`, the first `word_confidence`. weights: the model's own
        by default. decision: "map", "mbr" or "rover" (`core.decide`).
        Raises FormatError where a first-pass score is missing.
        """
        weights = weights or self._loaded.weights
        ranked = []
        for nbest in nbests:
            missing = [
                name
                for name in weights.to_score
                if any(name not in h.scores for h in nbest.hypotheses)
            ]
            scored = self.score([nbest], missing, audio_beside) if missing else [nbest]
            ranked += [rank(one, weights, decision) for one in scored]
        return ranked
