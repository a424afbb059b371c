#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What one runs on a machine with an NVIDIA GPU, in parts that each end with a table of their own, most wanted first:
#
#   tests   builds for the GPU's architecture; tests and stored runs of transformers on it; decode at 7B shape
#   speed   prefill, dropped tokens and 13B at the shapes of LLaVA-1.5; transformers, eager and compiled
#   memory  compute-sanitizer over operations and a small model; where the time of a decoding step goes
#
#   scripts/gpu_check.sh [--parts tests,speed,memory] [--build DIR] [--programs DIR] [--out DIR] [--dependencies DIR]
#                        [--rehearse] [-- CMAKE_OPTION...]
#   scripts/gpu_check.sh --collect DIR
#
# Every step has a limit of time, and none that fails keeps the next from running. --rehearse does without a GPU all that
# comes before the first kernel, and says what would follow. A machine with a GPU may have no packages, or too little
# time. With --rehearse, --programs DIR keeps there what was built, for any processor and for compute capability 9.0,
# and the libraries that it needs; carry it to the other machine, where --programs DIR takes what is there instead of
# building it (this checkout must have the same path there, since tests read files of it). Or carry what --collect DIR
# copies of this machine's Debian packages, which the build needs, and name it with --dependencies: all but the driver
# and the stored runs of transformers, which begin with pictures, are then built.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '/^#   scripts/,/^# Every/p' "$0" | sed '$d; s/^# *//' >&2; exit 2; }

parts=tests,speed,memory build=build/gpu programs="" out="" dependencies="" rehearsed=0
while [[ $# -gt 0 ]]; do
  case "$1" in
    --parts | --build | --programs | --out | --dependencies | --collect)
      [[ $# -ge 2 ]] || usage
      declare "$(tr -d - <<<"$1")=$2"
      shift 2 ;;
    --rehearse) rehearsed=1; shift ;;
    --) shift; break ;;
    *) echo "gpu_check: unknown option $1" >&2; usage ;;
  esac
done

if [[ -n "${collect:-}" ]]; then
  mkdir -p "$collect"
  dpkg -L libeigen3-dev nlohmann-json3-dev libcli11-dev libgtest-dev libbenchmark-dev libbenchmark1debian |
    grep -E '^/usr/(include|lib|share/(cmake|eigen3))' | sort -u |
    tar -cf - --no-recursion -T - 2>/dev/null | tar -xf - -C "$collect"
  du -sh "$collect"
  exit
fi

out="${out:-$build/report}"
mkdir -p "$out"
failed=0
rows=()

# row WHAT RESULT: one line of the part's table.
row() { rows+=("$(printf '%-44s %s' "$1" "$2")"); }

# step SECONDS NAME COMMAND...: runs it, keeps what it prints in $out/NAME.txt, and notes how it ended.
step() {
  local limit="$1" name="$2" began=$SECONDS; shift 2
  [[ $rehearsed -eq 0 ]] || limit=3600  # no GPU is waiting
  echo "=== $name ($SECONDS s)"
  local command=("$@")
  ! declare -F "$1" >/dev/null || command=(bash -c "$(declare -f "$1"); \"\$@\"" "$1" "$@")  # timeout knows no functions
  timeout --kill-after=5 "$limit" "${command[@]}" >"$out/$name.txt" 2>&1
  local status=$?
  if [[ $status -eq 0 ]]; then
    row "$name" "passed in $((SECONDS - began)) s"
    return
  fi
  row "$name" "$([[ $status -eq 124 || $status -eq 137 ]] && echo "STOPPED after $limit s" || echo FAILED): see $out/$name.txt"
  tail -20 "$out/$name.txt"
  failed=1
  return 1
}

# on_device SECONDS NAME COMMAND...: a step that starts kernels. shown: one whose output goes into the table.
on_device() {
  if [[ $rehearsed -eq 1 ]]; then row "$2" "not run: ${*:3}"; else step "$@"; fi
}
shown() {
  on_device "$@" || return
  [[ $rehearsed -eq 1 ]] || while IFS= read -r line; do rows+=("    $line"); done <"$out/$2.txt"
}

# found COMMAND NAME: whether there is such a program; the table says where there is none.
found() { command -v "$1" >/dev/null || { row "$2" "not run: no $1"; return 1; }; }

# ends PART: its table.
ends() {
  printf '\n--- %s (%d s)\n' "$1" "$SECONDS" | cat - <(printf '%s\n' "${rows[@]}") | tee "$out/$1.table.txt"
  rows=()
}

built=("$build/tests/cuda/device/cuda_tests" "$build/benchmarks/llava_bench" "$build/benchmarks/cuda_ops_bench"
  "$build/examples/llava/llava")
if [[ -n "$programs" && $rehearsed -eq 0 ]]; then
  built=("$programs"/{cuda_tests,llava_bench,cuda_ops_bench,llava})
  # CUDA's libraries are those of the toolkit, or of Python's packages.
  wheels=$(python3 -c 'import glob, site
print(":".join(d for s in site.getsitepackages() for d in glob.glob(s + "/nvidia/*/lib")))' 2>/dev/null)
  export LD_LIBRARY_PATH="$(realpath "$programs")/lib:/usr/local/cuda/lib64:$wheels:${LD_LIBRARY_PATH:-}"
fi
# in_shards COUNT PROGRAM: its tests in so many processes, so that a kernel that ends one of them, or takes forever, keeps
# no other from going on; what each printed, and then which tests failed or did not end.
in_shards() {
  local shard failed=0 pids=()
  for ((shard = 0; shard < $1; ++shard)); do
    GTEST_TOTAL_SHARDS=$1 GTEST_SHARD_INDEX=$shard "$2" >"$out/shard_$shard.txt" 2>&1 &
    pids+=($!)
  done
  for shard in "${!pids[@]}"; do
    wait "${pids[$shard]}" && continue
    failed=1
    echo "shard $shard ended with a failure; its last lines:"
    tail -5 "$out/shard_$shard.txt"
    grep '^\[  FAILED  \].* ms)' "$out/shard_$shard.txt"
  done
  grep -h '^\[  PASSED  \]' "$out"/shard_*.txt
  return "$failed"
}
tests="${built[0]}" bench="${built[1]}" operations="${built[2]}" llava="${built[3]}"
export out programs llava  # for functions that are steps

# measure SECONDS NAME OPTION...: dense and sparse in turns; the medians of the table that llava_bench prints.
measure() {
  local limit="$1" name="$2"; shift 2
  shown "$limit" "$name" "$bench" --cuda 0 --weights bf16 --kv-cache bf16 --paired "$@"
}

build_programs() {
  local target=(-DCOREMATCHING_NATIVE=ON -DCMAKE_CUDA_ARCHITECTURES=native) options=() driver=llava examples=ON
  local components="cpu_linked;cuda_linked;eigen_linked;text;chat"
  [[ $rehearsed -eq 0 ]] || target=(-DCOREMATCHING_NATIVE=OFF -DCMAKE_CUDA_ARCHITECTURES=90)
  if ! pkg-config --exists sentencepiece libedit cpp-httplib; then
    row "the driver, stored runs of transformers" "not built: no packages of the driver"
    components="${components%;text*}" examples=OFF driver="" built=("${built[@]:0:3}")
  fi
  [[ -z "$dependencies" ]] || options+=("-DCMAKE_PREFIX_PATH=$(realpath "$dependencies")/usr"
    -DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu)
  step 60 configure cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCOREMATCHING_CUDA=ON \
    "-DCOREMATCHING_COMPONENTS=$components" -DCOREMATCHING_BUILD_EXAMPLES="$examples" -DCOREMATCHING_CPU_BODIES=baseline \
    "${target[@]}" "${options[@]}" "$@" || return
  step 360 build cmake --build "$build" --target cuda_tests llava_bench cuda_ops_bench $driver || return
  [[ -z "$programs" ]] || step 30 keep_programs keep_programs "${built[@]}"
}

# The programs, and what they need of this machine's packages: not what every system has, nor CUDA's.
keep_programs() {
  install --strip -D -t "$programs" "$@"
  ldd "$@" | awk '$3 ~ "^/(usr/)?lib/" { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so' | xargs install -D -t "$programs/lib"
}

# What the small model in models/demo says of its pictures on the device, which must be what it says on the CPU.
demo_answers() {
  local picture preset device answers=() differing=0
  for picture in models/demo/pictures/*.png; do
    for preset in dense default paper; do
      answers=()
      for device in cpu cuda; do
        answers+=("$("$llava" --model models/demo --image "$picture" --prompt "Describe the image." --preset "$preset" \
          --weights f32 --device "$device" 2>&1)")
      done
      if [[ "${answers[0]}" == "${answers[1]}" ]]; then continue; fi
      differing=1
      echo "$picture, $preset: on the CPU ${answers[0]}"
      echo "  on the device ${answers[1]}"
    done
  done
  [[ $differing -eq 1 ]] || echo "the same answers as on the CPU"
  return "$differing"
}

part_tests() {
  if [[ -z "$programs" || $rehearsed -eq 1 ]]; then build_programs "$@" || return; fi
  step 30 programs_start bash -c "'$tests' --gtest_list_tests && '$bench' --help"
  on_device 120 device_tests in_shards 8 "$tests"
  if [[ -x "$llava" ]]; then shown 60 demo_answers demo_answers; fi
  measure 60 7b_decode --shape llava-1.5-7b --beta 0.4 --new-tokens 64 --repeat 5
  measure 60 7b_decode_overlapping --shape llava-1.5-7b --beta 0.4 --new-tokens 64 --overlap --repeat 5
  measure 60 7b_decode_gate --shape llava-1.5-7b --policy gate --beta 0.4 --new-tokens 64 --repeat 5
  shown 60 operations_of_decoding "$operations"
}

part_speed() {
  measure 60 7b_decode_without_graph --shape llava-1.5-7b --beta 0.4 --new-tokens 64 --no-graph --repeat 3
  measure 60 7b_prefill_layer_10 --shape llava-1.5-7b --keep 64 --match-layer 10 --new-tokens 4 --repeat 5
  measure 60 7b_prefill_layer_2 --shape llava-1.5-7b --keep 64 --match-layer 2 --new-tokens 4 --repeat 5
  if python3 -c 'import torch, transformers' 2>/dev/null; then
    shown 240 transformers python3 benchmarks/compare_transformers.py --llava-bench "$bench"
  else
    row transformers "not run: python3 has no torch or no transformers"
  fi
  limited_memory
  measure 90 13b_both --shape llava-1.5-13b --beta 0.4 --keep 64 --new-tokens 64 --repeat 3
}

# The paper's card that is too small: weights, of eight layers at 7B shape, limited to 62% of what they take.
limited_memory() {
  local model="$build/limited_model" name=7b_limited_to_62_percent
  python3 -c 'import numpy' 2>/dev/null || { row "$name" "not run: python3 has no numpy"; return; }
  if [[ $rehearsed -eq 1 ]]; then
    measure 120 "$name" --model "$model" --memory-limit 62% --beta 0.4 --image-tokens 0 --new-tokens 32 --repeat 3
    return
  fi
  step 60 random_model python3 tools/make_random_llava.py --preset llava-1.5-7b --text-only --layers 8 --dtype bf16 \
    --out "$model" || return
  local bytes; bytes="$(cat "$model"/*.safetensors | wc -c)"
  measure 120 "$name" --model "$model" --memory-limit "$((bytes * 62 / 100))" --beta 0.4 --image-tokens 0 --new-tokens 32 \
    --repeat 3
  rm -r "$model"
}

part_memory() {
  if found compute-sanitizer "memcheck, racecheck"; then
    # Thousands of small cases would take an hour under it: the kernels' own tests, and steps of a small model.
    on_device 150 memcheck compute-sanitizer --tool memcheck --error-exitcode 9 "$tests" \
      --gtest_filter='device_*:backend_attention*:backend_selection*:kv_layers*'
    # Racecheck looks at shared memory alone and is slower still.
    on_device 120 racecheck compute-sanitizer --tool racecheck --error-exitcode 9 "$tests" \
      --gtest_filter='device_attention*:device_select*:device_largest*:backend_selection*'
  fi
  if found ncu "kernels of a decoding step"; then
    # Four layers are enough to meet every kernel; a layer's kernels before the first steps are those of prompts.
    shown 120 kernels_of_decoding ncu --clock-control none --print-summary per-kernel --kernel-name-base function \
      --kernel-name 'regex:normalise_rows|multiply_rows|rotate_pairs|narrow_rows|decode_slices|combine_slices|gated_rows|sum_rows|add_slices|find_argmax' \
      --launch-skip 200 --launch-count 110 --metrics \
      gpu__time_duration.sum,dram__bytes_read.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed \
      "$bench" --cuda 0 --weights bf16 --kv-cache bf16 --shape llava-1.5-7b --layers 4 --new-tokens 16 --no-graph --repeat 1
  fi
}

if nvidia-smi --query-gpu=name,driver_version --format=csv,noheader >"$out/device.txt" 2>&1; then
  row device "$(head -1 "$out/device.txt")"
elif [[ $rehearsed -eq 0 ]]; then
  echo "gpu_check: no NVIDIA GPU: $(head -1 "$out/device.txt")" >&2
  exit 1
fi
for part in ${parts//,/ }; do
  declare -F "part_$part" >/dev/null || { echo "gpu_check: there is no part $part" >&2; usage; }
  "part_$part" "$@"
  ends "$part"
done
exit "$failed"
