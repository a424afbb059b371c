#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Formats the C++ sources in place; with --check only says where they are not formatted. Version 14 decides, since
# versions of clang-format disagree.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

action=(-i)
if [[ "${1:-}" == --check ]]; then action=(--dry-run -Werror); fi
find include examples tests benchmarks \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.h' \) -print0 |
  xargs -0 clang-format-14 "${action[@]}"
