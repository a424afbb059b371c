// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/chunked_body.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "llava/serve/api_error.hpp"

namespace corematching::driver {
namespace {

[[noreturn]] void refuse_chunks(const std::string& text) {
  throw api_error(400, "bad_request", "the chunks of the body are malformed: " + text);
}

/// A line without its end; nothing where the source ends first.
std::optional<std::string> read_line(const byte_source& source) {
  std::string line;
  char c = 0;
  while (source(&c, 1) == 1) {
    if (line.ends_with('\r')) {
      if (c != '\n') refuse_chunks("a line has a carriage return within");
      line.pop_back();
      return line;
    }
    if (c != '\r' && c != '\t' && (static_cast<unsigned char>(c) < ' ' || c == 0x7f))
      refuse_chunks("a line has a control character");
    if (line.size() == max_chunk_line_bytes) refuse_chunks("a line is too long");
    line += c;
  }
  return std::nullopt;
}

/// Digits alone: whatever else a reader could take for a number is refused.
std::uint64_t chunk_size(std::string_view line) {
  const std::string_view digits = line.substr(0, line.find_first_of("; \t"));
  std::uint64_t size = 0;
  const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), size, 16);
  if (problem != std::errc() || end != digits.data() + digits.size())
    refuse_chunks("a size is no number of hexadecimal digits");
  const auto behind = line.find_first_not_of(" \t", digits.size());
  if (digits.size() < line.size() && (behind == line.npos || line[behind] != ';'))
    refuse_chunks("behind a size stands no extension");
  return size;
}

void count_extra(std::size_t& extra, std::size_t more) {
  extra += more;
  if (extra > max_chunk_extra_bytes) refuse_chunks("extensions and trailers are too long");
}

}  // namespace

bool read_bytes(const byte_source& source, std::uint64_t size,
                const std::function<void(std::string_view)>& take) {
  std::array<char, 16384> block;
  while (size > 0) {
    const auto count = source(block.data(), std::min<std::uint64_t>(size, block.size()));
    if (count <= 0) return false;
    take({block.data(), static_cast<std::size_t>(count)});
    size -= static_cast<std::uint64_t>(count);
  }
  return true;
}

bool read_chunks(const byte_source& source, const std::function<void(std::string_view)>& take) {
  std::size_t extra = 0;
  for (;;) {
    const auto line = read_line(source);
    if (!line) return false;
    const std::uint64_t size = chunk_size(*line);
    constexpr std::size_t most_digits = 16;
    count_extra(extra, line->size() - std::min(line->size(), most_digits));
    if (size == 0) break;
    if (!read_bytes(source, size, take)) return false;
    const auto end = read_line(source);
    if (!end) return false;
    if (!end->empty()) refuse_chunks("a chunk is longer than its size");
  }
  for (;;) {
    const auto trailer = read_line(source);
    if (!trailer || trailer->empty()) return trailer.has_value();
    count_extra(extra, trailer->size() + 2);
  }
}

}  // namespace corematching::driver
