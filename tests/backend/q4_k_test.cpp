// SPDX-License-Identifier: Apache-2.0
// What a backend does with weights in q4_k: it reads them, and refuses by name what it has no kernel for.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/q4_k.hpp"
#include "corematching/core/quantised.hpp"
#include "support/backend_data.hpp"
#include "support/error_text.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

constexpr index rows = 70, cols = 512;  // more rows than are converted at once, two blocks in each

/// Random blocks, and what they stand for.
struct stored_matrix {
  std::shared_ptr<std::vector<std::byte>> bytes =
      std::make_shared<std::vector<std::byte>>(stored_bytes(dtype::q4_k, rows, cols));
  real_matrix values{rows, cols};

  stored_matrix() {
    std::mt19937 random(3);
    for (std::byte& byte : *bytes) byte = static_cast<std::byte>(random());
    for (std::size_t at = 0; at < bytes->size(); at += sizeof(q4_k::stored)) {
      const f16 numbers[] = {to_f16(0.002f), to_f16(0.02f)};
      std::memcpy(bytes->data() + at, numbers, sizeof numbers);
    }
    std::vector<float> row(cols);
    for (index i = 0; i < rows; ++i) {
      dequantise(blocks_of_row<q4_k>(view(), i), 0, cols, row.data());
      for (index j = 0; j < cols; ++j) values(i, j) = row[static_cast<std::size_t>(j)];
    }
  }

  stored_view<> view() const {
    return {bytes->data(), dtype::q4_k, rows, cols,
            static_cast<index>(bytes_of(dtype::q4_k, std::size_t{cols}))};
  }
};

real_matrix transposed(const real_matrix& values) {
  real_matrix result(values.cols, values.rows);
  for (index i = 0; i < values.rows; ++i)
    for (index j = 0; j < values.cols; ++j) result(j, i) = values(i, j);
  return result;
}

TEST(q4_k_weights, are_converted_as_what_they_stand_for) {
  const stored_matrix stored;
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

TEST(q4_k_weights, are_loaded_and_looked_up_row_by_row) {
  const stored_matrix stored;
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

TEST(q4_k_weights, are_refused_in_rows_that_are_no_whole_blocks) {
  const stored_matrix stored;
  auto be = make_backend(2);
  stored_view<> part = stored.view();
  part.cols = 96;
  expect_parts(error_text([&] { be.convert_weight(part, dtype::f32, false); }), "q4_k", "multiple of 256",
               "96");
}

TEST(q4_k_weights, are_refused_where_they_would_be_multiplied_or_stored) {
  const stored_matrix stored;
  auto be = make_backend(2);
  const auto weight = be.place_weight({stored.view(), stored.bytes});
  const auto expect_refused = [](auto&& body) {
    expect_parts(error_text(body), "q4_k is only read", "f32, f16, bf16, q8_0, q4_0");
  };
  for (const index tokens : {1, 37}) {
    placed_matrix<test_backend> wide(be, tokens, cols), narrow(be, tokens, rows);
    expect_refused([&] { be.matmul(narrow.view(), wide.in(), weight.view, {}); });
    expect_refused(
        [&] { be.gated_up(narrow.view(), wide.in(), weight.view, weight.view, activation::silu, {}); });
    expect_refused([&] { be.weighted_rows(wide.view(), narrow.in(), weight.view, {}); });
  }
  expect_refused([&] { be.convert_weight(stored.view(), dtype::q4_k, false); });
}

}  // namespace
}  // namespace corematching
