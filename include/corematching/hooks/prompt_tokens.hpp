// SPDX-License-Identifier: Apache-2.0
// The tokens of a prompt by kind, found again by their original positions when others are gone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "corematching/core/view.hpp"
#include "corematching/nn/token_kind.hpp"

namespace corematching {

class prompt_tokens {
 public:
  prompt_tokens() = default;
  /// `kinds` of the tokens, the first of which stands at original position `first`.
  prompt_tokens(std::int32_t first, std::span<const token_kind> kinds)
      : first_(first), kinds_(kinds.begin(), kinds.end()) {}

  index size() const { return std::ssize(kinds_); }
  bool has(token_kind kind) const { return std::ranges::count(kinds_, kind) > 0; }
  /// Place `i` of the prompt, from its end where `i` is negative; it may lie outside.
  index place(index i) const { return i < 0 ? size() + i : i; }
  token_kind kind_at(index place) const { return kinds_[static_cast<std::size_t>(place)]; }

  std::int32_t position_of(index place) const { return first_ + static_cast<std::int32_t>(place); }
  token_kind kind_of(std::int32_t position) const { return kind_at(position - first_); }

  /// Rows of one kind, ascending; row i stands at positions[i].
  std::vector<std::int32_t> rows_of(token_kind kind, index_view<> positions) const {
    std::vector<std::int32_t> rows;
    for (index row = 0; row < positions.size; ++row)
      if (kind_of(positions[row]) == kind) rows.push_back(static_cast<std::int32_t>(row));
    return rows;
  }

 private:
  std::int32_t first_ = 0;
  std::vector<token_kind> kinds_;
};

}  // namespace corematching
