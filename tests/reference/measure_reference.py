# SPDX-License-Identifier: Apache-2.0
"""What `llava measure` has to say of the trained model in models/demo: figures of teacher-forced predictions, on a text and on
questions about pictures, in float64."""

from __future__ import annotations

import copy
import json
import os
import random
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoProcessor

import checkpoints
import storage
from core_matching_reference import Decoder, Run
from demo_reference import MODEL, SHAKE
from margins import FragileReference
from model_reference import Prompt, embed
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
QUESTION_OPTIONS = {
    "--sparsity neurons --beta 0.2": Options(sparsity="neurons", beta=0.2),
    "--sparsity both --match-layers 1 --criterion projection --keep ratio:0.1": Options(
        match_layers=(1,), criterion="projection", keep="ratio", keep_ratio=0.1
    ),
}
DENSE = Options(sparsity="none")
MAX_ERROR = 1e-4  # of logarithms; transformers computes rotary embedding, norms and softmax in float32 whatever the model's type


@dataclass
class Item:
    prompt: Prompt
    scored: list[int]


def foretold(decoder: Decoder, item: Item, options: Options) -> tuple[Tensor, int]:
    """Logarithms of what is foretold of each scored token [tokens, vocabulary], and how many image tokens were kept."""
    run = Run(decoder, options, SHAKE)
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


def figures(decoder: Decoder, items: list[Item], options: Options) -> dict[str, Any]:
    surprise = divergence = agreed = exact = kept_tokens = 0.0
    tokens = sum(len(item.scored) for item in items)
    for item in items:
        dense, _ = foretold(decoder, item, DENSE)
        other, kept = foretold(decoder, item, options)
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


def entries(decoder: Decoder, items: list[Item], compared: dict[str, Options]) -> list[dict[str, Any]]:
    runs = {"": DENSE} | compared
    return [{"options": line, **figures(decoder, items, options)} for line, options in runs.items()]


class _Demo:
    def __init__(self) -> None:
        self.model: nn.Module = copy.deepcopy(checkpoints.load(MODEL)).double()
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
            runs = entries(demo.decoder, items, TEXT_OPTIONS)
        except FragileReference as fragile:
            print(f"{CASE}: text {seed} is fragile at {fragile}")
            continue
        (storage.DATA / CASE / path).write_text(text, encoding="utf-8")
        return {"file": path, "chunk": CHUNK, "prompt_tokens": PROMPT_TOKENS, "runs": runs}
    raise FragileReference("every text")


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
    return {"file": path, "runs": entries(demo.decoder, items, QUESTION_OPTIONS)}


def make() -> None:
    directory = storage.fresh_directory(CASE)
    demo = _Demo()
    cases = {"text": _text_case(demo, "text.txt"), "questions": _question_case(demo, "questions.jsonl")}
    storage.write_json(directory / "reference.json", {"versions": storage.versions()} | cases)
