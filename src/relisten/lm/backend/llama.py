"""Decoders of the Llama family, for scoring alone: Llama, Mistral, Qwen2 and Qwen3.

What a causal LM needs to score, without the transformers library, whose import and loading take
several times as long. The layers and the weights are named as there, the values are the same.
`lm.llama_folder` reads them from disk; whatever else there is, transformers loads.

Sources: RMSNorm arXiv:1910.07467, rotary positions arXiv:2104.09864, grouped queries
arXiv:2305.13245, SwiGLU arXiv:2002.05202, Llama arXiv:2302.13971.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from relisten.lm.attention import MASKED, Attend, attend_masked


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Shape of a decoder, in config.json's words; sliding_window: None where all is seen."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None


class Linear(nn.Linear):
    """Without a first draw of weights: they come from disk."""

    def reset_parameters(self) -> None:
        pass


class Embedding(nn.Embedding):
    """Without a first draw either: on the device "meta" it would import half of torch, 3 s."""

    def reset_parameters(self) -> None:
        pass


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight, in float32 but for the last product."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)


class Attention(nn.Module):
    """Causal attention: each of the key heads answers num_attention_heads / num_key_value_heads
    query heads. names: of the model's tensors, which say what has a bias and whether queries and
    keys are normalised."""

    def __init__(self, config: LlamaConfig, names: set[str], prefix: str) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim

        def linear(name: str, n_in: int, n_out: int) -> Linear:
            return Linear(n_in, n_out, bias=f"{prefix}{name}.bias" in names)

        self.q_proj = linear("q_proj", config.hidden_size, queries)
        self.k_proj = linear("k_proj", config.hidden_size, keys)
        self.v_proj = linear("v_proj", config.hidden_size, keys)
        self.o_proj = linear("o_proj", queries, config.hidden_size)
        if f"{prefix}q_norm.weight" in names:
            self.q_norm: nn.Module = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm: nn.Module = RMSNorm(config.head_dim, config.rms_norm_eps)
        else:
            self.q_norm = self.k_norm = nn.Identity()

    def forward(self, x: Tensor, turn: Rotation, attend: Attend) -> Tensor:
        """x: [B, L, H]."""
        query, key, value = (
            proj(x).unflatten(-1, (-1, self.head_dim))
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        query = rotate(self.q_norm(query).transpose(1, 2), turn)
        key = rotate(self.k_norm(key).transpose(1, 2), turn)
        attended = attend(query, key, value.transpose(1, 2))
        return self.o_proj(attended.transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, config: LlamaConfig, names: set[str], prefix: str) -> None:
        super().__init__()
        inner, outer = config.intermediate_size, config.hidden_size
        has_bias = f"{prefix}up_proj.bias" in names
        self.gate_proj = Linear(outer, inner, has_bias)
        self.up_proj = Linear(outer, inner, has_bias)
        self.down_proj = Linear(inner, outer, has_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward, each on normed input and added to it."""

    def __init__(self, config: LlamaConfig, names: set[str], prefix: str) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, names, f"{prefix}self_attn.")
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedFeedForward(config, names, f"{prefix}mlp.")

    def forward(self, x: Tensor, turn: Rotation, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoded(NamedTuple):
    """What a decoder returns: last_hidden_state [B, L, H], after the last norm."""

    last_hidden_state: Tensor


class Decoder(nn.Module):
    """Embeddings, layers, norm: all but the head."""

    def __init__(self, config: LlamaConfig, names: set[str]) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Layer(config, names, f"model.layers.{i}.") for i in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | Attend | None,
        position_ids: Tensor,
        use_cache: bool = False,
    ) -> Decoded:
        """inputs_embeds: [B, L, E]; attention_mask: additive [B, 1, L, L] or a way to attend, which
        then is all that says what is seen, or None for what lies before, within the window;
        position_ids: [B, L]. Nothing is ever cached."""
        turn = rotation(position_ids, self.config, inputs_embeds.dtype)
        window, length = self.config.sliding_window, inputs_embeds.shape[1]
        if attention_mask is None and window is not None:
            back = torch.arange(length)[:, None] - torch.arange(length)
            unseen = ((back < 0) | (back >= window)).to(inputs_embeds.device)
            attention_mask = inputs_embeds.new_zeros(length, length).masked_fill(unseen, MASKED)
        attend = attention_mask
        if attend is None or isinstance(attend, Tensor):
            attend = partial(attend_masked, mask=attention_mask)
        hidden = inputs_embeds
        for layer in self.layers:
            hidden = layer(hidden, turn, attend)
        return Decoded(self.norm(hidden))


class LlamaLM(nn.Module):
    """A decoder and its head, with as much of transformers' interface as `SpeechTextLM` asks for.

    names: of the tensors of its weights.
    """

    def __init__(self, config: LlamaConfig, names: set[str]) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config, names)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def base_model(self) -> Decoder:
        return self.model

    def compile_layers(self) -> None:
        """Let torch fuse what stands between the products, and attention's blocks: one layer is
        compiled for all, on its first use, and for rows of any length."""
        for layer in self.model.layers:
            layer.compile(dynamic=True, fullgraph=True)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


class Rotation(NamedTuple):
    """Cosine and sine of each position's angles, [B, 1, L, head_dim / 2] each."""

    cos: Tensor
    sin: Tensor


def rotation(positions: Tensor, config: LlamaConfig, dtype: torch.dtype) -> Rotation:
    """The angles position · theta^(-2i / head_dim) of positions [B, L], computed in float32."""
    steps = torch.arange(0, config.head_dim, 2, device=positions.device).float()
    inverse = 1.0 / config.rope_theta ** (steps / config.head_dim)
    angles = positions[:, None, :, None].float() * inverse
    return Rotation(angles.cos().to(dtype), angles.sin().to(dtype))


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """x [B, heads, L, head_dim], element i of its first half turned with element i of the other."""
    first, second = x.chunk(2, -1)
    turned = (first * turn.cos - second * turn.sin, second * turn.cos + first * turn.sin)
    return torch.cat(turned, -1)
