# SPDX-License-Identifier: Apache-2.0
"""Write a LLaVA (or, with --text-only, LLaMA) checkpoint with random weights, in the layout of llava-hf/llava-1.5-7b-hf.

For benchmarks and smoke tests that need a model's shape but not its knowledge:

    python tools/make_random_llava.py --preset llava-1.5-7b --dtype f16 --out /tmp/random-7b

The weights are scaled so that activations stay finite and lively at any depth: attention is far from uniform and about
half of the gated activations are positive. Tensors are written as they are drawn, a few megabytes at a time, so a model
need not fit in memory. Each tensor has its own generator, seeded by --seed and its name: the same seed gives the same
tensor whatever the shard size and the number of threads. Needs numpy only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Iterator

import numpy as np

BLOCK = 1 << 20  # elements drawn at a time
ITEM_SIZE = {"f16": 2, "bf16": 2, "f32": 4}
IMAGE_MEAN = [0.48145466, 0.4578275, 0.40821073]
IMAGE_STD = [0.26862954, 0.26130258, 0.27577711]
RESERVED_IDS = 64  # rows that LLaVA adds to the vocabulary; the image token is the first of them


@dataclass(frozen=True)
class Shape:
    """Every dimension of a model; each field is an option of the command line."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    vocab_size: int = 32000 + RESERVED_IDS
    head_dim: int = 0  # 0: hidden_size / heads
    max_position_embeddings: int = 4096
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    vision_layers: int = 24
    vision_hidden_size: int = 1024
    vision_intermediate_size: int = 4096
    vision_heads: int = 16
    image_size: int = 336
    patch_size: int = 14

    @property
    def image_tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def image_token(self) -> int:
        return self.vocab_size - RESERVED_IDS


SMALL_TOWER = {"vision_layers": 6, "vision_hidden_size": 256, "vision_intermediate_size": 1024, "vision_heads": 4}
TINY_TOWER = {"vision_layers": 4, "vision_hidden_size": 48, "vision_intermediate_size": 96, "vision_heads": 3, "image_size": 70}
PRESETS = {
    "tiny": Shape(4, 64, 176, 4, 4, vocab_size=256 + RESERVED_IDS, max_position_embeddings=512, **TINY_TOWER),
    "1b": Shape(16, 2048, 5504, 16, 16, **SMALL_TOWER),
    "tinyllama-1.1b": Shape(22, 2048, 5632, 32, 4, **SMALL_TOWER),
    "llava-1.5-7b": Shape(32, 4096, 11008, 32, 32),
    "llava-1.5-13b": Shape(40, 5120, 13824, 40, 40),
}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    gain: float = 1.0  # standard deviation times the square root of the fan-in
    mean: float = 0.0

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape))

    @property
    def deviation(self) -> float:
        fan_in = int(np.prod(self.shape[1:])) if len(self.shape) > 1 else 1
        return self.gain / fan_in**0.5


def linear(name: str, rows: int, columns: int, gain: float = 1.0) -> Tensor:
    return Tensor(f"{name}.weight", (rows, columns), gain)


def linear_with_bias(name: str, rows: int, columns: int, gain: float = 1.0) -> Iterator[Tensor]:
    yield linear(name, rows, columns, gain)
    yield Tensor(f"{name}.bias", (rows,), 0.1)


def layer_norm(name: str, size: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (size,), 0.1, mean=1.0)
    yield Tensor(f"{name}.bias", (size,), 0.1)


def embedding(name: str, rows: int, columns: int) -> Tensor:
    """Rows of unit variance."""
    return Tensor(name, (rows, columns), columns**0.5)


def decoder_tensors(s: Shape, prefix: str) -> Iterator[Tensor]:
    head_dim = s.head_dim or s.hidden_size // s.heads
    yield embedding(f"{prefix}model.embed_tokens.weight", s.vocab_size, s.hidden_size)
    for i in range(s.layers):
        layer = f"{prefix}model.layers.{i}"
        yield Tensor(f"{layer}.input_layernorm.weight", (s.hidden_size,), 0.1, mean=1.0)
        yield linear(f"{layer}.self_attn.q_proj", s.heads * head_dim, s.hidden_size, 1.5)
        yield linear(f"{layer}.self_attn.k_proj", s.kv_heads * head_dim, s.hidden_size, 1.5)
        yield linear(f"{layer}.self_attn.v_proj", s.kv_heads * head_dim, s.hidden_size, 1.2)
        yield linear(f"{layer}.self_attn.o_proj", s.hidden_size, s.heads * head_dim, 1.2)
        yield Tensor(f"{layer}.post_attention_layernorm.weight", (s.hidden_size,), 0.1, mean=1.0)
        yield linear(f"{layer}.mlp.gate_proj", s.intermediate_size, s.hidden_size, 1.5)
        yield linear(f"{layer}.mlp.up_proj", s.intermediate_size, s.hidden_size)
        yield linear(f"{layer}.mlp.down_proj", s.hidden_size, s.intermediate_size)
    yield Tensor(f"{prefix}model.norm.weight", (s.hidden_size,), 0.1, mean=1.0)
    yield linear(f"{prefix}lm_head", s.vocab_size, s.hidden_size, 2.0)


def vision_tensors(s: Shape) -> Iterator[Tensor]:
    tower, size = "vision_tower.vision_model", s.vision_hidden_size
    yield Tensor(f"{tower}.embeddings.class_embedding", (size,))
    yield Tensor(f"{tower}.embeddings.patch_embedding.weight", (size, 3, s.patch_size, s.patch_size), 2.0)
    yield embedding(f"{tower}.embeddings.position_embedding.weight", s.image_tokens + 1, size)
    yield from layer_norm(f"{tower}.pre_layrnorm", size)
    for i in range(s.vision_layers):
        layer = f"{tower}.encoder.layers.{i}"
        yield from layer_norm(f"{layer}.layer_norm1", size)
        for name, gain in (("q_proj", 1.5), ("k_proj", 1.5), ("v_proj", 1.2), ("out_proj", 1.2)):
            yield from linear_with_bias(f"{layer}.self_attn.{name}", size, size, gain)
        yield from layer_norm(f"{layer}.layer_norm2", size)
        yield from linear_with_bias(f"{layer}.mlp.fc1", s.vision_intermediate_size, size, 1.5)
        yield from linear_with_bias(f"{layer}.mlp.fc2", size, s.vision_intermediate_size)
    yield from layer_norm(f"{tower}.post_layernorm", size)


def model_tensors(s: Shape, text_only: bool) -> list[Tensor]:
    if text_only:
        return list(decoder_tensors(s, ""))
    projector = "multi_modal_projector"
    return [
        *vision_tensors(s),
        *linear_with_bias(f"{projector}.linear_1", s.hidden_size, s.vision_hidden_size, 1.5),
        *linear_with_bias(f"{projector}.linear_2", s.hidden_size, s.hidden_size),
        *decoder_tensors(s, "language_model."),
    ]


def text_config(s: Shape, dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": s.head_dim or s.hidden_size // s.heads,
        "hidden_act": "silu",
        "hidden_size": s.hidden_size,
        "intermediate_size": s.intermediate_size,
        "max_position_embeddings": s.max_position_embeddings,
        "model_type": "llama",
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "num_key_value_heads": s.kv_heads,
        "rms_norm_eps": s.rms_norm_eps,
        "rope_theta": s.rope_theta,
        "tie_word_embeddings": False,
        "torch_dtype": {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}[dtype],
        "vocab_size": s.vocab_size,
    }


def llava_config(s: Shape, dtype: str) -> dict[str, Any]:
    text = text_config(s, dtype)
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "image_seq_length": s.image_tokens,
        "image_token_index": s.image_token,
        "model_type": "llava",
        "pad_token_id": s.image_token + 1,
        "projector_hidden_act": "gelu",
        "text_config": text,
        "tie_word_embeddings": False,
        "torch_dtype": text["torch_dtype"],
        "vision_config": {
            "hidden_act": "quick_gelu",
            "hidden_size": s.vision_hidden_size,
            "image_size": s.image_size,
            "intermediate_size": s.vision_intermediate_size,
            "layer_norm_eps": 1e-5,
            "model_type": "clip_vision_model",
            "num_attention_heads": s.vision_heads,
            "num_hidden_layers": s.vision_layers,
            "patch_size": s.patch_size,
            "projection_dim": 768,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }


def preprocessor_config(s: Shape) -> dict[str, Any]:
    return {
        "crop_size": {"height": s.image_size, "width": s.image_size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": IMAGE_MEAN,
        "image_processor_type": "CLIPImageProcessor",
        "image_std": IMAGE_STD,
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": s.image_size},
    }


def to_bytes(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "bf16":  # the upper half of a float32, rounded to nearest, ties to even
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "f16" else "<f4").tobytes()


def write_tensor(path: Path, offset: int, tensor: Tensor, dtype: str, seed: int) -> int:
    """Draw a tensor into its place in a file; returns its size. NumPy draws and rounds without Python's lock."""
    rng = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
    with open(path, "r+b") as file:
        file.seek(offset)
        for begin in range(0, tensor.elements, BLOCK):
            values = rng.standard_normal(min(BLOCK, tensor.elements - begin), dtype=np.float32)
            values *= np.float32(tensor.deviation)
            values += np.float32(tensor.mean)
            file.write(to_bytes(values, dtype))
    return tensor.elements * ITEM_SIZE[dtype]


def safetensors_header(tensors: list[Tensor], dtype: str) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.elements * ITEM_SIZE[dtype]
        header[tensor.name] = {"dtype": dtype.upper(), "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts on a multiple of 8
    return len(text).to_bytes(8, "little") + text


def split_into_shards(tensors: list[Tensor], dtype: str, shard_size: int) -> list[list[Tensor]]:
    shards: list[list[Tensor]] = [[]]
    used = 0
    for tensor in tensors:
        size = tensor.elements * ITEM_SIZE[dtype]
        if shards[-1] and used + size > shard_size:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += size
    return shards


def write_shards(out: Path, tensors: list[Tensor], dtype: str, seed: int, shard_size: int, threads: int) -> None:
    shards = split_into_shards(tensors, dtype, shard_size)
    total = sum(t.elements for t in tensors) * ITEM_SIZE[dtype]
    weight_map, places = {}, []
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header = safetensors_header(shard, dtype)
        (out / name).write_bytes(header)
        offset = len(header)
        for tensor in shard:
            weight_map[tensor.name] = name
            places.append((out / name, offset, tensor))
            offset += tensor.elements * ITEM_SIZE[dtype]
    if len(shards) > 1:
        write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    progress = Progress(total)
    with ThreadPoolExecutor(threads) as pool:
        for size in pool.map(lambda place: write_tensor(*place, dtype, seed), places):
            progress.add(size)


class Progress:
    """A line for every tenth of the whole."""

    def __init__(self, total: int) -> None:
        self.total, self.written, self.start = total, 0, time.monotonic()

    def add(self, size: int) -> None:
        before, self.written = self.written, self.written + size
        if before * 10 // self.total < self.written * 10 // self.total:
            seconds = time.monotonic() - self.start
            print(f"{self.written / 1e9:.2f} of {self.total / 1e9:.2f} GB in {seconds:.0f} s", file=sys.stderr)


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def byte_count(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)B?", text.upper())
    if not match:
        raise argparse.ArgumentTypeError(f"not a number of bytes: {text}")
    return int(match[1]) * 1000 ** " KMG".index(match[2] or " ")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="tiny")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--dtype", choices=list(ITEM_SIZE), default="f16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-size", type=byte_count, default=5 * 10**9, help="bytes; K, M and G are understood (default 5G)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--text-only", action="store_true", help="a LLaMA without vision tower and reserved ids")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.model to copy into the checkpoint")
    shape = parser.add_argument_group("dimensions", "instead of the preset's")
    for field in fields(Shape):
        kind = float if field.type == "float" else int
        shape.add_argument("--" + field.name.replace("_", "-"), type=kind, metavar=kind.__name__.upper())
    return parser.parse_args()


def chosen_shape(arguments: argparse.Namespace) -> Shape:
    shape = PRESETS[arguments.preset]
    if arguments.text_only:
        shape = replace(shape, vocab_size=shape.vocab_size - RESERVED_IDS)
    given = {f.name: getattr(arguments, f.name) for f in fields(Shape) if getattr(arguments, f.name) is not None}
    return replace(shape, **given)


def main() -> None:
    arguments = parse_arguments()
    shape = chosen_shape(arguments)
    tensors = model_tensors(shape, arguments.text_only)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for old in arguments.out.glob("model*.safetensors*"):  # shards of an earlier run would be read with the new ones
        old.unlink()
    if arguments.text_only:
        write_json(arguments.out / "config.json", text_config(shape, arguments.dtype))
    else:
        write_json(arguments.out / "config.json", llava_config(shape, arguments.dtype))
        write_json(arguments.out / "preprocessor_config.json", preprocessor_config(shape))
    if arguments.tokenizer:
        shutil.copyfile(arguments.tokenizer, arguments.out / "tokenizer.model")
    write_shards(arguments.out, tensors, arguments.dtype, arguments.seed, arguments.shard_size, arguments.threads)
    print(f"{arguments.out}: {sum(t.elements for t in tensors) / 1e6:.1f} million parameters")


if __name__ == "__main__":
    main()
