#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether the driver answers alike here and on an emulated CPU, there with the kernels that this CPU has:
other_cpu.py QEMU CPU INSTRUCTION_SET LLAVA MODEL"""

import json
import subprocess
import sys


def answer(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def main():
    qemu, cpu, instruction_set, llava, model = sys.argv[1:]
    ask = [llava, "--model", model, "--image", f"{model}/pictures/scene_1.png", "--prompt", "Where is the white star?",
           "--sparsity", "both", "--threads", "1", "--json"]
    here, there = answer(ask), answer([qemu, "-cpu", cpu, *ask])
    if there["instruction_set"] != instruction_set:
        sys.exit(f"{cpu} computed with {there['instruction_set']}, not with {instruction_set}")
    for what in ("answer", "generated_ids", "matches", "core_neurons"):
        if here[what] != there[what]:
            sys.exit(f"{what} differs: {here[what]} here, {there[what]} on {cpu}")
    print(f"{cpu} with {instruction_set} answers as {here['instruction_set']} here: {here['answer']}")


if __name__ == "__main__":
    main()
