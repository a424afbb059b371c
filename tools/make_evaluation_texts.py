#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes two texts to measure language models with of what a Debian machine with Python has installed anyway:

    make_evaluation_texts.py DIR [--characters N]

DIR/calibrate.txt is for choosing settings, DIR/score.txt for saying what they are worth. Both have N characters (default:
700,000, about 180,000 tokens), taken in turns of a few thousand from

    licences      /usr/share/common-licenses
    pages         manual pages
    manuals       manuals in Info's format
    readmes       the README and NEWS files of packages
    docstrings    of Python's standard library

No document is in both texts, and no paragraph is in either of them twice. The same machine makes the same texts: what is
printed of each is its SHA-256. The texts belong to others and are not to be committed. Needs Python and man.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterable, Iterator

TEXTS = ("calibrate", "score")
PIECE = 4000  # characters before another kind of text follows
SHORTEST = 1000  # characters of a piece
MOST = 6  # pieces of a document: no long manual fills a text
REPEATABLE = 40  # characters of a paragraph that may come again: a heading, a name
SHARE = Path("/usr/share")
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))


def content(path: Path) -> str:
    """A text file, compressed or not; empty if it is none in UTF-8."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""


def page(path: Path) -> str:
    """A manual page as a terminal shows it; empty if man cannot."""
    command = ["man", "--no-justification", "--no-hyphenation", "--local-file", str(path)]
    plain = {"MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": "", "PATH": os.environ["PATH"]}
    shown = subprocess.run(command, env=plain, capture_output=True)
    return shown.stdout.decode(errors="replace") if shown.returncode == 0 else ""


def manual(path: Path) -> str:
    """An Info file without what is there to find one's way: names of nodes, menus, and the table behind the text."""
    text = content(path).partition("\nTag Table:")[0]
    text = re.sub(r"\x1f\n?(File: .*)?", "", text)
    return "\n\n".join(part for part in text.split("\n\n") if not re.search(r"^(\* |INFO-DIR|START-INFO|END-INFO)", part, re.M))


def docstrings(path: Path) -> str:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    try:
        nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, documented)]
    except (SyntaxError, ValueError):
        return ""
    return "\n\n".join(filter(None, map(ast.get_docstring, nodes)))


def standard_modules() -> Iterator[Path]:
    foreign = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3"}
    return (path for path in STANDARD_LIBRARY.rglob("*.py") if not foreign & set(path.parts))


# Of each kind: where its documents are, and what a document says.
KINDS: dict[str, tuple[Callable[[], Iterator[Path]], Callable[[Path], str]]] = {
    "licences": (lambda: SHARE.glob("common-licenses/*"), content),
    "pages": (lambda: SHARE.glob("man/man[1-8]/*.gz"), page),
    "manuals": (lambda: SHARE.glob("info/*.gz"), manual),
    "readmes": (lambda: (p for name in ("README*", "NEWS*") for p in SHARE.glob(f"doc/*/{name}")), content),
    "docstrings": (standard_modules, docstrings),
}


def plain(text: str) -> str:
    """Without overstriking, escapes and other controls, spaces at ends of lines, and more than one empty line."""
    text = re.sub(r"\x1b\[[0-9;]*m|[^\n]\x08", "", text.replace("\r\n", "\n"))
    text = "".join(c for c in text if c in "\n\t" or c.isprintable())
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip("\n")


@dataclass
class Collection:
    """The pieces of one kind, and how many characters they have together, for each text."""

    pieces: dict[str, list[str]] = field(default_factory=lambda: {text: [] for text in TEXTS})

    def size(self, text: str) -> int:
        return sum(map(len, self.pieces[text]))

    def shorter(self) -> str:
        return min(TEXTS, key=self.size)


def in_pieces(paragraphs: list[str]) -> list[str]:
    pieces, current = [], ""
    for paragraph in paragraphs:
        current += paragraph + "\n\n"
        if len(current) >= PIECE:
            pieces.append(current)
            current = ""
    return pieces + [current] if len(current) >= SHORTEST else pieces


def spread(paths: Iterable[Path]) -> list[Path]:
    """In the order of their hashes, and one of each family before another of the same: some programs have thousands of pages
    whose names begin alike."""
    by_hash = sorted(paths, key=lambda path: hashlib.sha256(str(path).encode()).digest())
    members: Counter[tuple[Path, str]] = Counter()
    ranks = {}
    for path in by_hash:
        family = path.parent, re.split(r"[-_.]", path.name)[0]
        ranks[path] = members[family]
        members[family] += 1
    return sorted(by_hash, key=ranks.__getitem__)


def collect(kind: str, characters: int, seen: set[str]) -> Collection:
    """Each document goes to the text that has less. Paragraphs in `seen` are left out, and those that were taken are added."""
    find, read = KINDS[kind]
    collection = Collection()
    for path in spread(path for path in find() if path.is_file() and not path.is_symlink()):
        to = collection.shorter()
        if collection.size(to) >= characters:
            break
        new = []
        for paragraph in plain(read(path)).split("\n\n"):
            said = " ".join(paragraph.split())
            if said not in seen:
                new.append(paragraph)
            if len(said) >= REPEATABLE:
                seen.add(said)
        collection.pieces[to] += in_pieces(new)[:MOST]
    return collection


def interleaved(collections: dict[str, Collection], text: str, characters: int) -> tuple[str, dict[str, int]]:
    """A piece of each kind in turn, until there are enough; and how many characters of each kind there are."""
    queues = {kind: iter(collection.pieces[text]) for kind, collection in collections.items()}
    parts: list[str] = []
    sizes = dict.fromkeys(queues, 0)
    while queues:
        for kind in list(queues):
            if sum(sizes.values()) >= characters:
                return "".join(parts), sizes
            piece = next(queues[kind], None)
            if piece is None:
                del queues[kind]
                continue
            parts.append(piece)
            sizes[kind] += len(piece)
    raise ValueError(f"this machine has {sum(sizes.values())} characters for {text}.txt, {characters} are asked for: {sizes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--characters", type=int, default=700_000, metavar="N", help="of each text")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    try:
        collections = {kind: collect(kind, arguments.characters, seen) for kind in KINDS}
        for text in TEXTS:
            whole, sizes = interleaved(collections, text, arguments.characters)
            path = arguments.out / f"{text}.txt"
            path.write_text(whole, encoding="utf-8")
            shares = ", ".join(f"{kind} {size:,}" for kind, size in sizes.items())
            print(f"{path}: {len(whole):,} characters ({shares}), SHA-256 {hashlib.sha256(whole.encode()).hexdigest()}")
    except (OSError, ValueError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
