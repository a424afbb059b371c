// SPDX-License-Identifier: Apache-2.0
// A set of byte strings, each with a number, in which those that begin a text are found in one walk.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "corematching/text/number_map.hpp"

namespace corematching::text {

class byte_trie {
 public:
  /// Adds `key`, which is not empty; of equal keys the first counts.
  void insert(std::string_view key, std::int32_t value) {
    std::uint32_t node = 0;
    first_.set(static_cast<unsigned char>(key[0]));
    for (const char c : key) {
      const auto next = static_cast<std::uint32_t>(values_.size());
      node = children_.insert(edge(node, c), next);
      if (node == next) values_.push_back(nothing);
    }
    if (values_[node] == nothing) values_[node] = value;
  }

  /// Calls `use(length, value)` for each key that `text` begins with, the shortest first.
  template <class Use>
  void for_each_prefix(std::string_view text, Use&& use) const {
    std::uint32_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const std::uint32_t* next = children_.find(edge(node, text[i]));
      if (next == nullptr) return;
      node = *next;
      if (values_[node] != nothing) use(i + 1, values_[node]);
    }
  }

  /// Whether some key begins with this byte.
  bool begins_with(char first) const { return first_[static_cast<unsigned char>(first)]; }

 private:
  static constexpr std::int32_t nothing = -1;

  static std::uint64_t edge(std::uint32_t node, char byte) {
    return std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
  }

  std::bitset<256> first_;
  number_map<std::uint32_t> children_;
  std::vector<std::int32_t> values_{nothing};  // of each node; the first is the root
};

}  // namespace corematching::text
