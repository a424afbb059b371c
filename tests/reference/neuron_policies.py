# SPDX-License-Identifier: Apache-2.0
"""Which neurons answer: the policies `sentence`, `gate` and `predicted`, in transformers' own LLaMA and Qwen2 models.

Nothing is left out here. Each MLP computes all of its neurons, and the activations of those that are not chosen become zero,
which is what leaving them out must come to. The prompt is read densely and remembered as it is, so that every statistic is
its formula over the counted tokens and policies can be compared behind one prompt.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator

import numpy as np
import torch
from torch import Tensor, nn

import weight_planes
from selection import Options, frequencies


@dataclass(frozen=True)
class Policy:
    """Who is chosen of a layer's N neurons: K = max(1, floor(beta N)), ties to the lower index; beta = 1 is dense.

    sentence   once a prompt, by the prompt's activations a = act(W_gate h) * (W_up h):
               `frequency`: f(n), in how many tokens a_n is among the largest positive ones (selection.py). K = floor(beta N),
               never a neuron with f(n) = 0; if none is chosen the layer stays dense
               `magnitude`: the mean of |a_n|
    gate       for each token, by |act(W_gate h)_n| e_n; e_n is the mean of |(W_up h)_n| over the prompt, or 1 if `plain`
    predicted  for each token, by |act(G h)_n (U h)_n|; G and U are what the upper planes of W_gate and W_up say, in the type
               `coarse` (weight_planes.py)

    The means and f are over the counted tokens of all prompts so far. Where none was counted, `gate` is plain and `sentence`
    dense.
    """

    kind: str = "dense"  # dense | sentence | gate | predicted
    beta: float | tuple[float, ...] = 0.4  # of every layer, or one for each
    statistic: str = "frequency"  # of sentence: frequency | magnitude
    rho: float = 0.2  # of frequency
    core_count: str = "per_token"  # of frequency: per_token | mean_count
    plain: bool = False  # of gate
    coarse: str = "q8_0"  # of predicted: q8_0 | q4_0 | f16
    count_over: str = "all"  # all | text | image
    layers: tuple[int, int] | None = None  # half-open; others are dense

    def share(self, layer: int) -> float:
        """The beta of a layer."""
        begin, end = self.layers or (0, layer + 1)
        if self.kind == "dense" or not begin <= layer < end:
            return 1.0
        return self.beta[layer] if isinstance(self.beta, tuple) else self.beta

    def counted(self, is_image: np.ndarray) -> np.ndarray:
        """Bool mask over a prompt's tokens."""
        return {"all": np.ones(len(is_image), dtype=bool), "text": ~is_image, "image": is_image}[self.count_over]


DENSE = Policy()


def chosen_count(beta: float, neurons: int) -> int:
    return max(1, math.floor(beta * neurons))


def largest(scores: Tensor, count: int) -> Tensor:
    """Bool mask of the `count` largest scores of each row, ties to the lower index."""
    assert not scores.isnan().any()
    last = scores.topk(count).values[..., -1:]
    above, equal = scores > last, scores == last
    places = count - above.sum(-1, keepdim=True)
    return above | (equal & (equal.cumsum(-1) <= places))


@dataclass
class ReadPrompt:
    """What a layer computed of one prompt, [tokens, neurons], and which of its tokens are of an image."""

    up: Tensor
    activation: Tensor
    is_image: np.ndarray


class PolicyLayer:
    """One MLP's forward: dense while a prompt is read, under a policy otherwise."""

    def __init__(self, mlp: nn.Module, number: int, owner: NeuronPolicies) -> None:
        assert all(module.bias is None for module in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.mlp, self.number, self.owner = mlp, number, owner
        self.prompts: list[ReadPrompt] = []
        self.chosen: Tensor | None = None  # bool [tokens or 1, neurons], of the last call behind a prompt; None: all
        self.coarse_weights: dict[str, tuple[Tensor, Tensor]] = {}
        mlp.forward = self.forward

    def forward(self, h: Tensor) -> Tensor:
        """h [1, tokens, hidden]"""
        gate, up = self.mlp.act_fn(self.mlp.gate_proj(h)), self.mlp.up_proj(h)
        activation = gate * up
        if self.owner.is_image is not None:
            self.prompts.append(ReadPrompt(up[0], activation[0], self.owner.is_image))
        else:
            self.chosen = self._choose(h[0], gate[0])
            if self.chosen is not None:
                activation = torch.where(self.chosen, activation, 0)
        return self.mlp.down_proj(activation)

    def _choose(self, h: Tensor, gate: Tensor) -> Tensor | None:
        policy = self.owner.policy
        beta, neurons = policy.share(self.number), gate.shape[-1]
        if beta == 1:
            return None
        count = chosen_count(beta, neurons)
        if policy.kind == "gate":
            return largest(gate.abs() * self._expected_up(policy), count)
        if policy.kind == "predicted":
            coarse_gate, coarse_up = self._coarse(policy.coarse)
            return largest((self.mlp.act_fn(h @ coarse_gate.T) * (h @ coarse_up.T)).abs(), count)
        if policy.statistic == "magnitude":
            mean = self.mean_magnitude(policy)
            return None if mean is None else largest(mean[None], count)
        return self._most_frequent(policy, math.floor(beta * neurons))

    def _mean(self, policy: Policy, of: str) -> Tensor | None:
        """The mean over the counted tokens [neurons]; None if there are none."""
        rows = torch.cat([getattr(p, of)[torch.from_numpy(policy.counted(p.is_image))] for p in self.prompts])
        return rows.abs().mean(0) if len(rows) else None

    def mean_up(self, policy: Policy) -> Tensor | None:
        return self._mean(policy, "up")

    def mean_magnitude(self, policy: Policy) -> Tensor | None:
        return self._mean(policy, "activation")

    def _expected_up(self, policy: Policy) -> Tensor | float:
        mean = None if policy.plain else self.mean_up(policy)
        return 1.0 if mean is None else mean

    def _most_frequent(self, policy: Policy, count: int) -> Tensor | None:
        options = Options(rho=policy.rho, core_count=policy.core_count)
        activation = torch.cat([p.activation for p in self.prompts]).numpy()
        counted = np.concatenate([policy.counted(p.is_image) for p in self.prompts])
        f = torch.from_numpy(frequencies(activation, counted, options))
        if count == 0 or f.max() == 0:
            return None
        return (largest(f, count) & (f > 0))[None]

    def _coarse(self, of: str) -> tuple[Tensor, Tensor]:
        if of not in self.coarse_weights:
            weights = (self.mlp.gate_proj.weight, self.mlp.up_proj.weight)
            self.coarse_weights[of] = tuple(weight_planes.coarse(w.detach(), of).to(w.dtype) for w in weights)
        return self.coarse_weights[of]


class NeuronPolicies:
    """Puts a policy into every layer of a transformers model. One sequence at a time, as a batch of one.

        policies = NeuronPolicies(model)
        with policies.reading_prompt(is_image):
            ... model(prompt) ...
        policies.policy = Policy("gate", 0.5)
        ... model(answer) ...
        policies.forget()            # before another sequence
    """

    def __init__(self, model: nn.Module) -> None:
        self.policy = DENSE
        self.is_image: np.ndarray | None = None  # while a prompt is read: of its tokens
        text = getattr(model.model, "language_model", model.model)
        self.layers = [PolicyLayer(layer.mlp, i, self) for i, layer in enumerate(text.layers)]

    @contextmanager
    def reading_prompt(self, is_image: np.ndarray) -> Iterator[None]:
        self.is_image = is_image
        try:
            yield
        finally:
            self.is_image = None

    def forget(self) -> None:
        for layer in self.layers:
            layer.prompts.clear()
