// SPDX-License-Identifier: Apache-2.0
// Any bytes, read as a picture file: decoded to as many samples as its sides say, or refused with
// corematching::error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "corematching/core/error.hpp"
#include "llava/picture_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t small = 1 << 20;  // pixels: the fuzzer is after structure, not memory
  try {
    const auto image =
        corematching::driver::decode_picture(std::as_bytes(std::span(data, size)), "input", small);
    corematching::require_valid(image);
  } catch (const corematching::error& refused) {
    if (!std::string(refused.what()).starts_with("input")) std::abort();
  }
  return 0;
}
