#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a Hugging Face checkpoint of a GGUF file: weights as the gguf package widens them, configuration and tokenizer as
transformers writes them.

    dequantise_gguf.py MODEL.gguf OUT_DIR [--dtype f16|bf16|f32]
    dequantise_gguf.py PART ... OUT_DIR         parts of one file, joined in this order

For the LLaMA and Qwen2 architectures with byte-level BPE; everything else is refused by name. Head and embedding stay one
matrix where the file stores one. transformers' own reader (`from_pretrained(gguf_file=...)`) has one way to cut text into
pieces for each architecture, whatever the file says; here the name that the file gives decides.

Needs gguf, numpy, safetensors, tokenizers, torch and transformers (tools/requirements.txt).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
ARCHITECTURES = ("llama", "qwen2")  # as GGUF and transformers both name them
# The kinds of tokens that are looked for in text before anything is cut, and those that only fill the vocabulary.
SPECIAL, ADDED, UNUSED = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED, gguf.TokenType.UNUSED

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
         r"\s+(?!\S)|\s+")
# How text is cut before merging, by the name in `tokenizer.ggml.pre`.
PRE_TOKENIZERS = {
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "qwen2": [pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)],
}
NORMALIZERS = {"qwen2": normalizers.NFC()}


REQUIRED = object()  # a field without a default


class Unsupported(ValueError):
    """What the file holds and this program does not convert."""


class Model:
    """A GGUF file: its fields, by name, and its tensors."""

    def __init__(self, path: Path) -> None:
        try:
            reader = gguf.GGUFReader(path)
            self.fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        except (ValueError, IndexError) as problem:
            raise Unsupported(f"not a whole GGUF file: {problem}") from problem
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.architecture = self.field("general.architecture")
        if self.architecture not in ARCHITECTURES:
            raise Unsupported(f"architecture {self.architecture!r}, supported are {', '.join(ARCHITECTURES)}")

    def field(self, name: str, default: Any = REQUIRED) -> Any:
        value = self.fields.get(name, default)
        if value is REQUIRED:
            raise Unsupported(f"no field {name!r} in the file")
        return value

    def parameter(self, name: str, default: Any = REQUIRED) -> Any:
        """A field of the architecture."""
        return self.field(f"{self.architecture}.{name}", default)

    def tokenizer(self, name: str, default: Any = REQUIRED) -> Any:
        """A field of the tokenizer."""
        return self.field(f"tokenizer.ggml.{name}", default)


def shortest(value: float) -> float:
    """The number of fewest digits that is this one in binary32: 1e-05 and not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def config_of(model: Model, dtype: torch.dtype) -> PreTrainedConfig:
    scaling = [name for name in model.fields if ".rope.scaling." in name]
    if scaling:
        raise Unsupported(f"scaled rotary positions ({', '.join(scaling)})")
    heads, hidden = model.parameter("attention.head_count"), model.parameter("embedding_length")
    head_dim = model.parameter("attention.key_length", hidden // heads)
    if model.parameter("rope.dimension_count", head_dim) != head_dim:
        raise Unsupported(f"rotary positions in {model.parameter('rope.dimension_count')} of a head's {head_dim} dimensions")
    tokens = {name: model.tokenizer(name, None) for name in ("bos_token_id", "eos_token_id")}
    # Qwen2's configuration has no head_dim: a head is hidden_size / heads wide.
    width = {"head_dim": head_dim} if model.architecture == "llama" else {}
    return AutoConfig.for_model(
        model.architecture,
        architectures=[{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[model.architecture]],
        dtype=dtype,
        hidden_act="silu",
        hidden_size=hidden,
        intermediate_size=model.parameter("feed_forward_length"),
        max_position_embeddings=model.parameter("context_length"),
        num_attention_heads=heads,
        num_hidden_layers=model.parameter("block_count"),
        num_key_value_heads=model.parameter("attention.head_count_kv", heads),
        pad_token_id=model.tokenizer("padding_token_id", None),
        rms_norm_eps=shortest(model.parameter("attention.layer_norm_rms_epsilon")),
        rope_parameters={"rope_type": "default", "rope_theta": shortest(model.parameter("rope.freq_base", 10000.0))},
        tie_word_embeddings="output.weight" not in model.tensors,
        vocab_size=len(model.tokenizer("tokens")),
        **width,
        **tokens,
    )


def in_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection as transformers orders them: GGUF's LLaMA has the two components that turn together
    side by side, transformers has them half a head apart."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def widened(model: Model, name: str, config: PreTrainedConfig) -> np.ndarray:
    """A tensor of the file, binary32 [rows, columns] or [elements]."""
    tensor = model.tensors.pop(name)
    values = np.require(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32, "W")  # W: no part of the mapped file
    if not np.isfinite(values).all():
        raise Unsupported(f"tensor {name!r} holds what is no finite number")
    if model.architecture == "llama" and ".attn_q." in name:
        return in_halves(values, config.num_attention_heads)
    if model.architecture == "llama" and ".attn_k." in name:
        return in_halves(values, config.num_key_value_heads)
    return values


def model_of(model: Model, dtype: torch.dtype) -> PreTrainedModel:
    """Every tensor that transformers' model has, and none left over."""
    config = config_of(model, dtype)
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[model.architecture.upper()], model.parameter("block_count"))
    state: dict[str, Tensor] = {}
    for name, empty in made.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs not in model.tensors:
            raise Unsupported(f"no tensor {theirs!r} in the file, which is transformers' {name!r}")
        values = widened(model, theirs, config)
        if values.shape != tuple(empty.shape):
            raise Unsupported(f"tensor {theirs!r} has shape {list(values.shape)}, {name!r} needs {list(empty.shape)}")
        state[name] = torch.from_numpy(values).to(dtype)
        if not state[name].isfinite().all():
            raise Unsupported(f"tensor {theirs!r} has numbers too large for {dtype}: choose another --dtype")
    if model.tensors:
        raise Unsupported(f"tensors that nothing is made of: {', '.join(sorted(model.tensors))}")
    made.load_state_dict(state, strict=False, assign=True)
    made.tie_weights()
    return made


def tokenizer_of(model: Model) -> PreTrainedTokenizerFast:
    if model.tokenizer("model") != "gpt2":
        raise Unsupported(f"tokenizer {model.tokenizer('model')!r}, supported is 'gpt2', byte-level BPE")
    cut = model.tokenizer("pre")
    if cut not in PRE_TOKENIZERS:
        raise Unsupported(f"pre-tokenizer {cut!r}, supported are {', '.join(PRE_TOKENIZERS)}")
    tokens, kinds = model.tokenizer("tokens"), model.tokenizer("token_type")
    vocabulary = {token: i for i, token in enumerate(tokens) if kinds[i] != UNUSED}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in model.tokenizer("merges")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(PRE_TOKENIZERS[cut])
    tokenizer.decoder = decoders.ByteLevel()
    if cut in NORMALIZERS:
        tokenizer.normalizer = NORMALIZERS[cut]
    tokenizer.add_tokens([AddedToken(token, special=kinds[i] == SPECIAL, normalized=False)
                          for token, i in vocabulary.items() if kinds[i] in (SPECIAL, ADDED)])
    ids = {name: model.tokenizer(f"{key}_token_id", None)
           for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}
    named = {f"{name}_token": tokens[i] for name, i in ids.items() if i is not None}
    if model.tokenizer("add_bos_token", False):
        bos = tokens[model.tokenizer("bos_token_id")]
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", [(bos, vocabulary[bos])])
    # What lies around an added token stays as it is, and nothing is tidied up when ids become text again.
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=model.field("tokenizer.chat_template", None),
                                   clean_up_tokenization_spaces=False, model_max_length=model.parameter("context_length"), **named)


def convert(path: Path, out: Path, dtype: str) -> str:
    """Writes the checkpoint and returns a summary. Throws `Unsupported`, before anything is written."""
    model = Model(path)
    kinds = sorted({tensor.tensor_type.name for tensor in model.tensors.values()})
    tokenizer, made = tokenizer_of(model), model_of(model, DTYPES[dtype])
    made.generation_config = GenerationConfig.from_model_config(made.config)
    out.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(out)
    tokenizer.save_pretrained(out)
    config = made.config
    millions = sum(parameter.numel() for parameter in made.parameters()) / 1e6
    return (f"{out}: {model.architecture}, {config.num_hidden_layers} layers of {config.hidden_size}, {config.intermediate_size} neurons, "
            f"{config.num_attention_heads} heads on {config.num_key_value_heads}, {config.vocab_size} tokens, "
            f"{'one matrix for embedding and head' if config.tie_word_embeddings else 'a head of its own'}; {millions:.0f} million "
            f"parameters from {', '.join(kinds)} to {dtype}")


def joined(parts: list[Path], to: Path) -> Path:
    with to.open("wb") as whole:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, whole)
    return to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="MODEL.gguf", help="several are joined in this order")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--dtype", choices=DTYPES, default="f16", help="of the checkpoint (default: f16)")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    try:
        with tempfile.TemporaryDirectory() as directory:
            parts = arguments.files
            model = parts[0] if len(parts) == 1 else joined(parts, Path(directory, "model.gguf"))
            print(convert(model, arguments.out, arguments.dtype))
    except (OSError, ValueError) as problem:
        sys.exit(f"{arguments.files[0]}: {problem}")


if __name__ == "__main__":
    main()
