// SPDX-License-Identifier: Apache-2.0
// For tests of what CoreMatching chooses inside a running model: a prompt with everything recorded that a
// choice may look at, and the definitions applied to it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <vector>

#include "corematching/hooks/chain.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/record.hpp"
#include "select/slow_selectors.hpp"
#include "support/backend_data.hpp"
#include "support/conversation.hpp"

namespace corematching::test {

namespace slow = select::slow;
using tiny_model = support::tiny_llama<support::test_backend>;
using indices = std::vector<std::int32_t>;

inline constexpr const char* question = "tttiiiiiiiiiiiittttttt";
inline constexpr index question_size = 22;
inline constexpr index first_image = 3, last_image = 14;
inline constexpr select::keep_options keep_five = {.rule = select::keep_rule::top_k, .count = 5};

/// Keeps a binary64 copy of what attention saw in one layer.
struct attention_spy {
  using attends = sites<site::attention>;
  struct sight {
    support::real_matrix q, k, v;
    attention_shape shape;
  };
  index layer;
  sight* seen;

  void operator()(site::attention, const layer_context<support::test_backend>& at,
                  const attention_inputs<support::test_backend>& in) const {
    if (at.layer == layer)
      *seen = {support::loaded(at.be, in.queries), support::loaded(at.be, in.keys),
               support::loaded(at.be, in.values), in.shape};
  }
};

/// One prompt with everything recorded that a selection may look at.
struct recorded_run {
  recorded_run(tiny_model& model, const core_matching_config& config, index ffn_rows = 1000,
               const char* letters = question, const std::vector<index>& picture_sizes = {})
      : be(model.be), state(model.be, config, model.config.layers, shape_of(model.config)) {
    const auto kinds = support::kinds_of(letters);
    state.begin_prompt(0, kinds, picture_sizes);
    auto sequence = model.model.start(model.be, 0);
    auto x = support::embedded(model, support::random_ids(std::ssize(kinds), model.config.vocab_size, 1));
    const index match = state.config().match_layers.empty() ? 0 : state.config().match_layers.front();
    with_prefill_hook(state, [&](auto hook) {
      chain seen(attention_spy{match, &attention},
                 chain(record_hook<support::test_backend>(recording), std::move(hook)));
      return model.model.prefill(model.be, sequence, x.view(), ffn_rows, seen);
    });
  }

  const float* activation(index layer, index row) const {
    const recorded_matrix& m = recording.activations.at(layer);
    return m.values.data() + row * m.cols;
  }
  index neurons() const { return recording.activations.at(0).cols; }
  indices core_neurons(index layer) const { return support::downloaded(be, state.core_neurons(layer)); }

  /// C_ρ^β by definition, counted over `rows` of a layer.
  indices defined_core_neurons(index layer, const indices& rows) const {
    const core_matching_config& config = state.config();
    double mean = 0;
    for (const std::int32_t row : rows) mean += static_cast<double>(activated(layer, row).size());
    mean /= static_cast<double>(rows.size());
    std::vector<std::int32_t> f(static_cast<std::size_t>(neurons()));
    for (const std::int32_t row : rows) {
      const auto size = static_cast<double>(activated(layer, row).size());
      const auto k = config.count == core_count::mean_count
                         ? static_cast<index>(std::floor(config.rho * mean))
                         : std::max<index>(size > 0, static_cast<index>(std::floor(config.rho * size)));
      for (const std::int32_t n : slow::largest_positive(activation(layer, row), neurons(), k))
        ++f[static_cast<std::size_t>(n)];
    }
    return slow::core_neurons(f, config.beta);
  }

  indices activated(index layer, index row) const {
    return slow::activated(activation(layer, row), neurons());
  }

  /// Positions of the image tokens that the rule keeps by the scores of rows first_image..last_image.
  template <class Score>
  indices defined_image_positions(const std::vector<Score>& scores) const {
    indices kept = slow::core_tokens(scores, state.config().keep);
    for (std::int32_t& position : kept) position += static_cast<std::int32_t>(first_image);
    return kept;
  }

  std::vector<std::int32_t> overlaps(index layer, const indices& reference, index first = first_image,
                                     index last = last_image) const {
    std::vector<std::int32_t> scores;
    for (index row = first; row <= last; ++row) {
      indices common;
      std::ranges::set_intersection(activated(layer, row), reference, std::back_inserter(common));
      scores.push_back(static_cast<std::int32_t>(common.size()));
    }
    return scores;
  }

  support::test_backend& be;
  core_matching<support::test_backend> state;
  layer_recording recording;
  attention_spy::sight attention;
};

inline indices rows_between(index first, index last) {
  indices rows(static_cast<std::size_t>(last - first + 1));
  std::iota(rows.begin(), rows.end(), static_cast<std::int32_t>(first));
  return rows;
}

class core_matching_selects : public ::testing::Test {
 protected:
  tiny_model model;
};

}  // namespace corematching::test
