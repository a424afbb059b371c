// SPDX-License-Identifier: Apache-2.0
// SentencePiece's compiled normalisation rules: a double-array trie of what is replaced, and the texts that
// replace it, each ended by a zero byte.
//
//   4 bytes little-endian: the trie's size in bytes, the trie (units of 4 bytes), the texts
//
// Source: https://github.com/google/sentencepiece (src/normalizer.cc), https://github.com/s-yata/darts-clone
// for the units. As in the tokenizers library the shortest rule that matches wins, and takes its whole
// grapheme cluster.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/text/unicode.hpp"
#include "corematching/text/utf8.hpp"

namespace corematching::text {

class charsmap {
 public:
  /// Throws `error`, starting with `where`, for bytes that are no such rules.
  charsmap(std::string_view bytes, const std::string& where) {
    require(bytes.size() >= 4, where, ": ", bytes.size(), " bytes are no rules");
    const std::size_t size = unit_at(bytes, 0);
    require(size % 4 == 0 && size >= 4 && size <= bytes.size() - 4, where, ": a trie of ", size, " bytes in ",
            bytes.size(), " bytes of rules");
    units_.reserve(size / 4);
    for (std::size_t i = 0; i < size; i += 4) units_.push_back(unit_at(bytes, 4 + i));
    texts_ = bytes.substr(4 + size);
    require(is_whole(texts_), where, ": the texts of the rules are not UTF-8");
  }

  std::string operator()(std::string_view text) const {
    constexpr std::size_t longest_cluster = 5;  // bytes; longer ones are looked up by the character
    std::string result;
    result.reserve(text.size());
    for_each_grapheme(text, [&](std::string_view cluster) {
      if (cluster.size() <= longest_cluster) {
        if (const auto whole = replacement(cluster)) {
          result += *whole;
          return;
        }
      }
      for_each_character(
          cluster, [&](char32_t, std::string_view bytes) { result += replacement(bytes).value_or(bytes); });
    });
    return result;
  }

 private:
  static std::uint32_t unit_at(std::string_view bytes, std::size_t offset) {
    std::uint32_t unit = 0;
    for (std::size_t i = 4; i-- > 0;) unit = unit << 8 | static_cast<unsigned char>(bytes[offset + i]);
    return unit;
  }

  // A unit: bits 0 to 7 the label, 8 whether a value hangs below, 9 whether the offset in bits 10 to 30
  // counts in 256; bit 31 marks a value, which no label equals.
  static std::size_t offset_of(std::uint32_t unit) {
    return std::size_t{unit >> 10} << ((unit & 0x200U) >> 6);
  }

  std::optional<std::string_view> replacement(std::string_view key) const {
    std::size_t at = offset_of(units_[0]);
    for (const char c : key) {
      const auto label = static_cast<unsigned char>(c);
      at ^= label;
      if (label == 0 || at >= units_.size() || (units_[at] & 0x800000ffU) != label) return std::nullopt;
      const bool ends_here = (units_[at] & 0x100U) != 0;
      at ^= offset_of(units_[at]);
      if (!ends_here) continue;
      if (at >= units_.size()) return std::nullopt;
      return text_at(units_[at] & 0x7fffffffU);
    }
    return std::nullopt;
  }

  std::optional<std::string_view> text_at(std::size_t begin) const {
    // Damaged rules may point into the middle of a character.
    if (begin > texts_.size()) return std::nullopt;
    if (begin < texts_.size() && (static_cast<unsigned char>(texts_[begin]) & 0xc0) == 0x80)
      return std::nullopt;
    const std::string_view rest = std::string_view(texts_).substr(begin);
    return rest.substr(0, rest.find('\0'));
  }

  std::vector<std::uint32_t> units_;
  std::string texts_;
};

}  // namespace corematching::text
