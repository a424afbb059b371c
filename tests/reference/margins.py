# SPDX-License-Identifier: Apache-2.0
"""How far every decision of a run is from going the other way.

A reference whose selections hang on the last bits of a float cannot be met by another implementation. Each decision is
therefore taken again on activations shaken by several times what float32 arithmetic does to them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Callable

import numpy as np

TRIALS = 16

Decide = Callable[[np.ndarray], tuple[np.ndarray | None, np.ndarray | None]]


class FragileReference(AssertionError):
    """A decision of this run can flip with rounding: choose another seed."""


@dataclass
class Margins:
    """Smallest relative distances seen in a run."""

    sign: float = float("inf")  # of a gate or up projection from zero, in root mean squares of its row
    core_cut: float = float("inf")  # between the last activation of C_rho(x) and the next
    score_cut: float = float("inf")  # between the scores of the last kept and the first dropped token (1 / m for overlaps)
    logit: float = float("inf")  # between the two largest logits, in standard deviations of the row

    def see_signs(self, gate: np.ndarray, up: np.ndarray) -> None:
        for projection in (gate, up):
            self.sign = min(self.sign, float((np.abs(projection) / _row_rms(projection)).min()))

    def see_core_cut(self, activation: np.ndarray, counts: list[int]) -> None:
        for row, k in zip(activation, counts):
            ordered = np.sort(row)[::-1]
            if 0 < k < len(row) and ordered[k] > 0:
                self.core_cut = min(self.core_cut, float((ordered[k - 1] - ordered[k]) / ordered[k - 1]))

    def see_scores(self, scores: np.ndarray, kept: np.ndarray) -> None:
        if kept.all() or scores[kept].min() == scores[~kept].max():  # equal overlaps are told apart by position
            return
        self.score_cut = min(self.score_cut, float((scores[kept].min() - scores[~kept].max()) / np.abs(scores).max()))

    def see_logits(self, logits: np.ndarray) -> None:
        second, first = np.sort(logits)[-2:]
        self.logit = min(self.logit, float((first - second) / logits.std()))

    def as_json(self) -> dict[str, float | None]:
        return {name: float(f"{value:.3g}") if np.isfinite(value) else None for name, value in asdict(self).items()}


def _row_rms(rows: np.ndarray) -> np.ndarray:
    return np.sqrt((rows**2).mean(axis=-1, keepdims=True))


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return (a is None and b is None) or np.array_equal(a, b)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def assert_robust(gate: np.ndarray, up: np.ndarray, decide: Decide, shake: float, what: str) -> None:
    """`decide` must give the same result on projections shaken by `shake` root mean squares of their rows."""
    rng = np.random.default_rng(0)
    expected = decide(silu(gate) * up)
    for _ in range(TRIALS):
        shaken = [p + shake * _row_rms(p) * rng.standard_normal(p.shape) for p in (gate, up)]
        if not all(map(_same, decide(silu(shaken[0]) * shaken[1]), expected)):
            raise FragileReference(what)


def assert_scores_robust(scores: np.ndarray, keep: Callable[[np.ndarray], np.ndarray], shake: float, what: str) -> None:
    """The same for scores that are not counted but computed, relative to the largest."""
    rng = np.random.default_rng(0)
    expected = keep(scores)
    for _ in range(TRIALS):
        shaken = scores + shake * np.abs(scores).max() * rng.standard_normal(scores.shape)
        if not np.array_equal(keep(shaken), expected):
            raise FragileReference(what)
