// SPDX-License-Identifier: Apache-2.0
// Token ids from the largest logit down. A draw mostly looks at a few of them, so the vocabulary is ordered
// in parts, and only as far as somebody looks.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace corematching::detail {

class ranked_ids {
 public:
  /// Refers to `logits`; none of them may be NaN.
  explicit ranked_ids(std::span<const float> logits) : logits_(logits), ids_(logits.size()) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }

  std::size_t size() const { return ids_.size(); }

  /// The id before which stand `rank` others; of equal logits the lower id comes first.
  std::int32_t operator[](std::size_t rank) {
    assert(rank < size());
    while (rank >= ranked_) rank_more();
    return ids_[rank];
  }

 private:
  static constexpr std::size_t first_part = 64;
  static constexpr std::size_t growth = 8;  // each part costs a pass over all ids that are left

  void rank_more() {
    const std::size_t wanted = std::min(size(), std::max(first_part, growth * ranked_));
    const auto first = ids_.begin() + static_cast<std::ptrdiff_t>(ranked_);
    const auto last = ids_.begin() + static_cast<std::ptrdiff_t>(wanted);
    const auto before = [this](std::int32_t a, std::int32_t b) {
      const float x = logits_[static_cast<std::size_t>(a)], y = logits_[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    };
    std::nth_element(first, last, ids_.end(), before);
    std::sort(first, last, before);
    ranked_ = wanted;
  }

  std::span<const float> logits_;
  std::vector<std::int32_t> ids_;
  std::size_t ranked_ = 0;  // so many of them stand where they belong
};

}  // namespace corematching::detail
