# SPDX-License-Identifier: Apache-2.0
"""Small random checkpoints in every layout of names that LLaVA checkpoints come in."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

EOS = 2
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

# From the names of a transformers 5 model in memory to those of a file. First match wins; no match leaves the name.
LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    # transformers up to 4.51, and what llava-hf/llava-1.5-7b-hf holds
    "huggingface_4_51": (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.vision_tower\.", "vision_tower.vision_model."),
        (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
    ),
    # transformers 4.52 and later 4.x
    "huggingface_4_52": ((r"^model\.vision_tower\.", "model.vision_tower.vision_model."),),
    # what transformers 5 writes: the 4.51 names, but nothing between `vision_tower.` and the tower's own names
    "huggingface_5": (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.vision_tower\.", "vision_tower."),
        (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
    ),
    # the authors of LLaVA
    "original": (
        (r"^model\.language_model\.", "model."),
        (r"^model\.vision_tower\.", "model.vision_tower.vision_tower.vision_model."),
        (r"^model\.multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
        (r"^model\.multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
    ),
    "text": (),
}


def _scale(name: str, shape: tuple[int, ...]) -> float:
    """Standard deviation that keeps the residual stream near 1, attention far from uniform and the gates wide awake."""
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    gains = (
        (r"embed_tokens|class_embedding|position_embedding", fan_in**0.5),  # rows of unit variance
        (r"[qk]_proj\.weight", 1.5),
        (r"v_proj\.weight|o_proj\.weight|out_proj\.weight", 1.2),
        (r"gate_proj\.weight|fc1\.weight", 1.5),
        (r"patch_embedding\.weight", 2.0),
        (r"lm_head\.weight", 2.0),
        (r"bias$", 0.2),
    )
    gain = next((gain for pattern, gain in gains if re.search(pattern, name)), 1.0)
    return gain / fan_in**0.5


def randomize(model: nn.Module, seed: int, quiet_ids: list[int]) -> None:
    """Fill a model with random weights, each tensor from its own generator. `quiet_ids` get small output rows."""
    tied = model.config.tie_word_embeddings
    for name, parameter in model.named_parameters():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        values = rng.standard_normal(tuple(parameter.shape)) * _scale(name, tuple(parameter.shape))
        if re.search(r"norm\w*\.weight$", name):
            values = 1 + 0.1 * rng.standard_normal(tuple(parameter.shape))
        if tied and name == "model.embed_tokens.weight":
            values *= 0.2  # else a token's own row wins the output and every answer repeats its first token
        if name == "lm_head.weight":
            values[quiet_ids] *= 0.05
        parameter.data = torch.from_numpy(values).float()


def file_tensors(model: nn.Module, layout: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in model.named_parameters():  # names a tied head once
        for pattern, replacement in LAYOUTS[layout]:
            if re.search(pattern, name):
                name = re.sub(pattern, replacement, name)
                break
        tensors[name] = parameter.data.to(dtype).contiguous()
    return tensors


def save_weights(directory: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        _save(directory / "model.safetensors", tensors)
        return
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        _save(directory / file, {name: tensors[name] for name in part})
        weight_map |= {name: file for name in part}
    total_size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, str(path), metadata={"format": "pt"})
    path.chmod(0o644)


def preprocessor_config(image_size: int) -> dict[str, Any]:
    return {
        "crop_size": {"height": image_size, "width": image_size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(CLIPImageProcessorPil.image_mean),
        "image_processor_type": "CLIPImageProcessor",
        "image_std": list(CLIPImageProcessorPil.image_std),
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": image_size},
    }


def _model_class(config: dict[str, Any]) -> type:
    return LlavaForConditionalGeneration if config["model_type"] == "llava" else AutoModelForCausalLM


def create(directory: Path, config: dict[str, Any], layout: str, dtype: str, shards: int, seed: int) -> nn.Module:
    """Write a random checkpoint and return it as a float32 model that holds the rounded weights of the file."""
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    parsed = AutoConfig.from_pretrained(directory)
    if config["model_type"] == "llava":
        model = LlavaForConditionalGeneration(parsed)
        processor = preprocessor_config(config["vision_config"]["image_size"])
        (directory / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
        quiet_ids = list(range(config["image_token_index"], config["text_config"]["vocab_size"]))
    else:
        model = AutoModelForCausalLM.from_config(parsed)
        quiet_ids = []
    randomize(model, seed, quiet_ids + [EOS])
    save_weights(directory, file_tensors(model, layout, DTYPES[dtype]), shards)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(DTYPES[dtype]).float()
    if layout != "original":  # transformers does not know those names
        _assert_loads_as(directory, model)
    return model.eval()


def load(directory: Path) -> nn.Module:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return _model_class(config).from_pretrained(directory, dtype=torch.float32).eval()


def _assert_loads_as(directory: Path, model: nn.Module) -> None:
    loaded = dict(load(directory).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded[name], parameter), f"{directory.name}: transformers reads another {name}"
