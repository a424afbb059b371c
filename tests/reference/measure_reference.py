# SPDX-License-Identifier: Apache-2.0
"""What `llava measure` has to say of the trained model in models/demo: figures of teacher-forced predictions, on a text and on
questions about pictures, in float64.

Core neurons and core tokens are settled by far more than a rounding in every text and question that is taken. Policies by which
each token chooses its own neurons choose so often that some choice always hangs on one, between two neurons of the same score;
of them the figures are settled: they are the same within SETTLED when choices are made of projections that are shaken.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoProcessor

import checkpoints
import storage
import weight_planes
from core_matching_reference import Decoder, Run
from demo_reference import MODEL, SHAKE
from margins import FragileReference
from model_reference import Prompt, embed
from neuron_policies import Policy
from policy_reference import Choice, PolicyRun, choose
from preprocess_reference import huggingface_pixel_values
from selection import Options

CASE = "measure"
CHUNK, PROMPT_TOKENS, CHUNKS = 64, 32, 3
QUESTIONS = 6
# By the command line that stands for each.
TEXT_OPTIONS = {
    "--sparsity neurons": Options(sparsity="neurons"),
    "--sparsity neurons --beta 0.2 --neuron-layers 2:5": Options(sparsity="neurons", beta=0.2, neuron_layers=(2, 5)),
}
TEXT_POLICIES = {
    "--sparsity neurons --statistic magnitude": Policy("sentence", statistic="magnitude"),
    "--sparsity neurons --neurons gate": Policy("gate"),
    "--sparsity neurons --neurons gate:plain --beta 0.3 --neuron-layers 2:5": Policy("gate", 0.3, plain=True, layers=(2, 5)),
    "--sparsity neurons --neurons gate --beta 0.3,0.4,0.5,0.6,0.7,1": Policy("gate", (0.3, 0.4, 0.5, 0.6, 0.7, 1.0)),
}
PLANES = "q8_0"  # the type whose two planes these need
PLANES_POLICIES = {
    "--sparsity neurons --neurons predicted": Policy("predicted", coarse=PLANES),
    "--sparsity neurons --neurons predicted --beta 0.6 --neuron-layers 1:5": Policy("predicted", 0.6, coarse=PLANES, layers=(1, 5)),
}
QUESTION_POLICIES = {
    "--sparsity neurons --statistic magnitude --beta 0.6 --count-over image": Policy(
        "sentence", 0.6, statistic="magnitude", count_over="image"
    ),
    "--sparsity neurons --neurons gate --count-over text": Policy("gate", count_over="text"),
}
QUESTION_OPTIONS = {
    "--sparsity neurons --beta 0.2": Options(sparsity="neurons", beta=0.2),
    "--sparsity both --match-layers 1 --criterion projection --keep ratio:0.1": Options(
        match_layers=(1,), criterion="projection", keep="ratio", keep_ratio=0.1
    ),
}
DENSE = Options(sparsity="none")
SHAKEN = 3  # times that figures of a policy are made again, of projections shaken by several times what float32 does to them
SETTLED = 3e-4  # how much that may change of a logarithm or a divergence; tests allow three times as much
MAX_ERROR = 1e-4  # of logarithms; transformers computes rotary embedding, norms and softmax in float32 whatever the model's type


@dataclass
class Item:
    prompt: Prompt
    scored: list[int]


class _ShakenRun(PolicyRun):
    """Chooses neurons by what is computed, or, with a generator, by that shaken."""

    def __init__(self, decoder: Decoder, policy: Policy, rng: np.random.Generator | None) -> None:
        super().__init__(decoder, policy)
        self.rng = rng

    def _robust_choice(self, layer: int, h: Tensor) -> Choice:
        token, prompt = self._projections(layer, h), self.counted[layer]
        if self.rng is not None:
            token, prompt = token.shaken(self.rng), prompt.shaken(self.rng)
        return choose(self._scores(token, prompt), self.policy.share(layer))


def foretold(decoder: Decoder, item: Item, how: Options | Policy, rng: np.random.Generator | None = None) -> tuple[Tensor, int]:
    """Logarithms of what is foretold of each scored token [tokens, vocabulary], and how many image tokens were kept."""
    run = _ShakenRun(decoder, how, rng) if isinstance(how, Policy) else Run(decoder, how, SHAKE)
    logits = [run.prefill(item.prompt.embeddings, item.prompt.is_image, item.prompt.enters())]
    logits += [run.decode(token) for token in item.scored[:-1]]
    text_tokens = int((~item.prompt.is_image).sum())
    kept = [len(positions) for positions in run.trace.kept_positions.values()] or [len(item.prompt.ids)]
    return torch.stack(logits).log_softmax(-1), kept[-1] - text_tokens


def assert_dense_is_transformers(model: nn.Module, item: Item, dense: Tensor) -> None:
    """Token by token behind a prompt, the dense run is one pass of transformers over all tokens."""
    inputs: dict[str, Any] = {"input_ids": torch.tensor([item.prompt.ids + item.scored])}
    if item.prompt.pixel_values is not None:
        inputs["pixel_values"] = item.prompt.pixel_values[None]
    theirs = model(**inputs).logits[0, -len(item.scored) - 1 : -1].log_softmax(-1)
    error = float((dense - theirs).abs().max())
    assert error < MAX_ERROR, f"transformers foretells otherwise by {error}"


def figures(
    decoder: Decoder, items: list[Item], dense_runs: list[Tensor], how: Options | Policy, rng: np.random.Generator | None = None
) -> dict[str, Any]:
    """Beside the dense runs of the items."""
    surprise = divergence = agreed = exact = kept_tokens = 0.0
    tokens = sum(len(item.scored) for item in items)
    for item, dense in zip(items, dense_runs):
        other, kept = foretold(decoder, item, how, rng)
        ids = torch.tensor(item.scored)
        surprise -= float(other[torch.arange(len(ids)), ids].sum())
        divergence += float((dense.exp() * (dense - other)).sum())
        agreed += int((dense.argmax(-1) == other.argmax(-1)).sum())
        exact += bool((other.argmax(-1) == ids).all())
        kept_tokens += kept
    return {
        "tokens": tokens,
        "perplexity": float(torch.tensor(surprise / tokens, dtype=torch.float64).exp()),
        "kl_divergence": divergence / tokens,
        "top1_agreement": agreed / tokens,
        "exact_answers": int(exact),
        "kept_image_tokens": int(kept_tokens),
    }


def settled_figures(decoder: Decoder, items: list[Item], dense_runs: list[Tensor], how: Options | Policy) -> dict[str, Any]:
    settled = figures(decoder, items, dense_runs, how)
    for seed in range(SHAKEN if isinstance(how, Policy) else 0):
        again = figures(decoder, items, dense_runs, how, np.random.default_rng(seed))
        errors = abs(math.log(again["perplexity"] / settled["perplexity"])), abs(again["kl_divergence"] - settled["kl_divergence"])
        if max(errors) > SETTLED or any(again[key] != settled[key] for key in ("top1_agreement", "exact_answers")):
            raise FragileReference(f"figures of {how}: {settled} and {again}")
    return settled


def entries(decoder: Decoder, items: list[Item], compared: dict[str, Options | Policy]) -> list[dict[str, Any]]:
    runs = {"": DENSE} | compared
    dense_runs = [foretold(decoder, item, DENSE)[0] for item in items]
    return [{"options": line, **settled_figures(decoder, items, dense_runs, how)} for line, how in runs.items()]


class _Demo:
    """The model, of whose language model matrices are rounded to a type of weights if one is named."""

    def __init__(self, weights: str | None = None) -> None:
        self.model: nn.Module = copy.deepcopy(checkpoints.load(MODEL)).double()
        if weights is not None:
            weight_planes.round_model(self.model.model.language_model, weights)
            weight_planes.round_model(nn.ModuleDict({"head": self.model.lm_head}), weights)
        self.decoder = Decoder(self.model)
        self.processor = AutoProcessor.from_pretrained(MODEL)
        self.config = self.model.config
        shown = json.loads((MODEL / "pictures.json").read_text(encoding="utf-8"))
        self.asked = [(picture["file"], asked) for picture in shown for asked in picture["questions"]]

    def ids(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def text(self, seed: int) -> str:
        """Questions and answers in an order of the seed's, just long enough for the chunks."""
        lines = [f"{asked['question']} {asked['answer']}" for _, asked in self.asked]
        random.Random(seed).shuffle(lines)
        while len(self.ids("\n".join(lines[:-1]))) >= CHUNKS * CHUNK:
            lines.pop()
        return "\n".join(lines) + "\n"

    def chunks(self, text: str) -> list[Item]:
        first = [self.config.text_config.bos_token_id]  # begins every chunk
        ids, size = self.ids(text), CHUNK - 1
        pieces = [first + ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]
        return [Item(embed(self.model, piece[:PROMPT_TOKENS], None, None), piece[PROMPT_TOKENS:]) for piece in pieces]

    def question(self, file: str, asked: dict[str, str]) -> Item:
        image = Image.open(MODEL / "pictures" / file)
        side = self.config.vision_config.image_size
        prompt = f"USER: <image>\n{asked['question']} ASSISTANT:"
        bos, eos = self.config.text_config.bos_token_id, self.config.text_config.eos_token_id
        before = [bos, *self.ids(prompt)]
        whole = [bos, *self.ids(f"{prompt} {asked['answer']}"), eos]
        assert whole[: len(before)] == before, "the answer's first token reaches into the prompt"
        pixels = huggingface_pixel_values(image, "crop", side, side)
        return Item(embed(self.model, before, self.config.image_token_index, pixels), whole[len(before) :])


@torch.no_grad()
def _text_case(demo: _Demo, path: str) -> dict[str, Any]:
    """The first order of lines with which no decision hangs on a rounding."""
    for seed in range(100):
        text = demo.text(seed)
        items = demo.chunks(text)
        for item in items:
            assert_dense_is_transformers(demo.model, item, foretold(demo.decoder, item, DENSE)[0])
        try:
            runs = entries(demo.decoder, items, TEXT_OPTIONS | TEXT_POLICIES)
        except FragileReference as fragile:
            print(f"{CASE}: text {seed} is fragile at {fragile}")
            continue
        (storage.DATA / CASE / path).write_text(text, encoding="utf-8")
        return {"file": path, "chunk": CHUNK, "prompt_tokens": PROMPT_TOKENS, "runs": runs}
    raise FragileReference("every text")


@torch.no_grad()
def _planes_case(path: str) -> dict[str, Any]:
    """The same text, foretold by weights in two planes."""
    demo = _Demo(PLANES)
    items = demo.chunks((storage.DATA / CASE / path).read_text(encoding="utf-8"))
    for item in items:
        assert_dense_is_transformers(demo.model, item, foretold(demo.decoder, item, DENSE)[0])
    return {"file": path, "weights": f"{PLANES}_planes", "runs": entries(demo.decoder, items, PLANES_POLICIES)}


@torch.no_grad()
def _question_case(demo: _Demo, path: str) -> dict[str, Any]:
    lines, items = [], []
    for file, asked in demo.asked:
        item = demo.question(file, asked)
        assert_dense_is_transformers(demo.model, item, foretold(demo.decoder, item, DENSE)[0])
        try:
            for options in QUESTION_OPTIONS.values():
                foretold(demo.decoder, item, options)
        except FragileReference as fragile:
            print(f"{CASE}: {file}, {asked['question']!r} is fragile at {fragile}")
            continue
        image = os.path.relpath(MODEL / "pictures" / file, storage.DATA / CASE)
        lines.append(json.dumps({"image": image, "question": asked["question"], "answer": asked["answer"]}))
        items.append(item)
        if len(items) == QUESTIONS:
            break
    assert len(items) == QUESTIONS, "too few questions are safe from rounding"
    (storage.DATA / CASE / path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"file": path, "runs": entries(demo.decoder, items, QUESTION_OPTIONS | QUESTION_POLICIES)}


def make() -> None:
    directory = storage.fresh_directory(CASE)
    demo = _Demo()
    cases = {
        "text": _text_case(demo, "text.txt"),
        "planes": _planes_case("text.txt"),
        "questions": _question_case(demo, "questions.jsonl"),
    }
    storage.write_json(directory / "reference.json", {"versions": storage.versions()} | cases)
