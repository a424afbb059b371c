// SPDX-License-Identifier: Apache-2.0
// Operations on several tokens that each have neurons of their own, against the same operations on each token
// alone: they give the same bits, and read once what several want.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <set>
#include <span>
#include <vector>

#include "support/backend_data.hpp"
#include "support/scalar_twin.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace support;

using B = test_backend;

/// Sets of `neurons` for `tokens` tokens, of different sizes and overlapping; where not `named`, every third
/// one is all of them.
std::vector<twin::neurons> sets_of_tokens(index tokens, index neurons, bool named, std::mt19937& random) {
  std::vector<twin::neurons> sets;
  for (index t = 0; t < tokens; ++t) {
    std::vector<std::int32_t> own;
    for (std::int32_t n = 0; n < neurons; ++n)
      if (random() % 10 < 3 + static_cast<unsigned>(t % 4)) own.push_back(n);
    if (t == 4) own.clear();
    if (!named && t % 3 == 2)
      sets.emplace_back();
    else
      sets.emplace_back(std::move(own));
  }
  return sets;
}

/// Sets in the backend's memory.
struct placed_sets {
  placed_sets(B& be, const std::vector<twin::neurons>& sets) {
    for (const twin::neurons& own : sets) memory.emplace_back(be, own);
    for (auto& own : memory) views.push_back(own.view());
  }
  std::vector<placed_neurons<B>> memory;
  std::vector<neuron_selection<B::space>> views;
};

/// Whether rows that several tokens want are read, and counted, once.
bool reads_rows_once() {
#if defined(COREMATCHING_TEST_DEVICE)
  return false;
#else
  return !support::instruction_set().empty();  // Eigen computes token after token
#endif
}

index size_of(const twin::neurons& own, index all) {
  return own ? std::ssize(*own) : all;
}

/// The first `cols` values of row `t`, bit for bit.
std::vector<float> row_values(B& be, matrix_view<const float, B::space> m, index t, index cols) {
  return host_values(be, vector_view<const float, B::space>{m.row(t).data, cols});
}

class operations_on_each_token : public testing::Test {
 protected:
  std::mt19937 random{5};

  static std::vector<dtype> types() {
    std::vector<dtype> all{dtype::f32, dtype::f16, dtype::bf16, dtype::f16_planes};
    if (has_block_formats)
      all.insert(all.end(), {dtype::q8_0, dtype::q4_0, dtype::q8_0_planes, dtype::q4_0_planes});
    return all;
  }

  /// Calls body(be, x, sets, gate) for types, shapes and numbers of tokens.
  template <class Body>
  void for_cases(const std::vector<dtype>& of, bool named, Body&& body) {
    sampled_cases cases;
    for (const dtype type : of)
      for (const auto& [neurons, length] : {std::pair<index, index>{40, 96}, {700, 544}})
        for (const index tokens : {index{1}, index{2}, index{3}, index{7}, few_tokens + 1}) {
          if (!cases.takes_next(5)) continue;
          SCOPED_TRACE(testing::Message()
                       << name_of(type) << ", " << neurons << " x " << length << ", " << tokens << " tokens");
          const real_matrix x = random_matrix(tokens, length, random),
                            w = random_weight(neurons, length, type, random, weight_magnitude(length));
          const auto sets = sets_of_tokens(tokens, neurons, named, random);
          for_each_configuration<B>([&](B& be) {
            placed_matrix<B> placed_x(be, x);
            body(be, placed_x.in(), sets, placed_weight(be, w, type).view);
          });
          if (HasFatalFailure()) return;
        }
  }

  /// Weight bytes of a single pass over whatever any token wants, as count(rows) counts them.
  template <class Count>
  static std::uint64_t bytes_once(const std::vector<twin::neurons>& sets, index all, Count&& count) {
    std::set<std::int32_t> wanted;
    for (const twin::neurons& own : sets) {
      if (!own) return count(all).weight_bytes;
      wanted.insert(own->begin(), own->end());
    }
    return count(std::ssize(wanted)).weight_bytes;
  }
};

TEST_F(operations_on_each_token, gated_up_gives_each_the_bits_that_it_gets_alone) {
  for_cases(types(), false, [&](B& be, auto x, const auto& sets, const auto& gate) {
    placed_sets placed(be, sets);
    placed_matrix<B> y(be, x.rows, gate.rows), one(be, 1, gate.rows);
    const work_counters before = be.counters();
    be.gated_up_each(y.view(), x, gate, gate, activation::silu, placed.views);
    const std::uint64_t read = (work_counters(be.counters()) - before).weight_bytes;
    std::uint64_t alone_flops = 0, each_flops = (work_counters(be.counters()) - before).flops;
    for (index t = 0; t < x.rows; ++t) {
      const auto& own = sets[static_cast<std::size_t>(t)];
      const index cols = size_of(own, gate.rows);
      const work_counters start = be.counters();
      be.gated_up({one.view().data, 1, cols, gate.rows}, x.middle_rows(t, 1), gate, gate, activation::silu,
                  placed.views[static_cast<std::size_t>(t)]);
      alone_flops += (work_counters(be.counters()) - start).flops;
      ASSERT_EQ(row_values(be, y.in(), t, cols), row_values(be, one.in(), 0, cols)) << "token " << t;
    }
    EXPECT_EQ(each_flops, alone_flops);
    if (reads_rows_once()) {
      EXPECT_EQ(read, bytes_once(sets, gate.rows, [&](index rows) {
                  work_counters once;
                  once.count_product(1, rows, gate);
                  once.count_product(1, rows, gate);
                  return once;
                }));
    }
  });
}

TEST_F(operations_on_each_token, add_weighted_rows_gives_each_the_bits_that_it_gets_alone) {
  const std::vector<dtype> whole =
      has_block_formats ? std::vector{dtype::f32, dtype::f16, dtype::bf16, dtype::q8_0, dtype::q4_0}
                        : std::vector{dtype::f32, dtype::f16, dtype::bf16};
  for_cases(whole, false, [&](B& be, auto y_before, const auto& sets, const auto& w) {
    placed_sets placed(be, sets);
    const index rows = y_before.rows;
    placed_matrix<B> x(be, random_matrix(rows, w.rows, random)), y(be, rows, w.cols), room(be, rows, w.cols),
        one(be, 1, w.cols);
    be.copy(y.view(), y_before);
    be.add_weighted_rows_each(y.view(), x.in(), w, placed.views, room.view());
    for (index t = 0; t < rows; ++t) {
      const auto& own = sets[static_cast<std::size_t>(t)];
      be.copy(one.view(), y_before.middle_rows(t, 1));
      be.add_weighted_rows(one.view(), {x.in().row(t).data, 1, size_of(own, w.rows), w.rows}, w,
                           placed.views[static_cast<std::size_t>(t)], room.view().top_rows(1));
      ASSERT_EQ(row_values(be, y.in(), t, w.cols), row_values(be, one.in(), 0, w.cols)) << "token " << t;
    }
  });
}

TEST_F(operations_on_each_token, scaled_matmul_gives_each_the_bits_that_it_gets_alone) {
  for_cases(types(), true, [&](B& be, auto x, const auto& sets, const auto& w) {
    placed_sets placed(be, sets);
    placed_matrix<B> factors(be, random_matrix(x.rows, w.rows, random)), y(be, x.rows, w.rows),
        one(be, 1, w.rows);
    be.scaled_matmul_each(y.view(), x, w, factors.in(), placed.views);
    for (index t = 0; t < x.rows; ++t) {
      const index cols = size_of(sets[static_cast<std::size_t>(t)], w.rows);
      be.scaled_matmul({one.view().data, 1, cols, w.rows}, x.middle_rows(t, 1), w, factors.in().row(t),
                       *placed.views[static_cast<std::size_t>(t)]);
      ASSERT_EQ(row_values(be, y.in(), t, cols), row_values(be, one.in(), 0, cols)) << "token " << t;
    }
  });
}

TEST_F(operations_on_each_token, finish_gated_up_gives_each_the_bits_that_it_gets_alone) {
  std::vector<dtype> planes{dtype::f16_planes};
  if (has_block_formats) planes.insert(planes.end(), {dtype::q8_0_planes, dtype::q4_0_planes});
  for_cases(planes, true, [&](B& be, auto x, const auto& sets, const auto& w) {
    placed_sets placed(be, sets);
    placed_matrix<B> coarse(be, x.rows, w.rows), y(be, x.rows, w.rows), one(be, 1, w.rows);
    be.coarse_matmul(coarse.view(), x, w);
    be.finish_gated_up_each(y.view(), x, w, w, coarse.in(), coarse.in(), activation::silu, placed.views);
    for (index t = 0; t < x.rows; ++t) {
      const index cols = size_of(sets[static_cast<std::size_t>(t)], w.rows);
      be.finish_gated_up({one.view().data, 1, cols, w.rows}, x.middle_rows(t, 1), w, w, coarse.in().row(t),
                         coarse.in().row(t), activation::silu, *placed.views[static_cast<std::size_t>(t)]);
      ASSERT_EQ(row_values(be, y.in(), t, cols), row_values(be, one.in(), 0, cols)) << "token " << t;
    }
  });
}

}  // namespace
}  // namespace corematching
