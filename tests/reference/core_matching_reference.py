# SPDX-License-Identifier: Apache-2.0
"""Prefill and greedy decode of a LLaVA or LLaMA-like transformers model with CoreMatching.

The layers are walked one by one with transformers' own linear modules; normalisation, rotary embedding and attention
are spelt out, because transformers computes parts of them in float32 whatever the model's type. Every layer caches its
keys *before* rotation together with their positions, and rotates them whenever they are used: slow, but then dropping
or renumbering a token is one line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from margins import Margins, assert_robust, assert_scores_robust
from selection import (
    Options, activated, core_neurons, keep_tokens, overlaps, random_scores, rarities, token_core_counts
)


@dataclass
class Tokens:
    """The tokens that are alive, in the order of the prompt."""

    original: np.ndarray  # position in the expanded prompt
    is_image: np.ndarray
    rotary: Tensor  # position that the rotary embedding sees; another one than `original` once survivors are renumbered

    def __len__(self) -> int:
        return len(self.original)

    def select(self, rows: np.ndarray) -> Tokens:
        return Tokens(self.original[rows], self.is_image[rows], self.rotary[torch.from_numpy(rows)])


@dataclass
class LayerCache:
    key: Tensor  # [kv_heads, tokens, head_dim], not rotated
    value: Tensor  # [kv_heads, tokens, head_dim]
    position: Tensor  # [tokens], rotary

    def append(self, key: Tensor, value: Tensor, position: Tensor) -> None:
        self.key = torch.cat([self.key, key], dim=1)
        self.value = torch.cat([self.value, value], dim=1)
        self.position = torch.cat([self.position, position])

    def drop(self, rows: np.ndarray) -> None:
        kept = torch.from_numpy(rows)
        self.key, self.value, self.position = self.key[:, kept], self.value[:, kept], self.position[kept]

    def zero(self, rows: np.ndarray) -> None:
        """A key of zeros stays zero under rotation, so the row scores 0 before the softmax and still has a share in it."""
        zeroed = torch.from_numpy(~rows)
        self.key[:, zeroed] = 0
        self.value[:, zeroed] = 0


@dataclass
class Trace:
    """Everything a run decided and computed, float64 or float32 as the model."""

    layer_output: dict[int, Tensor] = field(default_factory=dict)
    ffn_activation: dict[int, Tensor] = field(default_factory=dict)
    core_neurons: dict[int, np.ndarray] = field(default_factory=dict)
    kept_positions: dict[int, np.ndarray] = field(default_factory=dict)
    logits: list[Tensor] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    margins: Margins = field(default_factory=Margins)


def rotary_frequencies(config) -> Tensor:
    """theta^(-2i/d) in float64, with LLaMA 3's stretching of the long wavelengths where the configuration asks for it."""
    rope = config.rope_parameters
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    frequency = rope["rope_theta"] ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    if rope["rope_type"] == "default":
        return frequency
    assert rope["rope_type"] == "llama3"
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * frequency / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)  # 0: slowed by the whole factor, 1: as it was
    return (1 - smooth) * frequency / rope["factor"] + smooth * frequency


def rotate(x: Tensor, position: Tensor, frequency: Tensor) -> Tensor:
    """Rotary embedding of [heads, tokens, head_dim]; component i turns together with i + head_dim / 2."""
    angle = position.to(torch.float64)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rms_norm(x: Tensor, norm: nn.Module) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + norm.variance_epsilon) * norm.weight


class Decoder:
    """The text model of a transformers LLaVA (or a text-only LLaMA, Mistral, Qwen2 or Qwen3)."""

    def __init__(self, model: nn.Module) -> None:
        text = getattr(model.model, "language_model", model.model)
        self.config = text.config
        self.layers, self.norm, self.head, self.embed = text.layers, text.norm, model.lm_head, text.embed_tokens
        self.window = getattr(text.config, "sliding_window", None) if text.config.model_type == "mistral" else None
        self.frequency = rotary_frequencies(text.config)
        assert torch.allclose(self.frequency, text.rotary_emb.inv_freq.double(), rtol=1e-5), "not transformers' frequencies"

    def project(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of [tokens, hidden], each [heads, tokens, head_dim], nothing rotated."""
        attention = self.layers[layer].self_attn
        projections = (attention.q_proj(x), attention.k_proj(x), attention.v_proj(x))
        query, key, value = (p.view(len(x), -1, attention.head_dim).transpose(0, 1) for p in projections)
        if hasattr(attention, "q_norm"):  # Qwen3
            query, key = rms_norm(query, attention.q_norm), rms_norm(key, attention.k_norm)
        return query, key, value

    def attend(self, layer: int, query: Tensor, position: Tensor, cache: LayerCache) -> tuple[Tensor, Tensor]:
        """Output [tokens, hidden] and weights [heads, tokens, cached]; the queries are the cache's last tokens."""
        attention = self.layers[layer].self_attn
        heads_per_kv = query.shape[0] // cache.key.shape[0]
        key = rotate(cache.key, cache.position, self.frequency).repeat_interleave(heads_per_kv, dim=0)
        scores = rotate(query, position, self.frequency) @ key.transpose(1, 2) * attention.head_dim**-0.5
        tokens, cached = scores.shape[1:]
        hidden = torch.ones(tokens, cached, dtype=torch.bool).triu(cached - tokens + 1)
        if self.window is not None:
            hidden |= cache.position <= position[:, None] - self.window
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        mixed = weights @ cache.value.repeat_interleave(heads_per_kv, dim=0)
        return attention.o_proj(mixed.transpose(0, 1).reshape(tokens, -1)), weights

    def logits(self, x: Tensor) -> Tensor:
        return self.head(rms_norm(x, self.norm))


class Run:
    """One sequence: its options, the caches of its layers, its core neurons. With `shake`, decisions must withstand it."""

    def __init__(self, decoder: Decoder, options: Options, shake: float | None) -> None:
        self.decoder, self.options, self.shake = decoder, options, shake
        self.caches: list[LayerCache] = []
        self.trace = Trace()

    def prefill(self, embeddings: Tensor, is_image: np.ndarray, enters: np.ndarray) -> Tensor:
        """Logits after the prompt [vocabulary]; the FFN of the prompt is always dense."""
        self.prompt_tokens = len(embeddings)
        whole = Tokens(np.arange(self.prompt_tokens), is_image, torch.arange(self.prompt_tokens))
        tokens = whole.select(np.flatnonzero(enters))
        x = embeddings[torch.from_numpy(enters)]
        for layer, module in enumerate(self.decoder.layers):
            query, key, value = self.decoder.project(layer, rms_norm(x, module.input_layernorm))
            self.caches.append(LayerCache(key.clone(), value.clone(), tokens.rotary.clone()))
            attention, weights = self.decoder.attend(layer, query, tokens.rotary, self.caches[layer])
            x = x + attention
            h = rms_norm(x, module.post_attention_layernorm)
            gate, up = module.mlp.gate_proj(h), module.mlp.up_proj(h)
            activation = module.mlp.act_fn(gate) * up
            x = x + module.mlp.down_proj(activation)
            self.trace.layer_output[layer], self.trace.ffn_activation[layer] = x, activation
            kept = self._select(layer, tokens, gate.numpy(), up.numpy(), activation.numpy(), weights)
            if kept is not None:
                x, tokens = self._drop(layer, kept, x, tokens)
        self.next_position = int(tokens.rotary[-1]) + 1
        return self.decoder.logits(x[-1])

    def decode(self, token: int) -> Tensor:
        """Logits after one more token [vocabulary]."""
        x = self.decoder.embed.weight[token][None]
        position = torch.tensor([self.next_position])
        self.next_position += 1
        for layer, module in enumerate(self.decoder.layers):
            query, key, value = self.decoder.project(layer, rms_norm(x, module.input_layernorm))
            self.caches[layer].append(key, value, position)
            x = x + self.decoder.attend(layer, query, position, self.caches[layer])[0]
            x = x + self._sparse_ffn(layer, rms_norm(x, module.post_attention_layernorm))
        return self.decoder.logits(x[0])

    def _sparse_ffn(self, layer: int, h: Tensor) -> Tensor:
        mlp = self.decoder.layers[layer].mlp
        if not self.options.neuron_sparse(layer) or self.options.beta == 1:
            return mlp.down_proj(mlp.act_fn(mlp.gate_proj(h)) * mlp.up_proj(h))
        rows = torch.from_numpy(self.trace.core_neurons[layer])
        activation = mlp.act_fn(h @ mlp.gate_proj.weight[rows].T) * (h @ mlp.up_proj.weight[rows].T)
        return activation @ mlp.down_proj.weight[:, rows].T

    def _select(
        self, layer: int, tokens: Tokens, gate: np.ndarray, up: np.ndarray, activation: np.ndarray, weights: Tensor
    ) -> np.ndarray | None:
        """Select the layer's core neurons; at a matching layer, the mask of the tokens that go on."""
        options = self.options
        matching = options.drops_tokens and layer in options.match_layers and tokens.is_image.any()
        by_neurons = matching and options.criterion in ("overlap", "rarity", "contrast")
        needs_core = options.neuron_sparse(layer) or (by_neurons and options.reference == "sentence")
        masks = {"all": np.ones(len(tokens), dtype=bool), "image": tokens.is_image, "text": ~tokens.is_image}
        counted = masks[options.count_over]

        def decide(a: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
            core = core_neurons(a, counted, options) if needs_core else None
            return core, keep_tokens(self._neuron_scores(a, core, tokens), options) if by_neurons else None

        core, kept_image = decide(activation)
        if core is not None:
            self.trace.core_neurons[layer] = core
        if self.shake and (needs_core or by_neurons):
            assert_robust(gate, up, decide, self.shake, f"layer {layer}")
            self.trace.margins.see_signs(gate, up)
            self.trace.margins.see_core_cut(activation, token_core_counts(activation, counted, options))
        if not matching:
            return None
        scores = self._neuron_scores(activation, core, tokens) if by_neurons else self._other_scores(layer, tokens, weights)
        return self._kept_rows(layer, tokens, scores)

    def _neuron_scores(self, activation: np.ndarray, core: np.ndarray | None, tokens: Tokens) -> np.ndarray:
        reference, image = self._reference(activation, core, tokens), activation[tokens.is_image]
        if self.options.criterion == "rarity":
            return rarities(image, reference)
        if self.options.criterion == "contrast":
            reference[core_neurons(activation, tokens.is_image, self.options)] = 0
        return overlaps(image, reference > 0)

    def _reference(self, activation: np.ndarray, core: np.ndarray | None, tokens: Tokens) -> np.ndarray:
        """How many tokens of the reference have each neuron; 1 for each one of a set."""
        if self.options.reference == "anchor":
            return activated(activation)[self._anchor_row(tokens)].astype(np.int64)
        if self.options.reference == "question":
            behind = np.arange(len(tokens)) > np.flatnonzero(tokens.is_image)[-1]
            return activated(activation)[behind].sum(axis=0)
        if self.options.reference == "text":
            core = core_neurons(activation, ~tokens.is_image, self.options)
        counts = np.zeros(activation.shape[1], dtype=np.int64)
        counts[core] = 1
        return counts

    def _anchor_row(self, tokens: Tokens) -> int:
        """The anchor is a position in the whole prompt; it names a text token, which is never dropped."""
        anchor = self.options.anchor + (self.prompt_tokens if self.options.anchor < 0 else 0)
        row = int(np.flatnonzero(tokens.original == anchor)[0])
        assert not tokens.is_image[row]
        return row

    def _other_scores(self, layer: int, tokens: Tokens, weights: Tensor) -> np.ndarray:
        if self.options.criterion == "random":
            return random_scores(self.options.seed, layer, tokens.original[tokens.is_image])
        last = weights[:, -1]  # [heads, tokens]
        if self.options.criterion == "attention":
            return last.mean(dim=0).numpy().astype(np.float64)[tokens.is_image]
        value = self.caches[layer].value
        weighted = last[..., None] * value.repeat_interleave(last.shape[0] // value.shape[0], dim=0)
        weighted = weighted.transpose(0, 1).reshape(len(tokens), -1)
        output = weighted.sum(dim=0)
        return (weighted @ output / output.norm()).numpy().astype(np.float64)[tokens.is_image]

    def _kept_rows(self, layer: int, tokens: Tokens, scores: np.ndarray) -> np.ndarray:
        kept_image = keep_tokens(scores, self.options)
        if self.shake:
            self.trace.margins.see_scores(scores, kept_image)
            if scores.dtype == np.float64:
                assert_scores_robust(scores, lambda s: keep_tokens(s, self.options), self.shake, f"scores of layer {layer}")
        kept = ~tokens.is_image
        kept[tokens.is_image] = kept_image
        self.trace.kept_positions[layer] = tokens.original[kept]
        return kept

    def _drop(self, layer: int, kept: np.ndarray, x: Tensor, tokens: Tokens) -> tuple[Tensor, Tokens]:
        if self.options.pruning == "zero_in_place":
            self.caches[layer].zero(kept)
            return x, tokens
        x, tokens = x[torch.from_numpy(kept)], tokens.select(kept)
        if self.options.pruning == "everywhere":
            for cache in self.caches:
                cache.drop(kept)
            if self.options.positions == "contiguous":
                tokens.rotary = torch.arange(len(tokens))
                for cache in self.caches:
                    cache.position = tokens.rotary.clone()
        return x, tokens


@torch.no_grad()
def generate(
    decoder: Decoder,
    embeddings: Tensor,
    is_image: np.ndarray,
    enters: np.ndarray,
    options: Options,
    steps: int,
    banned_from: int | None = None,
    stop: int | None = None,
    shake: float | None = None,
) -> Trace:
    """Prefill and greedy decode. Tokens outside the mask `enters` never take part. Ids from `banned_from` on are never
    picked; `stop` ends the answer and belongs to it."""
    assert options.pruning == "everywhere" or options.positions == "original"
    run = Run(decoder, options, shake)
    logits = run.prefill(embeddings, is_image, enters)
    while True:
        run.trace.logits.append(logits)
        run.trace.generated.append(int(logits[:banned_from].argmax()))
        if shake:
            run.trace.margins.see_logits(logits[:banned_from].double().numpy())
        if len(run.trace.generated) == steps or run.trace.generated[-1] == stop:
            return run.trace
        logits = run.decode(run.trace.generated[-1])
