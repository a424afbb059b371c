# SPDX-License-Identifier: Apache-2.0
"""Runs of the trained model in models/demo, whose activations are nothing like random ones."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoProcessor

import checkpoints
import storage
from margins import FragileReference
from model_reference import Verified, options_json, trace_tensors, verified_run
from preprocess_reference import huggingface_pixel_values
from selection import Options, default_match_layer

CASE = "demo"
MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"
PICTURES = 3
STEPS = 64
SHAKE = 2e-6  # a trained model cannot be drawn again until its margins are wide: half a million signs come close to zero
QUESTIONS = ("Describe the image.", "How many red objects are there?", "Is there a circle?", "What color is the square?")


class _Demo:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.single = checkpoints.load(MODEL)
        self.double: nn.Module = copy.deepcopy(self.single).double()
        self.processor = AutoProcessor.from_pretrained(MODEL)
        self.config = self.single.config
        match_layer = default_match_layer(self.config.text_config.num_hidden_layers)
        self.options = {"dense": Options(sparsity="none"), "both": Options(match_layers=(match_layer,))}

    def prompt_ids(self, image: Image.Image, question: str) -> list[int]:
        """What transformers' processor makes of the prompt, with the image token once."""
        text = f"USER: <image>\n{question} ASSISTANT:"
        ids = self.processor(text=text, images=image)["input_ids"][0]
        image_token = self.config.image_token_index
        return [i for before, i in zip([None, *ids], ids) if i != image_token or before != image_token]

    def runs(self, picture: Path) -> list[dict[str, Any]]:
        """The runs of the first question all of whose decisions are safe from rounding."""
        image = Image.open(picture)
        side = self.config.vision_config.image_size
        pixels = huggingface_pixel_values(image, "crop", side, side)
        for question in QUESTIONS:
            ids = self.prompt_ids(image, question)
            try:
                runs = {name: self._verified(ids, pixels, options) for name, options in self.options.items()}
            except FragileReference as fragile:
                print(f"demo: {picture.name}, {question!r} is fragile at {fragile}")
                continue
            return [self._store(name, picture, question, ids, run) for name, run in runs.items()]
        raise FragileReference(f"every question about {picture.name}")

    def _verified(self, ids: list[int], pixels: np.ndarray, options: Options) -> Verified:
        text = self.config.text_config
        # Dense, the ids go on behind the answer's end: 64 of them must be the same, whatever they say.
        stop = None if options.sparsity == "none" else text.eos_token_id
        arguments = (ids, pixels, options, STEPS, self.config.image_token_index, stop, SHAKE)
        return verified_run(self.single, self.double, *arguments)

    def _store(self, name: str, picture: Path, question: str, ids: list[int], run: Verified) -> dict[str, Any]:
        tensors = trace_tensors(run.prompt, run.exact, run.single, full=False)
        if name == "dense":
            tensors["pixel_values"] = run.prompt.pixel_values.numpy().astype(np.float32)
            tensors["image_features"] = run.prompt.image_features.numpy().astype(np.float32)
        file = f"{picture.stem}_{name}.safetensors"
        storage.write_tensors(self.directory / file, tensors)
        text = self.processor.decode(torch.tensor(run.exact.generated), skip_special_tokens=True)
        entry = {"name": f"{picture.stem}_{name}", "file": file, "picture": os.path.relpath(picture, self.directory)}
        entry |= {"question": question, "prompt_ids": ids, "options": options_json(self.options[name]), "full": False}
        return entry | {"text": text.strip()} | run.json()


def make() -> None:
    if not (MODEL / "config.json").exists():
        print("demo: models/demo holds no model yet, skipped")
        return
    demo = _Demo(storage.fresh_directory(CASE))
    pictures = sorted((MODEL / "pictures").glob("*.png"))[:PICTURES]
    assert len(pictures) == PICTURES, f"{MODEL / 'pictures'} holds too few pictures"
    runs = [run for picture in pictures for run in demo.runs(picture)]
    storage.write_json(demo.directory / "reference.json", {"versions": storage.versions(), "runs": runs})
