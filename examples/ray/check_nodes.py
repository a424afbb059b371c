#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds answer_pictures.py to what it says: kills a server, an actor, the program itself and a node of a cluster of two while it
answers, starts it again, and looks whether every key has one row in the end, with the right answer.

    check_nodes.py --llava PATH [--questions N]

The cluster is of this machine alone; the questions are those of models/demo, whose answers are known, and one picture is broken.
Linux only. Takes a minute or two.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from ray.cluster_utils import Cluster

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent.parent / "models" / "demo"
BROKEN = "0007"
PORTION = 8


def write_questions(folder: Path, count: int) -> dict[str, str]:
    """Two Parquet files of questions; the true answer of each key."""
    known = [(DEMO / "pictures" / picture["file"], asked) for picture in json.loads((DEMO / "pictures.json").read_text())
             for asked in picture["questions"]]
    rows = [{"key": f"{n:04}", "picture": known[n % len(known)][0].read_bytes(), "question": known[n % len(known)][1]["question"]}
            for n in range(count)]
    next(row for row in rows if row["key"] == BROKEN)["picture"] = b"no picture"
    folder.mkdir()
    for part, begin in enumerate((0, count // 2)):
        half = rows[begin:count // 2] if part == 0 else rows[begin:]
        pq.write_table(pa.Table.from_pylist(half), folder / f"{part}.parquet", row_group_size=4 * PORTION)
    return {row["key"]: known[n % len(known)][1]["answer"] for n, row in enumerate(rows)}


def descendants_of(pid: int) -> list[tuple[int, str]]:
    """Processes below `pid` and their command lines."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(status.read_text().rpartition(")")[2].split()[1]), []).append(int(status.parent.name))
        except OSError:  # it has ended
            continue
    found, open_pids = [], [pid]
    while open_pids:
        for child in children.get(open_pids.pop(), []):
            open_pids.append(child)
            try:
                found.append((child, Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")))
            except OSError:
                continue
    return found


class Check:
    """A cluster of two nodes, questions, and the program that answers them."""

    def __init__(self, folder: Path, args: argparse.Namespace):
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        self.second = self.cluster.add_node(num_cpus=2)
        self.output = folder / "answers"
        self.truth = write_questions(folder / "questions", args.questions)
        self.command = [sys.executable, str(HERE / "answer_pictures.py"), "--llava", args.llava, "--model", str(DEMO), "--pictures",
                        str(folder / "questions"), "--output", str(self.output), "--address", self.cluster.address, "--cpus", "1",
                        "--portion", str(PORTION), "--at-once", "2"]
        self.program: subprocess.Popen | None = None

    def start(self) -> None:
        self.program = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait(self) -> list[str]:
        """What the program says of keys, and its exit code."""
        said = self.program.communicate()[0].splitlines()
        return [line for line in said if " keys" in line] + [f"exit code {self.program.returncode}"]

    def parts(self) -> int:
        return sum(1 for _ in self.output.glob("part-*.parquet"))

    def after(self, share: float, what: str, act: Callable[[], object]) -> None:
        """Does something when that share of the portions has been written."""
        while self.parts() < share * len(self.truth) / PORTION:
            if self.program.poll() is not None:
                sys.exit(f"the program ended before {what}:\n{self.program.stdout.read()}")
            time.sleep(0.02)
        print(f"{self.parts()} portions are there: {what}", flush=True)
        act()

    def kill_below_second(self, is_meant: Callable[[str], bool]) -> None:
        raylet = self.second.all_processes["raylet"][0].process.pid
        pids = [pid for pid, line in descendants_of(raylet) if is_meant(line)]
        if not pids:
            sys.exit("there is no such process on the second node")
        os.kill(pids[0], signal.SIGKILL)

    def breaches(self) -> list[str]:
        """What is not as it should be in the answers."""
        rows = [row for file in sorted(self.output.glob("part-*.parquet")) for row in pq.read_table(file).to_pylist()]
        keys = [row["key"] for row in rows]
        wrong = [row for row in rows if row["key"] != BROKEN and row["answer"] != self.truth.get(row["key"])]
        print(f"{len(rows)} rows, {len(set(keys))} keys of {len(self.truth)}, {len(rows) - 1 - len(wrong)} with the true answer")
        found = [] if sorted(keys) == sorted(self.truth) else ["not every key has one row"]
        found += [f"an error without a reason: {row}" for row in wrong if row["error"]]
        found += ["many answers are not the true ones"] if len(wrong) > len(rows) // 20 else []
        broken = [row["error"] for row in rows if row["key"] == BROKEN]
        print(f"the broken picture: {broken}")
        return found + ([] if len(broken) == 1 and broken[0] else ["the broken picture has no error"])


def is_server(line: str) -> bool:
    return " serve --model " in line and not line.startswith("sh ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llava", required=True, help="the driver")
    parser.add_argument("--questions", type=int, default=1200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(Path(folder), args)
        try:
            check.start()
            check.after(0.1, "a server is killed", lambda: check.kill_below_second(is_server))
            check.after(0.2, "an actor is killed", lambda: check.kill_below_second(lambda line: line.startswith("ray::Map")))
            check.after(0.4, "the program is killed", check.program.kill)
            check.wait()
            check.start()
            check.after(0.6, "a node is killed", lambda: check.cluster.remove_node(check.second, allow_graceful=False))
            print(*check.wait(), sep="\n")
            check.start()
            print("started once more:", *check.wait(), sep="\n")
            breaches = check.breaches()
        finally:
            check.cluster.shutdown()
    print(*breaches or ["no breach"], sep="\n")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
