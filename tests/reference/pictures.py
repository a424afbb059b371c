# SPDX-License-Identifier: Apache-2.0
"""Deterministic test pictures, and a PNG writer for the kinds of PNG that Pillow reads but cannot write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

# Start and step of each Adam7 pass: (first column, first row, column step, row step).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def scene(width: int, height: int, seed: int) -> np.ndarray:
    """RGB [height, width, 3] with what a resampler gets wrong: ramps, hard edges, thin stripes, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    phase = rng.uniform(0, 2 * np.pi, 3)
    frequency = rng.uniform(2, 9, 3)
    ramp = np.stack([x / max(width - 1, 1), y / max(height - 1, 1), (x + y) / max(width + height - 2, 1)], axis=-1)
    waves = 0.5 + 0.5 * np.sin(ramp * frequency * 2 * np.pi + phase)
    picture = 0.5 * ramp + 0.5 * waves
    for _ in range(4):
        centre_x, centre_y = rng.uniform(0, width), rng.uniform(0, height)
        radius = rng.uniform(0.08, 0.3) * min(width, height)
        inside = (x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2
        picture[inside] = rng.uniform(0, 1, 3)
    stripes = (x.astype(np.int64) // 2 + y.astype(np.int64)) % 7 == 0
    picture[stripes & (y > 0.7 * height)] = rng.uniform(0, 1, 3)
    picture += rng.normal(0, 0.01, picture.shape)
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(path: Path, samples: np.ndarray, interlaced: bool = False) -> None:
    """Write [height, width] grey or [height, width, 3] RGB of 8 or 16 bits, filter 0 throughout."""
    height, width = samples.shape[:2]
    big_endian = samples.astype(">u2") if samples.dtype == np.uint16 else samples
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw = bytearray()
    for column, row, column_step, row_step in passes:
        part = big_endian[row::row_step, column::column_step]
        if part.shape[1] > 0:
            for line in part:
                raw += b"\0" + line.tobytes()
    colour_type = 2 if samples.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, samples.dtype.itemsize * 8, colour_type, 0, 0, int(interlaced))
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(raw), 9)) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
