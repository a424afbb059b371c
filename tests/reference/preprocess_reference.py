# SPDX-License-Identifier: Apache-2.0
"""Pictures of awkward shapes and kinds, and what Pillow and Hugging Face's CLIP image processor make of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
from PIL import Image, ImageOps
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

import storage
from pictures import scene, write_png

BACKGROUND = (122, 116, 104)  # int(255 * mean) of CLIP's means, as original LLaVA pads
WINDOW = 16
WINDOWS_PER_PICTURE = 8


@dataclass(frozen=True)
class Picture:
    """One file; `write` gets its path. `decode` is how the file's samples become 8-bit RGB.

    convert:         Pillow's `convert("RGB")`, which drops an alpha channel (original LLaVA, transformers before 5)
    composite_white: over white (transformers 5)
    high_byte:       sample >> 8 for 16-bit grey, where `convert` clips at 255 and shows a white picture
    """

    name: str
    suffix: str
    write: Callable[[Path], None]
    decode: tuple[str, ...] = ("convert",)


def _rgb(width: int, height: int, seed: int, **options: Any) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(scene(width, height, seed)).save(path, **options)


def _mode(mode: str, width: int, height: int, seed: int, **options: Any) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(scene(width, height, seed)).convert(mode).save(path, **options)


def _alpha_ramp(width: int, height: int) -> Image.Image:
    """Fully opaque, half and fully transparent areas."""
    ramp = np.clip(np.linspace(-64, 319, width), 0, 255).astype(np.uint8)
    return Image.fromarray(np.tile(ramp, (height, 1)))


def _rgba(path: Path) -> None:
    image = Image.fromarray(scene(57, 40, 21))
    image.putalpha(_alpha_ramp(57, 40))
    image.save(path)


def _grey_alpha(path: Path) -> None:
    image = Image.fromarray(scene(37, 44, 22)).convert("L")
    image.putalpha(_alpha_ramp(37, 44))
    image.save(path)


def _palette(path: Path, colours: int, **options: Any) -> None:
    Image.fromarray(scene(50, 41, 23)).quantize(colours, dither=Image.Dither.NONE).save(path, **options)


def _grey16(path: Path) -> None:
    grey = scene(45, 38, 24)[..., 0].astype(np.uint16)
    write_png(path, grey * 256 + np.flip(grey, axis=1))


def _rgb16(path: Path) -> None:
    rgb = scene(39, 46, 25).astype(np.uint16)
    write_png(path, rgb * 256 + np.flip(rgb, axis=1))


def _exif_rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees to display
    Image.fromarray(scene(64, 40, 31)).save(path, quality=92, subsampling=0, exif=exif)


ALPHA = ("convert", "composite_white")
PICTURES = (
    Picture("landscape", "png", _rgb(97, 61, 1)),
    Picture("portrait", "png", _rgb(53, 88, 2)),
    Picture("square", "png", _rgb(64, 64, 3)),
    Picture("exact_32", "png", _rgb(32, 32, 4)),
    Picture("small", "png", _rgb(19, 13, 5)),
    Picture("small_portrait", "png", _rgb(7, 30, 6)),
    Picture("odd_by_one", "png", _rgb(33, 32, 7)),
    Picture("one_row", "png", _rgb(41, 1, 8)),
    Picture("one_column", "png", _rgb(1, 23, 9)),
    Picture("one_pixel", "png", _rgb(1, 1, 10)),
    Picture("large", "png", _rgb(401, 301, 11)),
    Picture("panorama", "png", _rgb(400, 50, 12)),
    Picture("interlaced", "png", lambda path: write_png(path, scene(43, 35, 13), interlaced=True)),
    Picture("grey", "png", _mode("L", 60, 45, 20)),
    Picture("bilevel", "png", _mode("1", 45, 60, 26)),
    Picture("rgba", "png", _rgba, ALPHA),
    Picture("grey_alpha", "png", _grey_alpha, ALPHA),
    Picture("palette", "png", lambda path: _palette(path, 200)),
    Picture("palette_4bit", "png", lambda path: _palette(path, 13)),
    Picture("palette_transparent", "png", lambda path: _palette(path, 30, transparency=3), ALPHA),
    Picture("grey16", "png", _grey16, ("high_byte", "convert")),
    Picture("rgb16", "png", _rgb16),
    Picture("baseline", "jpg", _rgb(97, 61, 27, quality=95, subsampling=0)),
    Picture("subsampled", "jpg", _rgb(75, 99, 28, quality=85, subsampling=2)),
    Picture("progressive", "jpg", _rgb(90, 70, 29, quality=90, subsampling=2, progressive=True)),
    Picture("grey_jpeg", "jpg", _mode("L", 66, 50, 30, quality=92)),
    Picture("exif_rotated", "jpg", _exif_rotated),
    Picture("cmyk", "jpg", _mode("CMYK", 48, 62, 32, quality=95)),
    Picture("photo_size", "jpg", _rgb(640, 427, 33, quality=85, subsampling=2)),
)

GEOMETRY = {"landscape", "portrait", "square", "exact_32", "small", "small_portrait", "odd_by_one", "one_row", "one_column", "panorama"}


def upright(path: Path) -> Image.Image:
    """As transformers' load_image begins; original LLaVA ignores how the camera was held."""
    return ImageOps.exif_transpose(Image.open(path))


def decode(path: Path, how: str) -> Image.Image:
    image = upright(path)
    if how == "high_byte":
        return Image.fromarray((np.array(image) >> 8).astype(np.uint8)).convert("RGB")
    if how == "composite_white":
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    # Through an array: the converted picture still carries the palette's transparency, which transformers would apply.
    return Image.fromarray(np.array(image.convert("RGB")))


def pad_to_square(image: Image.Image) -> Image.Image:
    """Original LLaVA's expand2square."""
    width, height = image.size
    side = max(width, height)
    result = Image.new("RGB", (side, side), BACKGROUND)
    result.paste(image, ((side - width) // 2, (side - height) // 2))
    return result


def resize_and_crop(image: Image.Image, shortest_edge: int, crop: int) -> np.ndarray:
    """uint8 [crop, crop, 3]; shortest edge, bicubic with antialias, centre crop (zeros where the picture is smaller)."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_long = int(shortest_edge * long / short)
    size = (shortest_edge, new_long) if width <= height else (new_long, shortest_edge)
    resized = np.array(image.resize(size, Image.Resampling.BICUBIC))
    if shortest_edge < crop:
        padding = [((crop - side + 1) // 2, (crop - side) // 2) if side < crop else (0, 0) for side in resized.shape[:2]]
        resized = np.pad(resized, [*padding, (0, 0)])
    top, left = (resized.shape[0] - crop) // 2, (resized.shape[1] - crop) // 2
    return resized[top : top + crop, left : left + crop]


def huggingface_pixel_values(image: Image.Image, fit: str, shortest_edge: int, crop: int) -> np.ndarray:
    """float32 [3, crop, crop], channels first, normalised."""
    sizes = {"size": {"shortest_edge": shortest_edge}, "crop_size": {"height": crop, "width": crop}}
    processor = CLIPImageProcessorPil(**sizes) if fit == "crop" else LlavaImageProcessorPil(**sizes, do_pad=True)
    return processor(image, return_tensors="np")["pixel_values"][0]


def _check_against_huggingface(resized: np.ndarray, pixel_values: np.ndarray) -> None:
    mean = np.array(CLIPImageProcessorPil.image_mean)
    std = np.array(CLIPImageProcessorPil.image_std)
    expected = ((resized / 255.0 - mean) / std).transpose(2, 0, 1)
    assert np.abs(expected - pixel_values).max() < 1e-6, "this file and transformers disagree"


class _Case:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tensors: dict[str, np.ndarray] = {}
        self.pictures: list[dict[str, Any]] = []
        self.resized: list[dict[str, Any]] = []
        self.pixel_values: list[dict[str, Any]] = []

    def add(self, picture: Picture) -> None:
        path = self.directory / f"{picture.name}.{picture.suffix}"
        picture.write(path)
        image = upright(path)
        mode, (width, height) = image.mode, image.size
        entry: dict[str, Any] = {"name": picture.name, "file": path.name, "mode": mode, "width": width, "height": height}
        entry["decoded"] = {how: self._add_decoded(picture.name, how, path) for how in picture.decode}
        self.pictures.append(entry)
        for how in picture.decode:
            self._add_expectations(picture.name, how, decode(path, how))

    def _add_decoded(self, name: str, how: str, path: Path) -> str | None:
        """Decoded samples, so that a difference between JPEG decoders is not taken for one between resamplers."""
        pixels = np.array(decode(path, how))
        if pixels.size > 100_000:
            return None
        tensor = f"decoded.{name}.{how}"
        self.tensors[tensor] = pixels
        return tensor

    def _add_expectations(self, name: str, how: str, image: Image.Image) -> None:
        squared = pad_to_square(image)
        for fit, source in (("crop", image), ("pad", squared)):
            sizes = [(32, 32)] + ([(56, 56)] if name in GEOMETRY else [])
            sizes += [(40, 32), (24, 32)] if name in ("landscape", "portrait") else []
            for shortest_edge, crop in sizes:
                self._add_resized(name, how, fit, image, source, shortest_edge, crop)
            if name in ("landscape", "small", "large", "rgba", "subsampled", "photo_size"):
                self._add_windows(name, how, fit, source, 336)

    def _add_resized(
        self, name: str, how: str, fit: str, image: Image.Image, source: Image.Image, shortest_edge: int, crop: int
    ) -> None:
        key = {"picture": name, "decode": how, "fit": fit, "shortest_edge": shortest_edge, "crop": crop}
        tensor = f"resized.{name}.{how}.{fit}.{shortest_edge}.{crop}"
        self.tensors[tensor] = resize_and_crop(source, shortest_edge, crop)
        self.resized.append(key | {"tensor": tensor, "windows": None})
        pixel_values = huggingface_pixel_values(image, fit, shortest_edge, crop)
        _check_against_huggingface(self.tensors[tensor], pixel_values)
        if name in ("landscape", "grey", "portrait") and crop == 32:
            tensor = f"pixel_values.{name}.{how}.{fit}.{shortest_edge}.{crop}"
            self.tensors[tensor] = pixel_values
            self.pixel_values.append(key | {"tensor": tensor})

    def _add_windows(self, name: str, how: str, fit: str, source: Image.Image, side: int) -> None:
        """Windows of a large result: the whole of it would be a third of a megabyte for every picture."""
        resized = resize_and_crop(source, side, side)
        rng = np.random.default_rng(len(self.resized))
        corners = [(0, 0), (side - WINDOW, side - WINDOW)]
        corners += [tuple(int(v) for v in rng.integers(0, side - WINDOW + 1, 2)) for _ in range(WINDOWS_PER_PICTURE - 2)]
        tensor = f"resized.{name}.{how}.{fit}.{side}.{side}"
        self.tensors[tensor] = np.stack([resized[t : t + WINDOW, l : l + WINDOW] for t, l in corners])
        key = {"picture": name, "decode": how, "fit": fit, "shortest_edge": side, "crop": side}
        windows = [{"top": top, "left": left, "height": WINDOW, "width": WINDOW} for top, left in corners]
        self.resized.append(key | {"tensor": tensor, "windows": windows})


def make() -> None:
    case = _Case(storage.fresh_directory("preprocess"))
    for picture in PICTURES:
        case.add(picture)
    storage.write_tensors(case.directory / "expected.safetensors", case.tensors)
    storage.write_json(
        case.directory / "reference.json",
        {
            "versions": storage.versions("transformers", "numpy", "pillow", "safetensors"),
            "background": list(BACKGROUND),
            "mean": list(CLIPImageProcessorPil.image_mean),
            "std": list(CLIPImageProcessorPil.image_std),
            "tensors": "expected.safetensors",
            "pictures": case.pictures,
            "resized": case.resized,
            "pixel_values": case.pixel_values,
        },
    )
