#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that building and testing need and that are missing. Says nothing if none is.
#
#   scripts/setup.sh        what the library, its examples and its tests need
#   scripts/setup.sh --ci   also what only continuous integration uses
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config python3
  libeigen3-dev nlohmann-json3-dev libonig-dev libutf8proc-dev libgtest-dev libbenchmark-dev
  libcli11-dev libcpp-httplib-dev libsentencepiece-dev libedit-dev libpng-dev libjpeg-dev libgif-dev libwebp-dev libexif-dev
  libboost-context-dev)
if [[ "${1:-}" == --ci ]]; then
  packages+=(clang libclang-rt-14-dev clang-format-14 ccache g++-aarch64-linux-gnu qemu-user)
fi

if ! command -v dpkg-query >/dev/null; then
  echo "setup: not a Debian system; install the equivalents of: ${packages[*]}" >&2
  exit 0
fi

# A tool may also have been installed by other means than its package.
declare -A tools=([g++]=g++ [cmake]=cmake [ninja-build]=ninja [pkg-config]=pkg-config [python3]=python3
  [clang]=clang++ [clang-format-14]=clang-format-14 [ccache]=ccache
  [g++-aarch64-linux-gnu]=aarch64-linux-gnu-g++ [qemu-user]=qemu-x86_64)
installed() {
  if [[ -n "${tools[$1]:-}" ]] && command -v "${tools[$1]}" >/dev/null; then return 0; fi
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" == installed ]]
}

missing=()
for package in "${packages[@]}"; do
  installed "$package" || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

sudo=()
if [[ $(id -u) -ne 0 ]]; then sudo=(sudo); fi
echo "setup: installing ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
  </dev/null >/dev/null
