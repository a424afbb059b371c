#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what leaving neurons and tokens out costs, and writes docs/accuracy.md with its pictures:

    measure_accuracy.py --work DIR [--models DIR] [--tokens N] [--safe-tokens N] [--uncalibrated NAME ...]

The demo model answers 500 questions about pictures that it never saw, and describes them; each text model foretells a
public text. Text models are what fetch_text_models.py writes to --models, texts what make_evaluation_texts.py writes to
--models/texts. Every policy for neurons is measured on --tokens tokens; the driver's default, without a calibration and after `llava
calibrate` on the other text, on --safe-tokens. --work keeps figures and states: a second start goes on where the first ended, and
with all of them there only writes the page. It takes hours on two cores. Needs numpy, pillow, safetensors and matplotlib.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).resolve().parent))
import core_neuron_growth  # noqa: E402, from beside this file

SEEDS = 5  # of chance
KEPT = (60, 50, 25, 12)
PICTURES = 100
QUESTIONS = ("color", "shape", "position", "count", "existence")
PLANES = "q8_0_planes"


@dataclass(frozen=True)
class TextModel:
    directory: str
    title: str
    middle_layers: str  # without the first and last fifth


TEXT_MODELS = (
    TextModel("smollm2-135m", "SmolLM2-135M-Instruct", "6:24"),
    TextModel("qwen2.5-coder-0.5b", "Qwen2.5-Coder-0.5B-Instruct", "5:20"),
)

Runs = dict[str, dict[str, Any]]


def run(command: Iterable[object]) -> None:
    subprocess.run([str(part) for part in command], check=True)


def measured(driver: Path, work: Path, name: str, options: list[object], configurations: dict[str, str]) -> Runs:
    """The runs of one call of llava measure by their names; the figures of an earlier call are taken."""
    figures = work / f"{name}.json"
    if not figures.exists():
        command = [driver, "measure", *options, "--state", work / f"{name}.state", "--json", figures]
        for label, how in configurations.items():
            command += ["--config", f"{label}: {how}"]
        run(command)
    return {found["name"]: found for found in json.loads(figures.read_text())["runs"]}


# ------------------------------------------------------------------------------ demo


def token_configurations() -> dict[str, str]:
    tokens = "--sparsity tokens"
    rules = {
        "overlap": tokens,
        "rarity": f"{tokens} --criterion rarity",
        "rarity, anchor": f"{tokens} --criterion rarity --reference anchor",
        "contrast": f"{tokens} --criterion contrast",
        "attention": f"{tokens} --criterion attention",
        "projection": f"{tokens} --criterion projection",
    }
    found = {f"{rule}, elbow": how for rule, how in rules.items()}
    for kept in KEPT:
        found |= {f"{rule}, {kept}": f"{how} --keep top_k:{kept}" for rule, how in rules.items()}
        found[f"duplication, {kept}"] = f"--thin duplication --thin-keep top_k:{kept}"
        for seed in range(SEEDS):
            found[f"chance, {kept}, seed {seed}"] = (
                f"{tokens} --criterion random --keep top_k:{kept} --selection-seed {seed}"
            )
    return found


def demo_configurations() -> dict[str, str]:
    found = {"paper": "--preset paper"}
    for beta in ("0.4", "0.2"):
        found[f"frequency {beta}"] = f"--sparsity neurons --beta {beta}"
        found[f"gate {beta}"] = f"--sparsity neurons --neurons gate --beta {beta}"
    found["frequency 0.2, counted over text"] = "--sparsity neurons --beta 0.2 --count-over text"
    found["frequency 0.2, later layers"] = "--sparsity neurons --beta 0.2 --neuron-layers 2:6"
    found["rarity and frequency 0.4"] = "--sparsity both --criterion rarity"
    return found | token_configurations()


def write_questions(folder: Path) -> dict[str, Path]:
    """Questions and descriptions about the pictures of evaluate_demo_model.py, as llava measure reads them."""
    import evaluate_demo_model

    folder.mkdir(exist_ok=True)
    asked = evaluate_demo_model.write_pictures(folder, 2026, PICTURES, evaluate_demo_model.scenes.NATIVE_SIZE,
                                               (*QUESTIONS, "describe"))
    paths = {"questions": folder / "questions.jsonl", "descriptions": folder / "descriptions.jsonl"}
    for name, path in paths.items():
        chosen = [one for one in asked if (one.kind == "describe") == (name == "descriptions")]
        path.write_text("".join(
            json.dumps({"image": one.picture.name, "question": one.question, "answer": one.answer}) + "\n"
            for one in chosen))
    return paths


def measure_demo(driver: Path, work: Path) -> dict[str, Runs]:
    paths = write_questions(work / "demo")
    found = {}
    for name, path in paths.items():
        options = ["--model", ROOT / "models/demo", "--questions", path, "--threads", 1]
        found[name] = measured(driver, work, f"demo-{name}", options, demo_configurations())
        found[name] |= measured(driver, work, f"demo-{name}-default", options, {"default": "--preset default"})
        planes = measured(driver, work, f"demo-{name}-planes", [*options, "--weights", PLANES], {"default": "--preset default"})
        found[name]["default, weights in planes"] = planes["default"]
    return found


# ------------------------------------------------------------------------------ text models


def neuron_configurations(model: TextModel) -> dict[str, str]:
    neurons = "--sparsity neurons"
    found = {f"frequency {beta}": f"{neurons} --beta {beta}" for beta in ("0.2", "0.4", "0.6")}
    found["frequency 0.4, middle layers"] = f"{neurons} --beta 0.4 --neuron-layers {model.middle_layers}"
    found |= {f"magnitude {beta}": f"{neurons} --statistic magnitude --beta {beta}" for beta in ("0.2", "0.4", "0.6")}
    found["plain gate 0.5"] = f"{neurons} --neurons gate:plain --beta 0.5"
    found |= {f"gate {beta}": f"{neurons} --neurons gate --beta {beta}" for beta in ("0.4", "0.5", "0.6", "0.7")}
    found |= {
        f"predicted {beta}": f"{neurons} --neurons predicted --beta {beta}"
        for beta in ("0.3", "0.4", "0.5", "0.6", "0.7")
    }
    return found


def calibrated_copy(driver: Path, work: Path, models: Path, model: TextModel) -> Path:
    """The checkpoint by links, with a calibration of its own beside it."""
    copy = work / model.directory
    copy.mkdir(exist_ok=True)
    for file in (models / model.directory).iterdir():
        if not (copy / file.name).exists() and not file.name.endswith(".calibration.json"):
            (copy / file.name).symlink_to(file.resolve())
    if not list(copy.glob(f"corematching-predicted-{PLANES}.calibration.json")):
        run([driver, "calibrate", "--model", copy, "--weights", PLANES, "--text", models / "texts/calibrate.txt",
             "--layer-tokens", 512, "--tokens", 4096])
    return copy


def measure_text(driver: Path, work: Path, models: Path, model: TextModel, tokens: int, safe_tokens: int,
                 calibrate: bool) -> Runs:
    options = ["--text", models / "texts/score.txt", "--weights", PLANES, "--timed-steps", 2]
    plain = ["--model", models / model.directory, *options]
    found = measured(driver, work, f"{model.directory}-policies", [*plain, "--tokens", tokens], neuron_configurations(model))
    default = measured(driver, work, f"{model.directory}-default", [*plain, "--tokens", safe_tokens],
                       {"default": "--preset default"})
    found["default"] = default["default"]
    if calibrate:
        copy = calibrated_copy(driver, work, models, model)
        calibrated = measured(driver, work, f"{model.directory}-calibrated",
                              ["--model", copy, *options, "--tokens", safe_tokens], {"calibrated": "--preset default"})
        found["calibrated"] = calibrated["calibrated"]
    return found


# ------------------------------------------------------------------------------ the page


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def accuracy(found: dict[str, Any]) -> float:
    return found["exact_answers"] / found["answers"]


def kept(found: dict[str, Any]) -> float:
    return found["kept_image_tokens"] / found["answers"]


def of_chance(runs: Runs, tokens: int) -> list[float]:
    return [accuracy(runs[f"chance, {tokens}, seed {seed}"]) for seed in range(SEEDS)]


def demo_rows(demo: dict[str, Runs], names: Iterable[str]) -> list[list[str]]:
    questions, descriptions = demo["questions"], demo["descriptions"]
    return [
        [name, percent(accuracy(questions[name])), percent(accuracy(descriptions[name])), f"{kept(questions[name]):.1f}",
         percent(questions[name]["ffn_bytes_to_dense"])]
        for name in names
    ]


def criteria_rows(runs: Runs) -> list[list[str]]:
    rows = []
    for rule in ("overlap", "rarity", "rarity, anchor", "contrast", "attention", "projection"):
        elbow = runs[f"{rule}, elbow"]
        rows.append([rule, f"{percent(accuracy(elbow))}, {kept(elbow):.1f}",
                     *(percent(accuracy(runs[f"{rule}, {tokens}"])) for tokens in KEPT)])
    rows.append(["duplication, before the decoder", "",
                 *(percent(accuracy(runs[f"duplication, {tokens}"])) for tokens in KEPT)])
    spread = [of_chance(runs, tokens) for tokens in KEPT]
    rows.append(["chance, five seeds", "",
                 *(f"{percent(sum(s) / len(s))} ({percent(min(s))} to {percent(max(s))})" for s in spread)])
    return rows


def text_rows(runs: Runs) -> list[list[str]]:
    return [
        [name, f"{found['perplexity_to_dense']:.3f}", f"{found['kl_divergence']:.3f}", percent(found["top1_agreement"]),
         percent(found["ffn_bytes_to_dense"]), f"{found['tokens']:,}"]
        for name, found in runs.items()
    ]


def series_of(runs: Runs, policy: str) -> list[tuple[float, float]]:
    return [
        (found["ffn_bytes_to_dense"], found["perplexity_to_dense"])
        for name, found in runs.items() if name.removeprefix(policy + " ").replace(".", "").isdigit()
    ]


def draw_perplexity(texts: dict[str, Runs], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(texts), figsize=(5 * len(texts), 3.6), sharey=True, squeeze=False)
    for axis, (title, runs) in zip(axes[0], texts.items()):
        for policy in ("frequency", "magnitude", "gate", "predicted"):
            if points := series_of(runs, policy):
                axis.plot(*zip(*points), marker="o", label=policy)
        for name, mark in (("default", "k*"), ("calibrated", "r*")):
            if name in runs:
                axis.plot(runs[name]["ffn_bytes_to_dense"], runs[name]["perplexity_to_dense"], mark, markersize=12, label=name)
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.set(title=title, xlabel="bytes of feed-forward weights read, of dense", yscale="log")
    axes[0][0].set_ylabel("perplexity, of dense")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_growth(growths: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.6))
    for title, rows in growths.items():
        tokens = [row["tokens"] for row in rows]
        (line,) = axis.plot(tokens, [row["found"] for row in rows], marker="o", label=title)
        axis.plot(tokens, [row["chance"] for row in rows], linestyle=":", color=line.get_color(), label="chance")
    axis.set(xlabel="tokens of the prompt", ylabel="of the longest prompt's core neurons", xscale="log", ylim=(0, 1.03))
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_tokens(runs: Runs, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.6))
    for rule in ("overlap", "rarity", "contrast", "attention", "duplication"):
        axis.plot(KEPT, [accuracy(runs[f"{rule}, {tokens}"]) for tokens in KEPT], marker="o", label=rule)
    spread = [of_chance(runs, tokens) for tokens in KEPT]
    middle = [sum(s) / len(s) for s in spread]
    axis.errorbar(KEPT, middle, [[m - min(s) for m, s in zip(middle, spread)], [max(s) - m for m, s in zip(middle, spread)]],
                  color="grey", marker="s", capsize=3, label="chance")
    axis.axhline(accuracy(runs["dense"]), color="black", linewidth=0.8)
    axis.set(xlabel="image tokens kept of 100", ylabel="right answers", ylim=(0, 1.03))
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(demo: dict[str, Runs], texts: dict[str, Runs]) -> str:
    main = ["dense", "default", "default, weights in planes", "rarity, elbow", "gate 0.4", "frequency 0.4", "frequency 0.2",
            "frequency 0.2, counted over text", "frequency 0.2, later layers", "rarity and frequency 0.4",
            "overlap, elbow", "paper"]
    parts = [
        "# What leaving things out costs\n",
        "Written by `tools/measure_accuracy.py`, which runs `llava calibrate` and `llava measure`. "
        "The driver's default (`--preset default`) stands beside the paper's setting (`--preset paper`), every policy by itself, "
        "and controls: dense, and chance at equal counts.\n",
        "## Neurons: two text models that nobody trained for it\n",
        "Perplexity beside the dense model's, over the second halves of chunks of 512 tokens of public text (licences, manuals, "
        "docstrings, notes: `tools/make_evaluation_texts.py`), prompts dense, weights in `q8_0_planes`. Fetched by "
        "`tools/fetch_text_models.py`. A number behind a policy is its β in all layers; `default` is the driver's without a calibration, "
        "`calibrated` after `llava calibrate` on another text with its tolerance of 1%. *KL* is the mean divergence from the dense predictions in nats, "
        "*FFN bytes* what decoding reads of the feed-forward weights.\n",
        "![Perplexity over bytes read, for each policy](perplexity.png)\n",
    ]
    for title, runs in texts.items():
        parts += [f"### {title}\n",
                  table(["policy", "perplexity", "KL", "same first choice", "FFN bytes", "tokens scored"], text_rows(runs))]
    parts += [
        "### How soon core neurons are known\n",
        "What the beginnings of a prompt find of its core neurons (the paper's, β = 0.4), means over layers and eight texts: the "
        "paper's Figure 2 on these models. Random neurons, as many as each beginning finds, would hold the dotted shares.\n",
        "![Core neurons over prompt length](core_neuron_growth.png)\n",
        "## Tokens and neurons: the demo model\n",
        f"{PICTURES} pictures that it never saw, a question of each of five kinds and a description of each, right to the letter. "
        "The model has 100 image tokens; they are dropped after layer 2 of 6. It was trained with neuron dropout, so what it says "
        "about neurons holds for no other model ([demo_model.md](demo_model.md)).\n",
        table(["", "questions", "descriptions", "image tokens", "FFN bytes"], demo_rows(demo, main)),
        "Which image tokens, by each score: right answers and tokens kept by the elbow of the scores, and right answers where a "
        "number of tokens is kept.\n",
        "![Right answers over image tokens kept, for each score](tokens_kept.png)\n",
        table(["score", "elbow", *(f"{tokens} kept" for tokens in KEPT)], criteria_rows(demo["questions"])),
    ]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", type=Path, help="default: WORK/models")
    parser.add_argument("--driver", type=Path, default=ROOT / "build/release/examples/llava/llava")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--safe-tokens", type=int, default=51200)
    parser.add_argument("--uncalibrated", nargs="+", default=[], help="models that are not calibrated, which takes longest")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    models = args.models or args.work / "models"
    if not models.exists():
        run([sys.executable, ROOT / "tools/fetch_text_models.py", models])
        run([sys.executable, ROOT / "tools/make_evaluation_texts.py", models / "texts"])
    demo = measure_demo(args.driver, args.work)
    texts = {
        model.title: measure_text(args.driver, args.work, models, model, args.tokens, args.safe_tokens,
                                  model.directory not in args.uncalibrated)
        for model in TEXT_MODELS
    }
    growths = {
        model.title: core_neuron_growth.measured_growth(args.driver, models / model.directory, PLANES, models / "texts/score.txt",
                                                        args.work / f"{model.directory}-growth.json")
        for model in TEXT_MODELS
    }
    docs = ROOT / "docs"
    draw_growth(growths, docs / "core_neuron_growth.png")
    draw_perplexity(texts, docs / "perplexity.png")
    draw_tokens(demo["questions"], docs / "tokens_kept.png")
    (docs / "accuracy.md").write_text(page(demo, texts))


if __name__ == "__main__":
    main()
