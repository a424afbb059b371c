#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What one runs on a machine with an NVIDIA GPU: builds for its architecture, runs the tests on the device, again under
# compute-sanitizer, measures decode and prefill at the shapes of LLaVA-1.5, compares with transformers where python has
# it, and ends with one table. Whatever follows -- goes to CMake, such as -DCMAKE_PREFIX_PATH=... for Eigen and others.
#   scripts/gpu_check.sh [--build DIR] [--out DIR] [--quick] [-- CMAKE_OPTION...]
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build/gpu out="" quick=0
while [[ $# -gt 0 ]]; do
  case "$1" in
    --build) build="$2"; shift 2 ;;
    --out) out="$2"; shift 2 ;;
    --quick) quick=1; shift ;;
    --) shift; break ;;
    *) echo "gpu_check: unknown option $1" >&2; exit 2 ;;
  esac
done
out="${out:-$build/report}"
mkdir -p "$out"
failed=0
rows=()

# row WHAT RESULT: one line of the table at the end.
row() { rows+=("$(printf '%-52s %s' "$1" "$2")"); }

# step NAME COMMAND...: runs it, keeps what it prints in $out/NAME.txt, and notes how it ended.
step() {
  local name="$1"; shift
  echo "=== $name ($SECONDS s)"
  if "$@" >"$out/$name.txt" 2>&1; then
    row "$name" passed
  else
    row "$name" "FAILED: see $out/$name.txt"
    tail -20 "$out/$name.txt"
    failed=1
    return 1
  fi
}

finish() {
  printf '\n%s\n' "${rows[@]}" | tee "$out/table.txt"
  exit "$failed"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader >"$out/device.txt" 2>&1 ||
  { echo "gpu_check: no NVIDIA GPU: $(cat "$out/device.txt")" >&2; exit 1; }
row "device" "$(head -1 "$out/device.txt")"

step configure cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCOREMATCHING_NATIVE=ON \
  -DCOREMATCHING_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native "$@" || finish
step build cmake --build "$build" --target cuda_tests llava_bench cuda_ops_bench || finish
tests="$build/tests/cuda/device/cuda_tests" bench="$build/benchmarks/llava_bench"

step tests "$tests" --gtest_brief=1
if command -v compute-sanitizer >/dev/null; then
  # Racecheck looks at shared memory alone and is slow: the operations are enough for it.
  step memcheck compute-sanitizer --tool memcheck --leak-check full --error-exitcode 9 "$tests" --gtest_brief=1 \
    --gtest_filter='device_*:backend_*:kv_layers*'
  step racecheck compute-sanitizer --tool racecheck --error-exitcode 9 "$tests" --gtest_brief=1 \
    --gtest_filter='device_*:backend_attention*:backend_selection*'
else
  row "compute-sanitizer" "not found"
fi

# shown NAME COMMAND...: a step whose output goes into the table.
shown() {
  step "$@" || return
  while IFS= read -r line; do rows+=("    $line"); done <"$out/$1.txt"
}
shown operations "$build/benchmarks/cuda_ops_bench"

# measure NAME OPTION...: dense and sparse in turns; the medians of the table that llava_bench prints.
measure() {
  local name="$1"; shift
  shown "$name" "$bench" --cuda 0 --weights bf16 --kv-cache bf16 --paired --repeat 5 "$@"
}
measure 7b_decode --shape llava-1.5-7b --beta 0.4 --new-tokens 64
measure 7b_decode_without_graph --shape llava-1.5-7b --beta 0.4 --new-tokens 64 --no-graph
measure 7b_prefill_layer_10 --shape llava-1.5-7b --keep 64 --match-layer 10 --new-tokens 4
measure 7b_prefill_layer_2 --shape llava-1.5-7b --keep 64 --match-layer 2 --new-tokens 4
[[ $quick -eq 1 ]] || measure 13b_both --shape llava-1.5-13b --beta 0.4 --keep 64 --new-tokens 64

if python3 -c 'import torch, transformers' 2>/dev/null; then
  shown transformers python3 benchmarks/compare_transformers.py --llava-bench "$bench"
else
  row "transformers" "not found: no comparison"
fi
finish
