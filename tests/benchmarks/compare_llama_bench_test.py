#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""compare_llama_bench.py against programs that only pretend to measure."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compare_llama_bench.py"

LLAVA_BENCH = """
if "--probe" in sys.argv:
    print(json.dumps({"read_bytes_per_second": 10e9}))
else:
    print(json.dumps({"prefill_tokens_per_second": 30, "decode_tokens_per_second": 6, "decode_bytes_per_token": 1e9}))
"""
# Both give the prompt's test before the decoding one, and each refuses the other's option.
LLAMA_CPP = """
if "--help" in sys.argv: sys.exit(print("-d, --n-depth"))
if "-gp" in sys.argv: sys.exit("unknown option -gp")
new = int(sys.argv[sys.argv.index("-n") + 1])
print(json.dumps([{"n_gen": new, "avg_ts": 3 if new else 10, "model_size": 2 * 10**9}]))
"""
IK_LLAMA = """
if "--help" in sys.argv: sys.exit(print("-gp <pp,tg>"))
if "-d" in sys.argv: sys.exit("unknown option -d")
assert sys.argv[sys.argv.index("-gp") + 1] == "8,4", sys.argv
print(json.dumps([{"n_gen": 0, "avg_ts": 15, "model_size": 1}, {"n_gen": 4, "avg_ts": 4, "model_size": 10**9}]))
"""


class CompareTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def program(self, name, text):
        path = self.directory / name
        path.write_text(f"#!{sys.executable}\nimport json, sys\n{text}", encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def compare(self, *peers):
        command = [sys.executable, str(SCRIPT), "--llava-bench", self.program("llava_bench", LLAVA_BENCH),
                   "--gguf", "x", "--rounds", "2", "--text-tokens", "2", "--image-tokens", "6", "--new-tokens", "4"]
        for peer in peers:
            command += ["--llama-bench", peer]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_asks_each_project_in_its_own_way_and_divides_ours_by_theirs(self):
        done = self.compare(self.program("llama-bench", LLAMA_CPP),
                            "ik=" + self.program("ik-bench", IK_LLAMA) + " -rtr 1")
        self.assertEqual(done.returncode, 0, done.stderr)
        first, second, *_ = done.stdout.split("\n\n")
        self.assertRegex(first, r"(?m)^llama-bench +10.00 \(10.00..10.00\) +3.00 \(3.00..3.00\) +60 \(60..60\)$")
        self.assertRegex(first, r"(?m)^ours / theirs +3.00 \(3.00..3.00\) +2.00 \(2.00..2.00\)$")
        self.assertRegex(second, r"(?m)^ik +15.00 .* 4.00 .* 40 \(40..40\)$")
        self.assertRegex(second, r"(?m)^ours +30.00 .* 6.00 .* 60 \(60..60\)$")
        self.assertIn("probed: 10.0 (10.0..10.0) GB/s; rounds: 2", second)

    def test_shows_why_a_program_failed(self):
        done = self.compare(self.program("llama-bench", 'if "--help" not in sys.argv: sys.exit("no such model")\n'
                                                        'print("--n-depth")'))
        self.assertEqual(done.returncode, 1)
        self.assertIn("no such model", done.stderr)
        self.assertIn("-m x", done.stderr)

    def test_refuses_a_program_that_cannot_decode_behind_a_prompt(self):
        done = self.compare(self.program("llama-bench", "print('usage')"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot decode behind a prompt", done.stderr)


if __name__ == "__main__":
    unittest.main()
