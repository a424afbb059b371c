// SPDX-License-Identifier: Apache-2.0
// Matrix products on the device where the tests of all backends do not look: every layout of every operand,
// token counts on both sides of the step from own kernels to cuBLAS, workspaces that hold a few rows only,
// and work shared by few or many processors.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "corematching/backend/cuda/pointwise.cuh"
#include "corematching/backend/cuda/products/products.cuh"
#include "cuda/device_operations.hpp"
#include "support/scalar_twin.hpp"

namespace corematching {
namespace {

using namespace support;
using cuda::detail::product_workspaces;

/// Up to 8 tokens are multiplied by own kernels, which are made for 1, 2, 4 and 8 of them.
const std::vector<index> product_tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 37};
/// Rows and columns of weights.
const std::vector<std::pair<index, index>> weight_shapes = {
    {1, 1},    {2, 3},     {5, 8},     {7, 9},    {16, 15},  {17, 64},   {31, 33}, {65, 129},
    {64, 256}, {129, 100}, {100, 513}, {513, 31}, {3, 1100}, {300, 264}, {33, 1},  {1, 700}};

class device_products : public device_operations {
 protected:
  product_workspaces memory;

  /// Calls body(type, tokens, rows, cols) for all of them; emulated, for every size with one type: 3 does not
  /// divide the number of sizes, so that types take turns.
  template <class Body>
  void for_each_size(Body&& body) {
    for (const dtype type : element_types)
      for (const index tokens : product_tokens)
        for (const auto& [rows, cols] : weight_shapes) {
          if (!cases.takes_next(3)) continue;
          SCOPED_TRACE(testing::Message()
                       << name_of(type) << " [" << rows << ", " << cols << "], " << tokens << " tokens");
          body(type, tokens, rows, cols);
          if (HasFatalFailure()) return;
        }
  }
  weight<device_space> placed(const real_matrix& w, dtype type) {
    return weight_at(be, w, type, any_of(layouts));
  }
};

TEST_F(device_products, matmul_takes_any_layout_and_any_number_of_processors) {
  for_each_size([&](dtype type, index tokens, index out, index in) {
    const real_matrix x = random_matrix(tokens, in, random), bias = random_matrix(1, out, random);
    const real_matrix w = random_weight(out, in, type, random, 1);
    const real_matrix expected = twin::matmul(as_multiplied(x, type), w, bias);
    device_matrix placed_x(be, x, any_of(layouts)), y(be, tokens, out, any_of(layouts));
    auto placed_bias = placed_floats(be, bias);
    const auto placed_w = placed(w, type);
    for (const int processors : {1, 132}) {
      cuda::detail::matmul(shared_by(processors), memory, y.view(), placed_x.in(), placed_w.view,
                           placed_bias.in());
      expect_near(y.values(), expected, dot_error(in));
    }
  });
}

TEST_F(device_products, projections_of_one_type_or_several_are_what_each_is_alone) {
  for (const index tokens : product_tokens)
    for (const index count : {1, 2, 3, 5}) {  // one kernel takes three
      const index in = any_of<index>({8, 31, 264});
      SCOPED_TRACE(testing::Message() << count << " products of " << tokens << " x " << in);
      device_matrix x(be, random_matrix(tokens, in, random), any_of(layouts));
      std::vector<device_matrix> together, alone;
      std::vector<weight<device_space>> weights;
      std::vector<projection<device_space>> projections;
      const dtype type = any_of<dtype>({dtype::f32, dtype::f16, dtype::bf16});
      auto bias = placed_floats(be, random_matrix(1, 300, random));
      for (index i = 0; i < count; ++i) {
        const index out = any_of<index>({0, 1, 7, 64, 300});
        const dtype own = random() % 3 == 0 ? dtype::bf16 : type;
        weights.push_back(placed(random_weight(out, in, own, random, 1), own));
        together.emplace_back(be, tokens, out, any_of(layouts));
        alone.emplace_back(be, tokens, out);
        const vector_view<const float, device_space> added{bias.in().data, i % 2 == 0 ? out : 0};
        projections.push_back({together.back().view(), weights.back().view, added});
      }
      for (const int processors : {1, 132}) {
        cuda::detail::project(shared_by(processors), memory, projections, x.in());
        for (std::size_t i = 0; i < projections.size(); ++i) {
          const auto& [y, w, added] = projections[i];
          cuda::detail::matmul(shared_by(processors), memory, alone[i].view(), x.in(), w, added);
          expect_near(together[i].values(), alone[i].values(), 2 * dot_error(in));
        }
      }
    }
}

TEST_F(device_products, gated_up_takes_any_layout_selection_and_size_of_workspaces) {
  for_each_size([&](dtype type, index tokens, index neurons, index in) {
    const double magnitude = weight_magnitude(in);
    const real_matrix x = random_matrix(tokens, in, random);
    const real_matrix gate = random_weight(neurons, in, type, random, magnitude);
    const real_matrix up = random_weight(neurons, in, type, random, magnitude);
    const twin::neurons selection = any_of(selections(neurons));
    const activation act = activations[random() % std::size(activations)];
    const real_matrix expected = twin::gated_up(as_multiplied(x, type), gate, up, act, selection);
    device_matrix placed_x(be, x, any_of(layouts)), y(be, tokens, expected.cols, any_of(layouts));
    placed_neurons<cuda::backend> chosen(be, selection);
    const auto placed_gate = placed(gate, type), placed_up = placed(up, type);
    memory.most_bytes = any_of<index>({1, 1000, index{64} << 20});
    cuda::detail::gated_up(on(), memory, y.view(), placed_x.in(), placed_gate.view, placed_up.view, act,
                           chosen.view());
    expect_near(y.values(), expected, gated_error(in, magnitude) + stored_gate_error(type, tokens));
  });
}

TEST_F(device_products, weighted_rows_takes_any_layout_selection_and_size_of_workspaces) {
  for_each_size([&](dtype type, index tokens, index neurons, index out) {
    const twin::neurons selection = any_of(selections(neurons));
    const real_matrix w = random_weight(neurons, out, type, random, 1);
    const real_matrix x = random_matrix(tokens, twin::count_of(selection, neurons), random);
    device_matrix placed_x(be, x, any_of(layouts)), y(be, tokens, out, any_of(layouts));
    placed_neurons<cuda::backend> chosen(be, selection);
    const auto placed_w = placed(w, type);
    memory.most_bytes = any_of<index>({1, 1000, index{64} << 20});
    cuda::detail::weighted_rows(on(), memory, y.view(), placed_x.in(), placed_w.view, chosen.view());
    expect_near(y.values(), twin::weighted_rows(as_multiplied(x, type), w, selection), dot_error(x.cols));
  });
}

TEST_F(device_products, many_tokens_are_multiplied_part_by_part_where_workspaces_are_small) {
  const index neurons = 40, width = 24;
  const double magnitude = weight_magnitude(width);
  for (const dtype type : element_types)
    for (const index bytes : {1, 200, 1000})
      for (const twin::neurons& selection : selections(neurons)) {
        const index count = twin::count_of(selection, neurons);
        SCOPED_TRACE(testing::Message()
                     << name_of(type) << ", " << count << " neurons, " << bytes << " bytes");
        const real_matrix x = random_matrix(37, width, random), h = random_matrix(37, count, random);
        const real_matrix w = random_weight(neurons, width, type, random, magnitude);
        const auto placed_w = weight_at(be, w, type, {});
        device_matrix placed_x(be, x), placed_h(be, h), y(be, 37, count), sums(be, 37, width);
        placed_neurons<cuda::backend> chosen(be, selection);
        memory.most_bytes = bytes;
        cuda::detail::gated_up(on(), memory, y.view(), placed_x.in(), placed_w.view, placed_w.view,
                               activation::silu, chosen.view());
        cuda::detail::weighted_rows(on(), memory, sums.view(), placed_h.in(), placed_w.view, chosen.view());
        expect_near(y.values(), twin::gated_up(as_multiplied(x, type), w, w, activation::silu, selection),
                    gated_error(width, magnitude) + stored_gate_error(type, 37));
        expect_near(sums.values(), twin::weighted_rows(as_multiplied(h, type), w, selection),
                    dot_error(count, magnitude));
        if (HasFatalFailure()) return;
      }
}

/// Weights in two planes wherever they may lie: rows of a plane side by side, at any byte.
weight<device_space> planes_at(cuda::backend& be, const real_matrix& values, index offset) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(offset + 2 * values.rows * values.cols));
  auto* const first = reinterpret_cast<std::byte*>(bytes.data() + offset);
  for (index i = 0; i < values.rows; ++i) {
    const auto row = values.values.begin() + i * values.cols;
    quantise_row<f16_planes>(std::vector<float>(row, row + values.cols).data(), values.cols, first,
                             values.rows, i);
  }
  const auto memory = std::make_shared<placed_vector<cuda::backend, std::uint8_t>>(be, bytes);
  return {{reinterpret_cast<const std::byte*>(memory->view().data + offset), dtype::f16_planes, values.rows,
           values.cols, 2 * values.cols},
          memory};
}

TEST_F(device_products, of_two_planes_are_those_of_f16_in_any_layout_and_part_by_part) {
  for (const auto& [rows, cols] : weight_shapes)
    for (const index tokens : {1, 3, 8, 9, 37}) {
      if (!cases.takes_next(3)) continue;
      const double magnitude = weight_magnitude(cols);
      const real_matrix x = random_matrix(tokens, cols, random),
                        w = random_weight(rows, cols, dtype::f16, random, magnitude);
      const twin::neurons selection = any_of(selections(rows));
      const auto placed_w = planes_at(be, w, any_of<index>({0, 1, 16}));
      const index chosen_rows = twin::count_of(selection, rows);
      device_matrix placed_x(be, x, any_of(layouts)), y(be, tokens, rows, any_of(layouts)),
          gated(be, tokens, chosen_rows, any_of(layouts)), coarse(be, tokens, rows, any_of(layouts));
      placed_neurons<cuda::backend> chosen(be, selection);
      memory.most_bytes = any_of<index>({1, 1000, index{64} << 20});
      for (const int processors : {1, 132}) {
        SCOPED_TRACE(testing::Message() << "[" << rows << ", " << cols << "], " << tokens << " tokens, "
                                        << chosen_rows << " chosen, " << processors);
        const auto on = shared_by(processors);
        cuda::detail::matmul(on, memory, y.view(), placed_x.in(), placed_w.view, {});
        cuda::detail::gated_up(on, memory, gated.view(), placed_x.in(), placed_w.view, placed_w.view,
                               activation::silu, chosen.view());
        cuda::detail::coarse_matmul(on, coarse.view(), placed_x.in(), placed_w.view);
        const real_matrix multiplied = as_multiplied(x, dtype::f16);
        expect_near(y.values(), twin::matmul(multiplied, w), dot_error(cols, magnitude));
        expect_near(gated.values(), twin::gated_up(multiplied, w, w, activation::silu, selection),
                    gated_error(cols, magnitude) + stored_gate_error(dtype::f16, tokens));
        expect_near(coarse.values(), twin::matmul(x, coarse_of(w, dtype::f16_planes)),
                    dot_error(cols, magnitude));
        if (HasFatalFailure()) return;
      }
    }
}

TEST_F(device_products, sums_shared_by_many_processors_are_right_and_have_the_same_bits_in_every_run) {
  // Many slices of rows, and more columns than a block sums.
  const index neurons = is_emulated ? 400 : 1500, out = 520;
  for (const dtype type : element_types) {
    const real_matrix w = random_weight(neurons, out, type, random, 1);
    const auto placed_w = weight_at(be, w, type, {});
    for (const index tokens : {1, 3, 8}) {
      const real_matrix x = random_matrix(tokens, neurons, random);
      const real_matrix expected = twin::weighted_rows(x, w);
      device_matrix placed_x(be, x), y(be, tokens, out, {0, 4});
      for (const int processors : {1, 16, 132}) {
        SCOPED_TRACE(testing::Message() << name_of(type) << ", " << tokens << " tokens, " << processors);
        std::vector<double> first;
        for (int round = 0; round < 2; ++round) {
          cuda::detail::weighted_rows(shared_by(processors), memory, y.view(), placed_x.in(), placed_w.view,
                                      {});
          const real_matrix sums = y.values();
          ASSERT_NO_FATAL_FAILURE(expect_near(sums, expected, dot_error(neurons)));
          if (round == 0) first = sums.values;
          ASSERT_EQ(sums.values, first);
        }
      }
    }
  }
}

TEST_F(device_products, are_added_to_what_is_there_as_if_afterwards) {
  using enum cuda::detail::product_mode;
  const index in = 150, out = 70;  // sums in one slice, or in three
  for (const dtype type : element_types)
    for (const index tokens : {1, 3, 8, 9})
      for (const int processors : {1, 132}) {
        SCOPED_TRACE(testing::Message() << name_of(type) << ", " << tokens << " tokens, " << processors);
        const real_matrix w = random_weight(out, in, type, random, 1),
                          v = random_weight(in, out, type, random, 1);
        const real_matrix x = random_matrix(tokens, in, random), before = random_matrix(tokens, out, random);
        const real_matrix bias = random_matrix(1, out, random);
        device_matrix placed_x(be, x, {0, 4}), product(be, tokens, out), sum(be, before, {4, 8});
        auto placed_bias = placed_floats(be, bias);
        const auto placed_w = placed(w, type), placed_v = placed(v, type);
        const auto expect_sum = [&](const real_matrix& exact) {
          const real_matrix result = sum.values(), alone = product.values();
          for (index i = 0; i < tokens; ++i)
            for (index j = 0; j < out; ++j)
              if (tokens <= 8)  // by own kernels, which round the product first
                ASSERT_EQ(result(i, j), static_cast<float>(before(i, j)) + static_cast<float>(alone(i, j)));
              else
                ASSERT_NEAR(result(i, j), before(i, j) + exact(i, j), dot_error(in + 2));
        };
        const auto on = shared_by(processors);
        cuda::detail::matmul(on, memory, product.view(), placed_x.in(), placed_w.view, placed_bias.in());
        cuda::detail::matmul(on, memory, sum.view(), placed_x.in(), placed_w.view, placed_bias.in(), add);
        expect_sum(twin::matmul(as_multiplied(x, type), w, bias));
        if (HasFatalFailure()) return;
        device_matrix again(be, before, {4, 8});
        cuda::detail::copy(on, sum.view(), again.in());
        cuda::detail::weighted_rows(on, memory, product.view(), placed_x.in(), placed_v.view, {});
        cuda::detail::weighted_rows(on, memory, sum.view(), placed_x.in(), placed_v.view, {}, add);
        expect_sum(twin::weighted_rows(as_multiplied(x, type), v));
        if (HasFatalFailure()) return;
      }
}

TEST_F(device_products, of_selected_neurons_of_many_tokens_are_added_part_by_part) {
  const real_matrix w = random_weight(40, 24, dtype::f16, random, 1), before = random_matrix(9, 24, random);
  const auto placed_w = weight_at(be, w, dtype::f16, {});
  for (const twin::neurons& selection : selections(40)) {
    const real_matrix h = random_matrix(9, twin::count_of(selection, 40), random);
    device_matrix placed_h(be, h), sums(be, before);
    placed_neurons<cuda::backend> chosen(be, selection);
    memory.most_bytes = 200;
    cuda::detail::weighted_rows(on(), memory, sums.view(), placed_h.in(), placed_w.view, chosen.view(),
                                cuda::detail::product_mode::add);
    real_matrix expected = twin::weighted_rows(as_multiplied(h, dtype::f16), w, selection);
    for (std::size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += before.values[i];
    expect_near(sums.values(), expected, dot_error(h.cols + 1));
  }
}

TEST_F(device_products, sums_of_nothing_are_zero_and_a_bias_stands_alone) {
  for (const dtype type : element_types)
    for (const index tokens : {0, 1, 9}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << tokens << " tokens");
      const real_matrix bias = random_matrix(1, 5, random);
      auto placed_bias = placed_floats(be, bias);
      device_matrix x(be, tokens, 0), y(be, tokens, 5, {1, 2});
      const auto without_cols = weight_at(be, real_matrix(5, 0), type, {}),
                 without_rows = weight_at(be, real_matrix(0, 5), type, {});
      cuda::detail::matmul(on(), memory, y.view(), x.in(), without_cols.view, placed_bias.in());
      expect_near(y.values(), twin::matmul(real_matrix(tokens, 0), real_matrix(5, 0), bias), 0);
      cuda::detail::gated_up(on(), memory, y.view(), x.in(), without_cols.view, without_cols.view,
                             activation::silu, {});
      expect_near(y.values(), real_matrix(tokens, 5), 0);
      device_matrix sums(be, tokens, 5, {1, 2});
      cuda::detail::weighted_rows(on(), memory, sums.view(), x.in(), without_rows.view, {});
      expect_near(sums.values(), real_matrix(tokens, 5), 0);
      // Results without columns are no work.
      cuda::detail::matmul(on(), memory, x.view(), y.in(), without_rows.view, {});
      cuda::detail::weighted_rows(on(), memory, x.view(), y.in(), without_cols.view, {});
    }
}

}  // namespace
}  // namespace corematching
