# SPDX-License-Identifier: Apache-2.0
"""The selections of CoreMatching (arXiv 2505.19235), written for reading: NumPy, integers wherever the definition has integers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class Options:
    """How one run selects. The field names are those of reference.json; `None` means "no bound" or "every layer"."""

    sparsity: str = "both"  # none | neurons | tokens | both
    rho: float = 0.2
    beta: float = 0.4
    match_layers: tuple[int, ...] = ()
    criterion: str = "overlap"  # overlap | rarity | contrast | attention | projection | random
    # sentence: the layer's core neurons | anchor: one token's activated neurons | question: those of every token behind the
    # image | text: core neurons counted over text alone
    reference: str = "sentence"
    anchor: int = -5
    count_over: str = "all"  # all | text | image
    core_count: str = "per_token"  # per_token | mean_count
    keep: str = "max_distance"  # max_distance | top_k | ratio
    keep_count: int | None = None
    keep_ratio: float | None = None
    strict: bool = False
    min_tokens: int = 1
    max_tokens: int | None = None
    seed: int = 0
    pruning: str = "everywhere"  # everywhere | later_layers | zero_in_place
    positions: str = "original"  # original | contiguous
    neuron_layers: tuple[int, int] | None = None  # half-open
    image_fit: str = "crop"  # crop | pad

    @property
    def drops_tokens(self) -> bool:
        return self.sparsity in ("tokens", "both")

    def neuron_sparse(self, layer: int) -> bool:
        begin, end = self.neuron_layers or (0, layer + 1)
        return self.sparsity in ("neurons", "both") and begin <= layer < end


@dataclass(frozen=True)
class Thinning:
    """Which image tokens enter the decoder; the field names are those of reference.json."""

    criterion: str = "duplication"  # duplication | random
    keep: str = "top_k"  # top_k | ratio
    keep_count: int | None = None
    keep_ratio: float | None = None
    seed: int = 0


def default_match_layer(layers: int) -> int:
    """round(10 L / 32), halves up."""
    return math.floor(10 * layers / 32 + 0.5)


def activated(activation: np.ndarray) -> np.ndarray:
    """Gamma(x) of every token: bool [tokens, neurons]."""
    assert not np.isnan(activation).any()
    return activation > 0


def token_core_counts(activation: np.ndarray, counted: np.ndarray, options: Options) -> list[int]:
    """k(x) of every token. The mean of `mean_count` is over the tokens that are counted."""
    sizes = activated(activation).sum(axis=1)
    if options.core_count == "mean_count":
        total, tokens = int(sizes[counted].sum()), int(counted.sum())
        k = math.floor(options.rho * (total / tokens)) if tokens else 0
        return [min(k, int(size)) for size in sizes]
    return [max(1, math.floor(options.rho * int(size))) if size else 0 for size in sizes]


def frequencies(activation: np.ndarray, counted: np.ndarray, options: Options) -> np.ndarray:
    """f(n): in how many of the counted tokens neuron n is among the k(x) largest positive activations."""
    result = np.zeros(activation.shape[1], dtype=np.int64)
    for token, k in enumerate(token_core_counts(activation, counted, options)):
        if counted[token]:
            by_value = np.argsort(-activation[token], kind="stable")  # stable: ties go to the lower index
            result[by_value[:k]] += 1
    return result


def core_neurons(activation: np.ndarray, counted: np.ndarray, options: Options) -> np.ndarray:
    """Sorted indices of the floor(beta N) most frequent neurons, none of them with f(n) = 0."""
    f = frequencies(activation, counted, options)
    most_frequent = np.argsort(-f, kind="stable")[: math.floor(options.beta * len(f))]
    return np.sort(most_frequent[f[most_frequent] > 0])


def overlaps(activation: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """m(x) = |Gamma(x) ∩ reference| with the reference as a bool mask over neurons."""
    return (activated(activation) & reference).sum(axis=1)


def rarities(activation: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """m(x) = sum over n in Gamma(x) of c_n round(256 log2(T / max(1, i_n))) of image tokens, `reference` holding c_n."""
    fires = activated(activation)
    weights = np.round(256 * np.log2(len(fires) / np.maximum(1, fires.sum(axis=0)))).astype(np.int64)
    return fires.astype(np.int64) @ (reference.astype(np.int64) * weights)


def splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def random_scores(seed: int, layer: int, positions: np.ndarray) -> np.ndarray:
    return np.array([splitmix64(splitmix64(seed) ^ ((layer << 32 & MASK64) | int(p))) >> 33 for p in positions], dtype=np.int64)


def farthest_first(features: np.ndarray, count: int) -> np.ndarray:
    """Bool mask of `count` rows: the one nearest their mean by cosine, then always the one least like those chosen."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    chosen = [int(np.argmax(unit @ features.mean(axis=0)))]
    while len(chosen) < min(count, len(features)):
        likeness = (unit @ unit[chosen].T).max(axis=1)
        likeness[chosen] = np.inf
        chosen.append(int(np.argmin(likeness)))
    mask = np.zeros(len(features), dtype=bool)
    mask[chosen] = True
    return mask


def thinned(features: np.ndarray, positions: np.ndarray, thinning: Thinning) -> np.ndarray:
    """Bool mask of the image tokens with these features, at these positions, that enter the decoder."""
    share = Options(keep=thinning.keep, keep_count=thinning.keep_count, keep_ratio=thinning.keep_ratio)
    if thinning.criterion == "random":
        return keep_tokens(random_scores(thinning.seed, -1, positions), share)
    return farthest_first(features, int(keep_tokens(np.zeros(len(features)), share).sum()))


def by_rank(scores: np.ndarray) -> np.ndarray:
    """Token indices by descending score, ties to the lower position."""
    return np.argsort(-scores, kind="stable")


def max_distance(scores: np.ndarray, strict: bool) -> np.ndarray:
    """Bool mask of the tokens at or above the elbow of the sorted scores, the point farthest from the chord."""
    last = len(scores) - 1
    if last < 2 or scores.max() == scores.min():
        return np.ones(len(scores), dtype=bool)
    m = [value.item() for value in scores[by_rank(scores)]]
    distance = [abs((m[i] - m[0]) * last - i * (m[last] - m[0])) for i in range(len(m))]
    threshold = m[distance.index(max(distance))]
    return scores > threshold if strict else scores >= threshold


def keep_tokens(scores: np.ndarray, options: Options) -> np.ndarray:
    """Bool mask over the image tokens that are alive."""
    ranked = by_rank(scores)
    if options.keep == "max_distance":
        kept = int(max_distance(scores, options.strict).sum())
    elif options.keep == "top_k":
        kept = options.keep_count
    else:
        kept = max(1, math.floor(options.keep_ratio * len(scores)))
    kept = max(kept, options.min_tokens)
    if options.max_tokens is not None:
        kept = min(kept, options.max_tokens)
    mask = np.zeros(len(scores), dtype=bool)
    mask[ranked[:kept]] = True
    return mask
