// SPDX-License-Identifier: Apache-2.0
// Products with weights that were moved from blocks of GGUF files, against binary64 products with the values
// that the blocks hold: the only rounding beside binary32's is that of tokens to 16 bits or 8.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "corematching/model/gguf/moved_weights.hpp"
#include "corematching/model/gguf/tensors.hpp"
#include "support/backend_data.hpp"
#include "support/error_text.hpp"
#include "support/random_blocks.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

/// Rows or neurons of a blocks' matrix in our layout, and what they hold.
struct moved_matrix {
  weight<host_space> stored;
  real_matrix values;

  /// As rows [rows, cols], in the format of the type, as they are, or as wide_16m.
  static moved_matrix as_rows(const blocks_matrix& from, dtype type) {
    moved_matrix made(type, from.rows, from.cols);
    if (type == kept_type_of(from.type))
      std::memcpy(made.memory(), from.bytes.data(), from.bytes.size());
    else
      move_rows(from.view(), type, made.memory(), 1, [](index i) { return i; });
    const std::vector<float> all = from.values();
    made.values.values.assign(all.begin(), all.end());
    return made;
  }
  /// As neurons [cols, rows].
  static moved_matrix as_neurons(const blocks_matrix& from) {
    moved_matrix made(neuron_type_of(from.type), from.cols, from.rows);
    move_neurons(from.view(), made.memory(), 1);
    const std::vector<float> all = from.values();
    for (index j = 0; j < from.rows; ++j)
      for (index n = 0; n < from.cols; ++n)
        made.values(n, j) = double{all[static_cast<std::size_t>(j * from.cols + n)]};
    return made;
  }

 private:
  moved_matrix(dtype type, index rows, index cols)
      : values(rows, cols),
        memory_(std::make_shared<std::vector<std::byte>>(stored_bytes(type, rows, cols))) {
    stored = {{memory_->data(), type, rows, cols,
               static_cast<index>(bytes_of(type, static_cast<std::size_t>(cols)))},
              memory_};
  }
  std::byte* memory() { return memory_->data(); }

  std::shared_ptr<std::vector<std::byte>> memory_;
};

/// One of each format: with a minimum or none, in groups of 16 and of 32.
std::vector<block_type> types_of_each_format() {
  std::vector<block_type> types;
  for (const block_type& of : block_types)
    if (of.type == io::ggml_type::q4_1 || of.type == io::ggml_type::q6_k || of.type == io::ggml_type::q2_k ||
        of.type == io::ggml_type::q4_0 || of.type == io::ggml_type::q4_k || of.type == io::ggml_type::q5_k ||
        of.type == io::ggml_type::q8_0 || of.type == io::ggml_type::iq4_xs)
      types.push_back(of);
  return types;
}

/// What rows of a type are stored as, but for q8_0 and q4_0, which are held to the same elsewhere.
std::vector<dtype> row_types_of(io::ggml_type type) {
  std::vector<dtype> types{dtype::wide_16m};
  if (const dtype row = row_type_of(type); row != dtype::q8_0 && row != dtype::q4_0)
    types.insert(types.begin(), row);
  if (const auto kept = kept_type_of(type)) types.insert(types.begin(), *kept);
  return types;
}

class moved_operations : public testing::Test {
 protected:
  std::mt19937 random{11};
};

TEST_F(moved_operations, products_along_the_rows_are_those_of_the_blocks) {
  for (const block_type& of : types_of_each_format())
    for (const index tokens : {index{1}, index{3}, index{7}, few_tokens + 1, index{40}})
      for (const index cols : {256, 768}) {
        const blocks_matrix from(of, 70, cols, random);
        for (const dtype type : row_types_of(of.type)) {
          SCOPED_TRACE(testing::Message() << io::name_of(of.type) << " as " << name_of(type) << ", " << tokens
                                          << " tokens of " << cols);
          const moved_matrix w = moved_matrix::as_rows(from, type);
          const double magnitude = largest_magnitude(w.values);
          const real_matrix x = random_matrix(tokens, cols, random), bias = random_matrix(1, 70, random);
          const real_matrix expected = twin::matmul(x, w.values, bias);
          for_each_configuration<test_backend>([&](test_backend& be) {
            placed_matrix<test_backend> y(be, tokens, 70, placements[1]), placed_x(be, x, placements[2]);
            auto placed_bias = placed_floats(be, bias);
            const work_counters before = be.counters();
            be.matmul(y.view(), placed_x.in(), w.stored.view, placed_bias.in());
            EXPECT_EQ((be.counters() - before).weight_bytes, stored_bytes(w.stored.view));
            expect_near(
                y.values(), expected,
                dot_error(cols, magnitude) + rounded_factor_error(cols, moved_unit(type, tokens), magnitude));
          });
        }
      }
}

TEST_F(moved_operations, gated_neurons_are_those_of_the_blocks) {
  for (const block_type& of : types_of_each_format()) {
    const dtype type = row_types_of(of.type).front();
    const moved_matrix gate = moved_matrix::as_rows(blocks_matrix(of, 70, 256, random), type),
                       up = moved_matrix::as_rows(blocks_matrix(of, 70, 256, random), type);
    const double magnitude = std::max(largest_magnitude(gate.values), largest_magnitude(up.values));
    for (const index tokens : {index{1}, index{7}, few_tokens + 1})
      for (const twin::neurons& selection : selections(70)) {
        SCOPED_TRACE(testing::Message() << io::name_of(of.type) << ", " << tokens);
        const real_matrix x = random_matrix(tokens, 256, random, 0.1);
        const real_matrix expected = twin::gated_up(x, gate.values, up.values, activation::silu, selection);
        auto be = make_backend(2);
        placed_matrix<test_backend> y(be, tokens, expected.cols), placed_x(be, x);
        placed_neurons<test_backend> chosen(be, selection);
        be.gated_up(y.view(), placed_x.in(), gate.stored.view, up.stored.view, activation::silu,
                    chosen.view());
        expect_near(y.values(), expected,
                    gated_error(256, 0.1 * magnitude) +
                        5 * rounded_factor_error(256, moved_unit(type, tokens), 0.1 * magnitude));
      }
  }
}

TEST_F(moved_operations, give_each_of_a_few_tokens_the_bits_that_it_gets_alone) {
  if (!rounds_tokens_to_integers()) GTEST_SKIP() << "only the CPU's kernels promise it";
  auto be = make_backend(2);
  for (const block_type& of : types_of_each_format()) {
    const blocks_matrix from(of, 38, 768, random), across(of, 96, 512, random);
    for (index tokens = 2; tokens <= few_tokens; ++tokens) {
      placed_matrix<test_backend> x(be, random_matrix(tokens, 768, random)), y(be, tokens, 38),
          one(be, 1, 38), h(be, random_matrix(tokens, 512, random)), sum(be, tokens, 96), one_sum(be, 1, 96);
      const moved_matrix neurons = moved_matrix::as_neurons(across);
      be.weighted_rows(sum.view(), h.in(), neurons.stored.view, {});
      for (const dtype type : row_types_of(of.type)) {
        SCOPED_TRACE(testing::Message() << io::name_of(of.type) << " as " << name_of(type) << ", " << tokens);
        const moved_matrix w = moved_matrix::as_rows(from, type);
        be.gated_up(y.view(), x.in(), w.stored.view, w.stored.view, activation::silu, {});
        for (index t = 0; t < tokens; ++t) {
          be.gated_up(one.view(), x.in().middle_rows(t, 1), w.stored.view, w.stored.view, activation::silu,
                      {});
          ASSERT_EQ(host_values(be, y.in().row(t)), host_values(be, one.in().row(0))) << "token " << t;
        }
      }
      for (index t = 0; t < tokens; ++t) {
        be.weighted_rows(one_sum.view(), h.in().middle_rows(t, 1), neurons.stored.view, {});
        ASSERT_EQ(host_values(be, sum.in().row(t)), host_values(be, one_sum.in().row(0))) << "token " << t;
      }
    }
  }
}

TEST_F(moved_operations, sums_of_neurons_are_those_of_the_blocks) {
  for (const block_type& of : types_of_each_format())
    for (const index tokens : {index{1}, index{3}, index{7}, few_tokens + 1})
      for (const index cols : {32, 96}) {
        const moved_matrix w = moved_matrix::as_neurons(blocks_matrix(of, cols, 512, random));
        const double magnitude = largest_magnitude(w.values);
        for (const twin::neurons& selection : selections(512)) {
          SCOPED_TRACE(testing::Message() << io::name_of(of.type) << ", " << tokens << " x " << cols);
          const real_matrix x = random_matrix(tokens, twin::count_of(selection, 512), random);
          const real_matrix expected = twin::weighted_rows(x, w.values, selection);
          for_each_configuration<test_backend>([&](test_backend& be) {
            placed_matrix<test_backend> y(be, tokens, cols, placements[2]), placed_x(be, x, placements[1]);
            placed_neurons<test_backend> chosen(be, selection);
            be.weighted_rows(y.view(), placed_x.in(), w.stored.view, chosen.view());
            const dtype type = w.stored.view.type;
            const double unit =
                tokens <= few_tokens || !selection ? moved_unit(type, tokens) : widened_unit(type, tokens);
            expect_near(y.values(), expected,
                        2 * dot_error(x.cols, magnitude) + rounded_factor_error(x.cols, unit, magnitude));
          });
        }
      }
}

TEST_F(moved_operations, count_the_scales_of_blocks_of_which_a_neuron_is_read) {
  for (const auto& [type, bits] : {std::pair(io::ggml_type::q8_0, 8u), std::pair(io::ggml_type::q4_0, 4u)}) {
    const auto* const of = std::ranges::find(block_types, type, &block_type::type);
    const moved_matrix w = moved_matrix::as_neurons(blocks_matrix(*of, 64, 128, random));
    auto be = make_backend(1);
    // Of the first, second and last block of four.
    const std::vector<std::int32_t> chosen{3, 30, 31, 32, 127};
    placed_matrix<test_backend> y(be, 1, 64), x(be, random_matrix(1, 5, random));
    placed_neurons<test_backend> placed(be, chosen);
    const work_counters before = be.counters();
    be.weighted_rows(y.view(), x.in(), w.stored.view, placed.view());
    const work_counters cost = be.counters() - before;
    EXPECT_EQ(cost.weight_bytes, 5u * 64 * bits / 8 + 3u * 64 * sizeof(float));
    EXPECT_EQ(cost.flops, 2u * 5 * 64);
  }
}

TEST_F(moved_operations, the_other_direction_is_slow_and_right) {
  for (const block_type& of : types_of_each_format()) {
    SCOPED_TRACE(io::name_of(of.type));
    const blocks_matrix from(of, 32, 256, random);
    const moved_matrix rows = moved_matrix::as_rows(from, dtype::wide_16m),
                       neurons = moved_matrix::as_neurons(from);
    const double magnitude = largest_magnitude(rows.values);
    for (const index tokens : {index{1}, index{7}, few_tokens + 1}) {
      auto be = make_backend(2);
      const real_matrix x = random_matrix(tokens, 32, random);
      placed_matrix<test_backend> sum(be, tokens, 256), product(be, tokens, 256), placed_x(be, x);
      be.weighted_rows(sum.view(), placed_x.in(), rows.stored.view, {});
      be.matmul(product.view(), placed_x.in(), neurons.stored.view, {});
      const double tolerance = dot_error(32, magnitude) +
                               rounded_factor_error(32, widened_unit(dtype::wide_16m, tokens), magnitude);
      expect_near(sum.values(), twin::weighted_rows(x, rows.values, {}), tolerance);
      expect_near(product.values(), twin::matmul(x, neurons.values), tolerance);
    }
  }
}

TEST_F(moved_operations, rows_are_looked_up_and_converted_as_what_they_hold) {
  for (const block_type& of : types_of_each_format()) {
    SCOPED_TRACE(io::name_of(of.type));
    const moved_matrix w = moved_matrix::as_rows(blocks_matrix(of, 70, 256, random), dtype::wide_16m);
    auto be = make_backend(2);
    placed_matrix<test_backend> y(be, 2, 256);
    placed_vector<test_backend, std::int32_t> ids(be, {69, 1});
    be.embed(y.view(), w.stored.view, ids.in());
    const real_matrix found = y.values();
    for (index j = 0; j < 256; ++j) {
      ASSERT_EQ(found(0, j), w.values(69, j));
      ASSERT_EQ(found(1, j), w.values(1, j));
    }
    EXPECT_EQ(loaded(be, be.convert_weight(w.stored.view, dtype::f32, false).view).values, w.values.values);
    EXPECT_EQ(loaded(be, be.convert_weight(w.stored.view, dtype::f16, false).view).values,
              rounded(w.values, dtype::f16).values);
    expect_parts(error_text([&] { be.convert_weight(w.stored.view, dtype::wide_32m, false); }),
                 "nothing is rounded to wide_32m");
  }
}

}  // namespace
}  // namespace corematching
