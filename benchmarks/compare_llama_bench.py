#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares llava_bench with llama-bench (llama.cpp, ik_llama.cpp) on one machine, in turns.

    compare_llama_bench.py --llava-bench "build/release/benchmarks/llava_bench --weights q8_0" \\
        --llama-bench plain=/path/to/llama-bench \\
        --llama-bench "repacked=/path/to/ik/llama-bench -rtr 1" --gguf 7b-q8_0.gguf

A shared machine changes its speed within minutes, so only neighbours are compared: in each round ours and each of
theirs run one after the other, first ours, then in the next round first theirs, with a probe of the memory before and
after the pair. Printed are medians (least..most) over the rounds, of the ratios too, which are formed round by round.

Both decode behind the prompt. What decoding reads is counted by llava_bench for ours; for theirs it is the size of all
tensors, which is too much by the embedding table.
"""

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Rates:
    """What one run of a program came to."""

    prefill: float  # tokens per second
    decode: float  # tokens per second
    bytes_per_token: float  # of decode


@dataclass
class Pair:
    """One round of ours and one of theirs, and the memory's bytes per second around both."""

    ours: Rates
    theirs: Rates
    probed: float


def run_json(command):
    """The JSON document that `command` prints; ends the program with its error text if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: exit status {done.returncode}\n{done.stderr.strip()}")
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError as problem:
        sys.exit(f"{shlex.join(command)}: prints no JSON: {problem}")


class Ours:
    """llava_bench."""

    def __init__(self, command, options):
        self.program = command[0]
        self.threads = ["--threads", str(options.threads)]
        self.command = command + self.threads + [
            "--text-tokens", str(options.text_tokens), "--image-tokens", str(options.image_tokens),
            "--new-tokens", str(options.new_tokens), "--repeat", "1", "--json"]

    def probe(self):
        return run_json([self.program, "--probe", "--json"] + self.threads)["read_bytes_per_second"]

    def run(self):
        result = run_json(self.command)
        return Rates(result["prefill_tokens_per_second"], result["decode_tokens_per_second"],
                     result["decode_bytes_per_token"])


class Theirs:
    """A llama-bench. The two projects disagree about how to ask for decoding behind a prompt; the help text tells
    which one it is."""

    def __init__(self, spec, options):
        named = re.fullmatch(r"([\w.-]+)=(.*)", spec)
        words = shlex.split(named[2] if named else spec)
        self.name = named[1] if named else shlex.join([Path(words[0]).name] + words[1:])
        common = words + ["-m", str(options.gguf), "-t", str(options.threads), "-r", "1", "-o", "json"]
        prompt, new = str(options.text_tokens + options.image_tokens), str(options.new_tokens)
        help_text = subprocess.run([words[0], "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   check=False).stdout
        if "--n-depth" in help_text:
            self.commands = [common + ["-p", prompt, "-n", "0"], common + ["-p", "0", "-n", new, "-d", prompt]]
        elif "-gp" in help_text:
            self.commands = [common + ["-p", prompt, "-n", "0", "-gp", f"{prompt},{new}"]]
        else:
            sys.exit(f"{words[0]}: its help names neither -d nor -gp, so it cannot decode behind a prompt")

    def run(self):
        tests = [test for command in self.commands for test in run_json(command)]
        prefill = next(test for test in tests if test["n_gen"] == 0)
        decode = next(test for test in tests if test["n_gen"] > 0)
        return Rates(prefill["avg_ts"], decode["avg_ts"], decode["model_size"])


def run_pair(ours, theirs, ours_first):
    before = ours.probe()
    if ours_first:
        our_rates, their_rates = ours.run(), theirs.run()
    else:
        their_rates, our_rates = theirs.run(), ours.run()
    return Pair(our_rates, their_rates, (before + ours.probe()) / 2)


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def share(rates, probed):
    return 100 * rates.bytes_per_token * rates.decode / probed


def table(name, pairs):
    """Lines of text that compare ours with one of theirs."""
    rows = [("", "prefill tokens/s", "decode tokens/s", "decode, % of probe")]
    for label, side in (("ours", [p.ours for p in pairs]), (name, [p.theirs for p in pairs])):
        shares = [share(rates, pair.probed) for rates, pair in zip(side, pairs)]
        rows.append((label, spread([r.prefill for r in side]), spread([r.decode for r in side]), spread(shares, 0)))
    rows.append(("ours / theirs", spread([p.ours.prefill / p.theirs.prefill for p in pairs]),
                 spread([p.ours.decode / p.theirs.decode for p in pairs]), ""))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return lines + [f"probed: {spread([p.probed / 1e9 for p in pairs], 1)} GB/s; rounds: {len(pairs)}"]


def parse_arguments(arguments):
    summary, _, details = __doc__.partition("\n")
    parser = argparse.ArgumentParser(description=summary, epilog=details,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llava-bench", required=True, metavar="COMMAND",
                        help="path and further options, such as --weights q8_0 --layers 8")
    parser.add_argument("--llama-bench", required=True, action="append", metavar="[NAME=]COMMAND",
                        help="path and further options, such as -rtr 1; may be given several times")
    parser.add_argument("--gguf", required=True, type=Path, metavar="FILE", help="the same shape and type of weights")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--text-tokens", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--image-tokens", type=int, default=576, help="default: %(default)s")
    parser.add_argument("--new-tokens", type=int, default=32, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def main():
    options = parse_arguments(sys.argv[1:])
    ours = Ours(shlex.split(options.llava_bench), options)
    peers = [Theirs(spec, options) for spec in options.llama_bench]
    pairs = [[] for _ in peers]
    for round_number in range(options.rounds):
        for theirs, measured in zip(peers, pairs):
            measured.append(run_pair(ours, theirs, ours_first=round_number % 2 == 0))
            print(f"round {round_number + 1} of {options.rounds}: {theirs.name}", file=sys.stderr)
    for theirs, measured in zip(peers, pairs):
        print("\n".join(table(theirs.name, measured)), end="\n\n")


if __name__ == "__main__":
    main()
