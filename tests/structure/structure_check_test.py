#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""structure_check.py must accept a good tree and name each kind of breach in a bad one."""

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))
import structure_check

SPDX = f"// {structure_check.SPDX}\n"
GOOD = {
    "core/view.hpp": "",
    "select.hpp": '#include "corematching/select/core_tokens.hpp"\n',
    "select/core_tokens.hpp": '#include "corematching/core/view.hpp"\n#include <vector>\nusing v = std::vector<int>;\n',
    "io/safetensors.hpp": "#include <nlohmann/json.hpp>\n",
    "text/tokenizer.hpp": '#include "corematching/io/safetensors.hpp"\n',
    "chat/format.hpp": '#include "corematching/io/safetensors.hpp"\n',
    "backend/backend.hpp": '#include "corematching/core/view.hpp"\n',
    "backend/eigen/matmul.hpp": '#include <Eigen/Core>\n#include "corematching/backend/backend.hpp"\n',
    "backend/cpu/matmul.hpp": '#include "corematching/backend/backend.hpp"\n',
    "backend/cuda/matmul.cuh": '#include <cublas_v2.h>\n#include "corematching/backend/backend.hpp"\n',
    "backend/linked/backend.hpp": '#include "corematching/backend/backend.hpp"\n',
    "backend/cpu/body.cpp":
        '#include "corematching/backend/cpu/matmul.hpp"\n#include "corematching/backend/linked/backend.hpp"\n',
    "nn/attention.hpp": '#include "corematching/backend/backend.hpp"\n// cpu::matmul and Eigen:: in a comment\n',
    "hooks/core_matching.hpp":
        '#include "corematching/nn/attention.hpp"\n#include "corematching/select/core_tokens.hpp"\n',
    "model/llama/llama.hpp": '#include "corematching/io/safetensors.hpp"\n',
    "cuda.cuh": '#include "corematching/backend/cuda/matmul.cuh"\n',
    "cpu.hpp": '#include "corematching/backend/cpu/matmul.hpp"\n#include "corematching/select.hpp"\n',
}


class StructureCheck(unittest.TestCase):
    def breaches(self, changes=(), outside=()):
        """Breaches of the good tree with `changes` to its headers and files `outside` of them."""
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            tree = {f"include/corematching/{name}": f"{SPDX}#pragma once\n{code}" for name, code in GOOD.items()}
            tree |= {f"include/corematching/{name}": f"{SPDX}#pragma once\n{code}" for name, code in changes}
            tree |= dict(outside)
            for name, text in tree.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            return list(structure_check.breaches(root))

    def refuses(self, header, code, what):
        found = self.breaches([(header, code)])
        self.assertTrue(any(header in line and what in line for line in found), f"{what!r} not in {found}")

    def test_accepts_a_good_tree(self):
        self.assertEqual(self.breaches(), [])

    def test_refuses_each_edge_that_is_not_allowed(self):
        # One header per part; every pair that the table does not list must be refused.
        header_of = {structure_check.part_of(header): header for header in GOOD}
        self.assertEqual(set(header_of), set(structure_check.MAY_INCLUDE))
        for part, header in header_of.items():
            for other in structure_check.MAY_INCLUDE.keys() - structure_check.MAY_INCLUDE[part]:
                with self.subTest(part=part, includes=other):
                    self.refuses(header, f'#include "corematching/{header_of[other]}"\n', f"must not include '{other}'")

    def test_refuses_third_party_headers_outside_their_part(self):
        self.refuses("nn/attention.hpp", "#include <Eigen/Dense>\n", "must not include Eigen")
        self.refuses("backend/cpu/matmul.hpp", "#include <Eigen/Core>\n", "must not include Eigen")
        self.refuses("select/core_tokens.hpp", "#include <nlohmann/json.hpp>\n", "must not include nlohmann")

    def test_refuses_device_code_in_plain_headers(self):
        self.refuses("core/view.hpp", "#include <cuda_runtime.h>\n", "plain C++ must not include cuda_runtime.h")
        self.refuses("cpu.hpp", '#include "corematching/cuda.cuh"\n', "plain C++ must not include corematching/cuda.cuh")
        self.refuses("select/overlap.cuh", "#include <cublas_v2.h>\n", "'select' must not include cublas_v2.h")
        self.assertEqual(self.breaches([("select/overlap.cuh", "#include <cuda_runtime.h>\n")]), [])

    def test_refuses_a_backend_by_name_in_shared_code(self):
        self.refuses("nn/attention.hpp", "using b = cpu_backend;\n", "must not name a backend")
        self.refuses("model/llama/llama.hpp", "using m = Eigen::MatrixXf;\n", "must not name Eigen")
        self.refuses("hooks/core_matching.hpp", "#ifdef COREMATCHING_X\n#endif\n", "no compile-time switch")

    def test_refuses_unknown_missing_and_relative_headers(self):
        self.refuses("extra/thing.hpp", "", "'extra' is no part")
        self.refuses("nn/attention.hpp", '#include "corematching/nn/gone.hpp"\n', "does not exist")
        self.refuses("nn/attention.hpp", '#include "hook.hpp"\n', 'own headers are included as "corematching/..."')
        self.refuses("nn/attention.hpp", "#include <corematching/core/view.hpp>\n", "own headers are included as")

    def test_refuses_cycles(self):
        self.refuses("core/view.hpp", '#include "corematching/core/view.hpp"\n', "includes itself")
        pair = [("core/a.hpp", '#include "corematching/core/b.hpp"\n'),
                ("core/b.hpp", '#include "corematching/core/a.hpp"\n')]
        self.assertEqual(len(self.breaches(pair)), 2)

    def test_lets_a_header_and_the_file_of_its_bodies_include_each_other(self):
        self.assertEqual(self.breaches([("core/a.hpp", '#include "corematching/core/a_steps.hpp"\n'),
                                        ("core/a_steps.hpp", '#include "corematching/core/a.hpp"\n')]), [])

    def test_refuses_a_header_without_guard(self):
        found = self.breaches(outside=[("include/corematching/core/bare.hpp", SPDX)])
        self.assertEqual(len(found), 1)
        self.assertIn("#pragma once", found[0])

    def test_refuses_standard_names_without_their_header_and_headers_without_their_names(self):
        self.refuses("core/view.hpp", "std::size_t x;\n", "uses std::size_t and does not include <cstddef>")
        self.refuses("core/view.hpp", "bool f() { return std::ranges::find(a, 1); }\n", "does not include <algorithm>")
        self.refuses("core/view.hpp", "void f() { assert(true); }\n", "does not include <cassert>")
        self.refuses("core/view.hpp", "#include <cstddef>\n// std::size_t\n", "includes <cstddef> and uses nothing of it")
        self.refuses("core/view.hpp", "std::unheard_of x;\n", "does not say which header")
        for code in ("#include <cstddef>\nstd::size_t x;\n", "#include <map>\nstd::map<int, int> x; std::erase_if(x, f);\n",
                     "#include <vector>\nstd::vector<int> x; auto n = std::ssize(x);\n"):
            self.assertEqual(self.breaches([("core/view.hpp", code)]), [])

    def test_refuses_macros_without_prefix(self):
        self.refuses("core/view.hpp", "#define HOST_DEVICE\n", "lacks the prefix")
        found = self.breaches(outside=[("tests/support/x.h", f"{SPDX}#define __shared__\n")])
        self.assertEqual(len(found), 1)
        self.assertIn("lacks the prefix", found[0])

    def test_lets_stand_ins_for_foreign_headers_use_their_macros(self):
        header = f"{structure_check.FOREIGN_NAMES[0]}/include/cuda_runtime.h"
        self.assertEqual(self.breaches(outside=[(header, f"{SPDX}#define __shared__\n")]), [])
        self.assertEqual(len(self.breaches(outside=[(header, "#pragma once\n")])), 1)

    def test_refuses_what_does_not_belong_in_the_root(self):
        for name in ("PLAN.md", ".notes", "out/log.txt", "compile_commands.json", "x.pyc", "CMakeLists.txt.orig"):
            with self.subTest(name=name):
                found = self.breaches(outside=[(name, "")])
                self.assertEqual(len(found), 1)
                self.assertTrue(found[0].startswith(name.partition("/")[0] + ":1: "), found)
                self.assertIn("root", found[0])

    def test_accepts_what_belongs_in_the_root_and_what_git_ignores(self):
        files = ("LICENSE", "README.md", "CMakePresets.json", ".clang-format", "models/demo/x", "docs/x.md", ".git/config",
                 "build/release/x", ".cache/x")
        self.assertEqual(self.breaches(outside=[(name, "") for name in files]), [])
        ignored = (".gitignore", "# outputs\n\n/out/\n*.pyc\ncompile_commands.json\n")
        files = ("out/log.txt", "x.pyc", "compile_commands.json")
        self.assertEqual(self.breaches(outside=[ignored, *((name, "") for name in files)]), [])
        found = self.breaches(outside=[ignored, ("out", "a file, where a directory is ignored")])
        self.assertEqual(len(found), 1)

    @unittest.skipUnless(shutil.which("git"), "needs git")
    def test_refuses_what_is_tracked_although_it_is_ignored(self):
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            (root / ".gitignore").write_text("*.log\n")
            for name in ("kept.log", "other.log"):
                (root / name).write_text("")
            for command in (["init", "-q"], ["add", "-f", "kept.log", ".gitignore"]):
                subprocess.run(["git", "-C", directory, *command], check=True, capture_output=True)
            found = list(structure_check.check_root(root))
        self.assertEqual(len(found), 1)
        self.assertTrue(found[0].startswith("kept.log:1: "), found)

    def test_refuses_files_without_licence_line(self):
        for name, text in (("scripts/run.sh", "#!/bin/sh\ntrue\n"), (".ci/run", ""), ("examples/main.cpp", "int x;\n"),
                           ("CMakeLists.txt", "project(x)\n"), ("tools/make.py", "\n# " + structure_check.SPDX)):
            with self.subTest(name=name):
                found = self.breaches(outside=[(name, text)])
                self.assertEqual(len(found), 1)
                self.assertIn("licence line", found[0])


if __name__ == "__main__":
    unittest.main()
