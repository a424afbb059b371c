# SPDX-License-Identifier: Apache-2.0
"""Where reference data lives and how it is written: safetensors for numbers, JSON for everything that names them."""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

DATA = Path(__file__).resolve().parent / "data"
LINE = 180  # characters


def fresh_directory(case: str) -> Path:
    """An empty directory for a case: a renamed run must not leave its old file behind."""
    path = DATA / case
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def versions(*used: str) -> dict[str, str]:
    """Of the packages that make a case: `used`, or where none is named all of them."""
    packages = used or ("torch", "transformers", "numpy", "pillow", "safetensors")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _layout(value: Any, depth: int) -> str:
    """JSON with whatever fits on one line, and every list of numbers, on one line: a diff shows one entry per line."""
    line = json.dumps(value, ensure_ascii=False)
    flat = not isinstance(value, dict) and not (isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value))
    if flat or len(line) + depth <= LINE:
        return line
    indent = " " * (depth + 1)
    if isinstance(value, dict):
        entries = [f"{indent}{json.dumps(key)}: {_layout(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(entries) + "\n" + " " * depth + "}"
    return "[\n" + ",\n".join(indent + _layout(item, depth + 1) for item in value) + "\n" + " " * depth + "]"


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(_layout(value, 0) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, str(path))
    path.chmod(0o644)  # safetensors makes its files private


def directory_size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
