// SPDX-License-Identifier: Apache-2.0
#include "corematching/hooks/progress.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using tiny = support::tiny_llama<support::test_backend>;

TEST(progress_hook, reports_each_layer_when_it_is_done) {
  tiny model;
  std::vector<index> done;
  auto sequence = model.model.start(model.be, 0);
  auto x = support::embedded(model, {1, 2});
  model.model.prefill(model.be, sequence, x.view(), 1000,
                      progress_hook([&](index layers) { done.push_back(layers); }));
  EXPECT_EQ(done, (std::vector<index>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace corematching
