#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether each header compiles as the first and only one of a translation unit, and may be included twice:
headers_alone.py INCLUDE_DIRECTORY ENDING COMPILER FLAG..."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def main():
    root, ending, *compiler = sys.argv[1:]
    headers = sorted(path.relative_to(root) for path in Path(root).rglob(f"*{ending}"))

    def problems(header):
        text = f'#include "{header}"\n#include "{header}"\n'
        done = subprocess.run([*compiler, "-fsyntax-only", "-x", "c++", "-"], input=text, capture_output=True, text=True)
        return done.stderr if done.returncode else ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = [(header, text) for header, text in zip(headers, pool.map(problems, headers)) if text]
    for header, text in failed:
        print(f"{header} does not compile by itself:\n{text}")
    print(f"{len(headers)} headers, {len(failed)} that do not compile by themselves")
    return 1 if failed or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
