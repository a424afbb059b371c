// SPDX-License-Identifier: Apache-2.0
// The key/value cache of one sequence. Each layer has its own length; dropping rows copies the others into
// memory of their size and gives the rest back.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "corematching/backend/backend.hpp"

namespace corematching {

/// Keys (rotated) and values of one layer, [length, kv_heads * head_dim] each.
template <backend B>
class kv_layer {
 public:
  using value = typename B::value_type;
  using view = matrix_view<value, typename B::space>;
  using const_view = matrix_view<const value, typename B::space>;

  /// `size` = kv_heads * head_dim; room for `headroom` further rows is set aside whenever memory is taken.
  kv_layer(index size, index headroom) : size_(size), headroom_(headroom) {}

  index length() const { return length_; }
  /// Bytes of the rows that are filled.
  std::size_t bytes() const { return 2 * static_cast<std::size_t>(length_ * size_) * sizeof(value); }
  /// Bytes that the layer holds, headroom included.
  std::size_t capacity_bytes() const { return keys_.bytes() + values_.bytes(); }

  view keys() { return keys_.top_rows(length_); }
  view values() { return values_.top_rows(length_); }

  void append(B& be, const_view keys, const_view values) {
    if (length_ + keys.rows > keys_.rows()) resize(be, length_ + keys.rows + headroom_);
    be.copy(keys_.view().middle_rows(length_, keys.rows), keys);
    be.copy(values_.view().middle_rows(length_, keys.rows), values);
    length_ += keys.rows;
  }

  /// Keeps, of the last `recent` rows, only `rows` (ascending, counted from the first of them), and all rows
  /// before them.
  void keep(B& be, index recent, index_view<typename B::space> rows) {
    const index first = length_ - recent;
    be.gather_rows(keys_.view().middle_rows(first, rows.size), keys_.view().middle_rows(first, recent), rows);
    be.gather_rows(values_.view().middle_rows(first, rows.size), values_.view().middle_rows(first, recent),
                   rows);
    length_ = first + rows.size;
    resize(be, length_ + headroom_);
  }

 private:
  void resize(B& be, index rows) {
    for (matrix<B>* part : {&keys_, &values_}) {
      matrix<B> moved(be, rows, size_);
      if (length_ > 0) be.copy(moved.top_rows(length_), std::as_const(*part).view().top_rows(length_));
      *part = std::move(moved);
    }
  }

  index size_;
  index headroom_;
  index length_ = 0;
  matrix<B> keys_;
  matrix<B> values_;
};

/// One kv_layer for each decoder layer.
template <backend B>
class kv_cache {
 public:
  kv_cache(index layers, index size, index headroom) {
    layers_.reserve(static_cast<std::size_t>(layers));
    for (index layer = 0; layer < layers; ++layer) layers_.emplace_back(size, headroom);
  }

  kv_layer<B>& operator[](index layer) { return layers_[static_cast<std::size_t>(layer)]; }
  const kv_layer<B>& operator[](index layer) const { return layers_[static_cast<std::size_t>(layer)]; }
  index layers() const { return std::ssize(layers_); }

  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const auto& layer : layers_) sum += layer.bytes();
    return sum;
  }
  std::size_t capacity_bytes() const {
    std::size_t sum = 0;
    for (const auto& layer : layers_) sum += layer.capacity_bytes();
    return sum;
  }

 private:
  std::vector<kv_layer<B>> layers_;
};

}  // namespace corematching
