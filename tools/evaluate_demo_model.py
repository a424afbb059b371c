#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the demo model on held-out pictures, dense and under CoreMatching.

    tools/evaluate_demo_model.py --engine transformers             dense, by generate()
    tools/evaluate_demo_model.py --driver PATH --table main        by the C++ driver
    tools/evaluate_demo_model.py --driver PATH --table all --out results.json

Every question is asked alone, in a fresh prompt, and decoded greedily; an answer counts
when it equals the true one to the letter. `describe` is scored by things: the share of
(colour, shape, place) triples that the sentence names, and how many of those it names are
there. Controls keep, question by question, as many image tokens as CoreMatching kept;
chance is drawn five times.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

import demo_scenes as scenes

ROOT = Path(__file__).resolve().parent.parent
RANDOM_SEEDS = 5


class Asked(NamedTuple):
    """One question about one picture file."""

    picture: Path
    kind: str
    question: str
    answer: str


class Reply(NamedTuple):
    """What an engine said, how many image tokens it kept and which share of the neurons
    it decoded with; None where it drops none."""

    text: str
    kept: int | None = None
    neurons: float | None = None


@dataclass(frozen=True)
class Setting:
    """A row of a table: driver options, the row whose kept tokens it must match, and how
    many seeds of chance every question is asked with."""

    name: str
    options: tuple[str, ...] = ()
    as_many_as: str | None = None
    seeds: int = 1


@dataclass
class Row:
    """Counts of one setting."""

    right: dict[str, list[bool]] = field(default_factory=dict)
    named: int = 0
    true: int = 0
    correct: int = 0
    kept: list[int] = field(default_factory=list)
    neurons: list[float] = field(default_factory=list)

    def add(self, asked: Asked, reply: Reply) -> None:
        self.right.setdefault(asked.kind, []).append(reply.text.strip() == asked.answer)
        if asked.kind == "describe":
            truth, said = things_in(asked.answer), things_in(reply.text)
            self.true += len(truth)
            self.named += len(said)
            self.correct += len(truth & said)
        if reply.kept is not None:
            self.kept.append(reply.kept)
        if reply.neurons is not None:
            self.neurons.append(reply.neurons)

    def summary(self) -> dict[str, float]:
        result = {kind: float(np.mean(hits)) for kind, hits in self.right.items()}
        asked = [hit for kind in scenes.KINDS for hit in self.right.get(kind, [])]
        if asked:
            result["questions"] = float(np.mean(asked))
        if self.true:
            result["things_found"] = self.correct / self.true
            result["things_right"] = self.correct / max(1, self.named)
        if self.kept:
            result["kept_image_tokens"] = float(np.mean(self.kept))
        if self.neurons:
            result["neurons"] = float(np.mean(self.neurons))
        return result


def things_in(sentence: str) -> set[tuple[str, str, str]]:
    """The (colour, shape, place) triples that a description names."""
    places = "|".join(sorted(scenes.PLACES, key=len, reverse=True))
    pattern = rf"\ban? ({'|'.join(scenes.COLORS)}) ({'|'.join(scenes.SHAPES)}) ({places})\b"
    return set(re.findall(pattern, sentence))


# ----------------------------------------------------------------------------- tables


def main_table() -> list[Setting]:
    both = [Setting(f"both, beta {b}", ("--sparsity", "both", "--beta", b)) for b in ("0.6", "0.4", "0.2")]
    neurons = [Setting(f"neurons, beta {b}", ("--sparsity", "neurons", "--beta", b)) for b in ("0.6", "0.4", "0.2")]
    return [
        Setting("dense", ("--sparsity", "none")),
        Setting("tokens", ("--sparsity", "tokens")),
        *neurons,
        *both,
        Setting(
            "both, projection, layer 3",
            ("--sparsity", "both", "--criterion", "projection", "--match-layers", "3"),
        ),
    ]


def weights_table() -> list[Setting]:
    """Every type that weights can be held in, dense and with core neurons."""
    rows = []
    for weights in ("f32", "f16", "bf16", "q8_0", "q4_0"):
        held = ("--weights", weights)
        rows.append(Setting(f"{weights}, dense", ("--sparsity", "none", *held)))
        rows.append(Setting(f"{weights}, neurons, beta 0.4", ("--sparsity", "neurons", "--beta", "0.4", *held)))
    return rows


def layer_table(layers: Iterable[int]) -> list[Setting]:
    """For every matching layer: three reference sets, then the controls at equal counts."""
    rules = {
        "sentence": (),
        "sentence, text counted": ("--count-over", "text"),
        "anchor": ("--reference", "anchor"),
    }
    rows = []
    for layer in layers:
        at = ("--sparsity", "tokens", "--match-layers", str(layer))
        for rule, options in rules.items():
            name = f"layer {layer}, {rule}"
            rows.append(Setting(name, at + options))
            rows += [
                Setting(f"{name}: {control}", at + ("--criterion", control), as_many_as=name, seeds=seeds)
                for control, seeds in (("random", RANDOM_SEEDS), ("attention", 1), ("projection", 1))
            ]
    return rows


def criteria_table() -> list[Setting]:
    """Every criterion that looks at neurons or features, by its elbow and at two sizes, beside chance."""
    tokens = ("--sparsity", "tokens")
    rules = {
        "overlap": (*tokens, "--criterion", "overlap"),
        "rarity": (*tokens, "--criterion", "rarity"),
        "rarity, anchor": (*tokens, "--criterion", "rarity", "--reference", "anchor"),
        "contrast": (*tokens, "--criterion", "contrast"),
        "contrast, text": (*tokens, "--criterion", "contrast", "--reference", "text"),
    }
    rows = [Setting(f"{rule}, elbow", options) for rule, options in rules.items()]
    for kept in ("50", "25"):
        rows += [Setting(f"{rule}, {kept}", (*options, "--keep", f"top_k:{kept}")) for rule, options in rules.items()]
        rows.append(Setting(f"duplicates, {kept}", ("--thin", "duplication", "--thin-keep", f"top_k:{kept}")))
        chance = (*tokens, "--criterion", "random", "--keep", f"top_k:{kept}")
        rows.append(Setting(f"chance, {kept}", chance, seeds=RANDOM_SEEDS))
    return rows


# ----------------------------------------------------------------------------- engines


class Driver:
    """The C++ driver, one process a question."""

    def __init__(self, program: Path, model: Path) -> None:
        self.program, self.model = program, model

    def ask(self, asked: Asked, options: tuple[str, ...]) -> Reply:
        command = [self.program, "--model", self.model, "--image", asked.picture, "--prompt", asked.question, "--threads", 1]
        done = subprocess.run([*map(str, command), *options, "--json"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))} {' '.join(options)}: {done.stderr.strip()}")
        said = json.loads(done.stdout)
        dropping = [said["before_decoder"], *said["matches"]]
        kept = [place["kept_image_tokens"] for place in dropping if place]
        share = np.mean(said["core_neurons"]) / said["neurons_per_layer"]
        return Reply(said["answer"], kept[-1] if kept else None, float(share))


class Transformers:
    """Dense generation by transformers, with the stored float16 weights in float32."""

    def __init__(self, model: Path, threads: int) -> None:
        import torch
        from PIL import Image
        from transformers import LlavaForConditionalGeneration, LlavaProcessor

        torch.set_num_threads(threads)
        self.open = Image.open
        self.processor = LlavaProcessor.from_pretrained(model)
        self.model = LlavaForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()

    def ask(self, asked: Asked, options: tuple[str, ...]) -> Reply:
        prompt = f"USER: <image>\n{asked.question} ASSISTANT:"
        inputs = self.processor(images=self.open(asked.picture), text=prompt, return_tensors="pt")
        ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=64)
        text = self.processor.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
        return Reply(text)


# ----------------------------------------------------------------------------- running


def write_pictures(folder: Path, seed: int, count: int, size: int, kinds: tuple[str, ...]) -> list[Asked]:
    from PIL import Image

    listing = []
    for index, item in enumerate(scenes.held_out_set(seed, count, size)):
        path = folder / f"{index:05d}.png"
        Image.fromarray(item.pixels).save(path)
        listing += [Asked(path, *q) for q in item.questions if q.kind in kinds]
    return listing


def run_setting(
    setting: Setting, listing: list[Asked], ask: Callable[[Asked, tuple[str, ...]], Reply],
    replies: dict[str, list[Reply]], pool: ThreadPoolExecutor,
) -> dict[str, object]:
    """Asks every question; remembers the replies for the controls that refer to them. Of
    several seeds the summary is that of all replies, and of each what share was right."""
    extra: list[tuple[str, ...]] = [()] * len(listing)
    if setting.as_many_as:
        extra = [("--keep", f"top_k:{reply.kept}") for reply in replies[setting.as_many_as]]
    together, by_seed = Row(), []
    for seed in range(setting.seeds):
        chance = ("--selection-seed", str(seed)) if setting.seeds > 1 else ()
        options = [setting.options + chance + more for more in extra]
        replies[setting.name] = list(pool.map(ask, listing, options))
        alone = Row()
        for asked, reply in zip(listing, replies[setting.name]):
            together.add(asked, reply)
            alone.add(asked, reply)
        by_seed.append(round(alone.summary().get("questions", 0.0), 3))
    return together.summary() | ({"by_seed": by_seed} if setting.seeds > 1 else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("driver", "transformers"), default="driver")
    parser.add_argument("--driver", type=Path, default=ROOT / "build/release/examples/llava/llava")
    parser.add_argument("--model", type=Path, default=ROOT / "models/demo")
    parser.add_argument("--table", choices=("dense", "main", "weights", "layers", "criteria", "all"), default="dense")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="matching layers of the layer table")
    parser.add_argument("--kinds", nargs="+", default=[*scenes.KINDS, "describe"])
    parser.add_argument("--count", type=int, default=100, help="pictures; a question of every kind for each")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--size", type=int, default=scenes.NATIVE_SIZE, help="side of the pictures in pixels")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON of all rows")
    args = parser.parse_args()

    tables = {
        "dense": main_table()[:1], "main": main_table(), "weights": weights_table(),
        "layers": layer_table(args.layers), "criteria": criteria_table(),
        "all": main_table() + weights_table() + layer_table(args.layers) + criteria_table(),
    }
    transformers = args.engine == "transformers"
    if transformers and args.table != "dense":
        parser.error("transformers runs the dense model only")
    engine = Transformers(args.model, args.jobs) if transformers else Driver(args.driver, args.model)
    results: dict[str, dict[str, object]] = {}
    replies: dict[str, list[Reply]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1 if transformers else args.jobs) as pool:
        listing = write_pictures(Path(folder), args.seed, args.count, args.size, tuple(args.kinds))
        for setting in tables[args.table]:
            results[setting.name] = run_setting(setting, listing, engine.ask, replies, pool)
            shown = {key: value if isinstance(value, list) else round(value, 3)
                     for key, value in results[setting.name].items()}
            print(setting.name, json.dumps(shown), flush=True)
            if args.out:
                args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
