// SPDX-License-Identifier: Apache-2.0
// Operations on a few tokens together, which share what is read of the weights, against the same operations
// on each of them alone: they give the same bits.
#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

#include "support/backend_data.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

class operations_on_a_few_tokens : public testing::Test {
 protected:
  void SetUp() override {
#if defined(COREMATCHING_TEST_DEVICE)
    GTEST_SKIP() << "only the CPU's kernels promise it";
#else
    if (support::instruction_set().empty()) GTEST_SKIP() << "only the CPU's kernels promise it";
#endif
  }

  std::mt19937 random{17};

  /// Every type whose rows are multiplied, and whether it is stored in blocks.
  static std::vector<std::pair<dtype, bool>> types() {
    return {{dtype::f32, false}, {dtype::f16, false}, {dtype::bf16, false},       {dtype::f16_planes, false},
            {dtype::q8_0, true}, {dtype::q4_0, true}, {dtype::q8_0_planes, true}, {dtype::q4_0_planes, true}};
  }

  /// Calls body(be, x, w) for types, shapes and numbers of tokens. Lengths are those of whole groups of
  /// blocks and of parts of one, of whole vectors and of parts.
  template <class Body>
  void for_cases(Body&& body) {
    sampled_cases cases;
    for (const auto& [type, in_blocks] : types())
      for (const auto& [rows, length] :
           {std::pair<index, index>{1, 32}, {7, 256}, {38, 544}, {23, in_blocks ? index{96} : index{77}}})
        for (index tokens = 2; tokens <= few_tokens; ++tokens) {
          if (!cases.takes_next(5)) continue;
          SCOPED_TRACE(testing::Message()
                       << name_of(type) << ", " << rows << " x " << length << ", " << tokens << " tokens");
          const real_matrix x = random_matrix(tokens, length, random),
                            w = random_weight(rows, length, type, random, weight_magnitude(length));
          const dtype stored = type;
          for_each_configuration<test_backend>(
              [&](test_backend& be) { body(be, x, placed_weight(be, w, stored).view); });
          if (HasFatalFailure()) return;
        }
  }

  /// Holds together(y, all) to together(y, one) of each row, in `cols` columns.
  template <class Compute>
  static void expect_bits_of_each(test_backend& be, const real_matrix& x, index cols, Compute&& compute) {
    placed_matrix<test_backend> placed(be, x, placements[1]), all(be, x.rows, cols, placements[2]),
        one(be, 1, cols);
    compute(all.view(), placed.in());
    for (index t = 0; t < x.rows; ++t) {
      compute(one.view(), placed.in().middle_rows(t, 1));
      ASSERT_EQ(host_values(be, all.in().row(t)), host_values(be, one.in().row(0))) << "token " << t;
    }
  }
};

TEST_F(operations_on_a_few_tokens, matmul_gives_each_the_bits_that_it_gets_alone) {
  for_cases([&](test_backend& be, const real_matrix& x, const auto& w) {
    auto bias = placed_floats(be, random_matrix(1, w.rows, random));
    expect_bits_of_each(be, x, w.rows, [&](auto y, auto of) { be.matmul(y, of, w, bias.in()); });
  });
}

TEST_F(operations_on_a_few_tokens, gated_up_gives_each_the_bits_that_it_gets_alone) {
  for_cases([&](test_backend& be, const real_matrix& x, const auto& w) {
    for (const twin::neurons& selection : selections(w.rows)) {
      placed_neurons<test_backend> chosen(be, selection);
      expect_bits_of_each(be, x, twin::count_of(selection, w.rows), [&](auto y, auto of) {
        be.gated_up(y, of, w, w, activation::silu, chosen.view());
      });
    }
  });
}

TEST_F(operations_on_a_few_tokens, coarse_products_give_each_the_bits_that_it_gets_alone) {
  for_cases([&](test_backend& be, const real_matrix& x, const auto& w) {
    if (w.type != dtype::f16_planes && w.type != dtype::q8_0_planes && w.type != dtype::q4_0_planes) return;
    expect_bits_of_each(be, x, w.rows, [&](auto y, auto of) { be.coarse_matmul(y, of, w); });
  });
}

TEST_F(operations_on_a_few_tokens, weighted_rows_gives_each_the_bits_that_it_gets_alone) {
  for_cases([&](test_backend& be, const real_matrix& like, const auto& w) {
    for (const twin::neurons& selection : selections(w.rows)) {
      placed_neurons<test_backend> chosen(be, selection);
      const real_matrix x = random_matrix(like.rows, twin::count_of(selection, w.rows), random);
      expect_bits_of_each(be, x, w.cols, [&](auto y, auto of) { be.weighted_rows(y, of, w, chosen.view()); });
    }
  });
}

}  // namespace
}  // namespace corematching
