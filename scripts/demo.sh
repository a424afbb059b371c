#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the LLaVA driver and asks the small model in models/demo about its three pictures, or about yours: with all the
# work, with what the driver leaves out by default, and with what the paper leaves out. Says what each answer cost, and
# draws which image tokens stayed.
#
#   scripts/demo.sh [PICTURE [PROMPT]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

model=models/demo
pictures=("${@:1:1}")
[[ $# -gt 0 ]] || pictures=("$model"/pictures/*.png)
prompt=${2:-"Describe the image."}

scripts/setup.sh
cuda=AUTO
if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "No NVIDIA GPU was found, so the driver is built for the CPU alone."
  cuda=OFF
fi
# The kernels of this CPU alone: a driver that is asked three questions here needs no others.
cmake --preset release -DCOREMATCHING_CUDA="$cuda" -DCOREMATCHING_CPU_BODIES=best >/dev/null
cmake --build --preset release --target llava
llava=build/release/examples/llava/llava

# numbers <name>: those of that name in the driver's JSON.
numbers() { grep -o "\"$1\":[0-9.]*" <<<"$json" | cut -d: -f2 || true; }

# ask <preset> <picture>: a line of what the answer cost, and the answer.
ask() {
  local drawing=()
  [[ $1 == dense ]] || drawing=(--show-tokens "build/tokens_$(basename "${2%.*}")_$1.png")
  json=$("$llava" --model "$model" --image "$2" --prompt "$prompt" --preset "$1" --json "${drawing[@]}")
  local tokens kept
  tokens=$(numbers image_tokens | head -1)
  kept=$(numbers kept_image_tokens | tail -1)
  awk -v preset="$1" -v tokens="$tokens" -v kept="${kept:-$tokens}" -v ffn="$(numbers ffn_bytes_to_dense)" \
    -v cache="$(numbers kv_cache_bytes)" 'BEGIN {
      printf "  %-8s%4d of %d image tokens, KV cache %4.0f KiB, %3.0f%% of the feed-forward bytes: ",
        preset, kept, tokens, cache / 1024, 100 * ffn }'
  sed 's/^{"answer":\("\([^"\\]\|\\.\)*"\).*/\1/' <<<"$json"
}

echo
echo "Prompt: $prompt"
for picture in "${pictures[@]}"; do
  echo
  echo "$picture"
  for preset in dense default paper; do
    ask "$preset" "$picture"
  done
done
echo
echo "dense: every neuron, every token; default: what keeps the answers; paper: CoreMatching to the letter, which this"
echo "model does not stand (docs/accuracy.md says why). Kept image tokens: build/tokens_*.png"
