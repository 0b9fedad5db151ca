"""Continued pre-training of a causal LM on speech and text (arXiv:2409.16654), into a bundle.

The stages are modules of `tasks.training`, each with a section of the configuration; what each one
made is kept, and a stopped run goes on from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path

import torch
from accelerate import PartialState

from relisten.core.combine import DEFAULT_LENGTH_WEIGHT, Weights
from relisten.core.leakage import TrainedOn
from relisten.core.types import (
    ASR,
    CTC,
    LENGTH,
    SPEECH_GIVEN_TEXT,
    TEXT,
    TEXT_GIVEN_SPEECH,
    UsageError,
)
from relisten.io.bundle import CTC_HEAD, WORDS, BundleConfig, resolve_bundle
from relisten.io.nbest import Refuse
from relisten.io.sources import weights_hash
from relisten.lm.load import load_causal_lm, text_vocabulary
from relisten.lm.model import SpeechTextLM
from relisten.lm.sequences import Order
from relisten.lm.texts import TextEncoder
from relisten.tasks.streams import Say, refuse_nothing
from relisten.tasks.training.codebook import CodebookConfig, add_codes, codebook_of
from relisten.tasks.training.config import STATE, keep_config
from relisten.tasks.training.ctc import CTCConfig, train_ctc_heads
from relisten.tasks.training.examples import all_of, trained_on
from relisten.tasks.training.features import FeaturesConfig, feature_spec
from relisten.tasks.training.keys import FilePath, key, section
from relisten.tasks.training.lm import LMConfig, Training, speech_extension, train_lm
from relisten.tasks.training.loop import products_dtype
from relisten.tasks.training.projector import ProjectorConfig, cross_fit_projectors
from relisten.tasks.training.run import Run
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.training.sources import Sources
from relisten.tasks.training.text_corpus import read_sentences
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
"""In `state`, the development figures at the end: order → nats per word."""


@dataclass(frozen=True)
class PretrainConfig:
    """What `relisten pretrain` does; unknown keys are refused."""

    output: FilePath = key(
        MISSING,
        "Folder of the bundle; the run keeps its state in the folder `state` of it.",
        affects_training=False,
    )
    manifests: Mapping[FilePath, float] = key(
        {},
        "Manifest → how often an utterance of it is drawn; utterances without a reference serve "
        "the task speech alone.",
    )
    texts: Mapping[FilePath, float] = key(
        {}, "Text corpus → how often a sentence of it is drawn, for the task text alone."
    )
    dev_manifests: tuple[FilePath, ...] = key(
        (), "Manifests of development speech, for evaluation.", affects_training=False
    )
    cache: FilePath = key(
        "runs/cache", "Folder for encoded speech and tokenised text.", affects_training=False
    )
    features: FeaturesConfig = section(FeaturesConfig)
    ctc: CTCConfig = section(CTCConfig)
    projector: ProjectorConfig = section(ProjectorConfig)
    codebook: CodebookConfig = section(CodebookConfig)
    lm: LMConfig = section(LMConfig)
    schedule: Schedule = section(
        Schedule, steps=800, learning_rate=5e-4, warmup_steps=50, eval_every=100
    )
    folds: int = key(
        3, "Parts of the speakers for the cross-fitting of CTC head and projector; at least 2."
    )
    dtype: str = key(
        "auto",
        "Precision of the LM's products: bfloat16, float32, or auto: float32 on a CPU that is slow "
        "in bfloat16.",
    )
    seed: int = key(0, "Seed for all random draws.")

    def __post_init__(self) -> None:
        if not self.manifests and (self.lm.has_speech or not self.texts):
            raise UsageError("pretrain needs at least one manifest, or texts for the task text")
        if self.texts and not self.lm.tasks.get("text"):
            raise UsageError("texts serve the task text alone, and lm.tasks gives it no weight")
        if self.folds < 2:
            raise UsageError(f"folds is {self.folds}; cross-fitting needs at least 2")
        self.schedule.check_watched(self.dev_manifests, "dev_manifests")


def pretrain(
    config: PretrainConfig, say: Say = print, refuse: Refuse = refuse_nothing
) -> dict[str, float]:
    """Nats per development word, in each order, of the bundle written to `config.output`.

    refuse: told of each utterance that cannot be read; the others are trained on.
    """
    output = Path(config.output)
    run = Run(output / STATE, config.seed, say)
    run.state.mkdir(parents=True, exist_ok=True)
    dtype, processes = products_dtype(config.dtype), PartialState()
    # AdamW's small steps would be lost on 8 bits of mantissa: what is trained is float32.
    causal, tokenizer = load_causal_lm(
        resolve_bundle(config.lm.base), dtype if config.lm.lora_rank else torch.float32
    )
    spec = feature_spec(config.features, config.ctc.layers) if config.lm.has_speech else None
    vocabulary = text_vocabulary(tokenizer, config.codebook.units if spec else 0)
    texts = TextEncoder(tokenizer, config.lm.text_form)
    with processes.main_process_first():  # the others find what it encoded
        keep_config(run.state, config)
        data = Sources(spec, texts, Path(config.cache), say, refuse).data(
            config.manifests, config.texts, config.dev_manifests, config.lm.tasks
        )
    ctc_head, extension = None, None
    if spec is not None:
        ctc_head = train_ctc_heads(config.ctc, config.folds, spec, data, run)
        transcribed = all_of(data.transcribed)
        with processes.main_process_first():  # the others find what it trained
            projector = None
            if "chunked" in config.lm.tasks:
                table = causal.get_input_embeddings().weight.detach().float()
                projector = cross_fit_projectors(
                    config.projector, config.folds, transcribed, table, vocabulary.eos_id, run
                )
            codebook = codebook_of(config.codebook, output, data.recordings, spec, run.seed)
        add_codes([*data.recordings, *data.dev], codebook)
        extension = speech_extension(
            causal, config.codebook, projector, transcribed, vocabulary.n_text, run.seed
        )
    lora = None
    if config.lm.lora_rank:
        lora = add_lora(causal, config.lm.lora_rank, config.lm.base, config.seed)
    else:
        thaw(causal)
    model = SpeechTextLM(causal, vocabulary, extension).to(processes.device)
    training = Training(config.lm.tasks, config.lm.batch_tokens, config.schedule, dtype)
    dev_metrics = train_lm(model, training, data, run)
    if processes.is_main_process:
        (run.state / DEV_METRICS).write_text(json.dumps(dev_metrics, indent=1) + "\n")
        bundle = _bundle(config, spec.encoder.id if spec else None, ctc_head is not None)
        sentences = (text for path in config.texts for text in read_sentences(path))
        seen = trained_on(data.sets) | TrainedOn.of(texts=sentences)
        save_trained(output, model, tokenizer, lora, bundle, dtype, seen)
        if ctc_head is not None:
            ctc_head.save(output / CTC_HEAD)
            words = {word for e in data.recordings for word in e.cached.text.split()}
            (output / WORDS).write_text("\n".join(sorted(words)) + "\n", encoding="utf-8")
    return dev_metrics


def _bundle(config: PretrainConfig, encoder_id: str | None, has_ctc_head: bool) -> BundleConfig:
    """What relisten.json is to say; encoder_id: None where the bundle knows text only."""
    lm, features = config.lm, config.features
    components = {COMPONENT_OF[order]: order for order in lm.tasks if order in COMPONENT_OF}
    scores = [*components, *([CTC] if has_ctc_head else [])]
    untuned = {component: UNTUNED[component] for component in scores}
    return BundleConfig(
        base=lm.base,
        base_hash=weights_hash(resolve_bundle(lm.base)),
        text_form=lm.text_form,
        weights=Weights({ASR: 1.0, LENGTH: DEFAULT_LENGTH_WEIGHT, **untuned}),
        components=tuple(components),
        first_pass=features.first_pass,
        speech_order=components.get(TEXT_GIVEN_SPEECH, "chunked"),
        encoder=(features.encoder or features.first_pass) if encoder_id else None,
        encoder_id=encoder_id,
    )
