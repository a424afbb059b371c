#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether each body shows the linker one symbol of its own, its entry: check_bodies.py NM OBJECT..."""

import re
import subprocess
import sys
from pathlib import Path


def defined(nm, path):
    """Names and kinds of all symbols that other objects can see and that `path` defines."""
    for line in subprocess.run([nm, path], check=True, capture_output=True, text=True).stdout.splitlines():
        name, kind = line.split()[-1], line.split()[-2]
        if kind != "U" and (kind.isupper() or kind in "uvw"):
            yield name, kind


def main():
    nm, *objects = sys.argv[1:]
    wrong = 0
    for path in objects:
        instruction_set = re.fullmatch(r"corematching_body_(\w+)", Path(path).stem)[1]
        seen = dict(defined(nm, path))
        others = sorted(set(seen) - {f"corematching_cpu_body_{instruction_set}"})
        if len(seen) - len(others) != 1:
            print(f"{path}: has no entry")
            wrong += 1
        for name in others:
            print(f"{path}: {name} ({seen[name]}) can be seen")
            wrong += 1
    print(f"{len(objects)} bodies, {wrong} breaches")
    return 1 if wrong or not objects else 0


if __name__ == "__main__":
    sys.exit(main())
