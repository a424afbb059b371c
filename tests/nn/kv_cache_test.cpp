// SPDX-License-Identifier: Apache-2.0
#include "corematching/nn/kv_cache.hpp"

#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

#include "support/backend_data.hpp"
#include "support/error_text.hpp"

namespace corematching {
namespace {

using support::placed_matrix;
using support::placed_vector;
using support::real_matrix;

constexpr index row_size = 5;

/// A cache layer beside the rows that it should hold.
template <class B>
class kv_layers : public testing::Test {
 protected:
  B be = support::make_backend<B>(1);
  std::mt19937 random{3};
  std::vector<std::vector<double>> keys, values;

  void append(kv_layer<B>& layer, index rows) {
    const real_matrix k = support::random_matrix(rows, row_size, random),
                      v = support::random_matrix(rows, row_size, random);
    placed_matrix<B> placed_k(be, k, {0, 2}), placed_v(be, v, {1, 0});
    layer.append(be, placed_k.in(), placed_v.in());
    for (index i = 0; i < rows; ++i) {
      keys.emplace_back(k.values.begin() + i * row_size, k.values.begin() + (i + 1) * row_size);
      values.emplace_back(v.values.begin() + i * row_size, v.values.begin() + (i + 1) * row_size);
    }
  }

  void compact(kv_layer<B>& layer, index recent, const std::vector<std::int32_t>& rows) {
    placed_vector<B, std::int32_t> placed(be, rows);
    layer.compact(be, recent, placed.in());
    for (auto* part : {&keys, &values}) {
      const auto first = static_cast<std::size_t>(std::ssize(*part) - recent);
      std::vector<std::vector<double>> left(part->begin(), part->begin() + static_cast<index>(first));
      for (const std::int32_t row : rows) left.push_back((*part)[first + static_cast<std::size_t>(row)]);
      *part = left;
    }
  }

  void expect_held(kv_layer<B>& layer) {
    ASSERT_EQ(layer.length(), std::ssize(keys));
    expect_rows(layer.keys(), keys);
    expect_rows(layer.values(), values);
  }

  static std::size_t bytes_of(index rows) {
    return 2 * static_cast<std::size_t>(rows * row_size) * sizeof(float);
  }

 private:
  void expect_rows(const mutable_stored_view<typename B::space>& held,
                   const std::vector<std::vector<double>>& expected) {
    const real_matrix actual = support::loaded(be, held);
    for (index i = 0; i < held.rows; ++i) {
      real_matrix row(1, row_size);
      row.values = expected[static_cast<std::size_t>(i)];
      row = support::rounded(row, held.type);
      for (index j = 0; j < row_size; ++j) ASSERT_EQ(actual(i, j), row(0, j)) << "row " << i;
    }
  }
};
TYPED_TEST_SUITE(kv_layers, support::backends);

TYPED_TEST(kv_layers, hold_what_was_appended_in_its_order) {
  for (const index headroom : {0, 1, 4, 100}) {
    this->keys.clear();
    this->values.clear();
    kv_layer<TypeParam> layer(row_size, headroom);
    for (const index rows : {7, 1, 1, 1, 1, 1, 12}) {
      this->append(layer, rows);
      this->expect_held(layer);
      EXPECT_EQ(layer.bytes(), this->bytes_of(layer.length()));
    }
  }
}

TYPED_TEST(kv_layers, start_empty_and_without_memory) {
  kv_layer<TypeParam> layer(row_size, 100);
  EXPECT_EQ(layer.length(), 0);
  EXPECT_EQ(layer.bytes(), 0u);
  EXPECT_EQ(layer.capacity_bytes(), 0u);
  EXPECT_EQ(layer.keys().rows, 0);
}

TYPED_TEST(kv_layers, take_memory_with_headroom_and_only_when_it_is_used_up) {
  kv_layer<TypeParam> layer(row_size, 3);
  this->append(layer, 4);
  EXPECT_EQ(layer.capacity_bytes(), this->bytes_of(7));
  for (int i = 0; i < 3; ++i) this->append(layer, 1);
  EXPECT_EQ(layer.capacity_bytes(), this->bytes_of(7));
  this->append(layer, 1);
  EXPECT_EQ(layer.capacity_bytes(), this->bytes_of(11));
  this->expect_held(layer);
}

TYPED_TEST(kv_layers, give_the_memory_of_dropped_rows_back) {
  kv_layer<TypeParam> layer(row_size, 2);
  this->append(layer, 20);
  this->compact(layer, 20, {0, 3, 4, 19});
  this->expect_held(layer);
  EXPECT_EQ(layer.bytes(), this->bytes_of(4));
  EXPECT_EQ(layer.capacity_bytes(), this->bytes_of(6));
}

TYPED_TEST(kv_layers, keep_all_rows_in_front_of_the_recent_ones) {
  kv_layer<TypeParam> layer(row_size, 0);
  this->append(layer, 6);
  this->append(layer, 5);
  this->compact(layer, 5, {1, 4});
  this->expect_held(layer);
  EXPECT_EQ(layer.length(), 8);
  this->append(layer, 2);
  this->compact(layer, 2, {0});
  this->expect_held(layer);
}

TYPED_TEST(kv_layers, may_keep_every_recent_row_or_none) {
  kv_layer<TypeParam> layer(row_size, 1);
  this->append(layer, 3);
  this->append(layer, 4);
  this->compact(layer, 4, {0, 1, 2, 3});
  this->expect_held(layer);
  this->compact(layer, 4, {});
  this->expect_held(layer);
  EXPECT_EQ(layer.length(), 3);
  this->compact(layer, 3, {});
  EXPECT_EQ(layer.bytes(), 0u);
}

TYPED_TEST(kv_layers, store_rows_in_sixteen_bits_when_asked_to) {
  for (const dtype type : {dtype::f16, dtype::bf16}) {
    SCOPED_TRACE(name_of(type));
    this->keys.clear();
    this->values.clear();
    kv_layer<TypeParam> layer(row_size, 1, type);
    this->append(layer, 7);
    this->compact(layer, 5, {1, 4});
    this->append(layer, 1);
    this->expect_held(layer);
    EXPECT_EQ(layer.bytes(), 2u * 5 * row_size * 2);
    EXPECT_EQ(layer.capacity_bytes(), layer.bytes());
  }
}

TYPED_TEST(kv_layers, are_not_stored_in_blocks) {
  EXPECT_EQ(support::error_text([] { kv_layer<TypeParam>(32, 0, dtype::q8_0); }),
            "a KV cache is stored in f32, f16 or bf16, not in q8_0");
}

TYPED_TEST(kv_layers, of_a_cache_have_their_own_lengths_and_add_up) {
  kv_cache<TypeParam> cache(3, row_size, 2);
  EXPECT_EQ(cache.layers(), 3);
  this->append(cache[0], 4);
  this->append(cache[2], 1);
  EXPECT_EQ(cache[0].length(), 4);
  EXPECT_EQ(cache[1].length(), 0);
  EXPECT_EQ(std::as_const(cache)[2].length(), 1);
  EXPECT_EQ(cache.bytes(), this->bytes_of(5));
  EXPECT_EQ(cache.capacity_bytes(), this->bytes_of(6 + 3));
}

TYPED_TEST(kv_layers, take_over_the_rows_of_another_as_they_are_stored) {
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16}) {
    this->keys.clear();
    this->values.clear();
    kv_layer<TypeParam> first(row_size, 2, type), second(row_size, 2, type), empty(row_size, 0, type);
    this->append(first, 3);
    second.append(this->be, first);
    second.append(this->be, empty);
    this->expect_held(second);
    EXPECT_EQ(second.capacity_bytes(), first.capacity_bytes());
    this->append(second, 2);
    this->expect_held(second);
    EXPECT_EQ(first.length(), 3);
  }
}

}  // namespace
}  // namespace corematching
