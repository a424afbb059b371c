// SPDX-License-Identifier: Apache-2.0
// Products with f16 weights in two planes: of both, those of weights in f16 to the bit; of the upper one, see
// choice_ops_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "support/backend_data.hpp"
#include "support/error_text.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

/// Rows and their lengths: around the widths of vectors, of loads of a device and of what is asked for ahead.
const std::vector<std::pair<index, index>> shapes_of_planes{
    {1, 1}, {3, 7}, {5, 16}, {33, 31}, {17, 96}, {70, 65}, {40, 259}, {129, 64}, {12, 1056}};

template <class B>
class weights_in_two_planes : public testing::Test {
 protected:
  std::mt19937 random{5};
};
TYPED_TEST_SUITE(weights_in_two_planes, backends);

/// The same bits; of many tokens on a device within rounding, since cuBLAS may add in another order where
/// memory lies otherwise.
template <class B>
void expect_alike(placed_matrix<B>& split, placed_matrix<B>& whole, index tokens, double error) {
  if (std::same_as<typename B::space, device_space> && !is_emulated && tokens > exact_tokens)
    expect_near(split.values(), whole.values(), error);
  else
    EXPECT_EQ(split.values().values, whole.values().values);
}

TYPED_TEST(weights_in_two_planes, are_multiplied_as_those_of_f16) {
  for (const auto& [rows, length] : shapes_of_planes)
    for (const index tokens : {index{1}, index{2}, index{7}, few_tokens, few_tokens + 1, index{37}}) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens, " << rows << " x " << length);
      const real_matrix x = random_matrix(tokens, length, this->random),
                        bias = random_matrix(1, rows, this->random),
                        w = random_weight(rows, length, dtype::f16, this->random, 1);
      for_each_configuration<TypeParam>([&, rows = rows](TypeParam& be) {
        placed_matrix<TypeParam> whole(be, tokens, rows), split(be, tokens, rows, {1, 3}), placed_x(be, x);
        auto placed_bias = placed_floats(be, bias);
        be.matmul(whole.view(), placed_x.in(), placed_weight(be, w, dtype::f16).view, placed_bias.in());
        be.matmul(split.view(), placed_x.in(), placed_weight(be, w, dtype::f16_planes).view,
                  placed_bias.in());
        expect_alike(split, whole, tokens, 2 * dot_error(length));
      });
    }
}

TYPED_TEST(weights_in_two_planes, gate_as_those_of_f16_whatever_is_selected) {
  sampled_cases cases;
  for (const auto& [rows, length] : shapes_of_planes)
    for (const index tokens : {index{1}, few_tokens, few_tokens + 1, index{37}}) {
      const double magnitude = weight_magnitude(length);
      const real_matrix x = random_matrix(tokens, length, this->random),
                        gate = random_weight(rows, length, dtype::f16, this->random, magnitude),
                        up = random_weight(rows, length, dtype::f16, this->random, magnitude);
      for (const twin::neurons& selection : selections(rows)) {
        if (!cases.takes_next(3)) continue;
        SCOPED_TRACE(testing::Message() << tokens << " tokens, " << rows << " x " << length);
        const index columns = twin::count_of(selection, rows);
        for_each_configuration<TypeParam>([&](TypeParam& be) {
          placed_matrix<TypeParam> whole(be, tokens, columns), split(be, tokens, columns), placed_x(be, x);
          placed_neurons<TypeParam> chosen(be, selection);
          const auto product = [&](placed_matrix<TypeParam>& y, dtype type) {
            be.gated_up(y.view(), placed_x.in(), placed_weight(be, gate, type).view,
                        placed_weight(be, up, type).view, activation::silu, chosen.view());
          };
          product(whole, dtype::f16);
          product(split, dtype::f16_planes);
          expect_alike(split, whole, tokens,
                       2 * (gated_error(length, magnitude) + stored_gate_error(dtype::f16, tokens)));
        });
      }
    }
}

TYPED_TEST(weights_in_two_planes, finish_chosen_neurons_as_those_of_f16) {
  for (const auto& [rows, length] : shapes_of_planes) {
    const double magnitude = weight_magnitude(length);
    const real_matrix x = random_matrix(1, length, this->random),
                      gate = random_weight(rows, length, dtype::f16, this->random, magnitude),
                      up = random_weight(rows, length, dtype::f16, this->random, magnitude);
    for (const twin::neurons& selection : selections(rows)) {
      if (!selection) continue;
      for_each_configuration<TypeParam>([&, rows = rows, length = length](TypeParam& be) {
        const index columns = std::ssize(*selection);
        placed_matrix<TypeParam> gates(be, 1, rows), ups(be, 1, rows), exact(be, 1, columns),
            finished(be, 1, columns), placed_x(be, x);
        placed_neurons<TypeParam> chosen(be, selection);
        be.gated_up(exact.view(), placed_x.in(), placed_weight(be, gate, dtype::f16).view,
                    placed_weight(be, up, dtype::f16).view, activation::silu, chosen.view());
        const auto placed_gate = placed_weight(be, gate, dtype::f16_planes),
                   placed_up = placed_weight(be, up, dtype::f16_planes);
        be.coarse_matmul(gates.view(), placed_x.in(), placed_gate.view);
        be.coarse_matmul(ups.view(), placed_x.in(), placed_up.view);
        const work_counters before = be.counters();
        be.finish_gated_up(finished.view(), placed_x.in(), placed_gate.view, placed_up.view,
                           gates.in().row(0), ups.in().row(0), activation::silu, *chosen.view());
        EXPECT_EQ(finished.values().values, exact.values().values);
        EXPECT_EQ((work_counters(be.counters()) - before).weight_bytes,
                  static_cast<std::uint64_t>(2 * columns * 2 * length));
      });
    }
  }
}

TYPED_TEST(weights_in_two_planes, scale_chosen_rows_as_those_of_f16) {
  for (const auto& [rows, length] : shapes_of_planes) {
    const real_matrix x = random_matrix(1, length, this->random),
                      factors = random_matrix(1, rows, this->random),
                      w = random_weight(rows, length, dtype::f16, this->random, 1);
    for (const twin::neurons& selection : selections(rows)) {
      if (!selection) continue;
      for_each_configuration<TypeParam>([&](TypeParam& be) {
        placed_matrix<TypeParam> whole(be, 1, std::ssize(*selection)), split(be, 1, std::ssize(*selection)),
            placed_x(be, x);
        auto placed_factors = placed_floats(be, factors);
        placed_neurons<TypeParam> chosen(be, selection);
        be.scaled_matmul(whole.view(), placed_x.in(), placed_weight(be, w, dtype::f16).view,
                         placed_factors.in(), *chosen.view());
        be.scaled_matmul(split.view(), placed_x.in(), placed_weight(be, w, dtype::f16_planes).view,
                         placed_factors.in(), *chosen.view());
        EXPECT_EQ(split.values().values, whole.values().values);
      });
    }
  }
}

TYPED_TEST(weights_in_two_planes, are_looked_up_and_widened_exactly) {
  for (const index cols : {5, 16, 96, 1100}) {
    const real_matrix table = random_weight(6, cols, dtype::f16, this->random, 1);
    TypeParam be = support::make_backend<TypeParam>(2);
    const auto placed = placed_weight(be, table, dtype::f16_planes);
    EXPECT_EQ(loaded(be, placed.view).values, table.values);
    placed_matrix<TypeParam> y(be, 2, cols, {1, 3});
    placed_vector<TypeParam, std::int32_t> ids(be, {4, 1});
    be.embed(y.view(), placed.view, ids.in());
    const real_matrix found = y.values();
    for (index j = 0; j < cols; ++j) {
      ASSERT_EQ(found(0, j), table(4, j));
      ASSERT_EQ(found(1, j), table(1, j));
    }
  }
}

TYPED_TEST(weights_in_two_planes, are_made_of_every_type_of_numbers) {
  const auto source_of = [](const real_matrix& values, dtype type, std::vector<std::byte>& memory) {
    memory.resize(stored_bytes(type, values.rows, values.cols));
    const auto row_bytes = static_cast<index>(memory.size()) / values.rows;
    visit_elements(type, [&]<class T>() {
      for (index i = 0; i < values.rows; ++i)
        store_row<T>(&values.values[static_cast<std::size_t>(i * values.cols)], values.cols,
                     memory.data() + i * row_bytes);
    });
    return stored_view<>{memory.data(), type, values.rows, values.cols, row_bytes};
  };
  for (const dtype from : element_types)
    for (const auto& [rows, cols] : {std::pair<index, index>{1, 1}, {70, 33}, {5, 200}})
      for (const bool transposed : {false, true}) {
        SCOPED_TRACE(testing::Message() << name_of(from) << ", " << rows << " x " << cols);
        const real_matrix values = random_weight(rows, cols, from, this->random, 1);
        TypeParam be = support::make_backend<TypeParam>(2);
        std::vector<std::byte> memory;
        const auto source = source_of(values, from, memory);
        const auto split = be.convert_weight(source, dtype::f16_planes, transposed),
                   whole = be.convert_weight(source, dtype::f16, transposed);
        EXPECT_EQ(split.view.type, dtype::f16_planes);
        EXPECT_EQ(loaded(be, split.view).values, loaded(be, whole.view).values);
      }
  real_matrix wrong(2, 3);
  for (const double value : {65536.0, double{INFINITY}, std::nan("")}) {
    wrong(1, 2) = value;
    TypeParam be = support::make_backend<TypeParam>(1);
    std::vector<std::byte> memory;
    const auto source = source_of(wrong, dtype::f32, memory);
    expect_parts(error_text([&] { be.convert_weight(source, dtype::f16_planes, false); }), "it holds",
                 std::isfinite(value) ? "can store" : "no finite number");
  }
}

}  // namespace
}  // namespace corematching
