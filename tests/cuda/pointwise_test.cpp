// SPDX-License-Identifier: Apache-2.0
// Operations on rows of activations on the device where the tests of all backends do not look: rows that are
// aligned, so that four elements are moved at a time, rows that are taken by large blocks, and more pairs
// than a block turns.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "corematching/backend/cuda/norms.cuh"
#include "corematching/backend/cuda/rotary.cuh"
#include "cuda/device_operations.hpp"
#include "support/scalar_twin.hpp"

namespace corematching {
namespace {

using namespace support;

/// Whole loads and others; more columns than a block of 256 threads takes at once, 1024 and 4096 of them.
const std::vector<index> widths = {1, 3, 4, 17, 64, 257, 1028, 2048, 2051, 4100};

/// All rows aligned, or each operand's somewhere else.
struct placed_operands {
  placement y, x, weight, bias;
};
const placed_operands together[] = {{{0, 0}, {0, 0}, {}, {}},     {{8, 8}, {0, 8}, {}, {4, 0}},
                                    {{0, 0}, {1, 3}, {}, {}},     {{0, 3}, {0, 0}, {}, {}},
                                    {{0, 0}, {0, 0}, {1, 0}, {}}, {{0, 0}, {0, 0}, {}, {2, 0}}};

class device_pointwise : public device_operations {
 protected:
  /// Calls body(rows, cols, where the operands lie).
  template <class Body>
  void for_each_layout(Body&& body) {
    for (const index cols : widths)
      for (const index rows : {0, 1, 5})
        for (const placed_operands& where : together) {
          SCOPED_TRACE(testing::Message()
                       << "[" << rows << ", " << cols << "], y at " << where.y << ", x at " << where.x
                       << ", weight at " << where.weight << ", bias at " << where.bias);
          body(rows, cols, where);
          if (HasFatalFailure()) return;
        }
  }
};

TEST_F(device_pointwise, norms_take_any_layout_of_every_operand) {
  const float eps = 1e-5f;
  for_each_layout([&](index rows, index cols, const placed_operands& where) {
    const real_matrix x = random_matrix(rows, cols, random), weight = random_matrix(1, cols, random),
                      bias = random_matrix(1, cols, random);
    device_matrix y(be, rows, cols, where.y), placed_x(be, x, where.x),
        placed_weight(be, weight, where.weight), placed_bias(be, bias, where.bias);
    // Blocks are large where there are fewer rows than processors.
    for (const int processors : {1, 132}) {
      const cuda::context by = shared_by(processors);
      cuda::detail::rms_norm(by, y.view(), placed_x.in(), placed_weight.in().row(0), eps);
      real_matrix expected = twin::rms_norm(x, weight, double{eps});
      expect_near(y.values(), expected, norm_error(cols, largest_magnitude(expected)));
      if (cols == 1) continue;  // as its own mean, every element is a rounding error
      cuda::detail::layer_norm(by, y.view(), placed_x.in(), placed_weight.in().row(0),
                               placed_bias.in().row(0), eps);
      expected = twin::layer_norm(x, weight, bias, double{eps});
      expect_near(y.values(), expected, norm_error(cols, largest_magnitude(expected)));
    }
  });
}

TEST_F(device_pointwise, norms_of_many_rows_may_run_in_place) {
  for (const index cols : {60, 2048}) {
    const index rows = is_emulated ? 7 : 300;
    const real_matrix x = random_matrix(rows, cols, random), weight = random_matrix(1, cols, random);
    device_matrix placed(be, x, {0, 4}), placed_weight(be, weight);
    cuda::detail::rms_norm(on(), placed.view(), placed.in(), placed_weight.in().row(0), 1e-5f);
    const real_matrix expected = twin::rms_norm(x, weight, double{1e-5f});
    expect_near(placed.values(), expected, norm_error(cols, largest_magnitude(expected)));
  }
}

TEST_F(device_pointwise, sums_copies_and_activations_take_any_layout_of_every_operand) {
  for_each_layout([&](index rows, index cols, const placed_operands& where) {
    const real_matrix x = random_matrix(rows, cols, random, 8), z = random_matrix(rows, cols, random);
    real_matrix sum = x, active = x;
    for (std::size_t i = 0; i < x.values.size(); ++i) {
      sum.values[i] = double{static_cast<float>(x.values[i]) + static_cast<float>(z.values[i])};
      active.values[i] = twin::activated(activation::gelu_tanh, x.values[i]);
    }
    device_matrix y(be, z, where.y), placed_x(be, x, where.x), copied(be, rows, cols, where.y);
    cuda::detail::add(on(), y.view(), placed_x.in());
    EXPECT_EQ(y.values().values, sum.values);
    cuda::detail::copy(on(), copied.view(), placed_x.in());
    EXPECT_EQ(copied.values().values, x.values);
    cuda::detail::activate(on(), placed_x.view(), activation::gelu_tanh);
    expect_near(placed_x.values(), active, 8 * 16 * unit_roundoff);  // as in ops_test.cpp
  });
}

TEST_F(device_pointwise, rotary_reduces_large_angles_exactly) {
  const std::vector<std::int32_t> positions = {0, 1, -7, 4095, 1000000, 16777215};
  for (const index heads : {1, 5})
    for (const index half : {1, 3, 64}) {
      std::vector<float> frequencies;
      for (index i = 0; i < half; ++i)
        frequencies.push_back(std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(half)));
      real_matrix x = random_matrix(std::ssize(positions), heads * 2 * half, random), expected = x;
      for (index i = 0; i < x.rows; ++i)
        for (index j = 0; j < half; ++j) {
          // The angle is a number of binary32.
          const auto place = static_cast<std::size_t>(i), turn = static_cast<std::size_t>(j);
          const double angle = double{static_cast<float>(positions[place]) * frequencies[turn]};
          for (index head = 0; head < heads; ++head) {
            const index column = head * 2 * half + j;
            const double a = x(i, column), b = x(i, column + half);
            expected(i, column) = a * std::cos(angle) - b * std::sin(angle);
            expected(i, column + half) = a * std::sin(angle) + b * std::cos(angle);
          }
        }
      device_matrix placed(be, x, any_of(layouts));
      placed_vector<cuda::backend, std::int32_t> at(be, positions);
      placed_vector<cuda::backend, float> turning(be, frequencies);
      cuda::detail::rotary(on(), placed.view(), {}, at.in(), turning.in());
      expect_near(placed.values(), expected, 8 * unit_roundoff);
    }
}

TEST_F(device_pointwise, rotary_turns_two_matrices_as_each_alone) {
  for (const index half : {3, 64}) {
    const std::vector<std::int32_t> positions = {3, 0, 500};
    const std::vector<float> frequencies(static_cast<std::size_t>(half), 0.7f);
    placed_vector<cuda::backend, std::int32_t> at(be, positions);
    placed_vector<cuda::backend, float> turning(be, frequencies);
    for (const auto& [heads, others] : {std::pair<index, index>{5, 1}, {1, 5}, {2, 2}}) {
      const real_matrix x = random_matrix(3, heads * 2 * half, random),
                        other = random_matrix(3, others * 2 * half, random);
      device_matrix one(be, x, any_of(layouts)), two(be, other, any_of(layouts));
      cuda::detail::rotary(on(), one.view(), two.view(), at.in(), turning.in());
      for (auto& [values, turned] : {std::pair(&x, &one), {&other, &two}}) {
        device_matrix alone(be, *values);
        cuda::detail::rotary(on(), alone.view(), {}, at.in(), turning.in());
        EXPECT_EQ(turned->values().values, alone.values().values);
      }
    }
  }
}

}  // namespace
}  // namespace corematching
