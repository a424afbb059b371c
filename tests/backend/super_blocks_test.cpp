// SPDX-License-Identifier: Apache-2.0
// What a backend does with weights in q4_k, q5_k and q6_k: it multiplies by them as they are, and rounds
// nothing to them.
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
  switch (type) {
    case dtype::q4_k: return io::ggml_type::q4_k;
    case dtype::q5_k: return io::ggml_type::q5_k;
    default: return io::ggml_type::q6_k;
  }
}

/// Random blocks, and what they stand for.
template <super_format Q>
struct stored_matrix {
  static constexpr dtype type = dtype_of<Q>;
  std::shared_ptr<std::vector<std::byte>> bytes =
      std::make_shared<std::vector<std::byte>>(stored_bytes(type, rows, cols));
  real_matrix values{rows, cols};

  stored_matrix() {
    std::mt19937 random(3);
    const auto* const of = std::ranges::find(block_types, type_of(type), &block_type::type);
    const blocks_matrix blocks(*of, rows, cols, random);
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
using formats_in_super_blocks = testing::Types<q4_k, q5_k, q6_k>;
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

}  // namespace
}  // namespace corematching
