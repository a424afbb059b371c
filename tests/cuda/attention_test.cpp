// SPDX-License-Identifier: Apache-2.0
// Attention on the device where the tests of all backends do not look: every kernel and every layout of what
// it reads, long caches that few or many processors share, and rows of a cache that hold nothing yet.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "corematching/backend/cuda/attention/attention.cuh"
#include "cuda/device_operations.hpp"
#include "support/scalar_twin.hpp"

namespace corematching {
namespace {

using namespace support;

/// Heads that teams of 8, 16 and 32 lanes share, in groups that fill their four queries or do not; heads that
/// take no whole loads; and heads of more columns than a block computes.
const std::vector<attention_shape> device_shapes = {
    scaled_attention(1, 1, 8),   scaled_attention(4, 4, 6),   scaled_attention(3, 3, 7),
    scaled_attention(6, 1, 10),  scaled_attention(4, 2, 16),  scaled_attention(2, 1, 33),
    scaled_attention(6, 2, 64),  scaled_attention(2, 2, 64),  scaled_attention(2, 2, 72),
    scaled_attention(5, 1, 80),  scaled_attention(2, 1, 96),  scaled_attention(4, 2, 64, false),
    scaled_attention(2, 2, 128), scaled_attention(2, 1, 130), scaled_attention(2, 2, 256),
    scaled_attention(1, 1, 264)};
const std::vector<attention_shape> tensor_core_shapes = {
    scaled_attention(2, 2, 64), scaled_attention(4, 2, 128), scaled_attention(3, 1, 64, false),
    scaled_attention(2, 1, 128, false)};
const std::vector<placement> aligned_layouts = {{0, 0}, {0, 8}, {8, 8}};

/// Queries, and keys and values as a cache of that type holds them.
struct operands {
  attention_shape shape;
  dtype type;
  real_matrix q, k, v;

  operands(const attention_shape& heads, dtype cached, index queries, index keys, std::mt19937& random,
           double magnitude = 1)
      : shape(heads),
        type(cached),
        q(random_matrix(queries, heads.query_size(), random, magnitude)),
        k(random_weight(keys, heads.kv_size(), cached, random, magnitude)),
        v(random_weight(keys, heads.kv_size(), cached, random, 1)) {}

  real_matrix expected() const { return twin::attention(q, k, v, shape); }
  /// Of sums in binary32.
  double error() const { return attention_error(shape.head_dim, k.rows, double{shape.scale}); }
};

testing::Message described(const operands& in) {
  return testing::Message() << name_of(in.type) << ", " << in.q.rows << " queries, " << in.k.rows
                            << " keys, heads " << in.shape.heads << "/" << in.shape.kv_heads << " of "
                            << in.shape.head_dim;
}

/// Behind the keys there is room for more, which holds NaN.
real_matrix with_room(real_matrix rows) {
  rows.rows += 65;
  rows.values.resize(static_cast<std::size_t>(rows.rows * rows.cols), static_cast<double>(NAN));
  return rows;
}

class device_attention : public device_operations {
 protected:
  cuda::workspace memory;

  cuda::context without_tensor_cores() const {
    cuda::context result = on();
    result.capability = 0;
    return result;
  }
  weight<device_space> cached(const real_matrix& rows, dtype type, placement where) {
    weight<device_space> result = weight_at(be, with_room(rows), type, where);
    result.view = result.view.middle_rows(0, rows.rows);
    return result;
  }
  real_matrix attended(const cuda::context& by, const operands& in, placement q_at = {},
                       placement keys_at = {}, placement values_at = {}) {
    device_matrix y(be, in.q.rows, in.q.cols, q_at), q(be, in.q, q_at);
    const auto k = cached(in.k, in.type, keys_at), v = cached(in.v, in.type, values_at);
    cuda::detail::attention(by, memory, y.view(), q.in(), k.view, v.view, in.shape);
    return y.values();
  }
};

TEST_F(device_attention, of_few_queries_is_shared_by_any_number_of_processors) {
  for (const attention_shape& shape : device_shapes)
    for (const dtype type : element_types)
      for (const index queries : {1, 2, 3, 8})
        for (const index keys : {8, 64, 65, 130, 641}) {
          if (!cases.takes_next(37)) continue;
          const operands in(shape, type, queries, keys, random);
          SCOPED_TRACE(described(in));
          const real_matrix expected = in.expected();
          const placement q_at = any_of(layouts), cache_at = any_of(layouts);
          for (const int processors : {1, 132})
            expect_near(attended(shared_by(processors), in, q_at, cache_at, cache_at), expected, in.error());
          if (HasFatalFailure()) return;
        }
}

TEST_F(device_attention, of_many_queries_has_the_accuracy_of_binary32_without_tensor_cores) {
  for (const attention_shape& shape : device_shapes)
    for (const dtype type : element_types)
      for (const index queries : {9, 64, 65, 130})
        for (const index past : {0, 5, 66}) {
          if (!cases.takes_next(23)) continue;
          const operands in(shape, type, queries, queries + past, random);
          SCOPED_TRACE(described(in));
          const placement q_at = any_of(layouts), cache_at = any_of(layouts);
          expect_near(attended(without_tensor_cores(), in, q_at, cache_at, cache_at), in.expected(),
                      in.error());
          if (HasFatalFailure()) return;
        }
}

TEST_F(device_attention, of_many_queries_rounds_them_and_the_weights_on_tensor_cores) {
  for (const attention_shape& shape : tensor_core_shapes)
    for (const dtype type : {dtype::f16, dtype::bf16})
      for (const index queries : {9, 16, 63, 64, 65, 130})
        for (const index past : {0, 1, 5, 66, 200}) {
          if (!cases.takes_next(23)) continue;
          const operands in(shape, type, queries, queries + past, random);
          SCOPED_TRACE(described(in));
          const placement q_at = any_of(layouts), keys_at = any_of(aligned_layouts),
                          values_at = any_of(aligned_layouts);
          expect_near(attended(on(), in, q_at, keys_at, values_at), in.expected(),
                      in.error() + rounded_attention_error(type, queries));
          if (HasFatalFailure()) return;
        }
}

TEST_F(device_attention, of_caches_that_tensor_cores_cannot_load_has_the_accuracy_of_binary32) {
  const struct {
    index head_dim;
    placement keys_at, values_at;
  } caches[] = {{64, {1, 3}, {1, 3}}, {64, {8, 4}, {}}, {128, {}, {0, 4}}, {128, {}, {4, 0}}, {80, {}, {}}};
  for (const auto& [head_dim, keys_at, values_at] : caches)
    for (const dtype type : {dtype::f16, dtype::bf16})
      for (const index queries : {2, 20}) {
        const operands in(scaled_attention(2, 1, head_dim), type, queries, 30, random);
        SCOPED_TRACE(described(in));
        expect_near(attended(on(), in, {}, keys_at, values_at), in.expected(), in.error());
      }
}

TEST_F(device_attention, is_computed_by_tensor_cores_where_they_have_products_of_the_type) {
  using cuda::detail::suits_tensor_cores;
  const int capability = be.device().capability, compiled = cuda::detail::compiled_capability(capability);
  for (const auto& [type, needed] : {std::pair(dtype::f16, 70), {dtype::bf16, 80}})
    for (const index head_dim : {64, 128}) {
      EXPECT_EQ(suits_tensor_cores(type, head_dim, true, capability), compiled >= needed);
      EXPECT_FALSE(suits_tensor_cores(type, head_dim, true, needed - 1));
      EXPECT_FALSE(suits_tensor_cores(dtype::f32, head_dim, true, capability));
      const operands in(scaled_attention(2, 1, head_dim), type, 9, 9, random);
      const bool rounds = attended(on(), in).values != attended(without_tensor_cores(), in).values;
      EXPECT_EQ(rounds, compiled >= needed) << described(in);
    }
}

TEST_F(device_attention, takes_more_queries_than_keys_where_nothing_is_causal) {
  for (const dtype type : element_types)
    for (const index head_dim : {33, 64, 128})
      for (const index queries : {8, 20}) {
        const operands in(scaled_attention(2, 1, head_dim, false), type, queries, 5, random);
        SCOPED_TRACE(described(in));
        const real_matrix expected = in.expected();
        expect_near(attended(without_tensor_cores(), in), expected, in.error());
        expect_near(attended(on(), in), expected, in.error() + rounded_attention_error(type, queries));
      }
}

TEST_F(device_attention, does_not_let_through_what_only_the_last_query_sees) {
  for (const dtype type : element_types)
    for (const index queries : {3, 70}) {
      operands in(scaled_attention(2, 1, 64), type, queries, queries + 3, random);
      SCOPED_TRACE(described(in));
      const real_matrix before = attended(on(), in), slow = attended(without_tensor_cores(), in);
      for (index j = 0; j < 64; ++j) in.k(in.k.rows - 1, j) = in.v(in.k.rows - 1, j) = 60000;
      for (const auto& [by, earlier] : {std::pair(on(), before), {without_tensor_cores(), slow}}) {
        const real_matrix after = attended(by, in);
        for (index i = 0; i + 1 < queries; ++i)
          for (index j = 0; j < after.cols; ++j) ASSERT_EQ(after(i, j), earlier(i, j)) << "row " << i;
        EXPECT_NE(after(queries - 1, 0), earlier(queries - 1, 0));
      }
    }
}

TEST_F(device_attention, multiplies_by_weights_that_sum_to_one_after_they_were_rounded) {
  for (const dtype type : element_types)
    for (const index queries : {1, 6, 70}) {
      operands in(scaled_attention(2, 1, 64), type, queries, queries + 30, random);
      SCOPED_TRACE(described(in));
      std::ranges::fill(in.v.values, 1.0);
      real_matrix ones(queries, in.q.cols);
      std::ranges::fill(ones.values, 1.0);
      for (const auto& by : {on(), without_tensor_cores()})
        expect_near(attended(by, in), ones, 2 * unit_roundoff * static_cast<double>(in.k.rows + 16));
    }
}

TEST_F(device_attention, of_large_scores_stays_between_the_values) {
  for (const dtype type : element_types)
    for (const index queries : {1, 6, 70}) {
      const operands in(scaled_attention(1, 1, 64), type, queries, queries, random, 1e4);
      SCOPED_TRACE(described(in));
      // The weights, as they are multiplied, sum to one.
      for (const auto& by : {on(), without_tensor_cores()})
        for (const double value : attended(by, in).values)
          ASSERT_LE(std::fabs(value), 1 + unit_roundoff * static_cast<double>(queries + 16));
    }
}

TEST_F(device_attention, has_the_same_bits_in_every_run) {
  for (const dtype type : {dtype::f32, dtype::f16})
    for (const index queries : {1, 70}) {
      const operands in(scaled_attention(4, 2, 64), type, queries, 300, random);
      const cuda::context by = shared_by(132);
      const std::vector<double> first = attended(by, in).values;
      EXPECT_EQ(attended(by, in).values, first) << described(in);
    }
}

TEST_F(device_attention, probabilities_are_those_of_every_layout_of_the_keys) {
  for (const attention_shape& shape : device_shapes)
    for (const dtype type : element_types)
      for (const index keys : {1, 37, 300, 2000}) {
        if (!cases.takes_next(11)) continue;
        const operands in(shape, type, 1, keys, random);
        SCOPED_TRACE(described(in));
        device_matrix q(be, in.q, any_of(layouts)), p(be, shape.heads, keys, any_of(layouts));
        const auto k = cached(in.k, type, any_of(layouts));
        cuda::detail::attention_probabilities(on(), p.view(), q.in(), k.view, shape);
        real_matrix expected(shape.heads, keys);
        for (index head = 0; head < shape.heads; ++head) {
          const auto row = twin::attention_weights(in.q, 0, head, in.k, shape, [](index) { return true; });
          std::ranges::copy(row, expected.values.begin() + head * keys);
        }
        expect_near(p.values(), expected, in.error());
        if (HasFatalFailure()) return;
      }
}

}  // namespace
}  // namespace corematching
