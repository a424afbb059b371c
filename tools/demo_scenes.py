#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of the demo model and asks questions whose answers are known.

A scene holds one to three things on a three-by-three grid of places, each with a
colour and a shape, on a plain, gradient, striped or dotted background with noise.
Answers follow from the scene, so there is no data set to ship: training draws from
one family of random streams and evaluation from another (`training_rng`,
`held_out_rng`), which never meet.

As a program it writes a held-out set:

    tools/demo_scenes.py --out DIR --count N --seed S [--size PIXELS]

`DIR` then holds PNG files and `questions.json`, a list of
`{"kind", "question", "answer", "picture"}`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, NamedTuple, Sequence

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "green": (40, 165, 65),
    "blue": (45, 80, 220),
    "yellow": (245, 220, 50),
    "orange": (250, 135, 25),
    "purple": (150, 60, 190),
    "white": (247, 247, 247),
    "black": (14, 14, 14),
}
SHAPES: dict[str, str] = {  # singular: plural
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
}
PLACES: tuple[str, ...] = (
    "at the top left", "at the top", "at the top right",
    "at the left", "at the center", "at the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)
BACKGROUNDS: tuple[str, ...] = ("plain", "gradient", "striped", "dotted")
NUMBERS: tuple[str, ...] = ("zero", "one", "two", "three")
KINDS: tuple[str, ...] = ("color", "shape", "position", "count", "existence")
DESCRIBE = "Describe the image."
MAX_THINGS = 3
NATIVE_SIZE = 80

COLOR_NAMES = tuple(COLORS)
SHAPE_NAMES = tuple(SHAPES)


class Thing(NamedTuple):
    """One shape; lengths are fractions of the picture's side, the angle is in radians."""

    color: int
    shape: int
    place: int
    x: float
    y: float
    radius: float
    angle: float

    @property
    def name(self) -> str:
        return f"{COLOR_NAMES[self.color]} {SHAPE_NAMES[self.shape]}"


@dataclass(frozen=True)
class Scene:
    """Things in reading order of their places, and what lies behind them."""

    things: tuple[Thing, ...]
    background: int


class Question(NamedTuple):
    kind: str
    question: str
    answer: str


def training_rng(seed: int, *stream: int) -> np.random.Generator:
    """The stream of one training step: resuming at a step redraws the same pictures."""
    return np.random.default_rng([0, seed, *stream])


def held_out_rng(seed: int) -> np.random.Generator:
    """A stream that no training step can share: its first entropy word differs."""
    return np.random.default_rng([1, seed])


# --------------------------------------------------------------------------- scenes


def draw_scene(rng: np.random.Generator, max_things: int = MAX_THINGS, min_things: int = 1) -> Scene:
    """A random scene. No two things agree in both colour and shape, so each has a name.

    Half of the scenes use few colours and shapes: otherwise a colour or a shape would
    rarely repeat and every count would be one.
    """
    count = int(rng.integers(min_things, max_things + 1))
    few = rng.random() < 0.5
    colors = rng.permutation(len(COLORS))[: 2 if few else len(COLORS)]
    shapes = rng.permutation(len(SHAPES))[: 2 if few else len(SHAPES)]
    pairs = rng.permutation(len(colors) * len(shapes))[:count]
    places = np.sort(rng.permutation(len(PLACES))[:count])
    things = []
    for pair, place in zip(pairs, places):
        radius = rng.uniform(0.115, 0.15)
        slack = 0.163 - radius  # a thing never leaves its ninth of the picture
        dx, dy = rng.uniform(-slack, slack, 2)
        things.append(
            Thing(
                color=int(colors[pair % len(colors)]),
                shape=int(shapes[pair // len(colors)]),
                place=int(place),
                x=(place % 3 + 0.5) / 3 + dx,
                y=(place // 3 + 0.5) / 3 + dy,
                radius=radius,
                angle=rng.uniform(-0.2, 0.2),
            )
        )
    return Scene(tuple(things), int(rng.integers(len(BACKGROUNDS))))


# -------------------------------------------------------------------------- pictures


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.95


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    y = y - 0.17
    slanted = np.abs(x) * (np.sqrt(3) / 2) - y / 2
    return np.maximum(slanted, y) - 0.58


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five points: fold the plane into one tenth, then one edge is a straight line."""
    sector = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + sector, 2 * sector) - sector)
    distance = np.hypot(x, y)
    tip = 1.05
    edge = np.array([0.45 * np.cos(sector) - tip, 0.45 * np.sin(sector)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return (distance * np.cos(angle) - tip) * normal[0] + distance * np.sin(angle) * normal[1]


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 0.95, y - 0.3), np.maximum(x - 0.3, y - 0.95))


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.71) - 0.25


# Signed distances to the outlines, in radii; the order is that of SHAPES.
OUTLINES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    _circle, _square, _triangle, _star, _cross, _ring,
)


def _backgrounds(scenes: Sequence[Scene], size: int, rng: np.random.Generator) -> np.ndarray:
    """Muted colours mixed by a pattern: [pictures, size, size, 3], values in 0 to 1."""
    n = len(scenes)
    base = rng.uniform(0.35, 0.68, (n, 1, 1, 1)) + rng.uniform(-0.06, 0.06, (n, 1, 1, 3))
    other = base + rng.choice([-1, 1], (n, 1, 1, 1)) * rng.uniform(0.08, 0.16, (n, 1, 1, 3))
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    waves = rng.uniform(5, 9, (n, 1, 1)) * 2 * np.pi
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1))

    at = ((np.arange(size) + 0.5) / size).astype(np.float32)
    u = np.cos(angle) * at[None, None, :] + np.sin(angle) * at[None, :, None]
    v = np.cos(angle) * at[None, :, None] - np.sin(angle) * at[None, None, :]
    kind = np.array([scene.background for scene in scenes])
    mix = np.zeros((n, size, size))
    gradient, stripes, dots = kind == 1, kind == 2, kind == 3
    mix[gradient] = 0.5 + u[gradient] * 1.2
    mix[stripes] = np.clip(0.5 + 2 * np.sin(waves * u + phase)[stripes], 0, 1)
    lattice = np.sin(waves * u + phase)[dots] * np.sin(waves * v + phase)[dots]
    mix[dots] = np.clip(4 * np.abs(lattice) - 1.6, 0, 1)
    return base + (other - base) * mix[..., None]


def _coverage(things: Sequence[Thing], window: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Antialiased masks [things, window, window] and their corners [things, 2] (row, column)."""
    x = np.array([t.x for t in things]) * size
    y = np.array([t.y for t in things]) * size
    radius = np.array([t.radius for t in things]) * size
    angle = np.array([t.angle for t in things])
    corner = np.stack([np.round(y - window / 2), np.round(x - window / 2)], 1).astype(int)
    corner = np.clip(corner, 0, size - window)

    at = np.arange(window) + 0.5
    dx = ((corner[:, 1:2] + at) - x[:, None])[:, None, :]
    dy = ((corner[:, 0:1] + at) - y[:, None])[:, :, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    scale = radius[:, None, None]
    u, v = (cos * dx + sin * dy) / scale, (cos * dy - sin * dx) / scale
    mask = np.empty_like(u)
    shape = np.array([t.shape for t in things])
    for index, outline in enumerate(OUTLINES):
        chosen = shape == index
        mask[chosen] = np.clip(0.5 - outline(u[chosen], v[chosen]) * scale[chosen], 0, 1)
    return mask, corner


def draw_pictures(
    scenes: Sequence[Scene], rng: np.random.Generator, size: int = NATIVE_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [pictures, size, size, 3] in uint8, and which thing covers each pixel.

    The owner map [pictures, size, size] holds the index of the thing, -1 on background;
    the vision tower's pretraining takes its labels from it.
    """
    pictures = _backgrounds(scenes, size, rng).astype(np.float32)
    owner = np.full(pictures.shape[:3], -1, np.int8)
    things = [thing for scene in scenes for thing in scene.things]
    window = int(0.34 * size) + 2
    masks, corners = _coverage(things, window, size)
    shades = np.array([COLORS[COLOR_NAMES[t.color]] for t in things]) / 255
    shades = shades + rng.uniform(-0.05, 0.05, shades.shape)
    at = 0
    for picture, scene in enumerate(scenes):
        for index in range(len(scene.things)):
            row, column = corners[at]
            area = np.s_[picture, row : row + window, column : column + window]
            mask = masks[at][..., None].astype(np.float32)
            pictures[area] += mask * (shades[at].astype(np.float32) - pictures[area])
            owner[area][masks[at] > 0.5] = index
            at += 1
    strength = rng.uniform(0, 0.04, (len(scenes), 1, 1, 1)).astype(np.float32)
    pictures += strength * rng.standard_normal(pictures.shape, dtype=np.float32)
    return (np.clip(pictures, 0, 1) * 255 + 0.5).astype(np.uint8), owner


# ------------------------------------------------------------------------- questions


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _pick(rng: np.random.Generator, items: Sequence):
    return items[int(rng.integers(len(items)))]


def _color_question(scene: Scene, rng: np.random.Generator) -> Question:
    thing = _pick(rng, scene.things)
    alone = sum(t.shape == thing.shape for t in scene.things) == 1
    subject = SHAPE_NAMES[thing.shape] if alone and rng.random() < 0.6 else f"object {PLACES[thing.place]}"
    return Question("color", f"What color is the {subject}?", f"It is {COLOR_NAMES[thing.color]}.")


def _shape_question(scene: Scene, rng: np.random.Generator) -> Question:
    thing = _pick(rng, scene.things)
    alone = sum(t.color == thing.color for t in scene.things) == 1
    if alone and rng.random() < 0.6:
        subject = f"{COLOR_NAMES[thing.color]} object"
    else:
        subject = f"object {PLACES[thing.place]}"
    return Question("shape", f"What shape is the {subject}?", f"It is a {SHAPE_NAMES[thing.shape]}.")


def _position_question(scene: Scene, rng: np.random.Generator) -> Question:
    thing = _pick(rng, scene.things)
    alone = sum(t.shape == thing.shape for t in scene.things) == 1
    name = SHAPE_NAMES[thing.shape] if alone and rng.random() < 0.4 else thing.name
    return Question("position", f"Where is the {name}?", f"It is {PLACES[thing.place]}.")


def _count_question(scene: Scene, rng: np.random.Generator) -> Question:
    form = rng.random()
    if form < 0.3:
        what, count = "objects", len(scene.things)
    else:
        thing = _pick(rng, scene.things)
        by_color = form < 0.65
        present = thing.color if by_color else thing.shape
        names = COLOR_NAMES if by_color else SHAPE_NAMES
        value = present if rng.random() < 0.8 else int(rng.integers(len(names)))
        count = sum((t.color if by_color else t.shape) == value for t in scene.things)
        what = f"{names[value]} objects" if by_color else SHAPES[names[value]]
    return Question("count", f"How many {what} are there?", f"I count {NUMBERS[count]}.")


def _absent_pair(scene: Scene, rng: np.random.Generator) -> tuple[int, int]:
    """A colour and a shape that no thing joins; often each occurs, on different things."""
    present = {(t.color, t.shape) for t in scene.things}
    tempting = [(a.color, b.shape) for a in scene.things for b in scene.things]
    tempting = [pair for pair in tempting if pair not in present]
    if tempting and rng.random() < 0.4:
        return _pick(rng, tempting)
    while True:
        pair = (int(rng.integers(len(COLORS))), int(rng.integers(len(SHAPES))))
        if pair not in present:
            return pair


def _existence_question(scene: Scene, rng: np.random.Generator) -> Question:
    exists, form = rng.random() < 0.5, rng.integers(3)
    if form == 0:
        thing = _pick(rng, scene.things)
        color, shape = (thing.color, thing.shape) if exists else _absent_pair(scene, rng)
        name = f"{COLOR_NAMES[color]} {SHAPE_NAMES[shape]}"
    elif form == 1:
        present = {SHAPE_NAMES[t.shape] for t in scene.things}
        name = _pick(rng, sorted(present) if exists else sorted(set(SHAPES) - present))
    else:
        present = {COLOR_NAMES[t.color] for t in scene.things}
        name = _pick(rng, sorted(present) if exists else sorted(set(COLORS) - present)) + " object"
    answer = "Yes, there is." if exists else "No, there is not."
    return Question("existence", f"Is there {_with_article(name)}?", answer)


_ASK = {
    "color": _color_question,
    "shape": _shape_question,
    "position": _position_question,
    "count": _count_question,
    "existence": _existence_question,
}


def ask(scene: Scene, rng: np.random.Generator, kind: str) -> Question:
    """A random question of one of KINDS; its answer is unique by construction."""
    return _ASK[kind](scene, rng)


def things_asked_about(scene: Scene, question: Question) -> list[int] | None:
    """Numbers of the things that fit every colour, shape and place that a question names: none of
    them where it names something that is not there, and no list where it names nothing."""
    text = question.question
    words = text.rstrip("?.").split()
    colors = [i for i, name in enumerate(COLOR_NAMES) if name in words]
    shapes = [i for i, (one, many) in enumerate(SHAPES.items()) if one in words or many in words]
    places = [i for i, place in enumerate(PLACES) if text.endswith(f"object {place}?")]
    if not (colors or shapes or places or text.startswith("How many objects")):
        return None
    return [
        i for i, t in enumerate(scene.things)
        if (not colors or t.color in colors)
        and (not shapes or t.shape in shapes)
        and (not places or t.place in places)
    ]


def _listing(things: Sequence[Thing]) -> str:
    parts = [f"{_with_article(t.name)} {PLACES[t.place]}" for t in things]
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def describe(scene: Scene) -> Question:
    """One sentence that names every thing in reading order, and the background."""
    kind = BACKGROUNDS[scene.background]
    return Question("describe", DESCRIBE, f"The image shows {_listing(scene.things)} on a {kind} background.")


def enumerate_things(scene: Scene, rng: np.random.Generator) -> Question:
    """The things in random order, for training alone.

    After a random colour, shape and place can be found by looking for that colour only;
    in reading order they could be found by place, and names would never be searched for.
    """
    order = [scene.things[i] for i in rng.permutation(len(scene.things))]
    return Question("enumerate", "What objects are there?", f"The image shows {_listing(order)}.")


# -------------------------------------------------------------------------- held out


@dataclass(frozen=True)
class HeldOut:
    """A picture that training never drew, with one question of each kind."""

    scene: Scene
    pixels: np.ndarray
    questions: tuple[Question, ...]


def held_out_set(seed: int, count: int, size: int = NATIVE_SIZE) -> list[HeldOut]:
    """The same pictures and questions for the same arguments, on every machine."""
    rng = held_out_rng(seed)
    scenes = [draw_scene(rng) for _ in range(count)]
    questions = [tuple(ask(s, rng, kind) for kind in KINDS) + (describe(s),) for s in scenes]
    pixels, _ = draw_pictures(scenes, rng, size)
    return [HeldOut(*item) for item in zip(scenes, pixels, questions)]


def main() -> None:
    from PIL import Image

    parser = argparse.ArgumentParser(description="Write held-out pictures and their questions.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="pictures; six questions each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=NATIVE_SIZE, help="side of a picture in pixels")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    listing = []
    for index, item in enumerate(held_out_set(args.seed, args.count, args.size)):
        name = f"{index:05d}.png"
        Image.fromarray(item.pixels).save(args.out / name)
        listing += [{**question._asdict(), "picture": name} for question in item.questions]
    (args.out / "questions.json").write_text(json.dumps(listing, indent=1) + "\n")


if __name__ == "__main__":
    main()
