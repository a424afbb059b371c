// SPDX-License-Identifier: Apache-2.0
// The key/value cache of one sequence. Each layer has its own length; dropping rows copies the others into
// memory of their size and gives the rest back.
#pragma once

#include <cassert>
#include <cstddef>
#include <utility>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/fused.hpp"

namespace corematching {

/// Keys (rotated) and values of one layer, [length, kv_heads * head_dim] each.
template <backend B>
class kv_layer {
 public:
  using space = typename B::space;
  using view = mutable_stored_view<space>;
  using const_view = matrix_view<const float, space>;

  /// `size` = kv_heads * head_dim; room for `headroom` further rows is set aside whenever memory is taken.
  /// `type` is what the rows are stored in.
  kv_layer(index size, index headroom, dtype type = dtype::f32)
      : size_(size), headroom_(headroom), type_(type) {
    require(is_element(type), "a KV cache is stored in f32, f16 or bf16, not in ", name_of(type));
  }

  index length() const { return length_; }
  index size() const { return size_; }
  dtype type() const { return type_; }
  /// Bytes of the rows that are filled.
  std::size_t bytes() const { return 2 * static_cast<std::size_t>(stored_bytes(type_, length_, size_)); }
  /// Bytes that the layer holds, headroom included.
  std::size_t capacity_bytes() const {
    return 2 * static_cast<std::size_t>(stored_bytes(type_, rows_, size_));
  }

  /// Whether so many rows can be appended without moving the others.
  bool has_room(index rows) const { return length_ + rows <= rows_; }
  /// Says how many rows are filled where others than append() and compact() have seen to it, or forgets the
  /// last ones.
  void set_length(index length) {
    assert(length >= 0 && length <= rows_);
    length_ = length;
  }

  stored_view<space> keys() const { return rows_of(keys_, 0, length_); }
  stored_view<space> values() const { return rows_of(values_, 0, length_); }
  view keys() { return rows_of(keys_, 0, length_); }
  view values() { return rows_of(values_, 0, length_); }

  void append(B& be, const_view keys, const_view values) {
    if (length_ + keys.rows > rows_) resize(be, length_ + keys.rows + headroom_);
    detail::store(be, rows_of(keys_, length_, keys.rows), rows_of(values_, length_, keys.rows), keys, values);
    length_ += keys.rows;
  }

  /// Appends all rows of `from`, which stores as many elements as this one does, in the same type.
  void append(B& be, const kv_layer& from) {
    assert(from.size_ == size_ && from.type_ == type_);
    const index rows = from.length_;
    if (rows == 0) return;
    if (length_ + rows > rows_) resize(be, length_ + rows + headroom_);
    be.copy_rows(rows_of(keys_, length_, rows), from.keys());
    be.copy_rows(rows_of(values_, length_, rows), from.values());
    length_ += rows;
  }

  /// Keeps, of the last `recent` rows, only `rows` (ascending, counted from the first of them), and all rows
  /// before them.
  void compact(B& be, index recent, index_view<space> rows) {
    const index first = length_ - recent;
    for (memory* part : {&keys_, &values_})
      be.gather_rows(rows_of(*part, first, rows.size), rows_of(*part, first, recent), rows);
    length_ = first + rows.size;
    resize(be, length_ + headroom_);
  }

 private:
  using memory = typename B::template buffer<std::byte>;

  index row_bytes() const { return static_cast<index>(stored_bytes(type_, 1, size_)); }
  view rows_of(memory& part, index first, index count) const {
    return {part.data() + first * row_bytes(), type_, count, size_, row_bytes()};
  }
  stored_view<space> rows_of(const memory& part, index first, index count) const {
    return {part.data() + first * row_bytes(), type_, count, size_, row_bytes()};
  }

  void resize(B& be, index rows) {
    for (memory* part : {&keys_, &values_}) {
      auto moved = be.template allocate<std::byte>(rows * row_bytes());
      if (length_ > 0) be.copy_rows(rows_of(moved, 0, length_), rows_of(*part, 0, length_));
      *part = std::move(moved);
    }
    rows_ = rows;
  }

  index size_;
  index headroom_;
  dtype type_;
  index length_ = 0;
  index rows_ = 0;
  memory keys_;
  memory values_;
};

/// One kv_layer for each decoder layer.
template <backend B>
class kv_cache {
 public:
  kv_cache(index layers, index size, index headroom, dtype type = dtype::f32) {
    layers_.reserve(static_cast<std::size_t>(layers));
    for (index layer = 0; layer < layers; ++layer) layers_.emplace_back(size, headroom, type);
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
