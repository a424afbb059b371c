#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes questions about held-out scenes of the demo model in VLMEvalKit's own form, a table with the pictures inside.
docs/evaluate.md says how they are used.

    tools/make_vlmevalkit_scenes.py --form pope --out POPE.tsv            is it in the picture: Yes or No
    tools/make_vlmevalkit_scenes.py --form choices --out Scenes.tsv       which of four colours, as MMBench asks
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

import demo_scenes as scenes

CHOICES = "ABCD"


def pope_row(question: scenes.Question) -> dict[str, str]:
    """POPE's columns; its category is what the question names."""
    name = question.question.removesuffix("?").split(" ", 3)[3]
    category = "color" if name.endswith(" object") else "shape" if " " not in name else "thing"
    return {"question": question.question, "answer": question.answer.partition(",")[0], "category": category}


def choices_row(question: scenes.Question, rng: np.random.Generator) -> dict[str, str]:
    """MMBench's columns: the true colour and three others, in random order."""
    color = question.answer.removesuffix(".").rpartition(" ")[2]
    others = [name for name in scenes.COLORS if name != color]
    shown = rng.permutation([color, *rng.permutation(others)[:len(CHOICES) - 1]])
    options = dict(zip(CHOICES, shown, strict=True))
    answer = next(letter for letter, name in options.items() if name == color)
    return {"question": question.question, **options, "answer": answer, "category": "color"}


def encoded(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=("pope", "choices"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="pictures, with one question each")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    kind, rng = ("existence" if args.form == "pope" else "color"), np.random.default_rng(args.seed)
    rows = []
    for index, item in enumerate(scenes.held_out_set(args.seed, args.count)):
        question = next(q for q in item.questions if q.kind == kind)
        row = pope_row(question) if args.form == "pope" else choices_row(question, rng)
        rows.append({"index": index, "image": encoded(item.pixels), **row})
    with args.out.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
