// SPDX-License-Identifier: Apache-2.0
// What a hook is, and what must not compile, as far as a requirement can ask.
#include "corematching/nn/hook.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <type_traits>
#include <vector>

#include "corematching/hooks/chain.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/record.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using context = layer_context<B>;
using rows_view = matrix_view<const float, B::space>;
using neurons = neuron_selection<B::space>;
using other_space = std::conditional_t<std::is_same_v<B::space, host_space>, device_space, host_space>;

struct listens {
  using attends = sites<site::attention, site::ffn_activation, site::layer_output>;
  void operator()(site::attention, const context&, const attention_inputs<B>&) const {}
  void operator()(site::ffn_activation, const context&, rows_view) const {}
  void operator()(site::layer_output, const context&, rows_view) const {}
};
struct chooses {
  using attends = sites<site::ffn_neurons>;
  neurons operator()(site::ffn_neurons, const context&) const { return {}; }
};
struct keeps {
  using attends = sites<site::keep_tokens>;
  token_selection operator()(site::keep_tokens, const context&) { return {}; }
};

struct no_site {};
template <class... Sites>
concept makes_sites = requires {
  typename sites<Sites...>;
};
struct lists_nothing {};

TEST(hook, is_a_type_that_lists_sites_of_the_layer) {
  static_assert(hook<no_hook> && hook<listens> && hook<listens&> && hook<const chooses&>);
  static_assert(!hook<lists_nothing> && !hook<int>);
  static_assert(makes_sites<site::attention, site::keep_tokens> && makes_sites<>);
  static_assert(!makes_sites<no_site> && !makes_sites<site::attention, int>);
}

TEST(hook, attends_the_sites_that_it_lists_and_no_others) {
  static_assert(attends<listens, site::attention> && attends<const listens&, site::layer_output>);
  static_assert(!attends<listens, site::keep_tokens> && !attends<no_hook, site::attention>);
}

struct answers_the_same {
  using attends = sites<site::ffn_neurons>;
  static constexpr bool answers_ahead = true;
  neurons operator()(site::ffn_neurons, const context&) const { return {}; }
};
struct says_that_it_does_not {
  using attends = sites<site::ffn_neurons>;
  static constexpr bool answers_ahead = false;
};

struct queues {
  using attends = sites<site::layer_output, site::ffn_neurons>;
  const void* queues_on() const { return nullptr; }
  void operator()(site::layer_output, const context&, matrix_view<float, B::space>) const {}
  neurons operator()(site::ffn_neurons, const context&) const { return {}; }
};
struct queues_and_keeps {
  using attends = sites<site::keep_tokens>;
  const void* queues_on() const { return nullptr; }
  token_selection operator()(site::keep_tokens, const context&) const { return {}; }
};
struct is_asked_at_prompts {
  using attends = sites<site::decode_neurons>;
  neurons operator()(site::decode_neurons, const context&) const { return {}; }
};

TEST(hook, lets_steps_be_captured_where_each_of_its_sites_says_how) {
  static_assert(capturable_hook<no_hook> && capturable_hook<const answers_the_same&>);
  static_assert(!capturable_hook<chooses> && !capturable_hook<says_that_it_does_not>);
  static_assert(!capturable_hook<listens> && !capturable_hook<keeps>);
  static_assert(capturable_hook<core_matching<B>::decode_hook> && !capturable_hook<record_hook<B>>);
  static_assert(capturable_hook<queues> && !capturable_hook<queues_and_keeps>);
  static_assert(capturable_hook<is_asked_at_prompts>, "no step calls it");
}

TEST(hook, lets_steps_be_captured_in_a_chain_where_both_do) {
  static_assert(capturable_hook<chain<no_hook, answers_the_same>>);
  static_assert(capturable_hook<chain<is_asked_at_prompts, queues>>);
  static_assert(!capturable_hook<chain<listens, answers_the_same>> &&
                !capturable_hook<chain<no_hook, chooses>>);
}

TEST(hook, costs_nothing_when_absent) {
  static_assert(std::is_empty_v<no_hook>);
}

// Misfits: each attends a site and cannot be called there as the layer calls.
struct attends_without_a_call {
  using attends = sites<site::layer_output>;
};
struct called_at_another_site {
  using attends = sites<site::layer_output>;
  void operator()(site::attention, const context&, const attention_inputs<B>&) const {}
};
struct takes_a_view_to_write {
  using attends = sites<site::ffn_activation>;
  void operator()(site::ffn_activation, const context&, matrix_view<float, B::space>) const {}
};
struct takes_a_view_of_other_memory {
  using attends = sites<site::layer_output>;
  void operator()(site::layer_output, const context&, matrix_view<const float, other_space>) const {}
};
struct changes_the_context {
  using attends = sites<site::keep_tokens>;
  token_selection operator()(site::keep_tokens, context&) const { return {}; }
};
struct forgets_the_context {
  using attends = sites<site::ffn_neurons>;
  neurons operator()(site::ffn_neurons) const { return {}; }
};
struct answers_neurons_with_a_list {
  using attends = sites<site::ffn_neurons>;
  std::vector<std::int32_t> operator()(site::ffn_neurons, const context&) const { return {}; }
};
struct answers_tokens_with_nothing {
  using attends = sites<site::keep_tokens>;
  void operator()(site::keep_tokens, const context&) const {}
};
struct answers_where_it_is_told {
  using attends = sites<site::attention>;
  token_selection operator()(site::attention, const context&, const attention_inputs<B>&) const { return {}; }
};
struct fits_one_site_of_two {
  using attends = sites<site::ffn_neurons, site::keep_tokens>;
  neurons operator()(site::ffn_neurons, const context&) const { return {}; }
};

TEST(hook, fits_a_backend_where_every_site_can_be_called_as_the_layer_calls) {
  static_assert(hook_of<no_hook, B> && hook_of<listens, B> && hook_of<const listens&, B>);
  static_assert(hook_of<chooses, B> && hook_of<const chooses&, B> && hook_of<keeps&, B>);
  static_assert(!hook_of<const keeps&, B>, "its call is not const");
  static_assert(!hook_of<listens, int> && !hook_of<lists_nothing, B>);
  static_assert(!hook_of<attends_without_a_call, B> && !hook_of<called_at_another_site, B>);
  static_assert(!hook_of<takes_a_view_to_write, B> && !hook_of<takes_a_view_of_other_memory, B>);
  static_assert(!hook_of<changes_the_context, B> && !hook_of<forgets_the_context, B>);
  static_assert(!hook_of<answers_neurons_with_a_list, B> && !hook_of<answers_tokens_with_nothing, B>);
  static_assert(!hook_of<answers_where_it_is_told, B> && !hook_of<fits_one_site_of_two, B>);
}

TEST(hook, fits_in_a_chain_where_it_fits_alone) {
  static_assert(hook_of<chain<listens, chain<keeps, chooses>>, B>);
  static_assert(!hook_of<chain<listens, attends_without_a_call>, B>);
  static_assert(!hook_of<chain<answers_tokens_with_nothing, listens>, B>);
  static_assert(!hook_of<chain<takes_a_view_to_write, listens>, B>);
}

TEST(hook, fits_as_the_librarys_own_do) {
  using state = core_matching<B>;
  static_assert(hook_of<state::prefill_hook, B> && hook_of<state::attention_prefill_hook, B>);
  static_assert(hook_of<const state::decode_hook&, B> && hook_of<record_hook<B>, B>);
  static_assert(hook_of<progress_hook<void (*)(index)>, B>);
}

template <class H>
concept runs_in_a_layer = requires(const decoder_layer<B>& layer, const context& at, scratch<B>& s,
                                   matrix_view<float, B::space> x, index_view<B::space> positions,
                                   vector_view<const float, B::space> frequencies, H& hook) {
  layer.forward(at, s, x, positions, frequencies, hook);
};
template <class H>
concept runs_in_a_model = requires(const llama<B>& model, B& be, sequence<B>& seq,
                                   matrix_view<float, B::space> x, H& hook) {
  model.prefill(be, seq, x, index{1}, hook);
  model.decode(be, seq, std::int32_t{0}, hook);
};

TEST(hook, that_does_not_fit_is_refused_by_the_layers_signature) {
  static_assert(runs_in_a_layer<listens> && runs_in_a_layer<no_hook> && runs_in_a_model<keeps>);
  static_assert(!runs_in_a_layer<attends_without_a_call> && !runs_in_a_model<attends_without_a_call>);
  static_assert(!runs_in_a_layer<answers_neurons_with_a_list> && !runs_in_a_model<changes_the_context>);
}

}  // namespace
}  // namespace corematching
