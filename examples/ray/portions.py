# SPDX-License-Identifier: Apache-2.0
"""What is asked, in portions, and the files with their answers.

A portion is some questions that are answered by one actor and written to one file, whose name follows from their keys. However
often a portion is answered, because a machine or its result was lost, there is one file of it in the end.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from llava_server import Question, Reply

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp"}
ANSWERS = pa.schema([("key", pa.string()), ("answer", pa.string()), ("error", pa.string()), ("tokens", pa.int32())])


class Portion(NamedTuple):
    """Keys, and where their pictures lie: a folder, of which they are the files' names, or rows of a row group of a Parquet
    file (`row_group` is None for a folder)."""

    keys: list[str]
    source: str
    row_group: int | None = None
    rows: list[int] | None = None

    @property
    def file_name(self) -> str:
        digest = hashlib.sha256("\0".join(self.keys).encode()).hexdigest()
        return f"part-{digest[:32]}.parquet"


class Source(NamedTuple):
    """Keys that lie together, in the order of their places."""

    keys: list[str]
    source: str
    row_group: int | None = None


def sources_of(pictures: Path) -> Iterator[Source]:
    """All keys under `pictures`: a folder of pictures, a Parquet file, or a folder of such files."""
    files = [pictures] if pictures.is_file() else sorted(pictures.rglob("*.parquet"))
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for group in range(parquet.num_row_groups):
                yield Source([str(key) for key in parquet.read_row_group(group, columns=["key"])["key"].to_pylist()], str(file), group)
    if not files:
        names = (path for path in pictures.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        yield Source(sorted(str(path.relative_to(pictures)) for path in names), str(pictures))


def portions_of(sources: Iterable[Source], done: set[str], size: int) -> Iterator[Portion]:
    """The keys that are not `done`, up to `size` of one source together."""
    for keys, source, row_group in sources:
        missing = [row for row, key in enumerate(keys) if key not in done]
        for begin in range(0, len(missing), size):
            rows = missing[begin:begin + size]
            yield Portion([keys[row] for row in rows], source, row_group, None if row_group is None else rows)


def read_questions(portion: Portion, question: str | None) -> list[Question | Reply]:
    """The questions of a portion, in the order of its keys; where a picture cannot be read, a reply that says so. `question` is
    asked where the source has no column of that name."""
    if portion.row_group is None:
        return [_question_about(Path(portion.source, key), question) for key in portion.keys]
    with pq.ParquetFile(portion.source) as parquet:
        columns = ["key", "picture"] + ["question"] * ("question" in parquet.schema_arrow.names)
        table = parquet.read_row_group(portion.row_group, columns=columns).take(portion.rows)
    if [str(key) for key in table["key"].to_pylist()] != portion.keys:
        raise RuntimeError(f"{portion.source}: row group {portion.row_group} has other keys than when it was listed")
    texts = table["question"].to_pylist() if "question" in columns else [None] * len(table)
    return [_question_or_reply(picture, text or question) for picture, text in zip(table["picture"].to_pylist(), texts)]


def _question_about(file: Path, text: str | None) -> Question | Reply:
    try:
        return _question_or_reply(file.read_bytes(), text)
    except OSError as problem:
        return Reply(error=f"the picture cannot be read: {problem.strerror}")


def _question_or_reply(picture: bytes | None, text: str | None) -> Question | Reply:
    if picture is None:
        return Reply(error="there is no picture")
    return Question(picture, text) if text else Reply(error="there is no question")


def write_answers(folder: Path, portion: Portion, replies: Sequence[Reply]) -> None:
    """Writes the file of a portion, whole or not at all. The folder has to be one that all machines share."""
    columns = [portion.keys, *([getattr(reply, name) for reply in replies] for name in ("answer", "error", "tokens"))]
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, ANSWERS)], schema=ANSWERS)
    unfinished = folder / f".{portion.file_name}.{socket.gethostname()}.{os.getpid()}"
    pq.write_table(table, unfinished)
    unfinished.replace(folder / portion.file_name)


def answered_keys(folder: Path) -> Counter[str]:
    """How often each key stands in the files of answers."""
    counts: Counter[str] = Counter()
    for file in sorted(folder.glob("part-*.parquet")):
        counts.update(pq.read_table(file, columns=["key"])["key"].to_pylist())
    return counts
