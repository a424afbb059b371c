#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares what `llava` answers from a GGUF file with transformers on the widened weights, in float32 and greedily.

    compare_gguf.py MODEL.gguf --llava LLAVA [--prompts 20] [--tokens 64] [--options="--device eigen ..."]

Each question is put in the chat format of the file's tokenizer. Where llava prefers another id than transformers, it starts
again behind the id of transformers, so that all logits follow the same ids. An id that differs is a fault where the first
two logits of transformers lie apart by more than 1% of the range of all of them; elsewhere it is a tie. Exits with 1 where
there is a fault, or where the divergence of a token is 0.002 nats or more on average.

Needs what dequantise_gguf.py needs (tools/requirements.txt).
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import dequantise_gguf

QUESTIONS = (
    "What is the capital of France?",
    "Write a function in Python that reverses a string.",
    "Why is the sky blue?",
    "List three primary colours.",
    "Translate to German: good morning.",
    "What is 17 times 3?",
    "Tell me a short story about a fox.",
    "How does a binary search work?",
    "Name a fruit that is yellow.",
    "Explain what a hash table is.",
    "Give me a recipe for pancakes.",
    "What does HTTP stand for?",
    "Write a haiku about autumn.",
    "Who wrote Romeo and Juliet?",
    "Sort these numbers: 5, 3, 9, 1.",
    "What is the difference between a list and a tuple in Python?",
    "Describe the water cycle in two sentences.",
    "Write a SQL query that counts the rows of a table named users.",
    "What is photosynthesis?",
    "Complete: the quick brown fox",
)
APART = 0.01  # of the range of logits
DIVERGENCE = 0.002  # nats a token


def greedy(model: PreTrainedModel, prompt: list[int], tokens: int, ends: set[int]) -> tuple[list[int], Tensor]:
    """The ids that transformers answers, to the end of the answer or `tokens`, and the logits of each."""
    ids, logits, cache = [], [], None
    step = torch.tensor([prompt])
    while len(ids) < tokens and not (ids and ids[-1] in ends):
        out = model(step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits.append(out.logits[0, -1])
        ids.append(int(logits[-1].argmax()))
        step = torch.tensor([[ids[-1]]])
    return ids, torch.stack(logits)


def answered(llava: list[str], prompt: list[int], tokens: int, directory: Path) -> Tensor:
    """The logits of the ids that llava answers."""
    dump = directory / "dump.safetensors"
    run = subprocess.run([*llava, "--prompt-ids", ",".join(map(str, prompt)), "--max-new-tokens", str(tokens), "--dump", dump],
                         capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"compare_gguf.py: llava says: {run.stderr.strip()}")
    return load_file(dump)["logits"]


def divergence(reference: Tensor, other: Tensor) -> float:
    p, q = (x.double().log_softmax(-1) for x in (reference, other))
    return float((p.exp() * (p - q)).sum())


def apart(logits: Tensor) -> bool:
    first, second = logits.topk(2).values
    return bool(first - second > APART * (logits.max() - logits.min()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--llava", required=True)
    parser.add_argument("--prompts", type=int, default=len(QUESTIONS), choices=range(1, len(QUESTIONS) + 1), metavar="N")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer at most (default: 64)")
    parser.add_argument("--options", type=shlex.split, default=[], metavar="TEXT", help="for llava, as one argument")
    o = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    with torch.inference_mode(), tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        dequantise_gguf.convert(o.model, directory / "checkpoint", "f32")
        tokenizer = AutoTokenizer.from_pretrained(directory / "checkpoint")
        model = AutoModelForCausalLM.from_pretrained(directory / "checkpoint", dtype=torch.float32).eval()
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        llava = [o.llava, "--model", o.model, "--preset", "dense", *o.options]
        divergences, ties, faults = [], 0, 0
        for question in QUESTIONS[:o.prompts]:
            prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True,
                                                   return_dict=True)["input_ids"]
            ids, reference = greedy(model, prompt, o.tokens, ends)
            same = 0
            while same < len(ids):
                for logits in answered(llava, prompt + ids[:same], len(ids) - same, directory):
                    divergences.append(divergence(reference[same], logits))
                    differs, same = int(logits.argmax()) != ids[same], same + 1
                    if differs:
                        fault = apart(reference[same - 1])
                        ties, faults = ties + (not fault), faults + fault
                        break
            print(f"{len(ids):3} ids  {ties:2} ties  {faults:2} faults  divergence {sum(divergences) / len(divergences):.2e}"
                  f"  {question}", flush=True)
    mean = sum(divergences) / len(divergences)
    print(f"{o.model.name}: {len(divergences)} ids, {ties} other ids at ties, {faults} elsewhere; divergence {mean:.2e} nats a"
          f" token, at most {max(divergences):.2e}")
    sys.exit(faults > 0 or mean >= DIVERGENCE)


if __name__ == "__main__":
    main()
