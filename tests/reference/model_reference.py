# SPDX-License-Identifier: Apache-2.0
"""Runs the model cases in float64 and float32, checks them against each other and against transformers, stores them."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import checkpoints
import storage
from core_matching_reference import Decoder, Trace, generate
from masked_reference import masked_logits
from margins import TRIALS
from model_cases import IMAGE_TOKEN, MODEL_CASES, STEPS, ModelCase, RunSpec, prompt_ids
from pictures import scene
from preprocess_reference import huggingface_pixel_values
from selection import Options, Thinning, thinned

SHAKE = 1e-5  # of the root mean square of a row; float32 stays below a few 1e-6
MAX_FLOAT32_ERROR = 2e-5  # of logits and layer outputs against float64, relative to their largest value


@dataclass
class Prompt:
    """One prompt after the image is in its place, for one precision of the model."""

    ids: list[int]  # expanded
    is_image: np.ndarray
    embeddings: Tensor
    pixel_values: Tensor | None = None
    image_features: Tensor | None = None
    thinning: Thinning | None = None

    def enters(self) -> np.ndarray:
        """Mask of the tokens that enter the decoder, which must not hang on a rounding."""
        mask = np.ones(len(self.ids), dtype=bool)
        if self.thinning is None:
            return mask
        features, positions = self.image_features.double().numpy(), np.flatnonzero(self.is_image)
        mask[self.is_image] = thinned(features, positions, self.thinning)
        rng = np.random.default_rng(0)
        for _ in range(TRIALS):
            shaken = features * (1 + SHAKE * rng.standard_normal(features.shape))
            assert np.array_equal(mask[self.is_image], thinned(shaken, positions, self.thinning)), "choose another seed"
        return mask


def embed(model: nn.Module, ids: list[int], image_token: int | None, pixels: np.ndarray | None) -> Prompt:
    """Expand the image token of `ids` and put the projected features in its place."""
    weight = model.get_input_embeddings().weight
    if pixels is None:
        return Prompt(ids, np.zeros(len(ids), dtype=bool), weight[torch.tensor(ids)].detach())
    pixel_values = torch.from_numpy(pixels).to(weight.dtype)
    with torch.no_grad():
        features = model.get_image_features(pixel_values=pixel_values[None]).pooler_output[0]
    at = ids.index(image_token)
    expanded = ids[:at] + [image_token] * len(features) + ids[at + 1 :]
    embeddings = weight[torch.tensor(expanded)].detach().clone()
    embeddings[at : at + len(features)] = features
    return Prompt(expanded, np.array(expanded) == image_token, embeddings, pixel_values, features)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


@torch.no_grad()
def assert_dense_is_transformers(model: nn.Module, prompt: Prompt, dense: Trace, steps: int) -> None:
    """The layer-by-layer walk without any option is what transformers computes, hidden states and greedy ids alike."""
    inputs: dict[str, Any] = {"input_ids": torch.tensor([prompt.ids])}
    if prompt.pixel_values is not None:
        inputs["pixel_values"] = prompt.pixel_values[None]
    output = model(**inputs, output_hidden_states=True)
    for layer in range(len(dense.layer_output) - 1):  # the last hidden state of transformers is normalised
        assert relative_error(dense.layer_output[layer], output.hidden_states[layer + 1][0]) < MAX_FLOAT32_ERROR
    assert relative_error(dense.logits[0], output.logits[0, -1]) < MAX_FLOAT32_ERROR
    generated = model.generate(**inputs, attention_mask=torch.ones(1, len(prompt.ids)), max_new_tokens=steps, do_sample=False)
    theirs = generated[0, len(prompt.ids) :].tolist()  # ends with the answer, where ours may go on
    assert theirs == dense.generated[: len(theirs)], "transformers generates other ids"


def assert_same_decisions(exact: Trace, single: Trace) -> None:
    assert exact.generated == single.generated, "float32 generates other ids"
    for name in ("core_neurons", "kept_positions"):
        a, b = getattr(exact, name), getattr(single, name)
        assert a.keys() == b.keys() and all(np.array_equal(a[layer], b[layer]) for layer in a), f"float32: other {name}"


def trace_tensors(prompt: Prompt, exact: Trace, single: Trace, full: bool) -> dict[str, np.ndarray]:
    """Without `full`, what the other runs of the same prompt share or what follows from it is left out."""
    last = len(exact.layer_output) - 1
    tensors: dict[str, Any] = {"logits": torch.stack(exact.logits), f"layers.{last}.output": exact.layer_output[last]}
    if full:
        tensors["logits_f32"] = torch.stack(single.logits)
        tensors |= {f"layers.{layer}.output": output for layer, output in exact.layer_output.items()}
        tensors |= {f"layers.{layer}.ffn_activation": a for layer, a in exact.ffn_activation.items()}
        tensors["inputs_embeds"] = prompt.embeddings
        if prompt.pixel_values is not None:
            tensors |= {"pixel_values": prompt.pixel_values, "image_features": prompt.image_features}
    arrays = {name: tensor.numpy().astype(np.float32) for name, tensor in tensors.items()}
    if prompt.thinning is not None:
        arrays["before_decoder.kept_positions"] = np.flatnonzero(prompt.enters()).astype(np.int32)
    arrays |= {f"layers.{layer}.core_neurons": c.astype(np.int32) for layer, c in exact.core_neurons.items()}
    arrays |= {f"layers.{layer}.kept_positions": k.astype(np.int32) for layer, k in exact.kept_positions.items()}
    return arrays


@dataclass
class Verified:
    """A run in both precisions that has passed every check."""

    prompt: Prompt
    exact: Trace
    single: Trace
    error: float

    def json(self) -> dict[str, Any]:
        return {
            "generated_ids": self.exact.generated,
            "float32_error": float(f"{self.error:.2g}"),
            "margins": self.exact.margins.as_json(),
        }


def verified_run(
    single: nn.Module,
    double: nn.Module,
    ids: list[int],
    pixels: np.ndarray | None,
    options: Options,
    steps: int,
    image_token: int | None = None,
    stop: int | None = None,
    shake: float = SHAKE,
    thinning: Thinning | None = None,
) -> Verified:
    prompts = [embed(model, ids, image_token, pixels) for model in (double, single)]
    for prompt in prompts:
        prompt.thinning = thinning
    enters = prompts[0].enters()
    assert np.array_equal(enters, prompts[1].enters()), "float32: other tokens enter the decoder"
    traces = [
        generate(Decoder(model), prompt.embeddings, prompt.is_image, enters, options, steps, image_token, stop, check)
        for model, prompt, check in zip((double, single), prompts, (shake, None))
    ]
    assert_same_decisions(*traces)
    error = max(relative_error(a, b) for a, b in zip(traces[1].logits, traces[0].logits))
    assert error < MAX_FLOAT32_ERROR, error
    if options.sparsity == "none" and thinning is None:
        assert_dense_is_transformers(single, prompts[1], traces[1], steps)
    masked = masked_logits(single, prompts[1].embeddings, enters, traces[1], options)
    assert relative_error(masked, torch.stack(traces[1].logits)) < MAX_FLOAT32_ERROR, "shrinking is not masking"
    return Verified(prompts[0], *traces, error)


class _Model:
    """One case's model in both precisions."""

    def __init__(self, case: ModelCase, directory: Path) -> None:
        self.case, self.directory = case, directory
        self.single = checkpoints.create(directory, case.config, case.layout, case.dtype, case.shards, case.seed)
        self.double = copy.deepcopy(self.single).double()
        self.files = [f"picture_{i}.png" for i in range(len(case.pictures))]
        for i, (width, height) in enumerate(case.pictures):
            Image.fromarray(scene(width, height, 100 * case.seed + i)).save(directory / self.files[i])

    def pixels(self, spec: RunSpec) -> np.ndarray | None:
        if not self.files:
            return None
        side = self.case.config["vision_config"]["image_size"]
        with Image.open(self.directory / self.files[spec.picture]) as image:
            return huggingface_pixel_values(image, spec.options.image_fit, side, side)

    def run(self, spec: RunSpec) -> dict[str, Any]:
        ids, image_token = prompt_ids(self.case, spec.prompt), IMAGE_TOKEN if self.files else None
        pixels = self.pixels(spec)
        run = verified_run(self.single, self.double, ids, pixels, spec.options, STEPS, image_token, thinning=spec.thinning)
        assert checkpoints.EOS not in run.exact.generated, "the answer ends early"
        file = f"{spec.name}.safetensors"
        storage.write_tensors(self.directory / file, trace_tensors(run.prompt, run.exact, run.single, spec.full))
        entry = {"name": spec.name, "file": file, "picture": self.files[spec.picture] if self.files else None}
        entry |= {"prompt_ids": ids, "options": options_json(spec.options), "full": spec.full}
        if spec.thinning is not None:
            entry["thinning"] = asdict(spec.thinning)
        return entry | run.json()


def options_json(options: Options) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}


def make(case: ModelCase) -> None:
    model = _Model(case, storage.fresh_directory(case.name))
    reference = {
        "versions": storage.versions(),
        "seed": case.seed,
        "layout": case.layout,
        "dtype": case.dtype,
        "runs": [model.run(spec) for spec in case.runs],
    }
    storage.write_json(model.directory / "reference.json", reference)


CASES = {case.name: (lambda case=case: make(case)) for case in MODEL_CASES}
