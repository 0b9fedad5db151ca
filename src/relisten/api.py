"""The second pass as a Python object that keeps its models loaded; the commands do the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relisten.core.combine import Weights
from relisten.core.text import normaliser
from relisten.core.types import AudioError, NBest
from relisten.speech.first_pass import DecodingOptions
from relisten.tasks.defaults import MODEL
from relisten.tasks.inputs import Audio
from relisten.tasks.loading import Listeners, LoadedRescorer, load_listeners, load_rescorer
from relisten.tasks.ranking import rank
from relisten.tasks.score import CHUNK_SIZE, ListScorer, check_components
from relisten.tasks.second_pass import SecondPass, SecondPassOptions, with_phrases
from relisten.tasks.streams import AudioSource, Refusal, all_accepted, in_chunks
from relisten.tasks.transcribe import transcribe_each
from relisten.tasks.transcript import Transcript
from relisten.tasks.weights import fit_to, held_scores


class Rescorer:
    """A model that takes a second look at what a recogniser proposed.

    ```python
    rescorer = relisten.Rescorer.from_pretrained()
    print(rescorer.transcribe("talk.mp3").text)
    ranked = rescorer.rescore(relisten.load_nbest("nbest.jsonl"))
    ```

    Models are loaded once and kept. `decoding` and `options`, where a method is given none, are
    those of `from_pretrained`, whose defaults are the command line's.
    """

    def __init__(
        self,
        loaded: LoadedRescorer,
        first_pass: Sequence[str] = (),
        language: str | None = None,
        decoding: DecodingOptions = DecodingOptions(),
        options: SecondPassOptions = SecondPassOptions(),
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self._loaded = loaded
        self._names, self._language = tuple(first_pass), language
        self._device, self._dtype = device, dtype
        self._decoding, self._options = decoding, options
        self._listeners: Listeners | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str = MODEL,
        *,
        first_pass: str | Sequence[str] = (),
        language: str | None = None,
        decoding: DecodingOptions = DecodingOptions(),
        options: SecondPassOptions = SecondPassOptions(),
        device: str = "auto",
        dtype: str = "auto",
    ) -> Rescorer:
        """The rescorer of a bundle, of a causal LM's folder, of a known name or of a hub id.

        first_pass: the recogniser of `transcribe`, or several, of which the first rates what the
        others add; by default the one that the model's weights are for, loaded when it is needed.
        language: of a multilingual recogniser, as an ISO code, or "auto"; by default the model's.
        Raises ModelError where the model cannot be had, or its parts do not belong together.
        """
        names = (first_pass,) if isinstance(first_pass, str) else tuple(first_pass)
        loaded = load_rescorer(model, device, dtype)
        return cls(loaded, names, language, decoding, options, device, dtype)

    @property
    def weights(self) -> Weights:
        """What each score counts for where no other weights are given."""
        return self._options.weights or self._loaded.weights

    def transcribe(
        self,
        audio: Audio,
        *,
        rate_hz: int | None = None,
        decoding: DecodingOptions | None = None,
        options: SecondPassOptions | None = None,
    ) -> Transcript:
        """The transcript of one recording of any length.

        audio: a path, a binary file object, or samples float or integer [T] or [channels, T] with
        their rate_hz. `.text` is what was chosen, `.first_pass_text` what the first pass alone
        would have chosen; `.to_srt()`, `.to_vtt()` and `.to_json()` are its other forms.
        Raises AudioError where the recording cannot be read.
        """
        [transcript] = self.transcribe_all(
            [audio], rate_hz=rate_hz, decoding=decoding, options=options
        )
        return transcript

    def transcribe_all(
        self,
        audio: Iterable[Audio],
        *,
        rate_hz: int | None = None,
        decoding: DecodingOptions | None = None,
        options: SecondPassOptions | None = None,
    ) -> list[Transcript]:
        """The transcripts of recordings, in order; short ones are worked on together.

        Raises AudioError, as `transcribe` does, for the first one that cannot be read.
        """
        if self._listeners is None:
            self._listeners = load_listeners(
                self._loaded.identity.model, self._names, self._language, self._device, self._dtype
            )
        second_pass = SecondPass.of(
            self._loaded,
            self._listeners,
            decoding or self._decoding,
            options or self._options,
        )
        transcripts = []
        for one in transcribe_each(audio, second_pass, rate_hz):
            if isinstance(one, Refusal):
                raise AudioError(one.reason)
            transcripts.append(one)
        return transcripts

    def score(
        self,
        nbests: Iterable[NBest],
        components: Sequence[str] = (),
        audio_beside: AudioSource = "-",
    ) -> list[NBest]:
        """The utterances with `components` added to every hypothesis, in nats; new objects.

        components: by default those that the weights count and that an utterance has the means for
        (without `audio` and word ends, `text` alone). audio_beside: the file that audio paths are
        relative to; "-": the working folder; or the recordings as open files, by name.
        Raises UsageError where an utterance lacks what a component that was named needs.
        """
        check_components(tuple(components))
        scorer = ListScorer(self._loaded, tuple(components))
        return [
            scored
            for chunk in in_chunks(nbests, CHUNK_SIZE)
            for scored in all_accepted(scorer.score(chunk, audio_beside))
        ]

    def rescore(
        self,
        nbests: Iterable[NBest],
        audio_beside: AudioSource = "-",
        options: SecondPassOptions | None = None,
    ) -> list[NBest]:
        """The utterances, chosen text first; scores that are weighed and missing are added.

        Each hypothesis has its `posterior`, the first `word_confidence`. Of the options, phrases,
        weights, decision and confidence count. With the model's own weights, scores that an
        utterance cannot get (those of speech without `audio`) are left out of the sum; weights that
        the options name are taken at their word, and raise FormatError where a score is missing.
        """
        options = options or self._options
        weights = options.weights or self._loaded.weights
        normalise = normaliser(weights.normaliser, weights.rules)
        lists = with_phrases(list(nbests), options, normalise)
        ranked = []
        for one in self._with_missing(lists, weights, bool(options.weights), audio_beside):
            own = options.weights or fit_to(weights, held_scores(one))
            ranked.append(rank(one, own, options.decision, options.confidence))
        return ranked

    def _with_missing(
        self, lists: Sequence[NBest], weights: Weights, is_named: bool, audio_beside: AudioSource
    ) -> list[NBest]:
        """Utterances that lack the same scores are scored together."""
        lacking: dict[tuple[str, ...], list[int]] = {}
        for row, one in enumerate(lists):
            missing = tuple(
                name
                for name in weights.to_score
                if any(name not in h.scores for h in one.hypotheses)
                and (is_named or self._loaded.lacks(one, [name], one.audio is not None) is None)
            )
            lacking.setdefault(missing, []).append(row)
        completed = list(lists)
        for missing, rows in lacking.items():
            some = [lists[row] for row in rows]
            scored = self.score(some, missing, audio_beside) if missing else some
            for row, one in zip(rows, scored, strict=True):
                completed[row] = one
        return completed
