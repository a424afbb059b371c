# SPDX-License-Identifier: Apache-2.0
"""Weights rounded as models are loaded with `--weights`, and the coarse form that the upper half of each weight's bits gives.

The rounding is ggml's, in binary32 like it, over blocks of 32 consecutive weights of a row. What is written [n, 32] below is
such blocks.

    type   exact value        upper plane                 coarse value
    q8_0   d q, q in -127..127   u = floor(q / 16), 4 bits   d (16 u + 7.5)
    q4_0   d q, q in -8..7       u = floor(q / 4), 2 bits    d (4 u + 1.5)
    f16    binary16              its upper byte: sign,       the number with this upper byte
                                 exponent, 2 bits of         and the lower byte 0x80
                                 the fraction

d is the block's scale, a binary16. A coarse value is the middle of what its lower bits, q - 16 u and q - 4 u, leave open: the
mean over all of them. The coarse form of f16 has no zero: +0 becomes 2^-17.
"""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor, nn

BLOCK = 32


def _scaled(scale: Tensor, quants: Tensor) -> Tensor:
    """Binary32 values of blocks: the scale rounded to binary16, times the quant."""
    return scale.half().float() * quants


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0.0, 1 / scale)


def q8_0(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scales [n, 1] and quants [n, 32]: q = round(x / d), halves away from zero, d = max |x| / 127."""
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    scaled = blocks * _inverse(scale)
    whole = scaled.trunc()
    return scale, whole + (scaled - whole).abs().ge(0.5) * scaled.sign()


def q4_0(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """q = min(15, floor(x / d + 8.5)) - 8, d = (the first x of largest magnitude) / -8."""
    first = (blocks.abs() == blocks.abs().amax(-1, keepdim=True)).byte().argmax(-1, keepdim=True)
    scale = blocks.gather(-1, first) / -8
    return scale, (blocks * _inverse(scale) + 8.5).trunc().clamp(max=15) - 8


# Of each block format: its quants, and how many consecutive ones share an upper plane's value.
FORMATS: dict[str, tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]] = {"q8_0": (q8_0, 16), "q4_0": (q4_0, 4)}
TYPES = ("f32", "f16", *FORMATS)


def rounded(weights: Tensor, to: str) -> Tensor:
    """What a model computes with: float32 [rows, columns], rounded along the rows."""
    if to == "f32":
        return weights
    if to == "f16":
        return weights.half().float()
    scale, quants = FORMATS[to][0](_blocks(weights))
    return _scaled(scale, quants).view_as(weights)


def coarse(weights: Tensor, of: str) -> Tensor:
    """What the upper plane alone says of weights [rows, columns] in that type."""
    if of == "f16":
        bits = weights.half().view(torch.int16)
        return ((bits & -0x100) | 0x80).view(torch.float16).float()
    quantise, share = FORMATS[of]
    scale, quants = quantise(_blocks(weights))
    return _scaled(scale, (quants / share).floor() * share + (share - 1) / 2).view_as(weights)


def _blocks(weights: Tensor) -> Tensor:
    assert weights.shape[-1] % BLOCK == 0, f"rows of {weights.shape[-1]} weights make no blocks of {BLOCK}"
    return weights.float().reshape(-1, BLOCK)


@torch.no_grad()
def round_model(model: nn.Module, to: str) -> None:
    """Every matrix of a text model as it is after loading: embedding, head and projections. `down_proj` is stored transposed,
    a row for each neuron, and rounded along that; vectors stay in binary32."""
    for name, parameter in model.named_parameters():  # names a tied head once
        if parameter.dim() != 2:
            continue
        turned = name.endswith("down_proj.weight")
        values = rounded(parameter.T if turned else parameter, to)
        parameter.copy_(values.T if turned else values)
