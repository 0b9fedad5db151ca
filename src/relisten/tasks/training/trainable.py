"""A bundle opened for training, and what was trained written as a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from relisten.core.combine import Weights
from relisten.core.leakage import TrainedOn
from relisten.core.types import ModelError
from relisten.io.bundle import (
    ADAPTER,
    ADAPTER_CONFIG,
    CODEBOOK,
    CONFIG,
    CTC_HEAD,
    EXTENSION,
    LM,
    OTHER_SPEECH,
    WORDS,
    BundleConfig,
    add_trained_on,
    ctc_head_path,
    read_bundle,
    read_trained_on,
    resolve_base,
    resolve_bundle,
    write_bundle,
)
from relisten.io.sources import weights_hash
from relisten.io.tensors import save_tensors
from relisten.lm.load import load_causal_lm, load_extension, save_extension, text_vocabulary
from relisten.lm.model import SpeechTextLM
from relisten.lm.texts import TextEncoder, TextForm

_PREFIX = "base_model.model."  # peft's, before a module's own name
_PRETRAINED = ("projector.up", "projector.query", "projector.norm", "projector.prior")


@dataclass(frozen=True)
class Trainable:
    """A bundle's LM with what is to be trained of it.

    folder: the bundle's. lora: what adapter_config.json is to say; None where all of the LM's
    layers are trained. dtype: what the products are computed in, and such an LM is written in.
    """

    folder: Path
    config: BundleConfig
    model: SpeechTextLM
    texts: TextEncoder
    lora: Mapping[str, Any] | None
    dtype: torch.dtype

    def save(self, output: Path, weights: Weights, trained_on: TrainedOn) -> None:
        """Write it as a bundle with these weights; codebook, words and CTC head are copied.

        trained_on: what it was trained on beyond what the bundle says it was.
        """
        base = self.config.base
        if (self.folder / base).is_dir():
            base = str((self.folder / base).resolve())
        bundle = replace(self.config, base=base, weights=weights)
        for name in (CODEBOOK, OTHER_SPEECH, WORDS):
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, output / name)
        if ctc_head := ctc_head_path(self.folder):
            shutil.copyfile(ctc_head, output / CTC_HEAD)
        trained_on = (read_trained_on(self.folder) or TrainedOn()) | trained_on
        tokenizer = self.texts.tokenizer
        save_trained(output, self.model, tokenizer, self.lora, bundle, self.dtype, trained_on)


def open_for_training(
    reference: str, dtype: torch.dtype, lora_rank: int, device: torch.device, seed: int = 0
) -> Trainable:
    """A bundle whose adapter goes on being trained, unmerged.

    lora_rank: of a bundle that has no adapter yet; 0 trains all of its LM's layers, in float32.
    The LM is in `dtype`, the adapter and the extension in float32.
    Raises ModelError where it is no bundle, or its parts do not belong together.
    """
    folder = resolve_bundle(reference)
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{reference}: is no bundle; make one of it with `relisten pretrain`")
    config = read_bundle(folder)
    has_adapter = (folder / ADAPTER).is_file()
    is_all = not has_adapter and lora_rank == 0
    causal, tokenizer = load_causal_lm(
        resolve_base(folder, config), torch.float32 if is_all else dtype
    )
    lora: dict[str, Any] | None = None
    if has_adapter:
        lora = json.loads((folder / ADAPTER_CONFIG).read_text())
        inject_lora(causal, lora, seed)
        _load_lora(causal, folder)
    elif is_all:
        thaw(causal)
    else:
        lora = add_lora(causal, lora_rank, config.base, seed)
    extension = load_extension(folder / EXTENSION, causal) if config.has_speech else None
    vocabulary = text_vocabulary(tokenizer, extension.shape.n_units if extension else 0)
    model = SpeechTextLM(causal, vocabulary, extension).to(device)
    texts = TextEncoder(tokenizer, cast(TextForm, config.text_form))
    return Trainable(folder, config, model, texts, lora, dtype)


def trained_parameters(model: SpeechTextLM) -> dict[str, nn.Parameter]:
    """What of the model is trained, by name: of the LM what requires gradients; of the extension
    all but what the projector's own stage has trained, which is set to require none."""
    for name, parameter in model.named_parameters():
        if name.startswith("extension."):
            parameter.requires_grad_(not name.removeprefix("extension.").startswith(_PRETRAINED))
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def add_lora(causal: nn.Module, rank: int, base: str, seed: int) -> dict[str, Any]:
    """Inject LoRA into every linear layer but the head; what adapter_config.json is to say."""
    head = causal.get_output_embeddings()
    layers = {
        name: type(module).__name__
        for name, module in causal.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not head
    }
    record = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in layers}),
        "fan_in_fan_out": "Conv1D" in layers.values(),
        "base_model_name_or_path": base,
    }
    inject_lora(causal, record, seed)
    return record


def inject_lora(causal: nn.Module, record: Mapping[str, Any], seed: int) -> None:
    """Freeze the LM and add a fresh adapter, float32, as an adapter_config.json describes it.

    Raises ModelError for one that is not plain LoRA.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if record.get("use_dora") or record.get("peft_type") != "LORA":
        raise ModelError("only plain LoRA adapters can be trained further")
    keys = ("r", "lora_alpha", "target_modules", "fan_in_fan_out", "use_rslora")
    torch.manual_seed(seed)
    causal.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(**{k: record[k] for k in keys if k in record}), causal)
    for name, parameter in causal.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def thaw(causal: nn.Module) -> None:
    """Set every weight of the LM to be trained but its token embeddings: what the projector was
    trained to guess lies in their space."""
    causal.requires_grad_(True)
    causal.get_input_embeddings().requires_grad_(False)


def lora_tensors(causal: nn.Module) -> dict[str, Tensor]:
    """The LoRA weights under peft's names, half precision."""
    return {name: parameter.detach().half() for name, parameter in _lora(causal).items()}


def _lora(causal: nn.Module) -> dict[str, nn.Parameter]:
    return {
        _PREFIX + name.replace(".default", ""): parameter
        for name, parameter in causal.named_parameters()
        if "lora_" in name
    }


def _load_lora(causal: nn.Module, folder: Path) -> None:
    from safetensors.torch import load_file

    tensors, parameters = load_file(folder / ADAPTER), _lora(causal)
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in parameters.items()}:
        raise ModelError(f"{folder}: {ADAPTER} does not fit {ADAPTER_CONFIG} and the LM")
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])


def save_trained(
    output: Path,
    model: SpeechTextLM,
    tokenizer: Any,
    lora: Mapping[str, Any] | None,
    bundle: BundleConfig,
    dtype: torch.dtype,
    trained_on: TrainedOn,
) -> None:
    """Write the adapter, or all of the LM (in `dtype`) where there is none, the extension, what
    they were trained on, and relisten.json."""
    if lora is None:
        model.causal.to(dtype).save_pretrained(output / LM)
        tokenizer.save_pretrained(output / LM)
        bundle = replace(bundle, base=LM, base_hash=weights_hash(output / LM))
    else:
        save_tensors(lora_tensors(model.causal), output / ADAPTER)
        (output / ADAPTER_CONFIG).write_text(json.dumps(dict(lora), indent=1) + "\n")
    if model.extension is not None:
        save_extension(model.extension, output / EXTENSION)
    add_trained_on(output, trained_on)
    write_bundle(output, bundle)
