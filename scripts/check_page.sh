#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Starts llava serve on the demo model, uses its page in headless Chromium (Debian: chromium) as a person does, and takes the
# README's screenshot. No part of continuous integration.
#
#   scripts/check_page.sh [SCREENSHOT.png]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

screenshot=${1:-docs/serve.png}
llava=${LLAVA:-build/release/examples/llava/llava}
command -v chromium >/dev/null || { echo "check_page: chromium is missing (Debian: chromium)" >&2; exit 1; }
if [[ -z ${LLAVA:-} ]]; then
  scripts/setup.sh
  cmake --preset release >/dev/null
  cmake --build --preset release --target llava
fi

log=$(mktemp)
"$llava" serve --model models/demo --port 0 2>"$log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -f "$log"' EXIT
url=""
for _ in $(seq 600); do
  url=$(grep -o 'http://[^ ]*' "$log" || true)
  [[ -z $url ]] || break
  kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.1
done
python3 tools/drive_page.py "$url" models/demo/pictures/scene_1.png "Describe the image." "$screenshot"
echo "check_page: the page does what it should; $screenshot"
