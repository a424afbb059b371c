# SPDX-License-Identifier: Apache-2.0
"""Tiny GIF and WebP pictures, and pictures that say which way up they are shown, with the samples that transformers sees.

Frames that do not fill their canvas are put together here, since Pillow's writers would fill it.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Callable

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

import storage
from pictures import scene

CASE = "formats"
ORIENTATION = 0x0112


def _picture(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(scene(width, height, seed))


def _with_alpha(width: int, height: int, seed: int) -> Image.Image:
    image = _picture(width, height, seed)
    ramp = np.clip(np.linspace(-64, 319, width), 0, 255).astype(np.uint8)
    image.putalpha(Image.fromarray(np.tile(ramp, (height, 1))))
    return image


def _bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _exif(orientation: int) -> bytes:
    """With the six bytes that EXIF begins with in a JPEG file."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def _xmp(orientation: int) -> str:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'


# ------------------------------------------------------------------------------------------------------------- GIF


def _gif_codes(indices: bytes, bits: int) -> bytes:
    """LZW without a dictionary: it is cleared before it makes the codes longer than bits + 1."""
    clear, end, width = 1 << bits, (1 << bits) + 1, bits + 1
    codes = []
    for i, index in enumerate(indices):
        if i % (clear - 2) == 0:
            codes.append(clear)
        codes.append(index)
    codes.append(end)
    stream = sum(code << (width * i) for i, code in enumerate(codes))
    packed = stream.to_bytes((width * len(codes) + 7) // 8, "little")
    blocks = [packed[i : i + 255] for i in range(0, len(packed), 255)]
    return bytes([bits]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def _gif_frame(left: int, top: int, indices: np.ndarray, palette: bytes = b"", bits: int = 4) -> bytes:
    height, width = indices.shape
    flags = 0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0
    return b"," + struct.pack("<4HB", left, top, width, height, flags) + palette + _gif_codes(indices.tobytes(), bits)


def _gif(width: int, height: int, frame: bytes, palette: bytes = b"", transparent: int | None = None) -> bytes:
    flags = 0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0
    control = b"" if transparent is None else b"!\xf9\4\1\0\0" + bytes([transparent]) + b"\0"
    return b"GIF89a" + struct.pack("<2H3B", width, height, flags, 1, 0) + palette + control + frame + b";"


def _indices(width: int, height: int, count: int) -> np.ndarray:
    return ((np.arange(height)[:, None] * 3 + np.arange(width) * 5) % count).astype(np.uint8)


def _colours(count: int, seed: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, 3 * count, dtype=np.uint8).tobytes()


GIFS: dict[str, Callable[[], bytes]] = {
    "plain": lambda: _bytes(_picture(19, 14, 50).quantize(30), "GIF", interlace=False),
    "interlaced": lambda: _bytes(_picture(21, 19, 51).quantize(60), "GIF", interlace=True),
    "grey": lambda: _bytes(_picture(17, 12, 52).convert("L"), "GIF"),
    "two_colours": lambda: _bytes(_picture(18, 11, 53).convert("1"), "GIF"),
    "transparent": lambda: _bytes(_picture(16, 13, 54).quantize(12), "GIF", transparency=5),
    "animated": lambda: _bytes(
        _picture(20, 15, 55), "GIF", save_all=True, append_images=[_picture(20, 15, 56), _picture(20, 15, 57)]
    ),
    "local_palette": lambda: _gif(13, 9, _gif_frame(0, 0, _indices(13, 9, 16), _colours(16, 1)), _colours(8, 2)),
    "inside": lambda: _gif(16, 12, _gif_frame(5, 3, _indices(7, 6, 16)), _colours(16, 3)),
    "inside_transparent": lambda: _gif(16, 12, _gif_frame(5, 3, _indices(7, 6, 16)), _colours(16, 4), transparent=9),
    "beyond_canvas": lambda: _gif(8, 6, _gif_frame(5, 3, _indices(7, 6, 16)), _colours(16, 5)),
    "beyond_palette": lambda: _gif(9, 7, _gif_frame(0, 0, _indices(9, 7, 16)), _colours(8, 6), transparent=12),
    "no_palette": lambda: _gif(9, 7, _gif_frame(0, 0, _indices(9, 7, 256), bits=8)),
}

# ------------------------------------------------------------------------------------------------------------ WebP


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _webp(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _three_bytes(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def _webp_animation(width: int, height: int, frames: list[tuple[int, int, Image.Image]], more: bytes = b"", flags: int = 0) -> bytes:
    """Lossless frames at even places; the background is red, which nobody paints."""
    chunks = _chunk(b"VP8X", bytes([0x12 | flags, 0, 0, 0]) + _three_bytes(width - 1) + _three_bytes(height - 1))
    chunks += _chunk(b"ANIM", b"\0\0\xff\xff\0\0")
    for left, top, image in frames:
        place = [left // 2, top // 2, image.width - 1, image.height - 1, 100]
        coded = _bytes(image, "WEBP", lossless=True, exact=True)[12:]
        chunks += _chunk(b"ANMF", b"".join(map(_three_bytes, place)) + b"\0" + coded)
    return _webp(chunks + more)


def _exif_without_start() -> bytes:
    return _webp_animation(14, 10, [(0, 0, _picture(14, 10, 66))], _chunk(b"EXIF", _exif(5)[6:]), flags=8)


WEBPS: dict[str, Callable[[], bytes]] = {
    "lossy": lambda: _bytes(_picture(33, 22, 60), "WEBP", quality=80),
    "lossy_alpha": lambda: _bytes(_with_alpha(23, 18, 61), "WEBP", quality=60),
    "lossless": lambda: _bytes(_picture(12, 9, 62), "WEBP", lossless=True),
    "lossless_alpha": lambda: _bytes(_with_alpha(11, 9, 63), "WEBP", lossless=True, exact=True),
    "animated": lambda: _bytes(
        _with_alpha(15, 11, 64), "WEBP", save_all=True, append_images=[_picture(15, 11, 65)], quality=70
    ),
    "inside": lambda: _webp_animation(16, 13, [(4, 2, _with_alpha(7, 8, 67)), (0, 0, _picture(16, 13, 68))]),
    "exif_6": lambda: _bytes(_picture(14, 10, 69), "WEBP", quality=90, exif=_exif(6)),
    "exif_without_start_5": _exif_without_start,
    "xmp_8": lambda: _bytes(_picture(14, 10, 70), "WEBP", quality=90, xmp=_xmp(8).encode()),
    "exif_before_xmp_2": lambda: _bytes(_picture(14, 10, 71), "WEBP", quality=90, exif=_exif(2), xmp=_xmp(8).encode()),
}

# ---------------------------------------------------------------------------------------------------- JPEG and PNG


def _jpeg(seed: int, **options: Any) -> bytes:
    return _bytes(_picture(14, 10, seed), "JPEG", quality=90, subsampling=0, **options)


def _oriented_jpeg(orientation: int) -> Callable[[], bytes]:
    return lambda: _jpeg(80 + orientation, exif=_exif(orientation))


def _png_text(key: str, text: str, compressed: bool) -> bytes:
    info = PngInfo()
    if key.startswith("XML"):
        info.add_itxt(key, text, zip=compressed)
    else:
        info.add_text(key, text, zip=compressed)
    return _bytes(_picture(7, 5, 90), "PNG", pnginfo=info)


def _raw_profile(orientation: int) -> str:
    exif = _exif(orientation)
    digits = exif.hex()
    return f"\nexif\n{len(exif):8}\n" + "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72)) + "\n"


def _exif_behind_pixels() -> bytes:
    body = b"eXIf" + _exif(3)[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    whole = _bytes(_picture(7, 5, 91), "PNG")
    return whole[:-12] + chunk + whole[-12:]


JPEGS: dict[str, Callable[[], bytes]] = {
    **{f"exif_{orientation}": _oriented_jpeg(orientation) for orientation in range(1, 9)},
    "exif_9": _oriented_jpeg(9),
    "exif_damaged": lambda: _jpeg(94, exif=b"Exif\0\0XX\0*\0\0\0\x08\0\1\1\x12"),
    "xmp_6": lambda: _jpeg(92, xmp=_xmp(6).encode()),
}
PNGS: dict[str, Callable[[], bytes]] = {
    "exif_7": lambda: _bytes(_with_alpha(7, 5, 93), "PNG", exif=_exif(7)),
    "exif_behind_pixels_3": _exif_behind_pixels,
    "raw_profile_6": lambda: _png_text("Raw profile type exif", _raw_profile(6), compressed=True),
    "xmp_5": lambda: _png_text("XML:com.adobe.xmp", _xmp(5), compressed=False),
}


def make() -> None:
    directory = storage.fresh_directory(CASE)
    tensors: dict[str, np.ndarray] = {}
    listing: list[dict[str, Any]] = []
    for suffix, pictures in (("gif", GIFS), ("webp", WEBPS), ("jpg", JPEGS), ("png", PNGS)):
        for name, make_bytes in pictures.items():
            file = f"{name}.{suffix}"
            (directory / file).write_bytes(make_bytes())
            image = ImageOps.exif_transpose(Image.open(directory / file)).convert("RGB")
            tensors[file] = np.array(image)
            listing.append({"file": file, "width": image.width, "height": image.height})
    storage.write_tensors(directory / "expected.safetensors", tensors)
    versions = storage.versions("numpy", "pillow", "safetensors")
    storage.write_json(directory / "reference.json", {"versions": versions, "tensors": "expected.safetensors", "pictures": listing})
