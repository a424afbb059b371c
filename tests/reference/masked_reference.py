# SPDX-License-Identifier: Apache-2.0
"""The same pruned run said in another way: transformers' own layers on every token, with what was dropped masked out.

Nothing is ever removed here and no row of a weight is left out. A dropped token is one that nobody may attend any more;
a neuron outside the core set is one whose activation is zero; renumbering turns cached, already rotated keys further;
zeroing writes zeros into transformers' own cache. If the shrinking run gives the same logits, shrinking is right.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import rotate_half

from core_matching_reference import Trace
from selection import Options


class _SilentNeurons:
    """Zeroes the activations outside each layer's core neurons while it is switched on."""

    def __init__(self, layers: nn.ModuleList, trace: Trace, options: Options) -> None:
        self.on = False
        sparse = [i for i in range(len(layers)) if options.neuron_sparse(i) and options.beta < 1]
        self.handles = [layers[i].mlp.down_proj.register_forward_pre_hook(self._hook(trace.core_neurons[i])) for i in sparse]

    def _hook(self, core: np.ndarray):
        def silence(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
            if not self.on:
                return None
            active = torch.zeros_like(inputs[0])
            active[..., core] = inputs[0][..., core]
            return (active,)

        return silence

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


class _Plan:
    """What each layer sees of the prompt in prefill and in decode, and at which rotary positions."""

    def __init__(self, trace: Trace, options: Options, layers: int, enters: np.ndarray) -> None:
        self.prefill_columns: list[np.ndarray] = []
        self.prefill_positions: list[Tensor] = []
        tokens = len(enters)
        alive, position = enters, torch.arange(tokens)
        for layer in range(layers):
            self.prefill_columns.append(alive)
            self.prefill_positions.append(position)
            if layer in trace.kept_positions and options.pruning != "zero_in_place":
                alive = np.isin(np.arange(tokens), trace.kept_positions[layer])
                if options.positions == "contiguous":
                    position = torch.from_numpy(alive.cumsum() - 1)
        self.decode_columns = [alive] * layers if options.pruning == "everywhere" else self.prefill_columns
        self.final_positions = position


def _mask(columns: np.ndarray, rows: int, columns_total: int, window: int | None) -> Tensor:
    """Additive mask [1, 1, rows, columns_total]; a row always sees itself, for a softmax over nothing is not a number."""
    allowed = torch.ones(rows, columns_total, dtype=torch.bool).tril(columns_total - rows)
    if window is not None:
        allowed &= ~torch.ones(rows, columns_total, dtype=torch.bool).tril(columns_total - rows - window)
    allowed[:, : len(columns)] &= torch.from_numpy(columns)
    allowed |= torch.eye(columns_total, dtype=torch.bool)[columns_total - rows :]
    return torch.zeros(rows, columns_total).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]


def _finish_prefill(text: nn.Module, cache: DynamicCache, plan: _Plan, trace: Trace, options: Options) -> None:
    for layer, (entry, position) in enumerate(zip(cache.layers, plan.prefill_positions)):
        cos, sin = text.rotary_emb(entry.keys, position_ids=(plan.final_positions - position)[None])
        entry.keys = entry.keys * cos[:, None] + rotate_half(entry.keys) * sin[:, None]
        if options.pruning == "zero_in_place" and layer in trace.kept_positions:
            zeroed = np.setdiff1d(np.arange(len(position)), trace.kept_positions[layer])
            entry.keys[:, :, zeroed] = 0
            entry.values[:, :, zeroed] = 0


@torch.no_grad()
def masked_logits(model: nn.Module, embeddings: Tensor, enters: np.ndarray, trace: Trace, options: Options) -> Tensor:
    """Logits [steps, vocabulary] of the run in `trace` (its decisions and its ids) without shrinking anything."""
    text = getattr(model.model, "language_model", model.model)
    plan = _Plan(trace, options, len(text.layers), enters)
    silent = _SilentNeurons(text.layers, trace, options)
    cache = DynamicCache()  # of all tokens: the mask says what a window hides
    window = getattr(text.config, "sliding_window", None) if text.config.model_type == "mistral" else None
    logits = []
    for step, token in enumerate([None, *trace.generated[:-1]]):
        silent.on = step > 0
        x = embeddings[None] if token is None else text.embed_tokens(torch.tensor([[token]]))
        generated_position = plan.final_positions[-1:] + step
        for index, layer in enumerate(text.layers):
            columns = plan.prefill_columns[index] if step == 0 else plan.decode_columns[index]
            position = plan.prefill_positions[index] if step == 0 else generated_position
            rotary = text.rotary_emb(x, position_ids=position[None])
            mask = _mask(columns, x.shape[1], len(embeddings) + step, window)
            x = layer(x, attention_mask=mask, position_embeddings=rotary, past_key_values=cache, use_cache=True)
        logits.append(model.lm_head(text.norm(x))[0, -1])
        if step == 0:
            _finish_prefill(text, cache, plan, trace, options)
    silent.remove()
    return torch.stack(logits)
