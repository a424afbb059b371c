#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the tree to the layering that CONTRIBUTING.md describes, and its root to what belongs there. Prints one line per
breach; exits 1 if there is one.

    structure_check.py [ROOT]
"""

import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

sys.dont_write_bytecode = True
from standard_names import check_standard_names

# Who may include whom: core <- {select, io, backend/*.hpp} <- {backend/eigen, backend/cpu, backend/cuda, backend/linked, nn} <-
# {hooks, model, bodies} <- umbrellas; io <- {text, chat}.
MAY_INCLUDE = {
    "core": {"core"},
    "select": {"core", "select"},
    "io": {"core", "io"},
    "text": {"core", "io", "text"},
    "chat": {"core", "io", "chat"},
    "backend": {"core", "backend"},
    "backend/eigen": {"core", "select", "backend", "backend/eigen"},
    "backend/cpu": {"core", "select", "backend", "backend/cpu"},
    "backend/cuda": {"core", "select", "backend", "backend/cuda"},
    "backend/linked": {"core", "backend", "backend/linked"},
    "body": {"core", "backend", "backend/eigen", "backend/cpu", "backend/cuda", "backend/linked"},
    "nn": {"core", "backend", "nn"},
    "hooks": {"core", "select", "backend", "nn", "hooks"},
    "model": {"core", "select", "io", "backend", "nn", "model"},
    "umbrella": {"core", "select", "io", "text", "backend", "backend/eigen", "backend/cpu", "backend/cuda", "backend/linked", "nn",
                 "hooks", "model", "umbrella"},
}
# Third-party headers, by the first part of their path, and the parts that may include them.
THIRD_PARTY = {"Eigen": {"backend/eigen"}, "unsupported": set(), "nlohmann": {"io", "model"}, "oniguruma.h": {"text"},
               "utf8proc.h": {"text"}, "sentencepiece_processor.h": {"text"}}
# Headers of the CUDA Toolkit, and the parts that may include them, in files .cuh: whatever ends in .hpp is plain C++.
CUDA_HEADER = re.compile(r"(cuda\w*|cublas\w*|mma)\.h$")
CUDA_PARTS = {"core", "select", "backend/cuda"}
# Macros of others, which a header of theirs asks for or must not see.
FOREIGN_MACROS = {"ONIG_ESCAPE_REGEX_T_COLLISION", "re_registers"}
# Code that must be the same on every backend: no compile-time switches, and no backend by name.
BACKEND_FREE = {"nn", "hooks", "model"}

# What the root of the repository holds; notes, logs and outputs that somebody left there are easily committed.
ROOT_ENTRIES = {
    ".ci", ".clang-format", ".clang-tidy", ".gitignore", "CHANGELOG.md", "CMakeLists.txt", "CMakePresets.json",
    "CONTRIBUTING.md", "LICENSE", "README.md", "benchmarks", "cmake", "docs", "examples", "include", "models", "scripts",
    "tests", "tools",
}

SOURCE_DIRS = ("include", "examples", "tests", "benchmarks", "tools", "cmake", "scripts", ".ci")
CODE_SUFFIXES = {".h", ".hpp", ".cpp", ".cuh", ".cu"}
SOURCE_SUFFIXES = CODE_SUFFIXES | {".py", ".sh", ".cmake"}
# Headers that stand in for a third party's, whose macros have no prefix.
FOREIGN_NAMES = (Path("tests/support/cuda_emulator"), Path("tests/support/amx_emulator"))
SKIPPED_DIRS = {"data", "corpus", "__pycache__"}
SPDX = "SPDX-License-Identifier: Apache-2.0"


def part_of(header):
    """The part a header belongs to; `header` is relative to include/corematching."""
    if header.endswith((".cpp", ".cu")):  # compiled in whoever's project links it
        return "body"
    pieces = header.split("/")
    if len(pieces) == 1:
        return "select" if header == "select.hpp" else "umbrella"
    if pieces[0] == "backend" and len(pieces) > 2:
        return "backend/" + pieces[1]
    return pieces[0]


def without_comments(text):
    """`text` with comments blanked out, line numbers kept."""
    pattern = r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\\n])*")'
    return re.sub(pattern, lambda m: m[1] or re.sub(r"[^\n]", " ", m[0]), text, flags=re.S)


def ignored_names(root):
    """The entries of the root that .gitignore keeps out of commits."""
    file = root / ".gitignore"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for path in root.iterdir():
        for pattern in patterns:
            if fnmatchcase(path.name, pattern.strip("/")) and (path.is_dir() or not pattern.endswith("/")):
                yield path.name


def tracked_names(root):
    """The entries of the root that git knows; none where there is no git."""
    if not (root / ".git").exists():
        return set()
    try:
        listing = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return set()
    return {name.partition("/")[0] for name in listing.split("\0") if name}


def check_root(root):
    present = {path.name for path in root.iterdir()} - {".git", "build", ".cache"} - set(ignored_names(root))
    for name in sorted((present | tracked_names(root)) - ROOT_ENTRIES):
        yield f"{name}:1: does not belong in the root of the repository, which ROOT_ENTRIES lists"


def source_files(root):
    files = [root / name for name in ("CMakeLists.txt", ".clang-tidy")]
    for directory in SOURCE_DIRS:
        for path in sorted((root / directory).rglob("*")):
            inside = path.relative_to(root)
            if path.is_file() and not SKIPPED_DIRS.intersection(inside.parts):
                if path.suffix in SOURCE_SUFFIXES or path.name == "CMakeLists.txt" or inside.parts[0] == ".ci":
                    files.append(path)
    return [path for path in files if path.is_file()]


def check_spdx(path, text):
    lines = text.splitlines()[:2]
    if lines and lines[0].startswith("#!"):
        lines = lines[1:]
    if not lines or SPDX not in lines[0]:
        yield 1, f"does not begin with its licence line '{SPDX}'"


def check_includes(header, code, headers):
    part = part_of(header)
    if part not in MAY_INCLUDE:
        yield 1, f"'{part}' is no part of the library"
        return
    for number, line in enumerate(code.splitlines(), 1):
        include = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not include:
            continue
        quote, name = include.groups()
        top, _, rest = name.partition("/")
        if top == "corematching" and rest not in headers:
            yield number, f"includes {name}, which does not exist"
        elif top == "corematching" and part_of(rest) not in MAY_INCLUDE[part]:
            yield number, f"'{part}' must not include '{part_of(rest)}' ({name})"
        elif top == "corematching" and quote == "<" or top != "corematching" and quote == '"':
            yield number, f"own headers are included as \"corematching/...\", others as <...> ({name})"
        elif header.endswith(".hpp") and (name.endswith(".cuh") or CUDA_HEADER.match(name)):
            yield number, f"plain C++ must not include {name}: only files .cuh need a CUDA compiler"
        elif CUDA_HEADER.match(name) and (part not in CUDA_PARTS or part != "backend/cuda" and name.startswith("cublas")):
            yield number, f"'{part}' must not include {name}"
        elif part not in THIRD_PARTY.get(top, {part}):
            yield number, f"'{part}' must not include {top} ({name})"


def check_header_text(header, code):
    part = part_of(header)
    if part != "body" and not re.search(r"^#pragma once$", code, re.M):
        yield 1, "has no #pragma once"
    for number, line in enumerate(code.splitlines(), 1):
        if part in BACKEND_FREE and re.match(r"\s*#\s*(if|ifdef|ifndef)\b", line):
            yield number, f"'{part}' is the same on every backend: no compile-time switch"
        if part in BACKEND_FREE and re.search(r"\b(eigen|cpu|cuda)(_backend|::)", line):
            yield number, f"'{part}' must not name a backend"
        if part not in THIRD_PARTY["Eigen"] and re.search(r"\bEigen::", line):
            yield number, f"'{part}' must not name Eigen"


def check_macros(code):
    for number, line in enumerate(code.splitlines(), 1):
        macro = re.match(r"\s*#\s*define\s+(\w+)", line)
        if macro and macro[1] not in FOREIGN_MACROS and not macro[1].startswith("COREMATCHING_"):
            yield number, f"macro {macro[1]} lacks the prefix COREMATCHING_"


def check_cycles(codes):
    """`codes` maps each header to its text; a header that reaches itself is a breach. x_more.hpp may include the x.hpp
    that includes it: then it holds the bodies of what x.hpp declares."""
    includes = {h: re.findall(r'#\s*include\s*"corematching/([^"]+)"', code) for h, code in codes.items()}
    for header, names in includes.items():
        stem = header.rpartition(".")[0] + "_"
        for name in names:
            if name.startswith(stem) and header in includes.get(name, []):
                includes[name].remove(header)
    for header in codes:
        seen, pending = set(), list(includes[header])
        while pending:
            name = pending.pop()
            if name == header:
                yield header, "includes itself, directly or through others"
                break
            if name not in seen:
                seen.add(name)
                pending += includes.get(name, [])


def breaches(root):
    yield from check_root(root)
    include = root / "include" / "corematching"
    headers = {str(p.relative_to(include)) for p in include.rglob("*") if p.suffix in CODE_SUFFIXES}
    codes = {}
    for path in source_files(root):
        text = path.read_text(encoding="utf-8")
        found = list(check_spdx(path, text))
        if path.suffix in CODE_SUFFIXES:
            code = without_comments(text)
            if not any(path.is_relative_to(root / names) for names in FOREIGN_NAMES):
                found += check_macros(code)
            if path.is_relative_to(include):
                header = str(path.relative_to(include))
                codes[header] = code
                found += check_includes(header, code, headers)
                found += check_header_text(header, code)
                found += check_standard_names(code)
        for number, what in found:
            yield f"{path.relative_to(root)}:{number}: {what}"
    for header, what in check_cycles(codes):
        yield f"include/corematching/{header}:1: {what}"


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    found = list(breaches(root))
    print("\n".join(found) or "structure: no breach")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
