// SPDX-License-Identifier: Apache-2.0
// The tokens of a prompt by kind and by picture, found again by their original positions when others are
// gone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/nn/token_kind.hpp"

namespace corematching {

class prompt_tokens {
 public:
  using rows = std::vector<std::int32_t>;

  prompt_tokens() = default;
  /// `kinds` of the tokens, the first of which stands at original position `first`, and how many image tokens
  /// each picture has, in the prompt's order; where nothing is said, all are of one. Throws `error` where
  /// pictures have more or fewer tokens than there are.
  prompt_tokens(std::int32_t first, std::span<const token_kind> kinds,
                std::span<const index> picture_sizes = {})
      : first_(first), kinds_(kinds.begin(), kinds.end()) {
    index given = 0;
    for (const index size : picture_sizes) {
      require(size > 0, "a picture of the prompt has ", size, " image tokens");
      given += size;
    }
    const index there = std::ranges::count(kinds_, token_kind::image);
    require(picture_sizes.empty() || given == there, "the pictures of the prompt have ", given,
            " image tokens, but it has ", there);
    number_pictures(picture_sizes);
  }

  index size() const { return std::ssize(kinds_); }
  bool has(token_kind kind) const { return std::ranges::count(kinds_, kind) > 0; }
  /// Place `i` of the prompt, from its end where `i` is negative; it may lie outside.
  index place(index i) const { return i < 0 ? size() + i : i; }
  token_kind kind_at(index place) const { return kinds_[static_cast<std::size_t>(place)]; }

  std::int32_t position_of(index place) const { return first_ + static_cast<std::int32_t>(place); }
  token_kind kind_of(std::int32_t position) const { return kind_at(position - first_); }

  /// Rows of one kind, ascending; row i stands at positions[i].
  rows rows_of(token_kind kind, index_view<> positions) const {
    rows found;
    for (index row = 0; row < positions.size; ++row)
      if (kind_of(positions[row]) == kind) found.push_back(static_cast<std::int32_t>(row));
    return found;
  }

  /// Rows of each picture that has some, ascending.
  std::vector<rows> rows_of_pictures(index_view<> positions) const {
    std::vector<rows> found;
    std::int32_t last = none;
    for (index row = 0; row < positions.size; ++row) {
      const std::int32_t picture = pictures_[static_cast<std::size_t>(positions[row] - first_)];
      if (picture == none) continue;
      if (picture != last) found.emplace_back();
      found.back().push_back(static_cast<std::int32_t>(row));
      last = picture;
    }
    return found;
  }

  /// Rows of the text behind the last image token of the prompt, ascending.
  rows rows_behind_pictures(index_view<> positions) const {
    rows found = rows_of(token_kind::text, positions);
    const auto end = std::find(kinds_.rbegin(), kinds_.rend(), token_kind::image).base() - kinds_.begin();
    std::erase_if(found, [&](std::int32_t row) { return positions[row] < position_of(end); });
    return found;
  }

 private:
  static constexpr std::int32_t none = -1;

  void number_pictures(std::span<const index> sizes) {
    std::int32_t picture = 0;
    index left = sizes.empty() ? size() : sizes.front();
    for (const token_kind kind : kinds_) {
      if (kind == token_kind::image && left == 0) left = sizes[static_cast<std::size_t>(++picture)];
      pictures_.push_back(kind == token_kind::image ? picture : none);
      left -= kind == token_kind::image ? 1 : 0;
    }
  }

  std::int32_t first_ = 0;
  std::vector<token_kind> kinds_;
  std::vector<std::int32_t> pictures_;  // which one a token is of, or none
};

}  // namespace corematching
