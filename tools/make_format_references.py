#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes random blocks of ggml's formats and says which values the gguf package reads from them. tests/core and tests/io hold
ours to them.

    make_format_references.py [--out DIR]     (default: tests/core/data)

Writes FORMAT.txt, a line for each block: its bytes and the values that they stand for, binary32 in little-endian order,
both in hexadecimal.

Needs gguf (0.19) and numpy.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# Where a block of the format has binary16 numbers; everything else of it may be any bits.
HALVES = {
    "q4_k": (0, 2), "q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q8_0": (0,), "iq4_nl": (0,), "q2_k": (80, 82),
    "q3_k": (108,), "q5_k": (0, 2), "q6_k": (208,), "iq4_xs": (0,),
}
# What is written there, block by block: usual ones, both ends of the range, subnormal ones, zeros.
NUMBERS = [(0.0123, 0.0456), (-3.21e-3, 0.25), (65504.0, -65504.0), (-65504.0, 65504.0), (1.2e-7, -5.9e-8), (6e-8, 3e-5),
           (0.0, 0.125), (0.5, 0.0)]


def blocks_of(name: str, random: np.random.Generator) -> np.ndarray:
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name.upper()]][1]
    blocks = random.integers(0, 256, (len(NUMBERS) + 1, size), dtype=np.uint8)
    blocks[-1] = 255  # the largest of everything, but for the numbers
    for block, numbers in zip(blocks, NUMBERS + [(1.0, 1.0)]):
        for place, number in zip(HALVES[name], numbers):
            block[place : place + 2] = np.frombuffer(np.float16(number).tobytes(), np.uint8)
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/core/data")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in HALVES:
        blocks = blocks_of(name, np.random.default_rng(4))
        values = gguf.dequantize(blocks, gguf.GGMLQuantizationType[name.upper()]).astype("<f4")
        assert np.isfinite(values).all()
        lines = [f"{block.tobytes().hex()} {value.tobytes().hex()}\n" for block, value in zip(blocks, values)]
        (out / f"{name}.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
