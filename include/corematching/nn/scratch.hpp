// SPDX-License-Identifier: Apache-2.0
// Intermediate activations of a decoder layer, shared by all layers of a sequence and sized once for its
// longest call.
#pragma once

#include <algorithm>
#include <cstdint>

#include "corematching/backend/backend.hpp"

namespace corematching {

/// Sizes that fix the shape of a decoder layer.
struct decoder_shape {
  index hidden_size = 0;        // D
  index intermediate_size = 0;  // N
  attention_shape attention;
};

template <backend B>
class scratch {
 public:
  using view = matrix_view<float, typename B::space>;

  /// For calls of up to `tokens` rows, of which `ffn_rows` pass through the feed-forward block at a time.
  scratch(B& be, const decoder_shape& shape, index tokens, index ffn_rows)
      : normed_(be, tokens, shape.hidden_size),
        queries_(be, tokens, shape.attention.query_size()),
        keys_(be, tokens, shape.attention.kv_size()),
        values_(be, tokens, shape.attention.kv_size()),
        attended_(be, tokens, shape.attention.query_size()),
        projected_(be, tokens, shape.hidden_size),
        activation_(be, std::min(tokens, ffn_rows), shape.intermediate_size) {}

  index tokens() const { return normed_.rows(); }
  index ffn_rows() const { return activation_.rows(); }

  view normed(index rows) { return normed_.top_rows(rows); }
  view queries(index rows) { return queries_.top_rows(rows); }
  view keys(index rows) { return keys_.top_rows(rows); }
  view values(index rows) { return values_.top_rows(rows); }
  view attended(index rows) { return attended_.top_rows(rows); }
  view projected(index rows) { return projected_.top_rows(rows); }
  /// What hooks may ask for, made when they first do: results of a product with `up`; and, of one token,
  /// three rows for what it chooses neurons by, and as many places as it chooses.
  view ups(B& be, index rows, index neurons) {
    if (ups_.rows() < rows) ups_ = matrix<B>(be, activation_.rows(), activation_.cols());
    return {ups_.view().data, rows, neurons, neurons};
  }
  view foretold(B& be) { return row_of_choice(be, 0); }
  view coarse_gates(B& be) { return row_of_choice(be, 1); }
  view coarse_ups(B& be) { return row_of_choice(be, 2); }
  vector_view<std::int32_t, typename B::space> chosen(B& be, index count) {
    if (chosen_.size() < count) chosen_ = be.template allocate<std::int32_t>(activation_.cols());
    return {chosen_.data(), count};
  }
  /// [rows, neurons]; rows are packed, so that fewer neurons are fewer cache lines.
  view activation(index rows, index neurons) { return {activation_.view().data, rows, neurons, neurons}; }

 private:
  view row_of_choice(B& be, index i) {
    if (choice_.rows() == 0) choice_ = matrix<B>(be, 3, activation_.cols());
    return choice_.view().middle_rows(i, 1);
  }

  matrix<B> normed_, queries_, keys_, values_, attended_, projected_, activation_, ups_, choice_;
  typename B::template buffer<std::int32_t> chosen_;
};

}  // namespace corematching
