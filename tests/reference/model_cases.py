# SPDX-License-Identifier: Apache-2.0
"""The small random models, their pictures and prompts, and the runs that cover every option."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from selection import Options, Thinning, default_match_layer

IMAGE_TOKEN = 250
VOCABULARY = 256
STEPS = 16


@dataclass(frozen=True)
class RunSpec:
    """One run of a case. Only `full` runs store the activations of the prompt, which most options share."""

    name: str
    options: Options
    full: bool = False
    picture: int = 0
    prompt: int = 0
    thinning: Thinning | None = None


@dataclass(frozen=True)
class ModelCase:
    name: str
    seed: int
    layout: str
    config: dict[str, Any]
    runs: tuple[RunSpec, ...]
    dtype: str = "f32"
    shards: int = 1
    pictures: tuple[tuple[int, int], ...] = ()  # width, height
    prompts: tuple[tuple[int, int], ...] = ((5, 12),)  # text tokens before and after the image


def _llama(**overrides: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 176,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": VOCABULARY,
    } | overrides


def _vision(**overrides: Any) -> dict[str, Any]:
    return {
        "hidden_act": "quick_gelu",
        "hidden_size": 48,
        "image_size": 70,
        "intermediate_size": 96,
        "layer_norm_eps": 1e-5,
        "model_type": "clip_vision_model",
        "num_attention_heads": 3,
        "num_hidden_layers": 4,
        "patch_size": 14,
        "projection_dim": 32,
    } | overrides


def _llava(text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
        "image_token_index": IMAGE_TOKEN,
        "model_type": "llava",
        "projector_hidden_act": "gelu",
        "text_config": text,
        "tie_word_embeddings": False,
        "vision_config": vision,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }


DENSE = Options(sparsity="none")


def _options(layers: int, **changes: Any) -> Options:
    return replace(Options(match_layers=(default_match_layer(layers),)), **changes)


def _tokens(layers: int, **changes: Any) -> Options:
    return _options(layers, sparsity="tokens", **changes)


def _mha_runs() -> tuple[RunSpec, ...]:
    layers = 4
    two = {"match_layers": (1, 2)}
    return (
        RunSpec("dense", DENSE, full=True),
        RunSpec("both", _options(layers), full=True),
        RunSpec("tokens_two_layers", _tokens(layers, **two), full=True),
        RunSpec("neurons", _options(layers, sparsity="neurons")),
        RunSpec("tokens_every_layer", _tokens(layers, match_layers=(0, 1, 2, 3))),
        RunSpec("tokens_last_layer", _tokens(layers, match_layers=(3,))),
        RunSpec("both_two_layers", _options(layers, **two)),
        RunSpec("strict", _tokens(layers, strict=True)),
        RunSpec("anchor", _tokens(layers, reference="anchor")),
        RunSpec("anchor_from_start", _options(layers, reference="anchor", anchor=2, strict=True)),
        RunSpec("top_k", _options(layers, keep="top_k", keep_count=7)),
        RunSpec("ratio", _tokens(layers, keep="ratio", keep_ratio=0.3, **two)),
        RunSpec("min_tokens", _tokens(layers, strict=True, min_tokens=21)),
        RunSpec("max_tokens", _tokens(layers, max_tokens=4)),
        RunSpec("rarity", _options(layers, criterion="rarity", reference="question")),
        RunSpec("rarity_anchor", _tokens(layers, criterion="rarity", reference="anchor", **two)),
        RunSpec("rarity_sentence", _tokens(layers, criterion="rarity", reference="sentence", keep="ratio", keep_ratio=0.4)),
        RunSpec("contrast_anchor", _options(layers, criterion="contrast", reference="anchor")),
        RunSpec("contrast_text", _tokens(layers, criterion="contrast", reference="text", **two)),
        RunSpec("thinned", DENSE, thinning=Thinning(keep_count=9)),
        RunSpec(
            "thinned_rarity",
            _options(layers, criterion="rarity", reference="question"),
            thinning=Thinning(keep="ratio", keep_ratio=0.6),
        ),
        RunSpec("thinned_random", _tokens(layers, **two), thinning=Thinning("random", keep_count=12, seed=3)),
        RunSpec("attention", _options(layers, criterion="attention")),
        RunSpec("attention_top_k", _tokens(layers, criterion="attention", keep="top_k", keep_count=6, match_layers=(2,))),
        RunSpec("projection", _options(layers, criterion="projection")),
        RunSpec("random", _tokens(layers, criterion="random", seed=7, keep="top_k", keep_count=9, **two)),
        RunSpec("random_max_distance", _tokens(layers, criterion="random", seed=2**40 + 5)),
        RunSpec("later_layers", _options(layers, pruning="later_layers", **two)),
        RunSpec("zero_in_place", _tokens(layers, pruning="zero_in_place", match_layers=(1, 2, 3))),
        RunSpec("zero_in_place_released", _tokens(layers, pruning="zero_in_place", reference="anchor", strict=True, match_layers=(1, 2))),
        RunSpec("contiguous", _options(layers, positions="contiguous", **two)),
        RunSpec("count_text", _options(layers, count_over="text")),
        RunSpec("count_image_mean", _options(layers, count_over="image", core_count="mean_count")),
        RunSpec("mean_count", _options(layers, core_count="mean_count")),
        RunSpec("beta_one", _options(layers, beta=1.0)),
        RunSpec("rho_beta", _options(layers, rho=0.5, beta=0.2)),
        RunSpec("neuron_layers", _options(layers, neuron_layers=(1, 3))),
        RunSpec("pad", _options(layers, image_fit="pad"), full=True, picture=1),
        RunSpec("image_first", _options(layers), picture=1, prompt=1),
    )


def _gqa_runs() -> tuple[RunSpec, ...]:
    layers = 4
    return (
        RunSpec("dense", DENSE, full=True),
        RunSpec("both", _options(layers), full=True),
        RunSpec("contiguous", _tokens(layers, positions="contiguous", match_layers=(0, 2))),
        RunSpec("later_layers", _tokens(layers, pruning="later_layers")),
        RunSpec("rarity", _options(layers, criterion="rarity", reference="question", match_layers=(1, 2))),
        RunSpec("contrast", _tokens(layers, criterion="contrast", reference="text")),
        RunSpec("attention", _tokens(layers, criterion="attention")),
        RunSpec("projection", _tokens(layers, criterion="projection")),
        RunSpec("zero_in_place", _options(layers, pruning="zero_in_place", match_layers=(1, 2))),
    )


def _short_runs(layers: int) -> tuple[RunSpec, ...]:
    return (
        RunSpec("dense", DENSE, full=True),
        RunSpec("both", _options(layers)),
        RunSpec("tokens_two_layers", _tokens(layers, match_layers=(0, 1))),
    )


def _text_runs(layers: int) -> tuple[RunSpec, ...]:
    return (
        RunSpec("dense", DENSE, full=True),
        RunSpec("neurons", _options(layers, sparsity="neurons")),
        RunSpec("both", _options(layers, neuron_layers=(1, layers))),  # no image, so nothing to drop
        RunSpec("mean_count", _options(layers, sparsity="neurons", core_count="mean_count", beta=0.2)),
    )


LLAMA3_ROPE = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}
SMALL_VISION = {"hidden_size": 32, "image_size": 56, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_theta": 1000000.0, "rms_norm_eps": 1e-6}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rope_theta": 1000000.0, "rms_norm_eps": 1e-6}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}

MODEL_CASES = (
    ModelCase(
        name="tiny_mha",
        seed=4,
        layout="huggingface_4_51",
        config=_llava(_llama(), _vision()),
        runs=_mha_runs(),
        pictures=((97, 71), (64, 90)),
        prompts=((5, 12), (0, 9)),
    ),
    ModelCase(
        name="tiny_gqa_bias",
        seed=4,
        layout="huggingface_4_52",
        dtype="bf16",
        shards=3,
        config=_llava(_llama(num_key_value_heads=2, intermediate_size=160, **QWEN2), _vision(**SMALL_VISION)),
        runs=_gqa_runs(),
        pictures=((60, 83),),
    ),
    ModelCase(
        name="tiny_original",
        seed=5,
        layout="original",
        dtype="f16",
        config=_llava(
            _llama(num_hidden_layers=3, num_key_value_heads=2, head_dim=24, hidden_size=56, rope_theta=50000.0, **MISTRAL),
            _vision(**SMALL_VISION),
        ),
        runs=_short_runs(3),
        pictures=((56, 56),),
    ),
    ModelCase(
        name="tiny_saved_by_5",
        seed=3,
        layout="huggingface_5",
        config=_llava(
            {key: value for key, value in _llama(num_hidden_layers=2).items() if key != "rope_theta"}
            | {"head_dim": 16, "rope_parameters": {"rope_theta": 20000.0, "rope_type": "default"}},
            _vision(**SMALL_VISION | {"num_hidden_layers": 2}),
        ),
        runs=_short_runs(2),
        pictures=((80, 57),),
    ),
    ModelCase(
        name="tiny_llama",
        seed=1,
        layout="text",
        config=_llama(num_hidden_layers=3, num_key_value_heads=1, rope_scaling=LLAMA3_ROPE, rope_theta=500000.0),
        runs=_text_runs(3),
        prompts=((75, 0),),
    ),
    ModelCase(
        name="tiny_mistral",
        seed=1,
        layout="text",
        config=_llama(num_hidden_layers=3, num_key_value_heads=2, head_dim=24, **MISTRAL),
        runs=_text_runs(3),
        prompts=((23, 0),),
    ),
    ModelCase(
        name="tiny_window",
        seed=2,
        layout="text",
        config=_llama(num_hidden_layers=2, num_key_value_heads=2, **MISTRAL | {"sliding_window": 24}),
        runs=_text_runs(2),
        prompts=((61, 0),),
    ),
    ModelCase(
        name="tiny_qwen2",
        seed=4,
        layout="text",
        config=_llama(num_hidden_layers=3, num_key_value_heads=2, intermediate_size=160, **QWEN2 | {"tie_word_embeddings": True}),
        runs=_text_runs(3),
        prompts=((31, 0),),
    ),
    ModelCase(
        name="tiny_qwen3",
        seed=2,
        layout="text",
        config=_llama(num_hidden_layers=3, num_key_value_heads=2, head_dim=24, **QWEN3 | {"tie_word_embeddings": True}),
        runs=_text_runs(3),
        prompts=((27, 0),),
    ),
)


def prompt_ids(case: ModelCase, prompt: int) -> list[int]:
    """BOS, then random text with one image token in it, as a user of the model would give it."""
    before, after = case.prompts[prompt]
    rng = np.random.default_rng([case.seed, prompt])
    text = [1] + [int(i) for i in rng.integers(3, IMAGE_TOKEN, before + after - 1)]
    return text[:before] + [IMAGE_TOKEN] + text[before:] if case.pictures else text
