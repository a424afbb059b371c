#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the LLaVA driver and lets the small model in models/demo describe a picture: with all its work, then with core
# neurons and core tokens. Also draws which image tokens stayed.
#
#   scripts/demo.sh [PICTURE [PROMPT]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

model=models/demo
pictures=("$model"/pictures/*)
picture=${1:-${pictures[0]}}
prompt=${2:-"What is in the picture?"}
drawing=build/core_tokens.png

scripts/setup.sh
# Warnings of a compiler newer than ours are no reason not to show the demo.
cmake --preset release --compile-no-warning-as-error >/dev/null
cmake --build --preset release --target llava
llava=build/release/examples/llava/llava

ask() {
  "$llava" --model "$model" --image "$picture" --prompt "$prompt" --stats "$@"
}
echo
echo "Picture: $picture"
echo "Prompt:  $prompt"
echo
echo "== Dense: every neuron, every token =="
ask --sparsity none
echo
echo "== Core neurons and core tokens =="
ask --sparsity both --show-tokens "$drawing"
echo
echo "Kept image tokens: $drawing"
