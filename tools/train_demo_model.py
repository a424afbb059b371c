#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model: a real LLaVA-1.5 in everything but size.

The recipe is LLaVA's, in small, and its order is what makes a CPU enough:

1. `vision`   the CLIP tower alone, as a classifier of patches, through the features
              that LLaVA reads (the penultimate layer);
2. `align`    projector and decoder on a frozen tower, scenes of one or two things;
3. `instruct` the same on full scenes;
4. `joint`    everything, while the learning rate falls to zero.

A sequence holds one picture and many questions. Every question is a branch: it attends
to the prompt's beginning, the picture and itself, at the positions it would have alone.
So each question is supervised exactly as a first turn, and the picture is paid once.

    tools/train_demo_model.py --work build/demo_model --out models/demo

Interrupted runs resume from `--work`; the same seed draws the same pictures. On a CPU one
process per core, each with its share of the pictures, is much faster than one process
with several threads: the matrices are small, and a barrier after each costs more than
one sum of gradients a step.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AddedToken, CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlamaTokenizer, LlavaConfig,
    LlavaForConditionalGeneration, LlavaProcessor,
)

from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import demo_scenes as scenes
from demo_tokenizer import BOS, EOS, Prompt, train_tokenizer

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
PATCH = 8
GRID = scenes.NATIVE_SIZE // PATCH
TEXT_LENGTH = 256  # tokens of questions and answers after one picture
IGNORED = -100
GUIDED_LAYER, GUIDED_HEADS = 3, 2  # heads of the decoder that are shown where to look


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    The rate climbs over `warm` steps and falls over the last `decay` share of them.
    """

    name: str
    steps: int
    pictures: int
    max_things: int
    rate: float
    vision_rate: float
    warm: int
    decay: float

    def scale(self, step: int) -> float:
        """Linear warm-up, constant, then a linear fall to 2% at the end of the stage."""
        warm = min(1.0, (step + 1) / (self.warm + 1))
        left = (self.steps - step) / max(1, int(self.steps * self.decay))
        return warm * (min(1.0, max(0.02, left)) if self.decay else 1.0)


def stages(args: argparse.Namespace) -> tuple[Stage, ...]:
    return (
        Stage("vision", args.vision_steps, 64, scenes.MAX_THINGS, 0.0, 1e-3, 100, 0.5),
        Stage("align", args.align_steps, args.pictures, 2, args.rate, 0.0, 100, 0.0),
        Stage("instruct", args.instruct_steps, args.pictures, scenes.MAX_THINGS, args.rate, 0.0, 0, 0.0),
        Stage("joint", args.joint_steps, args.pictures, scenes.MAX_THINGS, args.rate, args.rate / 5, 0, 0.35),
    )


# ----------------------------------------------------------------------------- model


def build_model(prompt: Prompt) -> LlavaForConditionalGeneration:
    """Vision 5 layers (4 are used) x 128, decoder 6 layers x 128 with 640 neurons each."""
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=5, num_attention_heads=4,
        image_size=scenes.NATIVE_SIZE, patch_size=PATCH, projection_dim=128, hidden_act="quick_gelu",
    )
    text = LlamaConfig(
        vocab_size=prompt.rows, hidden_size=128, intermediate_size=640, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024,
        rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=prompt.pad,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=prompt.image,
        projector_hidden_act="gelu", vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_seq_length=GRID * GRID,
    )
    return LlavaForConditionalGeneration(config)


def vision_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """[pictures, patches, width]: `hidden_states[-2]` without the class token.

    Written out so that the last encoder layer, which LLaVA never reads, costs nothing.
    """
    tower = model.model.vision_tower
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    for layer in tower.encoder.layers[:-1]:
        hidden = layer(hidden, None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return hidden[:, 1:]


def decoder_states(
    model: LlavaForConditionalGeneration, batch: "Batch", features: Tensor
) -> tuple[Tensor, Tensor]:
    """Hidden states of the text after the picture, [pictures, TEXT_LENGTH, width], and how much
    attention guided heads pay from it to what stands before, [pictures, heads, TEXT_LENGTH, prefix]."""
    embed = model.get_input_embeddings()
    image = model.model.multi_modal_projector(features)
    before = embed(batch.before).expand(len(image), -1, -1)
    hidden = torch.cat([before, image, embed(batch.text)], 1)
    decoder = model.model.language_model
    rotation = decoder.rotary_emb(hidden, position_ids=batch.positions)
    for index, layer in enumerate(decoder.layers):
        if index == GUIDED_LAYER:
            guided = attention_to_prefix(layer, hidden, rotation, batch)
        hidden = layer(
            hidden, attention_mask=batch.mask, position_ids=batch.positions, position_embeddings=rotation
        )
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return decoder.norm(hidden)[:, -batch.text.shape[1]:], guided


class NeuronDropout:
    """Silences random neurons while answers are read, the same for a whole picture and layer.

    Large models have neurons to spare, which is what neuron sparsity lives on. A model this small
    uses every one unless it learns to do without some: up to `most` of them, a share drawn anew for
    each picture. Neurons of picture and question are never silenced, as in the method.
    """

    def __init__(self, model: LlavaForConditionalGeneration, most: float) -> None:
        self.most = most
        self.layers = model.model.language_model.layers
        for layer in self.layers:
            layer.mlp.down_proj.keep = None
            layer.mlp.down_proj.register_forward_pre_hook(_silence)

    def draw(self, batch: "Batch") -> None:
        """New silent neurons; `clear` brings them all back."""
        pictures, length = batch.positions.shape
        reading = torch.zeros(pictures, length, 1, device=batch.text.device)
        reading[:, -batch.text.shape[1] :, 0] = batch.reading
        share = self.most * torch.rand(pictures, 1, 1, device=reading.device)
        for layer in self.layers:
            neurons = layer.mlp.down_proj.in_features
            silent = (torch.rand(pictures, 1, neurons, device=reading.device) < share).float()
            layer.mlp.down_proj.keep = 1 - reading * silent

    def clear(self) -> None:
        for layer in self.layers:
            layer.mlp.down_proj.keep = None


def _silence(down_proj: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    return None if down_proj.keep is None else (inputs[0] * down_proj.keep,)


def attention_to_prefix(
    layer: nn.Module, hidden: Tensor, rotation: tuple[Tensor, Tensor], batch: "Batch"
) -> Tensor:
    """Log of the attention that the first GUIDED_HEADS heads of a layer pay from text to the tokens
    before the picture and to its patches."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    q, k = (
        project(normed).view(shape).transpose(1, 2)[:, :GUIDED_HEADS]
        for project in (attention.q_proj, attention.k_proj)
    )
    q, k = apply_rotary_pos_emb(q, k, *rotation)
    text = batch.text.shape[1]
    scores = q[:, :, -text:] @ k.transpose(2, 3) * attention.scaling + batch.mask[:, :, -text:]
    return scores.log_softmax(-1)[..., : batch.before.shape[1] + GRID * GRID]


# ----------------------------------------------------------------------------- batches


@dataclass
class Batch:
    """Pictures and packed questions; `answers` holds the next token or IGNORED."""

    pixels: Tensor     # [pictures, 3, size, size]
    before: Tensor     # [1, tokens before the picture]
    text: Tensor       # [pictures, TEXT_LENGTH]
    answers: Tensor    # [pictures, TEXT_LENGTH]
    asked: Tensor      # [pictures, TEXT_LENGTH], the same for the tokens of questions
    reading: Tensor    # [pictures, TEXT_LENGTH], 1 on the tokens of answers
    positions: Tensor  # [pictures, before + patches + TEXT_LENGTH]
    mask: Tensor       # [pictures, 1, length, length], 0 or -inf
    branch: Tensor     # [pictures, TEXT_LENGTH], index of the question, -1 on padding
    questions: list[list[scenes.Question]]


def to_pixels(pictures: np.ndarray) -> Tensor:
    """CLIP's normalisation of uint8 pictures [n, size, size, 3]."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(IMAGE_MEAN).view(3, 1, 1)) / torch.tensor(IMAGE_STD).view(3, 1, 1)


def branch_mask(branch: Tensor, prefix: int) -> Tensor:
    """Causal, and a question's branch sees the prefix and itself only."""
    n, length = branch.shape
    owner = torch.cat([torch.full((n, prefix), -2, device=branch.device), branch], 1)
    total = prefix + length
    same = owner[:, :, None] == owner[:, None, :]
    shared = torch.arange(total, device=branch.device)[None, None, :] < prefix
    causal = torch.ones(total, total, dtype=torch.bool, device=branch.device).tril()
    allowed = (same | shared) & causal
    return torch.zeros(allowed.shape, device=branch.device).masked_fill_(~allowed, -torch.inf)[:, None]


def pack(
    prompt: Prompt, questions: list[scenes.Question], length: int = TEXT_LENGTH
) -> tuple[np.ndarray, int]:
    """Rows of text, answers, offset in the branch, branch, asked, reading; and how many questions fitted."""
    rows = np.zeros((6, length), np.int64)
    rows[0], rows[1], rows[3], rows[4] = prompt.pad, IGNORED, -1, IGNORED
    at = used = 0
    for question in questions:
        asked, answer = prompt.question(question.question), prompt.answer(question.answer)
        end = at + len(asked) + len(answer)
        if end > length:
            break
        rows[0, at:end] = asked + answer
        rows[1, at + len(asked) - 1 : end - 1] = answer
        rows[2, at:end] = np.arange(end - at)
        rows[3, at:end] = used
        rows[4, at : at + len(asked) - 1] = asked[1:]
        rows[5, at + len(asked) : end] = 1
        at, used = end, used + 1
    return rows, used


def make_batch(
    prompt: Prompt, pictures: np.ndarray, asked: list[list[scenes.Question]], device: torch.device
) -> Batch:
    packed = [pack(prompt, questions) for questions in asked]
    text, answers, offset, branch, spoken, reading = torch.from_numpy(np.stack([rows for rows, _ in packed], 1)).to(device)
    before = torch.tensor([prompt.before_image()], device=device)
    prefix = before.shape[1] + GRID * GRID
    positions = torch.cat(
        [torch.arange(prefix, device=device).expand(len(text), -1), prefix + offset], 1
    )
    return Batch(
        to_pixels(pictures).to(device), before, text, answers, spoken, reading.float(), positions,
        branch_mask(branch, prefix), branch,
        [questions[:used] for questions, (_, used) in zip(asked, packed)],
    )


def training_questions(scene: scenes.Scene, rng: np.random.Generator) -> list[scenes.Question]:
    """Sometimes the description first, then all kinds in turn; those that are learned last,
    because they search the picture for a name, are asked twice as often."""
    kinds = scenes.KINDS + ("position", "existence", "count")
    questions = [scenes.ask(scene, rng, kinds[i]) for _ in range(2) for i in rng.permutation(len(kinds))]
    described = [scenes.describe(scene)] if rng.random() < 0.35 else []
    return described + [scenes.enumerate_things(scene, rng)] + questions


def training_batch(
    prompt: Prompt, stage: Stage, rng: np.random.Generator, count: int, device: torch.device
) -> tuple[Batch, list[scenes.Scene], np.ndarray]:
    # A single thing teaches nothing about finding one among others: one scene in eight will do.
    fewest = np.where(np.arange(count) % 8 == 0, 1, 2) if stage.rate else np.ones(count, int)
    drawn = [scenes.draw_scene(rng, stage.max_things, int(fewest[i])) for i in range(count)]
    pictures, owner = scenes.draw_pictures(drawn, rng)
    asked = [training_questions(scene, rng) for scene in drawn] if stage.rate else [[] for _ in drawn]
    return make_batch(prompt, pictures, asked, device), drawn, owner


# ----------------------------------------------------------------------------- losses


class PatchHeads(nn.Module):
    """What the tower is taught to say of a patch: colour, shape and place of the thing
    that covers it, whether the thing's centre lies in it, and the kind of background."""

    SIZES = (len(scenes.COLORS) + 1, len(scenes.SHAPES) + 1, len(scenes.PLACES) + 1, 2, len(scenes.BACKGROUNDS))

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, sum(self.SIZES))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return self.out(features).split(self.SIZES, -1)


def patch_labels(drawn: list[scenes.Scene], owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[5, pictures, patches]; class 0 of colour, shape, place and centre is "nothing". And the
    number of the thing that each patch shows, [pictures, patches], -1 where it shows none."""
    n = len(drawn)
    tiles = owner.reshape(n, GRID, PATCH, GRID, PATCH)
    cover = np.stack([(tiles == i).sum((2, 4)) for i in range(scenes.MAX_THINGS)], -1)
    thing = np.where(cover.max(-1) >= PATCH * PATCH // 4, cover.argmax(-1), -1)
    labels = np.zeros((5, n, GRID, GRID), np.int64)
    for picture, scene in enumerate(drawn):
        labels[4, picture] = scene.background
        for index, t in enumerate(scene.things):
            row, column = int(t.y * GRID), int(t.x * GRID)
            thing[picture, row, column] = index
            labels[3, picture, row, column] = 1
            labels[:3, picture, thing[picture] == index] = np.array([[t.color], [t.shape], [t.place]]) + 1
    return labels.reshape(5, n, GRID * GRID), thing.reshape(n, GRID * GRID)


def patch_loss(heads: PatchHeads, features: Tensor, labels: Tensor) -> tuple[Tensor, list[float]]:
    """Sum of the five cross entropies; patches of nothing weigh less, as they are many."""
    loss, accuracy = features.new_zeros(()), []
    for index, (logits, label) in enumerate(zip(heads(features), labels)):
        weight = torch.where((label == 0) & (index < 4), 0.25, 1.0)
        each = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
        loss = loss + (each * weight.flatten()).sum() / weight.sum()
        known = (label > 0) | (index == 4)
        accuracy.append((logits.argmax(-1) == label)[known].float().mean().item())
    return loss, accuracy


def alignment_loss(model: LlavaForConditionalGeneration, prompt: Prompt, features: Tensor, labels: Tensor) -> Tensor:
    """Has a projected patch resemble the words for its colour and its shape.

    Cross entropy of its products with the words' embeddings. Then one attention pattern,
    "look for what resembles this word", finds things of every colour and shape.
    """
    image = model.model.multi_modal_projector(features)
    loss = features.new_zeros(())
    for label, names in zip(labels, (scenes.COLOR_NAMES, scenes.SHAPE_NAMES)):
        ids = torch.tensor([prompt.sp.piece_to_id("▁" + name) for name in names], device=features.device)
        words = F.normalize(model.get_input_embeddings()(ids), dim=-1)
        logits = 10 * F.normalize(image[label > 0], dim=-1) @ words.T
        loss = loss + F.cross_entropy(logits, label[label > 0] - 1)
    return loss


def guidance_targets(batch: Batch, drawn: list[scenes.Scene], thing: np.ndarray) -> Tensor:
    """[pictures, TEXT_LENGTH, prefix]: true on the patches of the things that a question is about,
    where its answer is predicted. Where it names something that is not there, true on the tokens
    before the picture: a place to look when nothing fits tells "no" from "yes"."""
    branch, answering = batch.branch.cpu().numpy(), (batch.answers != IGNORED).cpu().numpy()
    before = batch.before.shape[1]
    targets = np.zeros((*branch.shape, before + thing.shape[1]), bool)
    for picture, (scene, asked) in enumerate(zip(drawn, batch.questions)):
        for index, question in enumerate(asked):
            about = scenes.things_asked_about(scene, question)
            if about is None:
                continue
            rows = (branch[picture] == index) & answering[picture]
            targets[picture, rows, :before] = not about
            targets[picture, rows, before:] = np.isin(thing[picture], about)
    return torch.from_numpy(targets)


def guidance_loss(guided: Tensor, targets: Tensor) -> Tensor:
    """-log of the attention that guided heads pay to the right tokens, per answering token.

    Finding a thing by its name takes layers that fit together: one gathers the name, one
    looks for it. Shown where to look, they do so within hundreds of steps; without, colours
    and shapes were still guessed among the things that are there after thousands.
    """
    rows = targets.any(-1)
    found = guided.masked_fill(~targets[:, None], -torch.inf).transpose(1, 2)[rows].logsumexp(-1)
    return -found.clamp(min=-20).mean()


def answer_loss(
    model: LlavaForConditionalGeneration, batch: Batch, features: Tensor, targets: Tensor
) -> Tensor:
    """Cross entropy of answers and their ends; that of questions, at a fraction, on top.

    A question names things that are there: guessing its next word ("the red ...") is the
    shortest lesson in finding a thing by its name, and without it that is learned late.
    """
    hidden, guided = decoder_states(model, batch, features)
    losses = []
    for target in (batch.answers, batch.asked):
        at = target != IGNORED
        losses.append(F.cross_entropy(model.lm_head(hidden[at]), target[at]))
    return losses[0] + 0.3 * losses[1] + 0.3 * guidance_loss(guided, targets)


# ----------------------------------------------------------------------------- held out


@torch.no_grad()
def accuracy(
    model: LlavaForConditionalGeneration, prompt: Prompt, seed: int, count: int, device: torch.device
) -> dict[str, float]:
    """Share of answers that greedy decoding gets right to the letter, per kind.

    Greedy decoding is right exactly when every token of the answer is the argmax after
    the right tokens before it, so one forward pass over the packed questions decides.
    """
    right: dict[str, list[bool]] = {}
    items = scenes.held_out_set(seed, count)
    for start in range(0, count, 50):
        part = items[start : start + 50]
        for half in (slice(0, 3), slice(3, None)):  # all six would not fit one sequence
            pixels = np.stack([item.pixels for item in part])
            batch = make_batch(prompt, pixels, [list(i.questions[half]) for i in part], device)
            hidden, _ = decoder_states(model, batch, vision_features(model, batch.pixels))
            hit = (model.lm_head(hidden)[..., : prompt.image].argmax(-1) == batch.answers) | (
                batch.answers == IGNORED
            )
            for row, questions in enumerate(batch.questions):
                for index, question in enumerate(questions):
                    ok = bool(hit[row][batch.branch[row] == index].all())
                    right.setdefault(question.kind, []).append(ok)
    result = {kind: float(np.mean(values)) for kind, values in right.items()}
    result["questions"] = float(np.mean(sum((right[kind] for kind in scenes.KINDS), [])))
    return result


# ----------------------------------------------------------------------------- optimiser


def orthogonalize(update: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, nearly: five Newton-Schulz steps."""
    wide = update if update.shape[0] <= update.shape[1] else update.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if update.shape[0] <= update.shape[1] else x.T


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal (Jordan et al., 2024), for the decoder's matrices.

    It needs clearly fewer pictures than AdamW. Updates are scaled to AdamW's usual size
    (Liu et al., 2025, arXiv 2502.16982), so one learning rate serves both. Each process
    orthogonalises its share of the matrices, and one sum hands the results around.
    """

    def __init__(self, params: list[nn.Parameter], rank: int, processes: int) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": 0.05, "momentum": 0.95, "vision": False})
        self.rank, self.processes = rank, processes

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            updates = [self._update(i, p, group["momentum"]) for i, p in enumerate(params)]
            if self.processes > 1:
                flat = torch.cat([update.flatten() for update in updates])
                dist.all_reduce(flat)
                updates = [u.view_as(p) for u, p in zip(flat.split([p.numel() for p in params]), params)]
            for p, update in zip(params, updates):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * max(p.shape) ** 0.5)

    def _update(self, index: int, p: nn.Parameter, momentum: float) -> Tensor:
        buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - momentum)
        if index % self.processes != self.rank:
            return torch.zeros_like(p)
        return orthogonalize(p.grad.lerp(buffer, momentum))


# ----------------------------------------------------------------------------- training


class Trainer:
    """Model, optimiser and progress; everything that a checkpoint holds."""

    def __init__(self, args: argparse.Namespace, tokenizer: bytes, rank: int = 0) -> None:
        torch.manual_seed(args.seed)
        self.rank = rank
        self.args = args
        self.device = torch.device(args.device)
        self.prompt = Prompt(tokenizer)
        self.model = build_model(self.prompt).to(self.device)
        self.heads = PatchHeads(128).to(self.device)
        self.log: list[dict] = []
        self.done: dict[str, int] = {}
        self.seconds = 0.0
        self.dropout = NeuronDropout(self.model, args.neuron_dropout)
        self.optimizers = self._optimizers()
        if args.compile:
            for layer in self.model.model.language_model.layers:
                layer.compile()
            for layer in self.model.model.vision_tower.encoder.layers:
                layer.compile()

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of decoder and projector, AdamW for all else.

        Of AdamW's parameters matrices decay; vectors and embeddings do not.
        """
        muon: list[nn.Parameter] = []
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        named = [*self.model.named_parameters(), *self.heads.named_parameters(prefix="vision_tower.heads")]
        for name, parameter in named:
            vision, matrix = "vision_tower" in name, parameter.ndim > 1 and "embed" not in name
            if matrix and not vision and "lm_head" not in name:
                muon.append(parameter)
            else:
                groups.setdefault((vision, matrix), []).append(parameter)
        adam = torch.optim.AdamW(
            [
                {"params": params, "weight_decay": 0.05 if matrix else 0.0, "vision": vision}
                for (vision, matrix), params in groups.items()
            ],
            betas=(0.9, 0.98), eps=1e-8, fused=True,
        )
        return [adam, Muon(muon, self.rank, self.args.processes)]

    @property
    def checkpoint(self) -> Path:
        return self.args.work / "checkpoint.pt"

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(), "heads": self.heads.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers], "log": self.log, "done": self.done,
            "seconds": self.seconds,
        }
        partial = self.checkpoint.with_suffix(".tmp")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
        (self.args.work / "log.json").write_text(json.dumps(self.log))

    def resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.log, self.done, self.seconds = state["log"], state["done"], state["seconds"]

    def loss(self, stage: Stage, step: int) -> tuple[Tensor, list[float]]:
        stream = [ord(stage.name[0]), step, self.rank]  # never shared by stages or processes
        rng = scenes.training_rng(self.args.seed, *stream)
        count = stage.pictures // self.args.processes
        batch, drawn, owner = training_batch(self.prompt, stage, rng, count, self.device)
        with torch.set_grad_enabled(stage.vision_rate > 0):
            features = vision_features(self.model, batch.pixels)
        loss, detail = features.new_zeros(()), []
        labels, thing = patch_labels(drawn, owner)
        labels = torch.from_numpy(labels).to(self.device)
        if stage.vision_rate:
            loss, detail = patch_loss(self.heads, features, labels)
        if stage.rate:
            aligned = alignment_loss(self.model, self.prompt, features, labels)
            if stage.vision_rate:
                self.dropout.draw(batch)
            targets = guidance_targets(batch, drawn, thing).to(self.device)
            loss = answer_loss(self.model, batch, features, targets) + 0.1 * loss + 0.2 * aligned
            detail.append(aligned.item())
        return loss, detail

    def average_gradients(self) -> None:
        """One sum over the processes for all gradients together."""
        if self.args.processes == 1:
            return
        modules = (self.model, self.heads)
        grads = [p.grad for m in modules for p in m.parameters() if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= self.args.processes
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads])):
            grad.copy_(mean.view_as(grad))

    def step(self, stage: Stage, step: int) -> tuple[float, list[float]]:
        for group in sum((optimizer.param_groups for optimizer in self.optimizers), []):
            rate = stage.vision_rate if group["vision"] else stage.rate
            group["lr"] = rate * stage.scale(step)
        loss, detail = self.loss(stage, step)
        loss.backward()
        self.dropout.clear()
        self.average_gradients()
        nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item(), detail

    def run(self, stage: Stage) -> None:
        losses: list[float] = []
        since = saved = time.monotonic()
        for step in range(self.done.get(stage.name, 0), stage.steps):
            value, detail = self.step(stage, step)
            losses.append(value)
            self.done[stage.name] = step + 1
            last = step + 1 == stage.steps
            if self.rank == 0 and ((step + 1) % self.args.report == 0 or last):
                now = time.monotonic()
                self.seconds += now - since
                entry = {"stage": stage.name, "step": step + 1, "minutes": round(self.seconds / 60, 2),
                         "loss": round(float(np.mean(losses)), 4)}
                if detail:
                    entry["patches"] = [round(x, 3) for x in detail]
                if stage.rate and ((step + 1) % (8 * self.args.report) == 0 or last):
                    found = accuracy(self.model, self.prompt, self.args.seed + 1000, 100, self.device)
                    entry["held_out"] = {kind: round(x, 3) for kind, x in found.items()}
                self.log.append(entry)
                print(json.dumps(entry), f"{len(losses) / (now - since):.2f} steps/s", flush=True)
                losses, since = [], time.monotonic()
            if self.rank == 0 and (time.monotonic() - saved > 120 or last):
                self.save()
                saved = time.monotonic()


# ----------------------------------------------------------------------------- export


def export_processor(out: Path, tokenizer: bytes, prompt: Prompt) -> None:
    """Tokenizer and image processor in the files that llava-1.5 checkpoints have."""
    (out / "tokenizer.model").write_bytes(tokenizer)
    text = LlamaTokenizer.from_pretrained(out, legacy=True, add_bos_token=True)
    text.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    text.add_special_tokens({"pad_token": AddedToken("<pad>", normalized=False, special=True)})
    side = scenes.NATIVE_SIZE
    image = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    LlavaProcessor(
        image_processor=image, tokenizer=text, patch_size=PATCH,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    ).save_pretrained(out)
    image.save_pretrained(out)
    added = {"<image>": prompt.image, "<pad>": prompt.pad}
    (out / "added_tokens.json").write_text(json.dumps(added, indent=2) + "\n")


def export(model: LlavaForConditionalGeneration, prompt: Prompt, tokenizer: bytes, out: Path) -> None:
    """Writes the checkpoint in float16, as llava-1.5 is published."""
    out.mkdir(parents=True, exist_ok=True)
    export_processor(out, tokenizer, prompt)
    half = build_model(prompt)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out)


def keep_freed_memory() -> None:
    """Has worker processes reuse freed memory: by default glibc returns every large buffer
    to the system, and half of an elementwise operation is spent on fresh pages."""
    os.environ["GLIBC_TUNABLES"] = ":".join(
        f"glibc.malloc.{name}"
        for name in ("mmap_max=0", "arena_max=1", "trim_threshold=17179869184", "hugetlb=1")
    )


def work(rank: int, args: argparse.Namespace, rendezvous: str) -> None:
    """One process: the whole recipe on its share of the pictures."""
    torch.set_num_threads(args.threads)
    if args.processes > 1:
        dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=args.processes)
    tokenizer = train_tokenizer()
    trainer = Trainer(args, tokenizer, rank)
    if trainer.checkpoint.exists():
        trainer.resume()
    for stage in stages(args):
        trainer.run(stage)
    if rank == 0:
        export(trainer.model, trainer.prompt, tokenizer, args.out)
    if args.processes > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/demo_model"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=Path("models/demo"), help="the finished model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, default=2, help="1 on a GPU")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--pictures", type=int, default=16, help="pictures in a step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--neuron-dropout", type=float, default=0.7, help="largest share, in the joint stage")
    parser.add_argument("--vision-steps", type=int, default=700)
    parser.add_argument("--align-steps", type=int, default=500)
    parser.add_argument("--instruct-steps", type=int, default=3000)
    parser.add_argument("--joint-steps", type=int, default=2000)
    parser.add_argument("--report", type=int, default=25, help="steps between lines of the log")
    args = parser.parse_args()

    args.work.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (args, f"{folder}/rendezvous"), args.processes)


if __name__ == "__main__":
    main()
