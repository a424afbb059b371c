// SPDX-License-Identifier: Apache-2.0
// What a backend does with weights in q4_k, q5_k and q6_k, and with q4_k in planes: it multiplies by them as
// they are, and rounds nothing to them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "corematching/core/quantised.hpp"
#include "support/backend_data.hpp"
#include "support/error_text.hpp"
#include "support/random_blocks.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

constexpr index rows = 70, cols = 512;  // more rows than are converted at once, two blocks in each

constexpr io::ggml_type type_of(dtype type) {
  switch (whole_of(type)) {
    case dtype::q4_k: return io::ggml_type::q4_k;
    case dtype::q5_k: return io::ggml_type::q5_k;
    default: return io::ggml_type::q6_k;
  }
}

/// Random blocks, split where `Q` is in planes, and what they stand for.
template <class Q>
struct stored_matrix {
  static constexpr dtype type = dtype_of<Q>;
  std::shared_ptr<std::vector<std::byte>> bytes =
      std::make_shared<std::vector<std::byte>>(stored_bytes(type, rows, cols));
  real_matrix values{rows, cols};

  explicit stored_matrix(unsigned seed = 3) {
    std::mt19937 random(seed);
    const auto* const of = std::ranges::find(block_types, type_of(type), &block_type::type);
    const blocks_matrix blocks(*of, rows, cols, random);
    if constexpr (plane_format<Q>)
      for (index i = 0; i < rows; ++i)
        split_row<Q>({blocks.view().data + i * view().row_bytes, cols}, bytes->data(), rows, i);
    else
      std::memcpy(bytes->data(), blocks.bytes.data(), bytes->size());
    const std::vector<float> all = blocks.values();
    values.values.assign(all.begin(), all.end());
  }

  stored_view<> view() const {
    return {bytes->data(), type, rows, cols, static_cast<index>(bytes_of(type, std::size_t{cols}))};
  }
};

real_matrix transposed(const real_matrix& values) {
  real_matrix result(values.cols, values.rows);
  for (index i = 0; i < values.rows; ++i)
    for (index j = 0; j < values.cols; ++j) result(j, i) = values(i, j);
  return result;
}

template <class Q>
class super_block_weights : public testing::Test {};
using formats_in_super_blocks = testing::Types<q4_k, q5_k, q6_k, q4_k_planes>;
TYPED_TEST_SUITE(super_block_weights, formats_in_super_blocks);

TYPED_TEST(super_block_weights, are_converted_as_what_they_stand_for) {
  const stored_matrix<TypeParam> stored;
  for (const int threads : thread_counts) {
    auto be = make_backend(threads);
    for (const dtype target : {dtype::f32, dtype::f16, dtype::q8_0}) {
      const auto converted = be.convert_weight(stored.view(), target, false);
      EXPECT_EQ(converted.view.type, target);
      EXPECT_EQ(loaded(be, converted.view).values, rounded(stored.values, target).values) << name_of(target);
    }
    EXPECT_EQ(loaded(be, be.convert_weight(stored.view(), dtype::f32, true).view).values,
              transposed(stored.values).values);
  }
}

TYPED_TEST(super_block_weights, are_loaded_and_looked_up_row_by_row) {
  const stored_matrix<TypeParam> stored;
  auto be = make_backend(2);
  const auto weight = be.place_weight({stored.view(), stored.bytes});
  EXPECT_EQ(loaded(be, weight.view).values, stored.values.values);
  placed_matrix<test_backend> y(be, 2, cols);
  placed_vector<test_backend, std::int32_t> ids(be, {69, 1});
  be.embed(y.view(), weight.view, ids.in());
  const real_matrix found = y.values();
  for (index j = 0; j < cols; ++j) {
    ASSERT_EQ(found(0, j), stored.values(69, j));
    ASSERT_EQ(found(1, j), stored.values(1, j));
  }
}

TYPED_TEST(super_block_weights, are_refused_in_rows_that_are_no_whole_blocks) {
  const stored_matrix<TypeParam> stored;
  auto be = make_backend(2);
  stored_view<> part = stored.view();
  part.cols = 96;
  expect_parts(error_text([&] { be.convert_weight(part, dtype::f32, false); }), name_of(stored.type),
               "multiple of 256", "96");
}

TYPED_TEST(super_block_weights, are_multiplied_as_what_they_stand_for) {
  const stored_matrix<TypeParam> stored;
  std::mt19937 random(4);
  const double magnitude = largest_magnitude(stored.values);
  for (const int threads : thread_counts) {
    auto be = make_backend(threads);
    const auto weight = be.place_weight({stored.view(), stored.bytes});
    for (const index tokens : {index{1}, few_tokens - 1, few_tokens, index{37}}) {
      const real_matrix x = random_matrix(tokens, cols, random), h = random_matrix(tokens, rows, random);
      placed_matrix<test_backend> product(be, tokens, rows), sum(be, tokens, cols), placed_x(be, x),
          placed_h(be, h);
      be.matmul(product.view(), placed_x.in(), weight.view, {});
      be.weighted_rows(sum.view(), placed_h.in(), weight.view, {});
      expect_near(product.values(), twin::matmul(x, stored.values),
                  dot_error(cols, magnitude) +
                      rounded_factor_error(cols, moved_unit(stored.type, tokens), magnitude));
      expect_near(sum.values(), twin::weighted_rows(h, stored.values),
                  dot_error(rows, magnitude) +
                      rounded_factor_error(rows, widened_unit(stored.type, tokens), magnitude));
    }
  }
}

TYPED_TEST(super_block_weights, are_no_type_to_convert_to) {
  const stored_matrix<TypeParam> stored;
  auto be = make_backend(2);
  EXPECT_EQ(error_text([&] { be.convert_weight(stored.view(), stored.type, false); }),
            "nothing is rounded to " + std::string(name_of(stored.type)) +
                ", which holds quants of others as they are");
}

/// What the upper planes alone say.
real_matrix coarse_of(const stored_matrix<q4_k_planes>& stored) {
  real_matrix coarse(rows, cols);
  std::vector<float> row(std::size_t{cols});
  for (index i = 0; i < rows; ++i) {
    dequantise_upper(blocks_of_row<q4_k_planes>(stored.view(), i), row.data());
    for (index j = 0; j < cols; ++j) coarse(i, j) = double{row[static_cast<std::size_t>(j)]};
  }
  return coarse;
}

TEST(split_super_blocks, are_multiplied_coarsely_and_then_made_exact) {
  const stored_matrix<q4_k_planes> gate(5), up(6);
  std::mt19937 random(7);
  const double magnitude = std::max(largest_magnitude(gate.values), largest_magnitude(up.values));
  const double unit = moved_unit(gate.type, 1);
  const std::vector<std::int32_t> chosen{0, 3, 4, 5, 17, 68, 69};
  for (const int threads : thread_counts) {
    auto be = make_backend(threads);
    const auto placed_gate = be.place_weight({gate.view(), gate.bytes}),
               placed_up = be.place_weight({up.view(), up.bytes});
    const real_matrix x = random_matrix(3, cols, random);
    real_matrix first(1, cols);
    for (index j = 0; j < cols; ++j) first(0, j) = x(0, j);
    placed_matrix<test_backend> placed_x(be, x), gates(be, 3, rows), ups(be, 3, rows),
        y(be, 1, std::ssize(chosen));
    be.coarse_matmul(gates.view(), placed_x.in(), placed_gate.view);
    be.coarse_matmul(ups.view(), placed_x.in(), placed_up.view);
    expect_near(gates.values(), twin::matmul(x, coarse_of(gate)),
                2 * dot_error(cols, magnitude) + rounded_factor_error(cols, unit, magnitude));
    placed_vector<test_backend, std::int32_t> ids(be, chosen);
    be.finish_gated_up(y.view(), placed_x.in().middle_rows(0, 1), placed_gate.view, placed_up.view,
                       gates.in().row(0), ups.in().row(0), activation::silu, ids.in());
    expect_near(y.values(), twin::gated_up(first, gate.values, up.values, activation::silu, chosen),
                2 * gated_error(cols, magnitude) + 5 * rounded_factor_error(cols, unit, magnitude));
  }
}

TEST(split_super_blocks, give_few_tokens_the_bits_that_each_gets_alone) {
  if (!rounds_tokens_to_integers()) GTEST_SKIP() << "only the CPU's kernels promise it";
  const stored_matrix<q4_k_planes> stored;
  std::mt19937 random(8);
  for (const int threads : thread_counts) {
    auto be = make_backend(threads);
    const auto weight = be.place_weight({stored.view(), stored.bytes});
    for (index tokens = 2; tokens <= few_tokens; ++tokens) {
      const real_matrix x = random_matrix(tokens, cols, random);
      placed_matrix<test_backend> placed_x(be, x), all(be, tokens, rows), one(be, 1, rows);
      const auto expect_bits = [&](auto&& multiply) {
        multiply(all.view(), placed_x.in());
        for (index t = 0; t < tokens; ++t) {
          multiply(one.view(), placed_x.in().middle_rows(t, 1));
          ASSERT_EQ(host_values(be, all.in().row(t)), host_values(be, one.in().row(0))) << t;
        }
      };
      expect_bits([&](auto y, auto of) { be.matmul(y, of, weight.view, {}); });
      expect_bits([&](auto y, auto of) { be.coarse_matmul(y, of, weight.view); });
    }
  }
}

}  // namespace
}  // namespace corematching
