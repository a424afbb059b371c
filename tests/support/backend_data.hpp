// SPDX-License-Identifier: Apache-2.0
// Test data in a backend's memory. Everything travels through the backend's own upload and download, so the
// same test serves a backend whose memory is a device's.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "corematching/core/quantised.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace support {

/// The backends that every operation is tested on.
using backends = testing::Types<test_backend>;

inline constexpr corematching::activation activations[] = {
    corematching::activation::silu, corematching::activation::gelu_erf, corematching::activation::gelu_tanh,
    corematching::activation::quick_gelu};

/// Attention whose scores are scaled as models scale them.
inline corematching::attention_shape scaled_attention(corematching::index heads, corematching::index kv_heads,
                                                      corematching::index head_dim, bool causal = true) {
  return {heads, kv_heads, head_dim, 1 / std::sqrt(static_cast<float>(head_dim)), causal};
}

/// Weights whose dot products with values in [-1, 1] stay below 2.
inline double weight_magnitude(corematching::index length) {
  return 1 / std::sqrt(static_cast<double>(length));
}

/// Calls body(be) for a backend in each of the configurations that must give right results.
template <std::same_as<test_backend> B, class Body>
void for_each_configuration(Body&& body) {
  for (const int threads : thread_counts) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    B be = support::make_backend<B>(threads);
    body(be);
  }
}

/// Where rows lie: elements in front of the first one, and unused ones behind each.
struct placement {
  index offset = 0;
  index padding = 0;
};
inline constexpr placement placements[] = {{0, 0}, {1, 3}, {3, 16}};

template <class T>
T stored_as(double value) {
  if constexpr (std::is_same_v<T, corematching::f16>) return corematching::to_f16(static_cast<float>(value));
  if constexpr (std::is_same_v<T, corematching::bf16>)
    return corematching::to_bf16(static_cast<float>(value));
  if constexpr (std::is_floating_point_v<T>) return static_cast<T>(value);
}

/// A matrix of activations. Whatever is not written, between the rows too, is NaN.
template <class B, class T = float>
class placed_matrix {
 public:
  placed_matrix(B& be, index rows, index cols, placement where = {})
      : be_(be), rows_(rows), cols_(cols), where_(where), memory_(be.template allocate<T>(elements())) {
    const std::vector<T> poison(static_cast<std::size_t>(elements()), stored_as<T>(NAN));
    be_.upload(memory_.view(), {poison.data(), elements()});
  }
  placed_matrix(B& be, const real_matrix& values, placement where = {})
      : placed_matrix(be, values.rows, values.cols, where) {
    std::vector<T> all = everything();
    for (index i = 0; i < rows_; ++i)
      for (index j = 0; j < cols_; ++j) all[place(i, j)] = stored_as<T>(values(i, j));
    be_.upload(memory_.view(), {all.data(), elements()});
  }

  corematching::matrix_view<T, typename B::space> view() {
    return {memory_.data() + where_.offset, rows_, cols_, cols_ + where_.padding};
  }
  corematching::matrix_view<const T, typename B::space> in() { return view(); }

  /// The values; fails the test if one between the rows was written.
  real_matrix values() {
    const std::vector<T> all = everything();
    real_matrix result(rows_, cols_);
    std::vector<bool> inside(all.size());
    for (index i = 0; i < rows_; ++i)
      for (index j = 0; j < cols_; ++j) {
        inside[place(i, j)] = true;
        result(i, j) = double{corematching::to_float(all[place(i, j)])};
      }
    for (std::size_t i = 0; i < all.size(); ++i)
      EXPECT_TRUE(inside[i] || std::isnan(corematching::to_float(all[i])))
          << "written outside, element " << i;
    return result;
  }

 private:
  index elements() const { return where_.offset + rows_ * (cols_ + where_.padding); }
  std::size_t place(index i, index j) const {
    return static_cast<std::size_t>(where_.offset + i * (cols_ + where_.padding) + j);
  }
  std::vector<T> everything() {
    std::vector<T> all(static_cast<std::size_t>(elements()));
    be_.download(corematching::vector_view<T>{all.data(), elements()}, std::as_const(memory_).view());
    return all;
  }

  B& be_;
  index rows_, cols_;
  placement where_;
  typename B::template buffer<T> memory_;
};

/// A vector of any type.
template <class B, class T>
class placed_vector {
 public:
  placed_vector(B& be, const std::vector<T>& values)
      : be_(be), memory_(be.template allocate<T>(std::ssize(values))) {
    be_.upload(memory_.view(), {values.data(), std::ssize(values)});
  }
  corematching::vector_view<T, typename B::space> view() { return memory_.view(); }
  corematching::vector_view<const T, typename B::space> in() { return view(); }
  std::vector<T> values() {
    std::vector<T> result(static_cast<std::size_t>(memory_.size()));
    be_.download(corematching::vector_view<T>{result.data(), memory_.size()}, std::as_const(memory_).view());
    return result;
  }

 private:
  B& be_;
  typename B::template buffer<T> memory_;
};

template <class B>
placed_vector<B, float> placed_floats(B& be, const real_matrix& row) {
  return {be, std::vector<float>(row.values.begin(), row.values.end())};
}

/// Writes one row as the storage type holds it; of a format in planes, as a matrix of one row.
template <class T>
void store_row(const double* values, index cols, std::byte* to) {
  if constexpr (corematching::block_format<T>) {
    corematching::quantise_row<T>(std::vector<float>(values, values + cols).data(), cols, to, 1, 0);
  } else {
    for (index j = 0; j < cols; ++j) {
      const T stored = stored_as<T>(values[j]);
      std::memcpy(to + j * index{sizeof(T)}, &stored, sizeof(T));
    }
  }
}

/// `values` as the storage type holds them.
inline real_matrix rounded(real_matrix values, corematching::dtype type) {
  corematching::visit_rounded(type, [&]<class T>() {
    if constexpr (corematching::block_format<T>) {
      std::vector<std::byte> stored(corematching::bytes_of(type, static_cast<std::size_t>(values.cols)));
      std::vector<float> row(static_cast<std::size_t>(values.cols));
      for (index i = 0; i < values.rows; ++i) {
        store_row<T>(&values.values[static_cast<std::size_t>(i * values.cols)], values.cols, stored.data());
        const corematching::stored_view<> one_row{stored.data(), type, 1, values.cols, std::ssize(stored)};
        corematching::dequantise(corematching::blocks_of_row<T>(one_row, 0), 0, values.cols, row.data());
        for (index j = 0; j < values.cols; ++j) values(i, j) = row[static_cast<std::size_t>(j)];
      }
    } else {
      for (double& value : values.values) value = double{corematching::to_float(stored_as<T>(value))};
    }
  });
  return values;
}

/// What the upper plane says of weights that a format in two planes holds
/// exactly.
/// Of types that are rounded to.
inline real_matrix coarse_of(const real_matrix& w, corematching::dtype type) {
  std::vector<std::byte> stored(static_cast<std::size_t>(corematching::stored_bytes(type, w.rows, w.cols)));
  const corematching::stored_view<> all{stored.data(), type, w.rows, w.cols, std::ssize(stored) / w.rows};
  real_matrix coarse(w.rows, w.cols);
  std::vector<float> row(static_cast<std::size_t>(w.cols));
  corematching::visit_planes(type, [&]<class T>() {
    for (index i = 0; i < w.rows; ++i) {
      for (index j = 0; j < w.cols; ++j) row[static_cast<std::size_t>(j)] = static_cast<float>(w(i, j));
      if constexpr (!corematching::moved_format<T>)
        corematching::quantise_row<T>(row.data(), w.cols, stored.data(), w.rows, i);
      corematching::dequantise_upper(corematching::blocks_of_row<T>(all, i), row.data());
      for (index j = 0; j < w.cols; ++j) coarse(i, j) = double{row[static_cast<std::size_t>(j)]};
    }
  });
  return coarse;
}

/// Whether a product of so many tokens with weights of this type is computed from tokens of that type.
inline bool rounds_tokens(corematching::dtype type, index tokens) {
  return tokens > exact_tokens && corematching::bytes_of(type, 1) == 2;
}

/// Tokens as such a product takes them.
inline real_matrix as_multiplied(const real_matrix& x, corematching::dtype type) {
  return rounds_tokens(type, x.rows) ? rounded(x, type) : x;
}

/// To what the factors of products with many tokens are rounded, as the unit of rounded_factor_error, which
/// is twice what a factor is off by. In tiles weights in the block formats and tokens become bfloat16
/// numbers, each off by 2^-8 of itself at most; tokens that meet 16-bit weights become sums of two, off by
/// 2^-16, and what the parts of f16 weights leave out is as much again.
inline double tile_unit(corematching::dtype type) {
  if (corematching::is_quantised(type)) return std::sqrt(2.0) * 0x1p-7;
  return corematching::whole_of(type) == corematching::dtype::f16 ? 0x1p-14 : 0x1p-15;
}

/// That of products along the rows of weights. Outside of tiles tokens become multiples of that part of the
/// largest element of their block.
inline double product_unit(corematching::dtype type) {
  if (multiplied_in_tiles(type)) return tile_unit(type);
  if (!corematching::is_quantised(type) || !rounds_tokens_to_integers()) return 0;
  return rounds_tokens_to_bytes(type) ? 1.0 / 127 : 1.0 / 32767;
}

/// That of sums of rows: the token, the scale of the weights and their product are rounded to 1/32767, which
/// is sqrt(3) as much.
inline double sum_unit(corematching::dtype type) {
  if (multiplied_in_tiles(type)) return tile_unit(type);
  return corematching::is_quantised(type) && rounds_tokens_to_integers() ? 1.8 / 32767 : 0;
}

/// That of products, along the rows or of blocks of neurons, with weights that were moved from blocks of
/// files.
inline double moved_unit(corematching::dtype type, index tokens) {
  if (tokens > few_tokens) return product_unit(type);
  if (!rounds_tokens_to_integers()) return 0;
  return rounds_few_tokens_to_bytes(type) ? 1.0 / 127 : 1.0 / 32767;
}

/// That of sums in which each of those weights has a scale of its own.
inline double widened_unit(corematching::dtype type, index tokens) {
  return tokens > few_tokens && multiplied_in_tiles(type) ? tile_unit(type) : 0;
}

/// What that adds to products with elements in any type but the block formats, whose few tokens are rounded
/// too.
inline double many_tokens_error(corematching::dtype type, index tokens, index length, double magnitude = 1) {
  return tokens > few_tokens ? rounded_factor_error(length, product_unit(type), magnitude) : 0;
}

/// What gated activations of order 1 err by where gate and up are stored in that type in between: their two
/// roundings, and the slope of the activation, at most 1.1, times a gate of up to 2.
inline double stored_gate_error(corematching::dtype type, index tokens) {
  if (!rounds_tokens(type, tokens)) return 0;
  return 6 * (type == corematching::dtype::f16 ? 0x1p-11 : 0x1p-8);
}

/// What attention errs by where many queries of order 1, and the weights of their keys, are rounded to the
/// type that keys are stored in: each score moves by an error of a rounded dot product, each weight by its
/// rounding, and twice as much for the largest of many elements.
inline double rounded_attention_error(corematching::dtype type, index queries) {
  if (!rounds_tokens(type, queries)) return 0;
  return 4 * (type == corematching::dtype::f16 ? 0x1p-11 : 0x1p-8);
}

/// A weight matrix, its rows `where.padding` elements (units of two bytes in the block formats) apart and
/// misaligned by `where.offset` of them.
template <class B>
corematching::weight<typename B::space> placed_weight(B& be, const real_matrix& values,
                                                      corematching::dtype type, placement where = {}) {
  if (corematching::has_planes(type)) where.padding = 0;  // rows have no bytes of their own
  // Scales of the block formats are 16-bit numbers.
  const auto unit = corematching::is_quantised(type) ? index{2} : static_cast<index>(bytes_of(type, 1));
  const index row_bytes =
      static_cast<index>(bytes_of(type, static_cast<std::size_t>(values.cols))) + where.padding * unit;
  const auto bytes = std::make_shared<std::vector<std::byte>>(
      static_cast<std::size_t>(where.offset * unit + values.rows * row_bytes),
      std::byte{0xff});  // NaN of all types
  std::byte* first = bytes->data() + where.offset * unit;
  corematching::visit_rounded(type, [&]<class T>() {
    for (index i = 0; i < values.rows; ++i) {
      const double* const row = &values.values[static_cast<std::size_t>(i * values.cols)];
      if constexpr (corematching::plane_format<T>)
        corematching::quantise_row<T>(std::vector<float>(row, row + values.cols).data(), values.cols, first,
                                      values.rows, i);
      else
        store_row<T>(row, values.cols, first + i * row_bytes);
    }
  });
  return be.place_weight({{first, type, values.rows, values.cols, row_bytes}, bytes});
}

/// Random weights that the storage type holds exactly.
inline real_matrix random_weight(index rows, index cols, corematching::dtype type, std::mt19937& random,
                                 double magnitude) {
  return rounded(random_matrix(rows, cols, random, magnitude), type);
}

/// No selection, none of the neurons, the last one, a third of them, and all.
inline std::vector<twin::neurons> selections(index neurons) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(neurons)), thirds;
  std::iota(all.begin(), all.end(), 0);
  std::ranges::copy_if(all, std::back_inserter(thirds), [](std::int32_t n) { return n % 3 == 1; });
  return {{}, std::vector<std::int32_t>{}, std::vector{all.back()}, thirds, all};
}

/// A selection that lives in the backend's memory, or none.
template <class B>
class placed_neurons {
 public:
  placed_neurons(B& be, const twin::neurons& selection)
      : any_(selection.has_value()), memory_(be, selection.value_or(std::vector<std::int32_t>())) {}
  corematching::neuron_selection<typename B::space> view() {
    if (!any_) return {};
    return corematching::index_view<typename B::space>(memory_.in());
  }

 private:
  bool any_;
  placed_vector<B, std::int32_t> memory_;
};

/// What stored rows hold.
template <class B>
real_matrix loaded(B& be, const corematching::stored_view<typename B::space>& stored) {
  placed_matrix<B> widened(be, stored.rows, stored.cols);
  be.load_rows(widened.view(), stored);
  return widened.values();
}

/// Expects every element within `tolerance` of its twin; a NaN is never near. Reports the first that is not.
inline void expect_near(const real_matrix& actual, const real_matrix& expected, double tolerance) {
  ASSERT_EQ(actual.rows, expected.rows);
  ASSERT_EQ(actual.cols, expected.cols);
  for (index i = 0; i < actual.rows; ++i)
    for (index j = 0; j < actual.cols; ++j)
      ASSERT_NEAR(actual(i, j), expected(i, j), tolerance) << "row " << i << ", column " << j;
}

inline double largest_magnitude(const real_matrix& m) {
  double largest = 0;
  for (const double value : m.values) largest = std::max(largest, std::fabs(value));
  return largest;
}

}  // namespace support
