#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether each header compiles as the first header of this library in a translation unit, and may be included twice:
headers_alone.py INCLUDE_DIRECTORY ENDING COMPILER FLAG...

What the headers include of others is compiled once, in advance: most of the time would go to that. That each header
includes what it uses of the standard library is for structure_check.py to see."""

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Headers of others that compile for a device or an instruction set alone, or are small.
LEFT_OUT = re.compile(r"(cuda|cublas|mma|arm_|immintrin|cpuid|oniguruma|utf8proc|sentencepiece)")


def headers_of_others(headers):
    found = set()
    for header in headers:
        found.update(re.findall(r"^#include <([^>]+)>", header.read_text(encoding="utf-8"), re.M))
    return sorted(name for name in found if not LEFT_OUT.match(name))


def main():
    root, ending, *compiler = sys.argv[1:]
    paths = sorted(Path(root).rglob(f"*{ending}"))
    headers = [path.relative_to(root) for path in paths]

    def problems(header):
        text = f'#include "{header}"\n#include "{header}"\n'
        done = subprocess.run([*compiler, *prepared, "-fsyntax-only", "-x", "c++", "-"], input=text, capture_output=True,
                              text=True)
        return done.stderr if done.returncode else ""

    with tempfile.TemporaryDirectory() as directory:
        prepared = []
        if "clang" in Path(compiler[0]).name:  # GCC reads such a file as slowly as the headers
            others, compiled = Path(directory) / "others.hpp", Path(directory) / "others.pch"
            others.write_text("".join(f"#include <{name}>\n" for name in headers_of_others(paths)))
            subprocess.run([*compiler, "-fpch-instantiate-templates", "-x", "c++-header", others, "-o", compiled], check=True)
            prepared = ["-include-pch", compiled]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            failed = [(header, text) for header, text in zip(headers, pool.map(problems, headers)) if text]
    for header, text in failed:
        print(f"{header} does not compile by itself:\n{text}")
    print(f"{len(headers)} headers, {len(failed)} that do not compile by themselves")
    return 1 if failed or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
