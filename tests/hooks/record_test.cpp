// SPDX-License-Identifier: Apache-2.0
#include "corematching/hooks/record.hpp"

#include <gtest/gtest.h>

#include <utility>

#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using tiny = support::tiny_llama<support::test_backend>;

TEST(record_hook, holds_one_pass_whatever_its_chunks) {
  tiny model;
  layer_recording whole, parts;
  for (const auto& [recording, ffn_rows] : {std::pair{&whole, index{1000}}, std::pair{&parts, index{6}}})
    for (int pass = 0; pass < 2; ++pass) {
      auto sequence = model.model.start(model.be, 0);
      auto x = support::embedded(model, support::random_ids(20, model.config.vocab_size, 1));
      model.model.prefill(model.be, sequence, x.view(), ffn_rows,
                          record_hook<support::test_backend>(*recording));
    }
  for (index layer = 0; layer < model.config.layers; ++layer) {
    EXPECT_EQ(whole.activations.at(layer).rows, 20);
    EXPECT_EQ(parts.activations.at(layer).rows, 20);
    EXPECT_EQ(parts.outputs.at(layer).rows, 20);
    for (std::size_t i = 0; i < whole.activations.at(layer).values.size(); ++i)
      ASSERT_NEAR(whole.activations.at(layer).values[i], parts.activations.at(layer).values[i],
                  support::logit_error(model.config));
  }
}

}  // namespace
}  // namespace corematching
