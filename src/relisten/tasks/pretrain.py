"""Continued pre-training of a causal LM on speech and text (arXiv:2409.16654), into a bundle.

Four steps, each kept and picked up again where it stopped: hear the manifests; train the CTC head, then
the projector, both cross-fitted by speaker; train the LM (LoRA) on a mixture of sequence orders.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from accelerate import PartialState
from torch import nn

from relisten.core.combine import DEFAULT_LENGTH_WEIGHT, Weights
from relisten.core.types import (
    ASR,
    CTC,
    LENGTH,
    SPEECH_GIVEN_TEXT,
    TEXT,
    TEXT_GIVEN_SPEECH,
    UsageError,
)
from relisten.io.bundle import CODEBOOK, CTC_HEAD, WORDS, BundleConfig, resolve_bundle
from relisten.io.sources import weights_hash
from relisten.lm.load import load_causal_lm, text_vocabulary
from relisten.lm.model import SpeechExtension, SpeechShape, SpeechTextLM
from relisten.lm.sequences import Order
from relisten.lm.texts import TextEncoder, TextForm
from relisten.speech.codebook import Codebook, fit_codebook
from relisten.speech.ctc.head import CTCHead
from relisten.speech.frames import SpeechEncoder
from relisten.speech.load import load_encoder, load_first_pass
from relisten.speech.whisper.encoder import WhisperEncoder
from relisten.speech.whisper.layers import LowerLayers
from relisten.tasks.training.cache import FeatureSpec
from relisten.tasks.training.config import STATE, keep_config
from relisten.tasks.training.ctc import cross_fit_ctc, train_encoder_layers
from relisten.tasks.training.examples import (
    Corpus,
    Example,
    Report,
    add_codes,
    check_served,
    cross_fit_projectors,
)
from relisten.tasks.training.lm import Training, train_lm
from relisten.tasks.training.loop import Schedule, check_schedule, products_dtype
from relisten.tasks.training.sources import Sources
from relisten.tasks.training.trainable import add_lora, save_trained, thaw

COMPONENT_OF: dict[Order, str] = {
    "text": TEXT,
    "speech_first": TEXT_GIVEN_SPEECH,
    "interleaved": TEXT_GIVEN_SPEECH,
    "chunked": TEXT_GIVEN_SPEECH,
    "text_first": SPEECH_GIVEN_TEXT,
}
UNTUNED = {TEXT: 0.3, TEXT_GIVEN_SPEECH: 0.1, SPEECH_GIVEN_TEXT: 0.0, CTC: 0.2}
"""Weights of a bundle that nobody tuned yet."""
DEV_METRICS = "dev-metrics.json"
"""In `state`, what a development word cost in the end: order → nats."""


@dataclass(frozen=True)
class PretrainConfig:
    """What `relisten pretrain` does; unknown keys are refused.

    output: the bundle's folder; the run's state is kept in its folder `state`. manifests: path →
    how often an utterance of it is drawn; those without a reference serve the task `speech` alone.
    texts: path of a text corpus → how often a sentence of it is drawn, for the task `text` alone.
    dev_manifests: what the gauge is read from. encoder: whose frames are heard, as
    hubert:FOLDER_OR_ID@LAYER or another Whisper; the first pass's own, if none is named; the first
    pass tells where words end all the same. tasks: order → weight in the mixture; with `text` alone
    the bundle is a fine-tuned text LM. pool: frames of a unit, at 50 Hz. cache: where what was
    heard and tokenised is kept. ctc_steps: of training what hears letters; 0: without. ctc_layers:
    how many of the last layers of a Whisper encoder the bundle's CTC head then makes its own, in
    ctc_layer_steps. lora_rank: 0
    trains all of the LM's layers instead, and the bundle holds them. schedule: how the learning
    rate falls; accumulate: batches whose mean gradient makes a step; patience: stop where the first
    of tasks got no better on development speech for so many evaluations, and keep the best (0:
    never). dtype: of the products; auto: bfloat16, or
    float32 on a CPU that is slow in it. seed: of everything drawn.
    """

    output: str
    manifests: Mapping[str, float]
    texts: Mapping[str, float] = field(default_factory=dict)
    dev_manifests: tuple[str, ...] = ()
    cache: str = "runs/cache"
    base: str = "smollm2-135m"
    first_pass: str = "whisper-tiny.en"
    encoder: str = ""
    text_form: TextForm = "spoken"
    tasks: Mapping[Order, float] = field(default_factory=lambda: {"chunked": 0.75, "text": 0.25})
    units: int = 500
    levels: int = 1
    pool: int = 2
    folds: int = 3
    projector_epochs: int = 8
    ctc_steps: int = 1500
    ctc_layers: int = 0
    ctc_layer_steps: int = 1000
    lora_rank: int = 16
    steps: int = 800
    batch_tokens: int = 1024
    learning_rate: float = 5e-4
    warmup_steps: int = 50
    eval_every: int = 100
    schedule: Literal["cosine", "linear"] = "cosine"
    accumulate: int = 1
    patience: int = 0
    dtype: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.tasks) - set(get_args(Order)))
        if unknown or not self.tasks:
            raise UsageError(
                f"tasks {unknown or 'none'}: give some of {', '.join(get_args(Order))}"
            )
        if not self.manifests:
            raise UsageError("pretrain needs at least one manifest")
        if self.texts and not self.tasks.get("text"):
            raise UsageError("texts serve the task text alone, and tasks gives it no weight")
        if self.ctc_layers and not self.ctc_steps:
            raise UsageError("ctc_layers are a CTC head's, and ctc_steps is 0: there is none")
        if self.folds < 2:
            raise UsageError(f"folds is {self.folds}; cross-fitting needs at least 2")
        check_schedule(self, "dev_manifests")
        if len(set(self.tasks) & {"speech_first", "interleaved", "chunked"}) > 1:
            raise UsageError("a bundle asks for text given speech in one order; name one in tasks")


def pretrain(config: PretrainConfig, report: Report = print) -> dict[str, float]:
    """Nats a development word, in each order, of the bundle written to `config.output`."""
    output = Path(config.output)
    state = output / STATE
    state.mkdir(parents=True, exist_ok=True)
    dtype = products_dtype(config.dtype)
    # AdamW's small steps would be lost on 8 bits of mantissa: what is trained is float32.
    causal, tokenizer = load_causal_lm(
        resolve_bundle(config.base), dtype if config.lora_rank else torch.float32
    )
    texts = TextEncoder(tokenizer, config.text_form)
    has_speech = set(config.tasks) != {"text"}
    feature_spec = _feature_spec(config) if has_speech else None
    sources = Sources(feature_spec, texts, Path(config.cache), report)
    processes = PartialState()
    with processes.main_process_first():  # the others find what it heard and schooled
        keep_config(state, config)
        recordings = _recordings(config, sources)
        train = [*recordings, *((sources.text(path), w) for path, w in config.texts.items())]
        check_served(train, config.tasks)
        dev = sources.development(config.dev_manifests)
        cached = [example for examples, _ in recordings for example in examples]
        vocabulary = text_vocabulary(tokenizer, config.units if has_speech else 0)
    ctc_head, extension, encoder_id = None, None, None
    if feature_spec is not None:
        encoder_id = feature_spec.encoder.id
        ctc_head = _ctc_head(config, state, recordings, dev, feature_spec.encoder, report)
    with processes.main_process_first():
        if encoder_id is not None:
            add_codes([*cached, *dev], _codebook(config, output, cached, encoder_id))
            transcribed = [example for example in cached if example.words]
            extension = _extension(config, state, causal, vocabulary.eos_id, transcribed, report)
    if config.lora_rank:
        lora = add_lora(causal, config.lora_rank, config.base, config.seed)
    else:
        lora = None
        thaw(causal)
    model = SpeechTextLM(causal, vocabulary, extension).to(processes.device)
    training = Training(config.tasks, config.batch_tokens, Schedule.of(config), dtype)
    dev_metrics = train_lm(model, training, train, dev, state, report)
    if processes.is_main_process:
        (state / DEV_METRICS).write_text(json.dumps(dev_metrics, indent=1) + "\n")
        bundle = _bundle(config, encoder_id, ctc_head is not None)
        save_trained(output, model, tokenizer, lora, bundle, dtype)
        if ctc_head is not None:
            ctc_head.save(output / CTC_HEAD)
            vocabulary_words = {word for example in cached for word in example.cached.text.split()}
            (output / WORDS).write_text(
                "\n".join(sorted(vocabulary_words)) + "\n", encoding="utf-8"
            )
    return dev_metrics


def _feature_spec(config: PretrainConfig) -> FeatureSpec:
    first_pass = load_first_pass(config.first_pass)
    encoder = load_encoder(config.encoder) if config.encoder else first_pass.encoder
    return FeatureSpec(
        first_pass, encoder, config.pool, lower_layers=_lower_layers(config, encoder)
    )


def _recordings(config: PretrainConfig, sources: Sources) -> list[tuple[Sequence[Example], float]]:
    """Sets of examples with their weights: each manifest's, those without a reference apart."""
    sets: list[tuple[Sequence[Example], float]] = []
    takes_speech_alone = bool(config.tasks.get("speech"))
    for manifest, weight in config.manifests.items():
        sets.append((sources.transcribed(manifest, not takes_speech_alone), weight))
        if takes_speech_alone:
            sets.append((sources.speech(manifest), weight))
    return sets


def _codebook(
    config: PretrainConfig, output: Path, examples: Sequence[Example], encoder_id: str
) -> Codebook:
    """Fitted on frames that are pooled already, used on frames that are not."""
    path = output / CODEBOOK
    if not path.exists():
        frames = (e.speech.frames for e in examples if e.speech.frames is not None)
        fitted = fit_codebook(frames, encoder_id, config.units, config.levels, seed=config.seed)
        replace(fitted, pool=config.pool).save(path)
    return Codebook.load(path)


def _ctc_head(
    config: PretrainConfig,
    state: Path,
    recordings: Corpus,
    dev: Sequence[Example],
    encoder: SpeechEncoder,
    report: Report,
) -> CTCHead | None:
    transcribed = [some for some in recordings if some[0] and some[0][0].words]
    if not config.ctc_steps or not transcribed:
        return None
    ctc_head = cross_fit_ctc(
        state,
        transcribed,
        dev,
        encoder.id,
        config.pool,
        config.folds,
        config.ctc_steps,
        config.seed,
        report,
    )
    if not config.ctc_layers:
        return ctc_head
    assert isinstance(encoder, WhisperEncoder)
    return train_encoder_layers(
        ctc_head,
        transcribed,
        dev,
        encoder.folder,
        config.ctc_layers,
        config.ctc_layer_steps,
        config.seed,
        state,
        report,
    )


def _lower_layers(config: PretrainConfig, encoder: SpeechEncoder) -> LowerLayers | None:
    """The layers under those that the CTC head is to make its own."""
    if not config.ctc_layers:
        return None
    if not isinstance(encoder, WhisperEncoder):
        raise UsageError(
            f"ctc_layers is {config.ctc_layers}, and only layers of a Whisper in CTranslate2 form "
            f"can be a CTC head's own; {encoder.id} is another encoder: leave ctc_layers out"
        )
    return LowerLayers(encoder.folder, config.ctc_layers)


def _extension(
    config: PretrainConfig,
    state: Path,
    causal: nn.Module,
    eos_id: int,
    examples: Sequence[Example],
    report: Report,
) -> SpeechExtension:
    """Schooled projector, and markers that start as the average token of the transcripts, in and
    out: with zeros for output rows every closed word would cost 16 nats at first."""
    if not examples:
        raise UsageError("a bundle that hears needs some recordings with references")
    table = causal.get_input_embeddings().weight.detach().float()
    head = causal.get_output_embeddings().weight.detach()
    projector = cross_fit_projectors(
        state, examples, table, eos_id, config.folds, config.projector_epochs, config.seed, report
    )
    torch.manual_seed(config.seed)
    shape = SpeechShape(
        config.units, config.levels, len(projector.norm.weight), len(projector.prior)
    )
    extension = SpeechExtension(shape, table.shape[1], head.shape[1])
    extension.projector = projector
    counts = Counter(token for e in examples for word in e.words for token in word)
    tokens, share = torch.tensor(list(counts)), torch.tensor(list(counts.values())).float()
    share /= share.sum()
    extension.marker_embedding.data[:] = share @ table[tokens]
    extension.marker_head.data[:] = share @ head[tokens].float()
    return extension


def _bundle(config: PretrainConfig, encoder_id: str | None, has_ctc_head: bool) -> BundleConfig:
    """What relisten.json is to say; encoder_id: None where the bundle knows text only."""
    components = {COMPONENT_OF[order]: order for order in config.tasks if order in COMPONENT_OF}
    scores = [*components, *([CTC] if has_ctc_head else [])]
    untuned = {component: UNTUNED[component] for component in scores}
    return BundleConfig(
        base=config.base,
        base_hash=weights_hash(resolve_bundle(config.base)),
        text_form=config.text_form,
        weights=Weights({ASR: 1.0, LENGTH: DEFAULT_LENGTH_WEIGHT, **untuned}),
        components=tuple(components),
        first_pass=config.first_pass,
        speech_order=components.get(TEXT_GIVEN_SPEECH, "chunked"),
        encoder=(config.encoder or config.first_pass) if encoder_id else None,
        encoder_id=encoder_id,
    )
