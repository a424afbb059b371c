#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/gpu_check.sh with programs and tools that only pretend, so that all of it runs where there is no GPU."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.sh"

PROGRAMS = {
    "cuda_tests": 'echo "[  PASSED  ] 5 tests."',
    "llava_bench": 'echo "asked for $*"',
    "cuda_ops_bench": 'echo "projection 90 %"',
    "llava": 'echo "A red ball."',
}
TOOLS = {
    "nvidia-smi": 'echo "NVIDIA Pretended, 580.00"',
    "compute-sanitizer": 'echo "ERROR SUMMARY: 0 errors"',
    "ncu": 'echo "gated_rows_kernel 42"',
    "python3": "exit 1",  # it has none of the packages
}


class GpuCheckTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def write(self, folder, scripts):
        (self.directory / folder).mkdir()
        for name, text in scripts.items():
            path = self.directory / folder / name
            path.write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
            path.chmod(0o755)
        return self.directory / folder

    def check(self, programs=(), tools=(), *options):
        built = self.write("programs", PROGRAMS | dict(programs))
        path = self.write("tools", TOOLS | dict(tools))
        command = [str(SCRIPT), "--programs", str(built), "--build", str(self.directory / "build"), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False,
                              env=os.environ | {"PATH": f"{path}:{os.environ['PATH']}"})

    def test_gives_each_part_a_table(self):
        done = self.check()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        head, tests, speed, memory = done.stdout.split("\n--- ")
        self.assertIn("=== device_tests", head)
        self.assertRegex(tests, r"(?m)^tests \(\d+ s\)\ndevice +NVIDIA Pretended, 580.00$")
        for name in ("device_tests", "7b_decode", "7b_decode_overlapping", "7b_decode_gate", "operations_of_decoding"):
            self.assertRegex(tests, rf"(?m)^{name} +passed in \d+ s$")
        self.assertIn("the same answers as on the CPU", tests)
        self.assertRegex(tests, r"asked for --cuda 0 .*--overlap")
        self.assertRegex(tests, r"projection 90 %")
        self.assertRegex(speed, r"(?m)^transformers +not run: python3 has no torch or no transformers$")
        self.assertRegex(speed, r"(?m)^7b_limited_to_62_percent +not run: python3 has no numpy$")
        self.assertRegex(memory, r"(?m)^racecheck +passed")
        self.assertIn("gated_rows_kernel 42", memory)

    def test_goes_on_behind_what_fails_and_says_what_it_was(self):
        failing = {
            "cuda_tests": '[[ $GTEST_SHARD_INDEX != 3 ]] || { echo "[  FAILED  ] device_rows.are_moved (7 ms)"; exit 1; }',
            "llava_bench": '[[ $* != *gate* ]] || { echo "out of device memory" >&2; exit 1; }; echo "asked for $*"',
            "llava": '[[ $* == *dense*cuda* ]] && echo "A blue ball." || echo "A red ball."',
        }
        done = self.check(failing, {}, "--parts", "tests")
        self.assertEqual(done.returncode, 1)
        for text in ("shard 3 ended with a failure", "device_rows.are_moved", "out of device memory",
                     "on the CPU A red ball.", "on the device A blue ball."):
            self.assertIn(text, done.stdout)
        for name in ("device_tests", "demo_answers", "7b_decode_gate"):
            self.assertRegex(done.stdout, rf"(?m)^{name} +FAILED: see ")
        for name in ("7b_decode", "operations_of_decoding"):
            self.assertRegex(done.stdout, rf"(?m)^{name} +passed")
        self.assertNotIn("--- speed", done.stdout)

    def test_wants_a_gpu_unless_it_rehearses(self):
        done = self.check({}, {"nvidia-smi": "echo 'no driver' >&2; exit 9"})
        self.assertEqual(done.returncode, 1)
        self.assertIn("gpu_check: no NVIDIA GPU: no driver", done.stderr)

    def test_refuses_options_it_does_not_know(self):
        done = self.check({}, {}, "--part", "tests")
        self.assertEqual(done.returncode, 2)
        self.assertIn("unknown option --part", done.stderr)
        self.assertIn("scripts/gpu_check.sh [--parts", done.stderr)


if __name__ == "__main__":
    unittest.main()
