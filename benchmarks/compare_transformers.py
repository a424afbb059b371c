#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares llava_bench on a CUDA device with transformers on the same device, shape and storage type.

    compare_transformers.py --llava-bench build/release/benchmarks/llava_bench --shape llava-1.5-7b

transformers runs twice: as it is by default (eager), and with a static cache and a compiled decode step that replays a
CUDA graph. Weights are random on both sides: speed depends on shapes alone. Needs torch and transformers. Printed are
tokens per second of prefill and decode, medians over --rounds, and our dense and sparse speed as multiples of theirs.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

# hidden size, neurons, layers, heads: as benchmarks/random_model.hpp has them.
SHAPES = {"llava-1.5-7b": (4096, 11008, 32, 32), "llava-1.5-13b": (5120, 13824, 40, 40), "tiny": (64, 160, 2, 4)}
TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
VOCABULARY = 32000


def random_model(options):
    """A model on the device whose weights were never anywhere else."""
    hidden, neurons, layers, heads = SHAPES[options.shape]
    config = LlamaConfig(hidden_size=hidden, intermediate_size=neurons, num_hidden_layers=options.layers or layers,
                         num_attention_heads=heads, num_key_value_heads=heads, vocab_size=VOCABULARY,
                         max_position_embeddings=4096)
    torch.manual_seed(1)
    torch.set_default_dtype(TYPES[options.weights])
    with torch.device(options.device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


def seconds_of(body, device):
    """Wall-clock seconds until the device has done what `body` asks for."""
    synchronise = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    synchronise()
    start = time.perf_counter()
    body()
    synchronise()
    return time.perf_counter() - start


class Peer:
    """One way of running the model."""

    def __init__(self, model, options, compiled):
        self.model, self.options = model, options
        self.step = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True) if compiled else model.forward
        self.compiled = compiled
        generator = torch.Generator().manual_seed(2)
        self.prompt = torch.randint(VOCABULARY, (1, options.prompt_tokens), generator=generator).to(options.device)
        self.name = "compiled, static cache" if compiled else "eager"

    def cache(self):
        if not self.compiled:
            return None
        length = self.options.prompt_tokens + self.options.new_tokens
        return StaticCache(config=self.model.config, max_cache_len=length)

    @torch.inference_mode()
    def rates(self):
        """Tokens per second of prefill and of greedy decoding behind it."""
        options, state = self.options, {"cache": self.cache()}

        def prefill():
            positions = torch.arange(options.prompt_tokens, device=options.device)
            out = self.model(input_ids=self.prompt, past_key_values=state["cache"], cache_position=positions,
                             use_cache=True, logits_to_keep=1)
            state["cache"], state["next"] = out.past_key_values, out.logits[:, -1:].argmax(-1)

        def decode():
            for i in range(options.new_tokens):
                positions = torch.tensor([options.prompt_tokens + i], device=options.device)
                out = self.step(input_ids=state["next"], past_key_values=state["cache"], cache_position=positions,
                                use_cache=True)
                state["next"] = out.logits[:, -1:].argmax(-1).clone()

        prefill_seconds = seconds_of(prefill, options.device)
        decode_seconds = seconds_of(decode, options.device)
        return options.prompt_tokens / prefill_seconds, options.new_tokens / decode_seconds


def our_rates(options):
    """Median rates of llava_bench: dense, and with core neurons and core tokens, in turns."""
    image_tokens = options.prompt_tokens * 9 // 10
    command = shlex.split(options.llava_bench) + [
        "--cuda", "0", "--shape", options.shape, "--weights", options.weights, "--kv-cache", options.weights,
        "--text-tokens", str(options.prompt_tokens - image_tokens), "--image-tokens", str(image_tokens),
        "--new-tokens", str(options.new_tokens), "--repeat", str(options.rounds), "--paired", "--json",
        "--beta", str(options.beta), "--keep", str(options.keep)]
    if options.layers:
        command += ["--layers", str(options.layers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: exit status {done.returncode}\n{done.stderr.strip()}")
    result = json.loads(done.stdout)
    rates = ("prefill_tokens_per_second", "decode_tokens_per_second")
    return {"dense": tuple(result["dense"][rate] for rate in rates), "sparse": tuple(result[rate] for rate in rates)}


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llava-bench", help="command of llava_bench; without it only transformers is measured")
    parser.add_argument("--shape", choices=SHAPES, default="llava-1.5-7b")
    parser.add_argument("--layers", type=int, help="so many layers instead of the shape's")
    parser.add_argument("--weights", choices=TYPES, default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--prompt-tokens", type=int, default=640)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--beta", type=float, default=0.4)
    parser.add_argument("--keep", type=int, default=64, help="image tokens that stay")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main():
    options = parse_options()
    ours = our_rates(options) if options.llava_bench else {}
    model = random_model(options)
    theirs = {}
    for compiled in (False, True):
        peer = Peer(model, options, compiled)
        for _ in range(3 if compiled else 1):
            peer.rates()  # the first runs compile and record
        runs = [peer.rates() for _ in range(options.rounds)]
        theirs[peer.name] = tuple(statistics.median(column) for column in zip(*runs))

    if options.json:
        print(json.dumps({"ours": ours, "transformers": theirs}))
        return
    print(f"{'':34}{'prefill':>12}{'decode':>12}  tokens/s")
    for name, (prefill, decode) in {f"transformers, {n}": r for n, r in theirs.items()}.items():
        print(f"{name:34}{prefill:12.1f}{decode:12.1f}")
    for kind, rates in ours.items():
        print(f"{'ours, ' + kind:34}{rates[0]:12.1f}{rates[1]:12.1f}")
        for name, peer in theirs.items():
            print(f"{'  times ' + name:34}{rates[0] / peer[0]:12.2f}{rates[1] / peer[1]:12.2f}")


if __name__ == "__main__":
    main()
