# SPDX-License-Identifier: Apache-2.0
"""One decoder layer of LLaVA-1.5-7B's shape. Its 200 million weights come from a counter, so that no file is needed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import storage
from core_matching_reference import Decoder, Trace, generate
from model_reference import MAX_FLOAT32_ERROR, SHAKE, assert_same_decisions, options_json, relative_error
from selection import Options, activated, frequencies, overlaps

CASE = "layer_7b"
TOKENS, HIDDEN, NEURONS, HEADS = 8, 4096, 11008, 32
RMS_NORM_EPS, ROPE_THETA = 1e-5, 10000.0
CHUNK = 1 << 22
OPTIONS = Options(sparsity="neurons")


@dataclass(frozen=True)
class Stream:
    """Numbers `offset + ((splitmix64(stream * 2^40 + i) >> 40) / 2^24 - 0.5) * scale`, i counting in row-major order.

    The scales are powers of two, which makes every number without an offset exact in float32.
    """

    stream: int
    shape: tuple[int, ...]
    scale: float
    offset: float = 0.0

    def values(self) -> np.ndarray:
        """float32, rounded once from float64."""
        count = int(np.prod(self.shape))
        result = np.empty(count, dtype=np.float32)
        for begin in range(0, count, CHUNK):
            counter = np.arange(begin, min(begin + CHUNK, count), dtype=np.uint64) + np.uint64(self.stream << 40)
            uniform = (splitmix64(counter) >> np.uint64(40)).astype(np.float64) / 2**24
            result[begin : begin + len(counter)] = self.offset + (uniform - 0.5) * self.scale
        return result.reshape(self.shape)


STREAMS = {
    "self_attn.q_proj.weight": Stream(1, (HIDDEN, HIDDEN), 2**-4),
    "self_attn.k_proj.weight": Stream(2, (HIDDEN, HIDDEN), 2**-4),
    "self_attn.v_proj.weight": Stream(3, (HIDDEN, HIDDEN), 2**-4),
    "self_attn.o_proj.weight": Stream(4, (HIDDEN, HIDDEN), 2**-4),
    "mlp.gate_proj.weight": Stream(5, (NEURONS, HIDDEN), 2**-4),
    "mlp.up_proj.weight": Stream(6, (NEURONS, HIDDEN), 2**-4),
    "mlp.down_proj.weight": Stream(7, (HIDDEN, NEURONS), 2**-5),
    "input_layernorm.weight": Stream(8, (HIDDEN,), 2**-2, offset=1.0),
    "post_attention_layernorm.weight": Stream(9, (HIDDEN,), 2**-2, offset=1.0),
    "input": Stream(27, (TOKENS, HIDDEN), 4.0),  # of the first fifty, the input whose decisions have the widest margins
}


def splitmix64(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _model() -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=NEURONS,
        num_attention_heads=HEADS,
        num_hidden_layers=1,
        rms_norm_eps=RMS_NORM_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        vocab_size=8,
    )
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.model.layers[0].named_parameters():
        parameter.data = torch.from_numpy(STREAMS[name].values())
    return model


def _run(model: nn.Module, shake: float | None = None) -> Trace:
    x = torch.from_numpy(STREAMS["input"].values()).to(model.lm_head.weight.dtype)
    return generate(Decoder(model), x, np.zeros(TOKENS, dtype=bool), np.ones(TOKENS, dtype=bool), OPTIONS, steps=1, shake=shake)


@torch.no_grad()
def _transformers_output(model: nn.Module) -> torch.Tensor:
    x = torch.from_numpy(STREAMS["input"].values())[None]
    rotary = model.model.rotary_emb(x, position_ids=torch.arange(TOKENS)[None])
    mask = torch.full((TOKENS, TOKENS), torch.finfo(torch.float32).min).triu(1)[None, None]
    return model.model.layers[0](x, attention_mask=mask, position_embeddings=rotary)[0]


def make() -> None:
    directory = storage.fresh_directory(CASE)
    model = _model()
    single, theirs = _run(model), _transformers_output(model)
    exact = _run(model.double(), SHAKE)
    single.generated = exact.generated  # the output head is not part of this case
    assert_same_decisions(exact, single)
    error = relative_error(single.layer_output[0], exact.layer_output[0])
    assert max(error, relative_error(theirs, exact.layer_output[0])) < MAX_FLOAT32_ERROR
    activation, core = exact.ffn_activation[0].numpy(), exact.core_neurons[0]
    everyone = np.ones(TOKENS, dtype=bool)
    tensors = {
        "output": exact.layer_output[0].numpy().astype(np.float32),
        "core_neurons": core.astype(np.int32),
        "frequencies": frequencies(activation, everyone, OPTIONS).astype(np.int32),
        "activated": activated(activation).sum(axis=1).astype(np.int32),
        "overlaps": overlaps(activation, np.isin(np.arange(NEURONS), core)).astype(np.int32),
    }
    storage.write_tensors(directory / "expected.safetensors", tensors)
    reference = {
        "versions": storage.versions(),
        "file": "expected.safetensors",
        "hidden_size": HIDDEN,
        "intermediate_size": NEURONS,
        "num_attention_heads": HEADS,
        "rms_norm_eps": RMS_NORM_EPS,
        "rope_theta": ROPE_THETA,
        "options": options_json(OPTIONS),
        "streams": {
            name: asdict(stream) | {"first": replace(stream, shape=(2,)).values().tolist()} for name, stream in STREAMS.items()
        },
        "float32_error": float(f"{error:.2g}"),
        "margins": {name: value for name, value in exact.margins.as_json().items() if name != "logit"},
    }
    storage.write_json(directory / "reference.json", reference)
