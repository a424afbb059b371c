// SPDX-License-Identifier: Apache-2.0
// What CoreMatching refuses, and with which words.
#include "corematching/hooks/core_matching.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/conversation.hpp"
#include "support/error_text.hpp"

namespace corematching {
namespace {

using tiny = support::tiny_llama<support::test_backend>;
using talk = support::conversation<support::test_backend>;

class core_matching_refuses : public testing::Test {
 protected:
  tiny model;

  std::string refusal(const core_matching_config& config, const char* letters, index ffn_rows = 1000) {
    return support::error_text([&] { talk(model, config).prompt(letters, 1, ffn_rows); });
  }
};

TEST_F(core_matching_refuses, a_config_that_does_not_fit_the_model) {
  support::expect_parts(refusal({.rho = 0}, "t"), "rho");
  support::expect_parts(refusal({.match_layers = {4}}, "t"), "matching layer 4", "0..3");
  support::expect_parts(refusal({.neuron_layers_end = 5}, "t"), "neuron layers 0..5");
  support::expect_parts(refusal({.beta = 0.01}, "t"), "none of 75");
}

TEST_F(core_matching_refuses, a_prompt_that_ends_with_an_image_token_where_tokens_are_dropped) {
  support::expect_parts(refusal({}, "ttii"), "ends with an image token");
  EXPECT_NO_THROW(talk(model, {.sparse_tokens = false}).prompt("ttii"));
}

TEST_F(core_matching_refuses, an_empty_prompt) {
  support::expect_parts(refusal({}, ""), "prompt is empty");
}

TEST_F(core_matching_refuses, an_anchor_outside_the_prompt_or_on_an_image) {
  const auto anchored = [](index anchor) {
    return core_matching_config{.reference = reference_set::anchor, .anchor = anchor};
  };
  support::expect_parts(refusal(anchored(-5), "tiit"), "anchor", "-5", "4 tokens");
  support::expect_parts(refusal(anchored(4), "tiit"), "anchor", "4 tokens");
  support::expect_parts(refusal(anchored(-2), "tiit"), "anchor", "-2", "image");
  EXPECT_NO_THROW(talk(model, anchored(-5)).prompt("ttt")) << "nothing is matched where there is no image";
}

TEST_F(core_matching_refuses, to_count_tokens_that_the_conversation_does_not_have) {
  support::expect_parts(refusal({.count_over = counted_tokens::image}, "ttt"), "image tokens", "none");
  support::expect_parts(refusal({.sparse_tokens = false, .count_over = counted_tokens::text}, "iii"),
                        "text tokens", "none");
  talk t(model, {.count_over = counted_tokens::image});
  t.prompt("tiiiitt");
  EXPECT_NO_THROW(t.prompt("ttt")) << "those of the first prompt go on counting";
}

TEST_F(core_matching_refuses, the_mean_count_of_a_prompt_in_parts) {
  support::expect_parts(refusal({.count = core_count::mean_count}, "tttttt", 3), "mean_count", "at least 6");
}

TEST_F(core_matching_refuses, activations_that_are_not_finite_and_names_layer_token_and_neuron) {
  auto tensors = support::random_tensors(model.config, 1);
  for (double& value : tensors.at("model.layers.2.mlp.up_proj.weight").values) value *= 1e37;
  for (double& value : tensors.at("model.layers.2.mlp.gate_proj.weight").values) value *= 1e37;
  tiny broken(model.config, tensors);
  support::expect_parts(support::error_text([&] { talk(broken, {}).prompt("tttttt"); }),
                        "layer 2: ", "token ", "neuron ");
}

}  // namespace
}  // namespace corematching
