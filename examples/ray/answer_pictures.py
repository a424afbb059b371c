#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks a model about many pictures, on all machines of a Ray cluster.

    answer_pictures.py --model DIR --pictures FOLDER --question TEXT --output FOLDER
    answer_pictures.py --model DIR --pictures FILE.parquet --output FOLDER -- --preset paper

A Parquet file, or a folder of some, has the columns `key`, `picture` (a picture file's bytes) and, unless --question says it,
`question`; the key of a file in a folder is its name. `llava`, model, pictures and output have the same paths on all machines. The
output is a folder of Parquet files with `key`, `answer`, `error` and `tokens`. A second start asks what has no row there yet. What
stands behind `--` goes to `llava serve`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import ray
from ray.data import ActorPoolStrategy

import llava_server
import portions
from llava_server import LlavaServer, Question
from portions import Portion

for module in (llava_server, portions):  # other machines need not have these files
    ray.cloudpickle.register_pickle_by_value(module)


class Answerer:
    """An actor with one model; a row is a portion, and comes back as its counts."""

    def __init__(self, command: list[str], at_once: int, question: str | None, output: str):
        self.server = LlavaServer(command, at_once)
        self.question = question
        self.output = Path(output)

    def __call__(self, row: dict) -> dict:
        portion = Portion(list(row["keys"]), row["source"], row["row_group"], None if row["rows"] is None else list(row["rows"]))
        if (self.output / portion.file_name).exists():  # its file was written, but the machine was lost before it could say so
            return {"questions": len(portion.keys), "errors": 0}
        asked = portions.read_questions(portion, self.question)
        answers = iter(self.server.answer_all([question for question in asked if isinstance(question, Question)]))
        replies = [next(answers) if isinstance(question, Question) else question for question in asked]
        portions.write_answers(self.output, portion, replies)
        return {"questions": len(replies), "errors": sum(reply.error is not None for reply in replies)}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint, as llava takes it")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures, Parquet file, or folder of such files")
    parser.add_argument("--output", type=Path, required=True, help="folder of the answers, on storage that all machines share")
    parser.add_argument("--question", help="what is asked of pictures without a question of their own")
    parser.add_argument("--llava", default="llava", help="the driver")
    parser.add_argument("--address", help="of the cluster (default: the one around, otherwise a cluster of this machine alone)")
    parser.add_argument("--cpus", type=int, default=2, help="cores of an actor, and threads of its server")
    parser.add_argument("--actors", type=int, help="at most so many models at a time (default: as many as there are cores for)")
    parser.add_argument("--portion", type=int, default=64, help="questions that are answered and written together")
    parser.add_argument("--at-once", type=int, default=8, help="questions that a server answers together")
    parser.add_argument("server_options", nargs="*", metavar="-- OPTIONS", help="of llava serve")
    return parser.parse_args()


def answer(args: argparse.Namespace, todo: list[Portion]) -> Counter[str]:
    """Has the portions answered; the counts of all."""
    command = [args.llava, "serve", "--model", args.model, "--threads", str(args.cpus), *args.server_options]
    most = args.actors or max(1, int(ray.cluster_resources()["CPU"]) // args.cpus)
    rows = ray.data.from_items([portion._asdict() for portion in todo], override_num_blocks=len(todo))
    counted = rows.map(Answerer, fn_constructor_args=(command, args.at_once, args.question, str(args.output.resolve())),
                       compute=ActorPoolStrategy(min_size=1, max_size=min(most, len(todo))), num_cpus=args.cpus)
    total: Counter[str] = Counter()
    for row in counted.iter_rows():
        total.update(row)
        print(f"{total['questions']} questions, {total['errors']} errors", flush=True)
    return total


def main() -> int:
    args = parse_arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    args.pictures = args.pictures.resolve(strict=True)
    sources = list(portions.sources_of(args.pictures))
    asked = Counter(key for source in sources for key in source.keys)
    if twice := [key for key, count in asked.items() if count > 1]:
        sys.exit(f"{args.pictures}: {len(twice)} keys stand there more than once, the first is {twice[0]!r}")
    done = portions.answered_keys(args.output)
    todo = list(portions.portions_of(sources, set(done), args.portion))
    print(f"{len(asked)} keys, {len(asked.keys() & done.keys())} of them answered before, {len(todo)} portions", flush=True)
    total: Counter[str] = Counter()
    if todo:
        ray.init(address=args.address, ignore_reinit_error=True)
        total = answer(args, todo)
    answered = portions.answered_keys(args.output)
    wrong = [key for key in asked if answered[key] != 1]
    print(f"{len(asked) - len(wrong)} of {len(asked)} keys are answered exactly once, {len(wrong)} are not")
    return 1 if wrong or total["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
