# SPDX-License-Identifier: Apache-2.0
"""How soon a prompt's core neurons are known: what its first words find of the set that all of it has.

The paper's Figure 2 on models at hand; measure_accuracy.py draws it. Beside it stands chance: random neurons, as many as
those words found, hold that share of the set.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

WORDS = (4, 8, 16, 32, 64, 128, 256)
TEXTS = 8  # spread evenly over the file

Sets = list[set[int]]  # of each layer


def core_neurons(driver: Path, model: Path, weights: str, prompt: str) -> tuple[int, int, Sets]:
    """Tokens of the prompt, neurons of a layer, and each layer's core neurons."""
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "dump.safetensors"
        subprocess.run([driver, "--model", model, "--weights", weights, "--sparsity", "neurons", "--max-new-tokens", "1",
                        "--raw-prompt", prompt, "--dump", dump], check=True, stdout=subprocess.DEVNULL)
        tensors = load_file(dump)
    layers = sum(name.endswith(".core_neurons") for name in tensors)
    tokens, neurons = tensors["layers.0.ffn_activation"].shape
    return tokens, neurons, [set(tensors[f"layers.{layer}.core_neurons"].tolist()) for layer in range(layers)]


def found_share(part: Sets, whole: Sets) -> float:
    return float(np.mean([len(a & b) / len(b) for a, b in zip(part, whole)]))


def growth(driver: Path, model: Path, weights: str, text: Path) -> list[dict[str, float]]:
    """Of each prompt length in WORDS, means over the texts: tokens, share of the longest prompt's set found, chance."""
    words = text.read_text().split(" ")
    starts = [len(words) * i // TEXTS for i in range(TEXTS)]
    prompts = [words[start : start + WORDS[-1]] for start in starts]
    wholes = [core_neurons(driver, model, weights, " ".join(prompt))[2] for prompt in prompts]
    rows = []
    for length in WORDS[:-1]:
        measured = []
        for prompt, whole in zip(prompts, wholes):
            tokens, neurons, part = core_neurons(driver, model, weights, " ".join(prompt[:length]))
            chance = np.mean([len(found) / neurons for found in part])
            measured.append((tokens, found_share(part, whole), chance))
        rows.append(dict(zip(("tokens", "found", "chance"), map(float, np.mean(measured, axis=0)))))
    return rows


def measured_growth(driver: Path, model: Path, weights: str, text: Path, kept: Path) -> list[dict[str, Any]]:
    """The same; what an earlier call left in `kept` is taken."""
    if not kept.exists():
        kept.write_text(json.dumps(growth(driver, model, weights, text), indent=1))
    return json.loads(kept.read_text())
