#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a policy for neurons does to a text's predictions, in PyTorch and float32: what `llava measure` is compared with.

    measure_reference.py --model DIR --text FILE [--chunks N] [--weights TYPE] \\
        --policy magnitude --beta 0.4 --policy predicted --beta 0.25 0.3 --coarse q8_0

Each --policy is measured at each --beta behind it: a share of the neurons, or a share for every layer, separated by commas.
Chunks are spread evenly over the text; the first half of each is the prompt. Products take tokens as they are, in float32,
where backends may round them to integers. Needs torch and transformers (tools/requirements.txt).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/reference"))
import weight_planes
from neuron_policies import DENSE, NeuronPolicies, Policy
from teacher_forcing import Figures, score_chunk, spread_chunks

# The policies by name, without a share.
POLICIES: dict[str, dict[str, Any]] = {
    "frequency": {"kind": "sentence"},
    "frequency-mean-count": {"kind": "sentence", "core_count": "mean_count"},
    "magnitude": {"kind": "sentence", "statistic": "magnitude"},
    "gate": {"kind": "gate"},
    "gate-plain": {"kind": "gate", "plain": True},
    "predicted": {"kind": "predicted"},
}


class Tried(argparse.Action):
    """--policy begins another one; the options behind it belong to it."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        tried = getattr(namespace, "tried", None) or []
        if option_string == "--policy":
            tried.append((values, []))
        elif not tried:
            parser.error("--beta before the first --policy")
        else:
            tried[-1][1].extend(values)
        namespace.tried = tried


def shares(text: str) -> float | tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    if not all(0 < value <= 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: a share lies above 0 and not above 1")
    return values if len(values) > 1 else values[0]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a checkpoint of a LLaMA or Qwen2 model")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE")
    parser.add_argument("--chunks", type=int, default=16, metavar="N", help="of the text that are scored (default: 16)")
    parser.add_argument("--chunk", type=int, default=512, metavar="N", help="tokens of a chunk (default: 512)")
    parser.add_argument("--weights", choices=weight_planes.TYPES, default="f32", help="round weights to this type (default: f32)")
    parser.add_argument("--policy", choices=POLICIES, action=Tried)
    parser.add_argument("--beta", type=shares, nargs="+", action=Tried, metavar="B")
    parser.add_argument("--rho", type=float, default=0.2, help="of frequency (default: 0.2)")
    parser.add_argument("--coarse", choices=weight_planes.TYPES[1:], help="planes of predicted (default: those of --weights)")
    parser.add_argument("--layers", type=int, nargs=2, metavar=("FROM", "TO"), help="where it applies, half-open (default: in all)")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the sums here, after each chunk")
    arguments = parser.parse_args()
    arguments.tried = getattr(arguments, "tried", [])
    for name, betas in arguments.tried:
        if not betas:
            parser.error(f"--policy {name} without --beta")
    if arguments.weights == "f32" and arguments.coarse is None and any(name == "predicted" for name, _ in arguments.tried):
        parser.error("--coarse: weights in f32 have no upper plane of their own")
    return arguments


def policies_of(arguments: argparse.Namespace, layers: int) -> dict[str, Policy]:
    made = {"dense": DENSE}
    options = {"rho": arguments.rho, "layers": tuple(arguments.layers) if arguments.layers else None}
    options["coarse"] = arguments.coarse or arguments.weights
    for name, betas in arguments.tried:
        for beta in betas:
            if isinstance(beta, tuple) and len(beta) != layers:
                sys.exit(f"--beta: {len(beta)} shares for a model of {layers} layers")
            shown = f"mean {sum(beta) / len(beta):.3f}" if isinstance(beta, tuple) else f"{beta:g}"
            made[f"{name} {shown}"] = Policy(beta=beta, **options, **POLICIES[name])
    return made


def table(tried: dict[str, Policy], figures: dict[Policy, Figures]) -> str:
    dense = figures[DENSE].perplexity
    lines = [f"{'policy':<28}{'perplexity':>12}{'of dense':>10}{'KL, nats':>10}{'same top 1':>12}"]
    for name, policy in tried.items():
        f = figures[policy]
        lines.append(f"{name:<28}{f.perplexity:>12.4f}{f.perplexity / dense:>10.4f}{f.divergence / f.tokens:>10.5f}"
                     f"{f.agreed / f.tokens:>11.2%}")
    return "\n".join(lines)


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    weight_planes.round_model(model, arguments.weights)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    text = arguments.text.read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    chunks = spread_chunks(ids, tokenizer("")["input_ids"], arguments.chunk, arguments.chunks)
    if not chunks:
        sys.exit(f"{arguments.text}: {len(ids)} tokens are less than a chunk of {arguments.chunk}")
    tried = policies_of(arguments, model.config.num_hidden_layers)
    figures = {policy: Figures() for policy in tried.values()}
    policies = NeuronPolicies(model)
    began = time.monotonic()
    for number, chunk in enumerate(chunks, start=1):
        score_chunk(model, policies, chunk, figures)
        if arguments.json:
            sums = {name: vars(figures[policy]) for name, policy in tried.items()}
            arguments.json.write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
        print(f"\rchunk {number} of {len(chunks)}, {time.monotonic() - began:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{arguments.model.name}, {arguments.weights}, {len(chunks)} chunks of {arguments.chunk}, {figures[DENSE].tokens} tokens scored")
    print(table(tried, figures))


if __name__ == "__main__":
    main()
