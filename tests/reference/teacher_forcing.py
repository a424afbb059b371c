# SPDX-License-Identifier: Apache-2.0
"""What policies for neurons do to a model's predictions of given texts, beside the dense run: perplexity, divergence, agreement.

A chunk is so many consecutive ids of a text behind the ids that begin every text. Its first half is the prompt, read densely.
The others are foretold one by one, each behind the true ones before it: the first by the prompt, and so densely under every
policy, the rest by tokens that go through the policy's neurons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from neuron_policies import NeuronPolicies, Policy


@dataclass
class Figures:
    """Sums over scored tokens, in nats."""

    tokens: int = 0
    surprise: float = 0.0  # of -log p(token)
    divergence: float = 0.0  # of KL(dense || this)
    agreed: int = 0  # tokens of which the dense run holds the same one likeliest

    @property
    def perplexity(self) -> float:
        return math.exp(self.surprise / self.tokens)

    def add(self, log_p: Tensor, dense: Tensor, ids: Tensor) -> None:
        """log_p and dense [tokens, vocabulary], binary64; ids [tokens]"""
        self.tokens += len(ids)
        self.surprise -= float(log_p.gather(1, ids[:, None]).sum())
        self.divergence += float((dense.exp() * (dense - log_p)).sum())
        self.agreed += int((log_p.argmax(1) == dense.argmax(1)).sum())


def spread_chunks(ids: Sequence[int], prefix: Sequence[int], length: int, count: int) -> list[list[int]]:
    """`count` whole chunks of `length` ids spread evenly over a text, or all if there are fewer."""
    own = length - len(prefix)
    every = len(ids) // own
    count = min(count, every)
    places = [i * every // count for i in range(count)]
    return [[*prefix, *ids[place * own : (place + 1) * own]] for place in places]


@torch.no_grad()
def score_chunk(model: nn.Module, policies: NeuronPolicies, chunk: Sequence[int], tried: dict[Policy, Figures]) -> None:
    """Adds a chunk to the figures of each policy, of which the first is the dense one."""
    half = len(chunk) // 2
    ids = torch.tensor([chunk])
    with policies.reading_prompt(np.zeros(half, dtype=bool)):
        read = model(ids[:, :half], use_cache=True, logits_to_keep=1)
    cache = read.past_key_values
    dense: Tensor | None = None
    for policy, figures in tried.items():
        policies.policy = policy
        answered = model(ids[:, half:-1], past_key_values=cache, use_cache=True).logits
        cache.crop(half + 1 - len(chunk))  # the prompt alone is left
        log_p = torch.cat([read.logits[0], answered[0]]).double().log_softmax(-1)
        dense = log_p if dense is None else dense
        figures.add(log_p, dense, ids[0, half:])
    policies.forget()
