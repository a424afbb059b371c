# SPDX-License-Identifier: Apache-2.0
"""Short answers of the tiny models under each policy for neurons: who was chosen, how clearly, and the logits.

Computed twice. In float64 by the walk of core_matching_reference.py, which multiplies the chosen rows alone and selects with
NumPy; in float32 by transformers' own layers, in which what is not chosen becomes zero (neuron_policies.py). Both must choose
the same neurons and ids, and no choice may hang on a rounding; a prompt with a choice that does is passed over.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import gguf
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import DynamicCache

import checkpoints
import storage
import weight_planes
from core_matching_reference import Decoder, Run, Tokens
from margins import TRIALS, FragileReference
from model_cases import IMAGE_TOKEN, MODEL_CASES
from model_reference import MAX_FLOAT32_ERROR, SHAKE, Prompt, embed, relative_error
from neuron_policies import NeuronPolicies, Policy
from preprocess_reference import huggingface_pixel_values
from selection import Options

CASE = "neuron_policies"
STEPS = 10  # ids; the first follows the prompt, which is dense
TEXT = (24, 13)  # text tokens of a prompt; where there is a picture, before and behind it
PROMPTS = 50  # that are tried


@dataclass(frozen=True)
class PolicyCase:
    name: str
    model: str  # a directory of data
    policy: Policy
    weights: str = "f32"


CASES = (
    PolicyCase("gate", "tiny_llama", Policy("gate")),
    PolicyCase("gate_plain_some_layers", "tiny_mistral", Policy("gate", beta=0.25, plain=True, layers=(1, 3))),
    PolicyCase("gate_text", "tiny_gqa_bias", Policy("gate", beta=(0.3, 1.0, 0.5, 0.2), count_over="text")),
    PolicyCase("magnitude", "tiny_llama", Policy("sentence", statistic="magnitude")),
    PolicyCase("magnitude_text", "tiny_gqa_bias", Policy("sentence", statistic="magnitude", count_over="text")),
    PolicyCase("predicted_f16", "tiny_llama", Policy("predicted", coarse="f16"), "f16"),
    PolicyCase("predicted_q8_0", "tiny_qwen2", Policy("predicted", coarse="q8_0"), "q8_0"),
    PolicyCase("predicted_q4_0", "tiny_mistral", Policy("predicted", coarse="q4_0"), "q4_0"),
)


@dataclass
class Choice:
    """Neurons [K], sorted, and (s_K - s_{K+1}) / s_K of the scores in descending order."""

    neurons: np.ndarray
    margin: float


def choose(scores: np.ndarray, beta: float) -> Choice:
    order = np.argsort(-scores, kind="stable")  # stable: ties go to the lower index
    count = max(1, int(np.floor(beta * len(scores))))
    last, following = scores[order[count - 1]], scores[order[count]]
    return Choice(np.sort(order[:count]), float((last - following) / last))


@dataclass
class Projections:
    """What scores are made of, float64 [tokens, neurons]; of `predicted` from the coarse weights."""

    gate: np.ndarray
    up: np.ndarray

    def shaken(self, rng: np.random.Generator) -> Projections:
        shake = lambda x: x + SHAKE * np.sqrt((x**2).mean(-1, keepdims=True)) * rng.standard_normal(x.shape)
        return Projections(shake(self.gate), shake(self.up))

    def activation(self) -> np.ndarray:
        return self.gate / (1 + np.exp(-self.gate)) * self.up


class PolicyRun(Run):
    """A walk through the layers whose answer goes through the chosen neurons alone."""

    def __init__(self, decoder: Decoder, policy: Policy) -> None:
        super().__init__(decoder, Options(sparsity="none"), None)
        self.policy = policy
        self.counted: dict[int, Projections] = {}  # of each layer, the counted tokens of the prompt
        self.choices: dict[int, list[Choice]] = {}

    def _select(
        self, layer: int, tokens: Tokens, gate: np.ndarray, up: np.ndarray, activation: np.ndarray, weights: Tensor
    ) -> None:
        rows = self.policy.counted(tokens.is_image)
        self.counted[layer] = Projections(gate[rows], up[rows])

    def _projections(self, layer: int, h: Tensor) -> Projections:
        """What the layer scores a token h [1, hidden] by."""
        mlp = self.decoder.layers[layer].mlp
        gate, up = mlp.gate_proj.weight, mlp.up_proj.weight
        if self.policy.kind == "predicted":
            gate, up = (weight_planes.coarse(w.float(), self.policy.coarse).double() for w in (gate, up))
        return Projections((h @ gate.T).numpy(), (h @ up.T).numpy())

    def _scores(self, token: Projections, prompt: Projections) -> np.ndarray:
        if self.policy.kind == "sentence":
            return np.abs(prompt.activation()).mean(0)
        if self.policy.kind == "predicted":
            return np.abs(token.activation()[0])
        expected = 1 if self.policy.plain else np.abs(prompt.up).mean(0)
        return np.abs(token.gate[0] / (1 + np.exp(-token.gate[0]))) * expected

    def _robust_choice(self, layer: int, h: Tensor) -> Choice:
        token, prompt, beta = self._projections(layer, h), self.counted[layer], self.policy.share(layer)
        choice = choose(self._scores(token, prompt), beta)
        rng = np.random.default_rng(0)
        for _ in range(TRIALS):
            again = choose(self._scores(token.shaken(rng), prompt.shaken(rng)), beta)
            if not np.array_equal(choice.neurons, again.neurons):
                raise FragileReference(f"layer {layer}")
        return choice

    def _sparse_ffn(self, layer: int, h: Tensor) -> Tensor:
        if self.policy.share(layer) == 1:
            return super()._sparse_ffn(layer, h)
        choices = self.choices.setdefault(layer, [])
        if self.policy.kind != "sentence" or not choices:  # a sentence's neurons stay
            choices.append(self._robust_choice(layer, h))
        rows, mlp = torch.from_numpy(choices[-1].neurons), self.decoder.layers[layer].mlp
        activation = mlp.act_fn(h @ mlp.gate_proj.weight[rows].T) * (h @ mlp.up_proj.weight[rows].T)
        return activation @ mlp.down_proj.weight[:, rows].T


@dataclass
class Answer:
    ids: list[int]
    logits: Tensor  # [steps, vocabulary]
    chosen: dict[int, list[np.ndarray]]  # of each sparse layer, for each token or once


@torch.no_grad()
def walked(run: PolicyRun, prompt: Prompt, banned_from: int | None) -> Answer:
    logits = [run.prefill(prompt.embeddings, prompt.is_image, prompt.enters())]
    ids = [int(logits[0][:banned_from].argmax())]
    while len(ids) < STEPS:
        logits.append(run.decode(ids[-1]))
        ids.append(int(logits[-1][:banned_from].argmax()))
    return Answer(ids, torch.stack(logits), {layer: [c.neurons for c in made] for layer, made in run.choices.items()})


@torch.no_grad()
def masked(model: nn.Module, policy: Policy, prompt: Prompt, given: list[int], banned_from: int | None) -> Answer:
    """transformers' own answer, behind the `given` ids whichever it would choose."""
    model = copy.deepcopy(model)
    text = getattr(model.model, "language_model", model.model)
    policies = NeuronPolicies(model)
    cache = DynamicCache(config=text.config)

    def logits_behind(embeddings: Tensor) -> Tensor:
        return model.lm_head(text(inputs_embeds=embeddings[None], past_key_values=cache, use_cache=True).last_hidden_state[0, -1])

    with policies.reading_prompt(prompt.is_image):
        logits = [logits_behind(prompt.embeddings)]
    policies.policy = policy
    chosen: dict[int, list[np.ndarray]] = {}
    for token in given[:-1]:
        logits.append(logits_behind(text.embed_tokens.weight[[token]]))
        for layer in policies.layers:
            if layer.chosen is not None:
                chosen.setdefault(layer.number, []).append(layer.chosen[0].nonzero()[:, 0].numpy())
    return Answer([int(row[:banned_from].argmax()) for row in logits], torch.stack(logits), chosen)


def assert_same(exact: Answer, single: Answer) -> float:
    """The largest error of the float32 run's logits, relative to their row's largest."""
    assert exact.ids == single.ids, "float32 generates other ids"
    assert exact.chosen.keys() == single.chosen.keys()
    for layer, choices in exact.chosen.items():
        for step, theirs in enumerate(single.chosen[layer]):
            assert np.array_equal(choices[min(step, len(choices) - 1)], theirs), f"other neurons in layer {layer}, step {step}"
    error = max(relative_error(a, b) for a, b in zip(single.logits, exact.logits))
    assert error < MAX_FLOAT32_ERROR, error
    return error


def assert_is_ggml(weights: Tensor, type_: str) -> None:
    """Rounding to a block format is what the gguf package does."""
    kind = gguf.GGMLQuantizationType[type_.upper()]
    theirs = gguf.dequantize(gguf.quantize(weights.detach().numpy(), kind), kind)
    assert np.array_equal(weight_planes.rounded(weights.detach(), type_).numpy(), theirs), f"gguf rounds to another {type_}"


class _Case:
    def __init__(self, case: PolicyCase) -> None:
        self.case = case
        self.directory = storage.DATA / case.model
        self.seed = next(model.seed for model in MODEL_CASES if model.name == case.model)
        self.single = checkpoints.load(self.directory)
        if case.weights in weight_planes.FORMATS:
            assert_is_ggml(self.single.get_input_embeddings().weight, case.weights)
        weight_planes.round_model(self.single, case.weights)
        self.double = copy.deepcopy(self.single).double()
        self.picture = next(iter(sorted(self.directory.glob("picture_*.png"))), None)

    def pixels(self) -> np.ndarray | None:
        if self.picture is None:
            return None
        side = self.single.config.vision_config.image_size
        with Image.open(self.picture) as image:
            return huggingface_pixel_values(image, "crop", side, side)

    def prompt_ids(self, number: int) -> list[int]:
        """BOS, then random text with one image token in it where the model sees."""
        before, behind = TEXT
        text = np.random.default_rng([self.seed, 1000 + number]).integers(3, IMAGE_TOKEN, before + behind - 1)
        ids = [1, *map(int, text)]
        return ids[:before] + [IMAGE_TOKEN] + ids[before:] if self.picture else ids

    def tensors(self, run: PolicyRun, answer: Answer) -> dict[str, np.ndarray]:
        tensors = {"logits": answer.logits.numpy().astype(np.float32)}
        for layer, choices in run.choices.items():
            tensors[f"layers.{layer}.neurons"] = np.stack([c.neurons for c in choices]).astype(np.int32)
            tensors[f"layers.{layer}.margins"] = np.array([c.margin for c in choices], dtype=np.float32)
            counted, policy = run.counted[layer], run.policy
            if policy.kind == "gate" and not policy.plain:
                tensors[f"layers.{layer}.prompt_mean"] = np.abs(counted.up).mean(0).astype(np.float32)
            if policy.kind == "sentence":
                tensors[f"layers.{layer}.prompt_mean"] = np.abs(counted.activation()).mean(0).astype(np.float32)
        return tensors

    def answered(self, number: int) -> dict[str, Any]:
        """Writes the case's file and returns its description, or throws FragileReference."""
        case, ids, image_token = self.case, self.prompt_ids(number), IMAGE_TOKEN if self.picture else None
        double, single = (embed(model, ids, image_token, self.pixels()) for model in (self.double, self.single))
        run = PolicyRun(Decoder(self.double), case.policy)
        exact = walked(run, double, image_token)
        if checkpoints.EOS in exact.ids:
            raise FragileReference("the answer ends early")
        error = assert_same(exact, masked(self.single, case.policy, single, exact.ids, image_token))
        file = f"{case.name}.safetensors"
        storage.write_tensors(storage.DATA / CASE / file, self.tensors(run, exact))
        smallest = min(choice.margin for choices in run.choices.values() for choice in choices)
        return {
            "name": case.name,
            "file": file,
            "model": case.model,
            "weights": case.weights,
            "policy": asdict(case.policy),
            "picture": self.picture.name if self.picture else None,
            "prompt_ids": ids,
            "generated_ids": exact.ids,
            "float32_error": float(f"{error:.2g}"),
            "margin": float(f"{smallest:.3g}"),
        }

    def described(self) -> dict[str, Any]:
        for number in range(PROMPTS):
            try:
                return self.answered(number)
            except FragileReference as fragile:
                print(f"{CASE}: {self.case.name}, prompt {number} is fragile: {fragile}")
        raise FragileReference(f"every prompt of {self.case.name}")


def make() -> None:
    directory = storage.fresh_directory(CASE)
    reference = {"versions": storage.versions() | storage.versions("gguf"), "cases": [_Case(case).described() for case in CASES]}
    storage.write_json(directory / "reference.json", reference)
