"""A bundle opened to be trained further, and written again as another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from relisten.core.combine import Weights
from relisten.core.types import ModelError
from relisten.io.bundle import (
    ADAPTER,
    ADAPTER_CONFIG,
    CODEBOOK,
    EXTENSION,
    LM,
    BundleConfig,
    read_bundle,
    resolve_base,
    resolve_bundle,
    write_bundle,
)
from relisten.io.sources import weights_hash
from relisten.lm.load import load_causal_lm, load_extension, save_extension, text_vocabulary
from relisten.lm.model import SpeechTextLM
from relisten.lm.texts import TextEncoder, TextForm
from relisten.tasks.examples import save_tensors
from relisten.tasks.train_lm import add_lora, lora_tensors, thaw


@dataclass(frozen=True)
class Trainable:
    """A bundle's parts. lora: what adapter_config.json says, where the bundle has an adapter, which
    is then what is trained of the LM; else all of it is."""

    folder: Path
    config: BundleConfig
    model: SpeechTextLM
    texts: TextEncoder
    lora: Mapping[str, Any] | None

    def save(self, output: Path, weights: Weights) -> None:
        """Write it as a bundle of its own, with these weights; the codebook is copied."""
        output.mkdir(parents=True, exist_ok=True)
        config, causal = replace(self.config, weights=weights), self.model.causal
        if self.lora is None:
            causal.save_pretrained(output / LM)
            self.texts.tokenizer.save_pretrained(output / LM)
            config = replace(config, base=LM, base_hash=weights_hash(output / LM))
        else:
            if (beside := self.folder / config.base).is_dir():
                config = replace(config, base=str(beside.resolve()))
            save_tensors(lora_tensors(causal), output / ADAPTER)
            (output / ADAPTER_CONFIG).write_text(json.dumps(self.lora, indent=1) + "\n")
        if self.model.extension is not None:
            save_extension(self.model.extension, output / EXTENSION)
            shutil.copyfile(self.folder / CODEBOOK, output / CODEBOOK)
        write_bundle(output, config)


def open_for_training(
    reference: str, dtype: torch.dtype, lora_rank: int, device: torch.device, seed: int = 0
) -> Trainable:
    """The bundle `reference`; its adapter stays apart from the LM. dtype: of an LM that is not
    itself trained. Raises ModelError where a part is missing or does not fit."""
    folder = resolve_bundle(reference)
    config = read_bundle(folder)
    has_adapter = (folder / ADAPTER).is_file()
    causal, tokenizer = load_causal_lm(
        resolve_base(folder, config), dtype if has_adapter else torch.float32
    )
    lora = None
    if has_adapter:
        written = json.loads((folder / ADAPTER_CONFIG).read_text())
        lora = add_lora(causal, written["r"], config.base, 0)
        if written["lora_alpha"] != lora["lora_alpha"]:
            raise ModelError(f"{folder}: its adapter is scaled otherwise than relisten's own are")
        _load_adapter(causal, folder)
    else:
        thaw(causal)
    extension = load_extension(folder / EXTENSION, causal) if config.hears else None
    vocabulary = text_vocabulary(tokenizer, extension.shape.n_units if extension else 0)
    model = SpeechTextLM(causal, vocabulary, extension).to(device)
    texts = TextEncoder(tokenizer, cast(TextForm, config.text_form))
    return Trainable(folder, config, model, texts, lora)


def _load_adapter(causal: torch.nn.Module, folder: Path) -> None:
    from safetensors.torch import load_file

    of_adapter = load_file(folder / ADAPTER)
    parameters = {
        "base_model.model." + name.replace(".default", ""): parameter
        for name, parameter in causal.named_parameters()
        if "lora_" in name
    }
    for name, tensor in of_adapter.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise ModelError(f"{folder}: its adapter's {name} does not fit the LM")
        parameters[name].data.copy_(tensor)
