// SPDX-License-Identifier: Apache-2.0
#include "corematching/nn/without.hpp"

#include <gtest/gtest.h>

#include <concepts>

#include "corematching/hooks/chain.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using B = support::test_backend;

struct asked_twice {
  using attends = sites<site::ffn_neurons, site::layer_output, site::decode_neurons>;
  int* heard;
  neuron_selection<B::space> operator()(site::ffn_neurons, const layer_context<B>&) const { return {}; }
  neuron_selection<B::space> operator()(site::decode_neurons, const layer_context<B>&) const { return {}; }
  void operator()(site::layer_output, const layer_context<B>&, matrix_view<float, B::space>) const {
    ++*heard;
  }
};

TEST(without, leaves_one_site_out_and_calls_at_the_others) {
  using some = without<site::decode_neurons, asked_twice>;
  static_assert(std::same_as<some::attends, sites<site::ffn_neurons, site::layer_output>>);
  static_assert(hook_of<some, B> && hook_of<without<site::ffn_neurons, asked_twice&>, B>);
  static_assert(std::same_as<without<site::attention, asked_twice>::attends, asked_twice::attends>);
  int heard = 0;
  some hook(asked_twice{&heard});
  B be = support::make_backend(1);
  kv_layer<B> cache(8, 0);
  hook(site::layer_output{}, layer_context<B>{be, 0, {}, cache}, matrix_view<float, B::space>());
  EXPECT_EQ(heard, 1);
}

TEST(without, makes_room_for_another_that_answers) {
  using both = chain<without<site::ffn_neurons, without<site::decode_neurons, asked_twice>>, asked_twice>;
  static_assert(hook_of<both, B>);
}

}  // namespace
}  // namespace corematching
