// SPDX-License-Identifier: Apache-2.0
// Safetensors files put together by hand, so that tests can get each part wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace support {

/// A file with `header` as its JSON text and `data` behind it.
inline std::string raw_safetensors(std::string_view header, std::string_view data) {
  std::string file;
  for (unsigned shift = 0; shift < 64; shift += 8)
    file.push_back(static_cast<char>((std::uint64_t{header.size()} >> shift) & 0xff));
  return file.append(header).append(data);
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace support
