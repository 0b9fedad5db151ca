"""Tiny random models of every supported architecture, and a naive scorer to hold them to."""

from __future__ import annotations

import numpy as np
import torch
import transformers as tf

from relisten.lm.model import SpeechExtension, SpeechShape, SpeechTextLM
from relisten.lm.sequences import AS_TEXT, Speech, TokenSequence, chunk_features
from relisten.lm.vocabulary import Vocabulary

N_TEXT, N_UNITS, LEVELS = 60, 10, 2
_SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
_GQA = {**_SHAPE, "num_key_value_heads": 2}


def tiny_causal_lm(architecture: str) -> torch.nn.Module:
    torch.manual_seed(0)
    make = {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**_GQA)),
        "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(sliding_window=12, **_GQA)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**_GQA)),
        "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(head_dim=8, **_GQA)),
        "gpt2": lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(vocab_size=64, n_positions=256, n_embd=32, n_layer=2, n_head=4)
        ),
        "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**_SHAPE)),
        "opt": lambda: tf.OPTForCausalLM(
            tf.OPTConfig(
                vocab_size=64,
                hidden_size=32,
                ffn_dim=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=256,
                word_embed_proj_dim=16,
            )
        ),
    }
    return make[architecture]().eval()


ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "opt")


def tiny_speech_text_lm(architecture: str, frame_dim: int = 0) -> SpeechTextLM:
    """Random everywhere, the output rows too, so that no score is right by symmetry."""
    causal = tiny_causal_lm(architecture)
    extension = SpeechExtension(
        SpeechShape(N_UNITS, LEVELS, frame_dim, n_words=20),
        causal.get_input_embeddings().weight.shape[1],
        causal.get_output_embeddings().weight.shape[1],
    )
    for parameter in extension.parameters():
        torch.nn.init.normal_(parameter)
    vocabulary = Vocabulary(n_text=N_TEXT, bos_id=0, eos_id=1, n_units=N_UNITS)
    return SpeechTextLM(causal, vocabulary, extension).eval()


@torch.inference_mode()
def naive_score(model: SpeechTextLM, sequence: TokenSequence, speech: Speech | None) -> float:
    """One sequence alone, plain causal attention, one full log-softmax a position."""
    ids = torch.from_numpy(sequence.ids[:-1])
    is_unit = sequence.ids[:-1] >= model.vocabulary.n_text + 2
    units, chunks = sequence.spans[:-1][is_unit, 0], sequence.spans[:-1][~is_unit]
    chunks = chunks[chunks[:, 0] >= 0]
    embedded = model.embed(
        ids,
        torch.from_numpy(speech.codes[units]) if len(units) else None,
        torch.from_numpy(chunk_features(speech, chunks)) if len(chunks) else None,
    )[None]
    hidden = model.hidden(embedded, torch.arange(len(ids))[None])[0]
    head, extension = model.causal.get_output_embeddings().weight, model.extension
    n_text, total = model.vocabulary.n_text, 0.0
    for i in np.flatnonzero(sequence.scored):
        if extension is None:
            rows_out, first = [head[:n_text]], 0
        elif sequence.scored[i] == AS_TEXT:
            rows_out, first = [head[:n_text], extension.marker_head], 0
        else:
            rows_out, first = [extension.marker_head, extension.unit_head], n_text
        logits = torch.cat(rows_out) @ hidden[i - 1]
        total += float(torch.log_softmax(logits.double(), -1)[sequence.ids[i] - first])
    return total
