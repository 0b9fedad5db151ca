"""From prefix trees to the log-probabilities of their targets: what scoring and training share.

A batch of trees is laid out in one of three ways, which change no value:

- one row without padding, each tree attending within itself (our own decoders, `LlamaLM`);
- one padded row per tree and a mask (any other LM, since every architecture takes a mask);
- the same without a mask where no tree branches: padding stands on the right, so plain causal
  attention never sees it. Training sequences are such trees.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relisten.lm.attention import Attend, Forest, additive, in_blocks
from relisten.lm.model import SpeechTextLM
from relisten.lm.sequences import AS_SPEECH, AS_TEXT, Speech, speech_inputs
from relisten.lm.tree import PrefixTree, visible


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the nodes of a batch of trees stand, and what they see.

    positions: int64 [B, L], of each place in its own sequence. first: int64 [n_trees], the place of
    each tree's first node among the B · L. mask, attend: as `SpeechTextLM.hidden` takes them.
    """

    positions: np.ndarray
    first: np.ndarray
    mask: Tensor | None = None
    attend: Attend | None = None


def _in_one_row(model: SpeechTextLM, trees: Seq[PrefixTree]) -> _Layout:
    """The trees one behind the other."""
    fill = in_blocks(model.device)
    forest = Forest.of(trees, model.sliding_window, fill)
    if fill:
        attend = forest.attend_in_blocks(model.device)
    else:
        attend = forest.attend_apart(model.device, model.dtype)
    return _Layout(forest.depth[None], forest.bounds[:-1], attend=attend)


def _in_padded_rows(model: SpeechTextLM, trees: Seq[PrefixTree]) -> _Layout:
    """One row per tree, padded on the right; the padding sees itself."""
    length = max(map(len, trees))
    first = np.arange(len(trees)) * length
    if all(tree.is_path for tree in trees):
        # transformers takes a position that does not follow the last for the start of a sequence:
        # padding has positions of its own
        return _Layout(np.tile(np.arange(length), (len(trees), 1)), first)
    positions = np.zeros((len(trees), length), np.int64)
    seen = np.zeros((len(trees), length, length), bool)
    seen[:, np.arange(length), np.arange(length)] = True
    for b, tree in enumerate(trees):
        n = len(tree)
        seen[b, :n, :n] = visible(tree.stop, tree.depth, model.sliding_window)
        positions[b, :n] = tree.depth
    mask = additive(seen[:, None], model.dtype).to(model.device)
    return _Layout(positions, first, mask)


def _joined(parts: Seq[np.ndarray], device: torch.device) -> Tensor | None:
    """The rows of all parts; None where there are none."""
    filled = [part for part in parts if len(part)]
    return torch.from_numpy(np.concatenate(filled)).to(device) if filled else None


def _embedded(
    model: SpeechTextLM,
    layout: _Layout,
    trees: Seq[PrefixTree],
    speeches: Seq[Speech | None],
    guesses: Seq[np.ndarray] | None,
) -> Tensor:
    """Input embeddings [B, L, E]; guesses: see `tree_log_probs`."""
    ids = np.full(layout.positions.size, model.vocabulary.bos_id, np.int64)
    codes, features = [], []
    for first, tree, speech in zip(layout.first, trees, speeches, strict=True):
        ids[first : first + len(tree)] = tree.ids
        if speech is not None:
            units, chunks = speech_inputs(model.vocabulary, tree.ids, tree.spans, speech)
            codes.append(units)
            features.append(chunks)
    embedded = model.embed(
        torch.from_numpy(ids).to(model.device),
        *(_joined(parts, model.device) for parts in (codes, features, guesses or [])),
    )
    return embedded.view(*layout.positions.shape, -1)


def tree_log_probs(
    model: SpeechTextLM,
    trees: Seq[PrefixTree],
    speeches: Seq[Speech | None],
    guesses: Seq[np.ndarray] | None = None,
) -> list[Tensor]:
    """The log-probability of each target of each tree, nats, float32 [K]; differentiable.

    speeches: one per tree, None where no speech enters. guesses: for each tree float32
    [n_chunks, E], the embeddings that stand for the projector's guesses at the chunks of its nodes,
    in their order; None: the projector's own.
    """
    layout = (_in_one_row if model.takes_attend else _in_padded_rows)(model, trees)
    hidden = model.hidden(
        _embedded(model, layout, trees, speeches, guesses),
        torch.from_numpy(layout.positions).to(model.device),
        layout.mask,
        layout.attend,
    ).flatten(0, 1)
    place = np.concatenate(
        [tree.target_node + first for tree, first in zip(trees, layout.first, strict=True)]
    )
    target = np.concatenate([tree.target_id for tree in trees])
    scored = np.concatenate([tree.target_scored for tree in trees])
    log_probs = torch.zeros(len(place), device=model.device)
    for kind in (AS_TEXT, AS_SPEECH):
        where = np.flatnonzero(scored == kind)
        if not len(where):
            continue
        places, row = np.unique(place[where], return_inverse=True)
        values = model.log_probs(
            hidden[torch.from_numpy(places).to(model.device)],
            row.reshape(-1),
            target[where],
            as_text=kind == AS_TEXT,
        )
        log_probs = log_probs.index_copy(0, torch.from_numpy(where).to(model.device), values)
    return list(log_probs.split([len(tree.target_node) for tree in trees]))
