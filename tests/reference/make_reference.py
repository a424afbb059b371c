# SPDX-License-Identifier: Apache-2.0
"""Write the reference data of the tests with transformers: `python tests/reference/make_reference.py [--case NAME ...]`."""

from __future__ import annotations

import argparse
from typing import Callable

import torch
import transformers

import demo_reference
import formats_reference
import layer_reference
import measure_reference
import model_reference
import policy_reference
import preprocess_reference
import storage
import tokenizer_reference

CASES: dict[str, Callable[[], None]] = {
    "preprocess": preprocess_reference.make,
    formats_reference.CASE: formats_reference.make,
    "tokenizer": tokenizer_reference.make,
    **model_reference.CASES,
    policy_reference.CASE: policy_reference.make,
    layer_reference.CASE: layer_reference.make,
    demo_reference.CASE: demo_reference.make,
    measure_reference.CASE: measure_reference.make,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME", help="default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the order of every sum, hence the last bits, must not depend on the machine's cores
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(", ".join(f"{name} {number}" for name, number in storage.versions().items()))
    for case in arguments.case:
        CASES[case]()
        print(f"{case}: {storage.directory_size(storage.DATA / case) / 1e6:.2f} MB", flush=True)
    print(f"all: {storage.directory_size(storage.DATA) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
