"""Decoders of the Llama family, for scoring alone: Llama, Mistral, Qwen2 and Qwen3.

What scoring needs of a causal LM, without the transformers library, whose import and loading take
several times as long. Layers and weights have the names that they have there, and the values are
the same. `llama_folder` reads the weights from disk; transformers loads every other architecture.

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
    """Shape of a decoder, with the names of config.json; sliding_window: None where all is seen."""

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
    """Without random initial weights: they come from disk."""

    def reset_parameters(self) -> None:
        pass


class Embedding(nn.Embedding):
    """Without random initial weights: on the device "meta" they would import half of torch, 3 s."""

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
    """Grouped-query attention: each key head answers the same number of query heads.

    names: of the model's tensors, which tell what has a bias and whether queries and keys are
    normalised.
    """

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

    def forward(self, x: Tensor, angles: RotaryAngles, attend: Attend) -> Tensor:
        """[B, L, H] from x [B, L, H], normalised."""
        query, key, value = (
            proj(x).unflatten(-1, (-1, self.head_dim))
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        query = apply_rotary(self.q_norm(query).transpose(1, 2), angles)
        key = apply_rotary(self.k_norm(key).transpose(1, 2), angles)
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
    """Attention, then feed-forward, each on normalised input and added to it (pre-norm)."""

    def __init__(self, config: LlamaConfig, names: set[str], prefix: str) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, names, f"{prefix}self_attn.")
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedFeedForward(config, names, f"{prefix}mlp.")

    def forward(self, x: Tensor, angles: RotaryAngles, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoded(NamedTuple):
    """What a decoder returns: last_hidden_state [B, L, H], after the last norm."""

    last_hidden_state: Tensor


class Decoder(nn.Module):
    """Embeddings, layers and the last norm: all but the head."""

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
        attention_mask: Tensor | None,
        position_ids: Tensor,
        use_cache: bool = False,
        attend: Attend | None = None,
    ) -> Decoded:
        """Hidden states of a batch, with transformers' names of parameters.

        inputs_embeds: [B, L, E]. attention_mask: additive [B, 1, L, L]; None: causal, within the
        window. position_ids: int64 [B, L]. use_cache: nothing is ever cached. attend: in place of a
        mask; it alone decides what is seen.
        """
        angles = rotary_angles(position_ids, self.config, inputs_embeds.dtype)
        window, length = self.config.sliding_window, inputs_embeds.shape[1]
        if attend is None:
            if attention_mask is None and window is not None:
                back = torch.arange(length)[:, None] - torch.arange(length)
                unseen = ((back < 0) | (back >= window)).to(inputs_embeds.device)
                attention_mask = inputs_embeds.new_zeros(length, length).masked_fill(unseen, MASKED)
            attend = partial(attend_masked, mask=attention_mask)
        hidden = inputs_embeds
        for layer in self.layers:
            hidden = layer(hidden, angles, attend)
        return Decoded(self.norm(hidden))


class LlamaLM(nn.Module):
    """A decoder and its head, with the part of transformers' interface that `SpeechTextLM` uses.

    names: of the model's tensors.
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
        """Let torch fuse the operators between the matrix products, and attention's blocks.

        One layer is compiled for all, on its first use, and for rows of any length.
        """
        for layer in self.model.layers:
            layer.compile(dynamic=True, fullgraph=True)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


class RotaryAngles(NamedTuple):
    """Cosine and sine of each position's angles, [B, 1, L, head_dim / 2] each."""

    cos: Tensor
    sin: Tensor


def rotary_angles(positions: Tensor, config: LlamaConfig, dtype: torch.dtype) -> RotaryAngles:
    """The angles position · theta^(-2i / head_dim) of positions [B, L], computed in float32."""
    steps = torch.arange(0, config.head_dim, 2, device=positions.device).float()
    inverse = 1.0 / config.rope_theta ** (steps / config.head_dim)
    angles = positions[:, None, :, None].float() * inverse
    return RotaryAngles(angles.cos().to(dtype), angles.sin().to(dtype))


def apply_rotary(x: Tensor, angles: RotaryAngles) -> Tensor:
    """x [B, heads, L, head_dim], each element of its first half rotated with one of the second."""
    first, second = x.chunk(2, -1)
    rotated = (first * angles.cos - second * angles.sin, second * angles.cos + first * angles.sin)
    return torch.cat(rotated, -1)
