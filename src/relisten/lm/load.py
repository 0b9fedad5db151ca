"""Causal LMs from disk: a transformers folder, or a GGUF file that is converted once and cached.

For scoring, decoders of the Llama family are read without transformers (`lm.backend`); for
training, and for every other model, transformers loads the LM.
"""

from __future__ import annotations

import json
import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relisten.core.types import ModelError
from relisten.io.bundle import ADAPTER, ADAPTER_CONFIG
from relisten.io.extras import need_extra, need_transformers
from relisten.io.files import file_hash, read_object, write_text, written_whole
from relisten.io.pinned import PINNED
from relisten.io.pretrained import from_pretrained
from relisten.io.sources import resolve_model
from relisten.io.tensors import read_tensors, save_tensors
from relisten.lm.attention import in_blocks
from relisten.lm.backend.gguf import convert_llama
from relisten.lm.backend.llama_folder import load_llama
from relisten.lm.backend.tokenizer import load_plain_tokenizer
from relisten.lm.model import SpeechExtension, SpeechShape, SpeechTextLM
from relisten.lm.vocabulary import Vocabulary

_CONVERTED, _MADE_OF = "converted-float16", "made-of.json"
"""Half precision holds the values of GGUF blocks of 4 to 8 bits to within 5e-4 relative."""


def load_causal_lm(
    folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[nn.Module, Any]:
    """(transformers causal LM in eval mode, its fast tokenizer) of a folder.

    The folder holds a transformers model (safetensors) or one GGUF file. Raises ModelError where it
    holds neither, or weights that only pickle could read.
    """
    need_transformers()
    from transformers import AutoModelForCausalLM

    folder = _safetensors_folder(folder)
    causal = from_pretrained(
        AutoModelForCausalLM,
        folder,
        dtype=dtype,
        use_safetensors=True,
        attn_implementation="sdpa",
    )
    return causal.to(device).eval(), _transformers_tokenizer(folder)


def load_for_scoring(
    folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[nn.Module, Any]:
    """(causal LM, its tokenizer) of a folder as `load_causal_lm` takes it, for scoring alone.

    Without transformers where possible: with it loading takes 5 s instead of 0.6. Raises ModelError
    as `load_causal_lm` does.
    """
    folder = _safetensors_folder(folder)
    causal = load_llama(folder, dtype, device)
    if causal is None:
        return load_causal_lm(folder, dtype, device)
    if in_blocks(torch.device(device)):
        causal.compile_layers()
    return causal, load_plain_tokenizer(folder) or _transformers_tokenizer(folder)


def _transformers_tokenizer(folder: Path) -> Any:
    need_transformers()
    from transformers import AutoTokenizer

    return from_pretrained(AutoTokenizer, folder)


def _safetensors_folder(folder: Path) -> Path:
    """The folder with config.json and safetensors: this one, or the one made of its GGUF file."""
    if not (folder / "config.json").exists():
        folder = _converted_gguf(folder)
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: no .safetensors weights; only safetensors are read, never pickle"
        )
    return folder


def load_causal_config(reference: str) -> Any:
    """The transformers configuration of a causal LM, without its weights.

    reference: as `resolve_model` takes it; of a hub id config.json alone is fetched, and a folder
    need hold nothing else. Raises ModelError where it cannot be loaded.
    """
    need_transformers()
    from transformers import AutoConfig

    options: dict[str, Any] = {}
    name, _, revision = reference.partition("@")
    if reference in PINNED or Path(reference).is_dir():
        folder = resolve_model(reference)
        converted = folder / _CONVERTED
        name = str(converted if converted.is_dir() else folder)
        if not (Path(name) / "config.json").exists():
            options["gguf_file"] = next((path.name for path in folder.glob("*.gguf")), None)
    elif revision:
        options["revision"] = revision
    try:
        return from_pretrained(AutoConfig, name, **options)
    except ModelError as error:
        raise ModelError(
            f"{reference}: its config.json cannot be loaded ({error}); check the name and the "
            "connection, or name a folder that holds it"
        ) from error


def _converted_gguf(folder: Path) -> Path:
    """The folder beside a GGUF file with its weights as safetensors, made on first use (10 s), and
    anew where it is not as it was made, or the GGUF file is another one."""
    target = folder / _CONVERTED
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise ModelError(
            f"{folder}: wanted a transformers model (config.json) or one .gguf file, "
            f"found {len(files)} .gguf files"
        )
    if (target / _MADE_OF).is_file():
        with suppress(ModelError):
            made_of = read_object(target / _MADE_OF, "the record of a conversion")
            if made_of == _converted_state(files[0], target):
                return target
    with written_whole(target) as made:
        made.mkdir()
        _convert_gguf(folder, files[0].name, made)
        write_text(made / _MADE_OF, json.dumps(_converted_state(files[0], made), indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)  # what an earlier version or a torn copy left
    return target


def _converted_state(source: Path, converted: Path) -> dict[str, str]:
    """The hash of a GGUF file, and those of the files that were made of it."""
    made = sorted(path for path in converted.iterdir() if path.name != _MADE_OF)
    return {path.name: file_hash(path) for path in (source, *made)}


def _convert_gguf(folder: Path, name: str, made: Path) -> None:
    if convert_llama(folder / name, made):
        return
    need_extra("models", "this GGUF file", "transformers", "gguf", "accelerate")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    causal = from_pretrained(AutoModelForCausalLM, folder, gguf_file=name, dtype=torch.float16)
    # transformers refuses to save a de-quantised model as long as it is marked as quantised
    causal.hf_quantizer = None
    for key in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(causal.config, key):
            delattr(causal.config, key)
    causal.is_quantized = False
    causal.save_pretrained(made)
    from_pretrained(AutoTokenizer, folder, gguf_file=name).save_pretrained(made)


def text_vocabulary(tokenizer: Any, n_units: int = 0) -> Vocabulary:
    """The joint vocabulary of a tokenizer: BOS is its own, or EOS where it has none (as in GPT-2).

    The EOS of chat-tuned models closes a turn, not a text; where the tokenizer has <|endoftext|>,
    the token that separated documents in pre-training, that is both BOS and EOS. Raises ModelError
    where there is no EOS.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    separator = tokenizer.backend_tokenizer.token_to_id("<|endoftext|>")
    if separator is not None:
        bos = eos = separator
    if eos is None:
        raise ModelError("the tokenizer has no EOS token; a hypothesis could not be closed")
    return Vocabulary(len(tokenizer), eos if bos is None else bos, eos, n_units)


def text_lm(causal: nn.Module, tokenizer: Any) -> SpeechTextLM:
    """A text-only LM as a rescorer."""
    return SpeechTextLM(causal, text_vocabulary(tokenizer))


def merge_adapter(causal: nn.Module, folder: Path) -> None:
    """Add a LoRA adapter in peft's format to the LM's weights: W += alpha / r · B A, in place.

    Raises ModelError where the adapter is of another kind, or made for another LM.
    """
    config = read_object(folder / ADAPTER_CONFIG, "the description of an adapter")
    if config.get("use_dora") or config.get("peft_type") != "LORA":
        raise ModelError(f"{folder}: only plain LoRA adapters can be merged")
    alpha, rank = config.get("lora_alpha"), config.get("r")
    if not _is_above_0(alpha) or not _is_above_0(rank):
        raise ModelError(
            f"{folder}: {ADAPTER_CONFIG} has lora_alpha {alpha!r} and r {rank!r}; both must be "
            "numbers above 0"
        )
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    tensors = read_tensors(folder / ADAPTER)
    for name, down in tensors.items():
        if not name.endswith("lora_A.weight"):
            continue
        target = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        up = tensors.get(name.replace("lora_A", "lora_B"))
        if up is None or up.ndim != 2 or down.ndim != 2 or up.shape[1] != len(down):
            raise ModelError(f"{folder}: {ADAPTER} holds no pair of matrices for {target}")
        left, right = up.float(), down.float()
        if config.get("fan_in_fan_out"):
            left, right = right.T, left.T
        try:
            weight = causal.get_submodule(target).weight.data
        except AttributeError as error:
            raise ModelError(f"{folder}: adapts {target}, which this LM does not have") from error
        shape = (left.shape[0], right.shape[1])
        if weight.shape != shape:
            raise ModelError(
                f"{folder}: {target} is {tuple(weight.shape)} in this LM, {shape} in the adapter"
            )
        exact = weight.float()  # no copy of float32 weights
        exact.addmm_(left.to(exact), right.to(exact), alpha=scale)
        weight.copy_(exact)


def _is_above_0(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e9


def save_extension(extension: SpeechExtension, path: Path) -> None:
    """Write an extension's tensors as safetensors, floats in half precision."""
    tensors = {
        name: value.half() if value.is_floating_point() else value.int()
        for name, value in extension.state_dict().items()
    }
    save_tensors(tensors, path)


def load_extension(path: Path, causal: nn.Module) -> SpeechExtension:
    """The extension that `save_extension` wrote, in float32 and in eval mode.

    Its shape is that of the tensors. Raises ModelError where it does not fit the LM.
    """
    tensors = read_tensors(path)
    try:
        levels, n_units, embedding_dim = tensors["unit_embedding"].shape
        has_projector = "projector.norm.weight" in tensors
        shape = SpeechShape(
            n_units,
            levels,
            len(tensors["projector.norm.weight"]) if has_projector else 0,
            len(tensors["projector.prior"]) if has_projector else 0,
        )
        extension = SpeechExtension(shape, embedding_dim, tensors["unit_head"].shape[1])
        extension.load_state_dict(tensors)
    except (KeyError, RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ModelError(f"{path}: not a speech extension: {error}") from error
    dims = (
        causal.get_input_embeddings().weight.shape[1],
        causal.get_output_embeddings().in_features,
    )
    if dims != (embedding_dim, tensors["unit_head"].shape[1]):
        raise ModelError(f"{path}: made for an LM of another size than {dims}")
    return extension.to(causal.get_input_embeddings().weight.device).eval()
