// SPDX-License-Identifier: Apache-2.0
// Products in AMX tiles, on an emulator of them, against binary64 products with what the weights hold.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "corematching/backend/cpu/amx/tile_scheme.hpp"
#include "corematching/backend/cpu/decode/row_kernels.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/quantised.hpp"
#include "support/scalar_twin.hpp"

namespace corematching::cpu {
namespace {

using namespace support;

/// Values as weights of `type` hold them, and those weights.
class stored_weight {
 public:
  stored_weight(index rows, index cols, dtype type, std::mt19937& random)
      : type_(type),
        values_(random_matrix(rows, cols, random)),
        row_bytes_(static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols)))),
        bytes_(static_cast<std::size_t>(rows * row_bytes_)) {
    std::vector<float> row(static_cast<std::size_t>(cols));
    for (index i = 0; i < rows; ++i) {
      for (index j = 0; j < cols; ++j) row[static_cast<std::size_t>(j)] = static_cast<float>(values_(i, j));
      std::byte* to = bytes_.data() + i * row_bytes_;
      visit_rounded(type, [&]<class T>() {
        if constexpr (block_format<T>)
          quantise_row<T>(row.data(), cols, bytes_.data(), rows, i);
        else
          detail::narrow(row.data(), cols, reinterpret_cast<T*>(to));
        widen_row<T>(view(), i, 0, cols, row.data());
      });
      for (index j = 0; j < cols; ++j) values_(i, j) = double{row[static_cast<std::size_t>(j)]};
    }
  }

  stored_view<> view() const { return {bytes_.data(), type_, values_.rows, values_.cols, row_bytes_}; }
  const real_matrix& values() const { return values_; }

 private:
  dtype type_;
  real_matrix values_;
  index row_bytes_;
  std::vector<std::byte> bytes_;
};

/// Activations, each row followed by `padding` elements.
class rows_of_floats {
 public:
  static constexpr index padding = 3;
  static constexpr float untouched = 12345;

  rows_of_floats(index rows, index cols)
      : rows_(rows), cols_(cols), memory_(static_cast<std::size_t>(rows * (cols + padding)), untouched) {}
  explicit rows_of_floats(const real_matrix& values) : rows_of_floats(values.rows, values.cols) {
    for (index i = 0; i < rows_; ++i)
      for (index j = 0; j < cols_; ++j) view().row(i)[j] = static_cast<float>(values(i, j));
  }

  matrix_view<float> view() { return {memory_.data(), rows_, cols_, cols_ + padding}; }
  void expect_near(const real_matrix& expected, double tolerance) {
    for (index i = 0; i < rows_; ++i) {
      for (index j = 0; j < cols_; ++j)
        ASSERT_NEAR(double{view().row(i)[j]}, expected(i, j), tolerance) << "row " << i << ", column " << j;
      for (index j = cols_; j < cols_ + padding; ++j)
        ASSERT_EQ(memory_[static_cast<std::size_t>(i * (cols_ + padding) + j)], untouched);
    }
  }

 private:
  index rows_, cols_;
  std::vector<float> memory_;
};

/// To what tokens and weights are rounded together, as the unit of rounded_factor_error.
double unit_of(dtype type) {
  if (is_quantised(type)) return std::sqrt(2.0) * 0x1p-7;
  return whole_of(type) == dtype::f16 ? 0x1p-14 : 0x1p-15;
}

struct shape {
  index tokens, rows, length;
};
/// Around strips of 32, around 1024 elements of a sum, more columns than a group has, more tokens than are
/// taken at once.
constexpr shape shapes[] = {{5, 1, 32},     {31, 33, 64},  {32, 32, 544},
                            {37, 70, 1056}, {65, 300, 96}, {1100, 33, 32}};
constexpr dtype types[] = {dtype::f16,         dtype::bf16,        dtype::q8_0,      dtype::q4_0,
                           dtype::q8_0_planes, dtype::q4_0_planes, dtype::f16_planes};

template <class Body>
void for_each_case(Body&& body) {
  for (const int threads : {1, 3})
    for (const dtype type : types)
      for (const auto& [tokens, rows, length] : shapes) {
        SCOPED_TRACE(testing::Message() << threads << " threads, " << name_of(type) << ", " << tokens
                                        << " tokens, " << rows << " x " << length);
        thread_pool pool(threads);
        detail::tile_products products(threads);
        std::mt19937 random(static_cast<unsigned>(rows));
        body(pool, products, random, type, shape{tokens, rows, length});
        if (testing::Test::HasFatalFailure()) return;
      }
}

std::vector<twin::neurons> selections(index rows) {
  std::vector<std::int32_t> thirds;
  for (index n = 0; n < rows; n += 3) thirds.push_back(static_cast<std::int32_t>(n));
  return {std::nullopt, thirds, std::vector<std::int32_t>{static_cast<std::int32_t>(rows - 1)},
          std::vector<std::int32_t>{}};
}

detail::neurons view_of(const twin::neurons& selection) {
  if (!selection) return {};
  return index_view<>{selection->data(), std::ssize(*selection)};
}

TEST(tile_products, multiply_by_the_transposed_weight_and_add_the_bias) {
  for_each_case([](thread_pool& pool, detail::tile_products& products, std::mt19937& random, dtype type,
                   shape s) {
    const stored_weight w(s.rows, s.length, type, random);
    const real_matrix x = random_matrix(s.tokens, s.length, random), bias = random_matrix(1, s.rows, random);
    rows_of_floats y(s.tokens, s.rows), tokens(x), biases(bias);
    products.matmul(pool, 32, y.view(), tokens.view(), w.view(), biases.view().row(0));
    y.expect_near(twin::matmul(x, w.values(), bias),
                  dot_error(s.length) + rounded_factor_error(s.length, unit_of(type)));
  });
}

TEST(tile_products, gate_the_selected_rows) {
  for_each_case([](thread_pool& pool, detail::tile_products& products, std::mt19937& random, dtype type,
                   shape s) {
    const stored_weight gate(s.rows, s.length, type, random), up(s.rows, s.length, type, random);
    const double scale = 1 / std::sqrt(static_cast<double>(s.length));
    const real_matrix x = random_matrix(s.tokens, s.length, random, scale);
    rows_of_floats tokens(x);
    for (const auto& selection : selections(s.rows)) {
      rows_of_floats y(s.tokens, twin::count_of(selection, s.rows));
      products.gated_up(pool, 32, y.view(), tokens.view(), gate.view(), up.view(), activation::silu,
                        view_of(selection));
      y.expect_near(twin::gated_up(x, gate.values(), up.values(), activation::silu, selection),
                    gated_error(s.length, scale) + 4 * rounded_factor_error(s.length, unit_of(type), scale));
    }
  });
}

TEST(tile_products, sum_the_selected_rows) {
  for_each_case(
      [](thread_pool& pool, detail::tile_products& products, std::mt19937& random, dtype type, shape s) {
        const stored_weight w(s.rows, s.length, type, random);
        for (const auto& selection : selections(s.rows)) {
          const index places = twin::count_of(selection, s.rows);
          const real_matrix x = random_matrix(s.tokens, places, random);
          rows_of_floats y(s.tokens, s.length), tokens(x);
          products.weighted_rows(pool, 32, y.view(), tokens.view(), w.view(), view_of(selection));
          y.expect_near(twin::weighted_rows(x, w.values(), selection),
                        dot_error(places) + rounded_factor_error(places, unit_of(type)) + 1e-30);
        }
      });
}

}  // namespace
}  // namespace corematching::cpu
