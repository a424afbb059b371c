// SPDX-License-Identifier: Apache-2.0
// One measured answer: a prompt of text around the tokens of an image, then tokens one by one.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "corematching/hooks/chain.hpp"
#include "corematching/hooks/core_matching.hpp"
#include "corematching/hooks/gate_neurons.hpp"
#include "corematching/hooks/neuron_shares.hpp"
#include "corematching/hooks/predicted_neurons.hpp"
#include "corematching/model/generation/sampling.hpp"
#include "corematching/model/llama/llama.hpp"
#include "random_words.hpp"

namespace corematching::bench {

struct workload {
  index text_tokens = 0;  // half of them before the image, the rest behind it
  index image_tokens = 0;
  index new_tokens = 0;
  dtype cache_type = dtype::f16;

  index prompt_tokens() const { return text_tokens + image_tokens; }
  index text_before() const { return text_tokens / 2; }
};

/// What one pass took. Selection is part of prefill; on a device it is not measured.
struct pass_result {
  double prefill_seconds = 0;
  double selection_seconds = 0;
  double decode_seconds = 0;
  std::uint64_t prefill_flops = 0;
  std::uint64_t decode_bytes = 0;  // of weights and of the cache, over all new tokens
  index cached_tokens = 0;         // of the prompt, in the last layer
};

/// Runs passes of one workload over one model, dense or with CoreMatching.
template <backend B>
class pass_runner {
 public:
  using model_type = llama<B>;

  pass_runner(B& be, const model_type& model, const workload& load)
      : be_(be), model_(model), load_(load), prompt_(be, load.prompt_tokens(), model.config().hidden_size) {
    for (index i = 0; i < load.prompt_tokens(); ++i) {
      const bool text = i < load.text_before() || i >= load.text_before() + load.image_tokens;
      kinds_.push_back(text ? token_kind::text : token_kind::image);
    }
  }

  pass_result dense() {
    return run([](auto&& body) { body(no_hook{}); }, no_hook{});
  }

  pass_result sparse(const core_matching_config& config) {
    core_matching<B> state(be_, config, model_.config().layers, shape_of(model_.config()));
    const auto with_hook = [&](auto&& body) {
      state.begin_prompt(0, kinds_);
      with_prefill_hook(state, body);
    };
    pass_result result = run(with_hook, typename core_matching<B>::decode_hook(state));
    // On a device the host's time is that of waiting for all that it has queued.
    if constexpr (std::same_as<typename B::space, host_space>)
      result.selection_seconds = state.selection_seconds();
    return result;
  }

  /// Neurons of each token's own, by its gates; image tokens as `tokens` says.
  pass_result by_gate(const core_matching_config& tokens, const neuron_shares& shares) {
    core_matching<B> state(be_, tokens, model_.config().layers, shape_of(model_.config()));
    gate_neurons<B> gates(be_, shares, model_.config().layers, shape_of(model_.config()));
    const auto with_hook = [&](auto&& body) {
      state.begin_prompt(0, kinds_);
      gates.begin_prompt(0, kinds_);
      with_prefill_hook(
          state, [&](auto&& keep) { body(chain(keep, typename gate_neurons<B>::prefill_hook(gates))); });
    };
    return run(with_hook, typename gate_neurons<B>::decode_hook(gates));
  }

  /// The same, by what the upper planes of the weights foretell.
  pass_result by_prediction(const core_matching_config& tokens, const neuron_shares& shares) {
    core_matching<B> state(be_, tokens, model_.config().layers, shape_of(model_.config()));
    const auto with_hook = [&](auto&& body) {
      state.begin_prompt(0, kinds_);
      with_prefill_hook(state, body);
    };
    return run(with_hook, predicted_neurons<B>(shares, model_.config().layers, shape_of(model_.config())));
  }

 private:
  using clock = std::chrono::steady_clock;

  static double seconds_since(clock::time_point start) {
    return std::chrono::duration<double>(clock::now() - start).count();
  }

  template <class WithHook, hook H>
  pass_result run(WithHook&& with_hook, H&& decode_hook) {
    pass_result result;
    auto seq = model_.start(be_, load_.new_tokens, load_.cache_type);
    const work_counters empty = be_.counters();
    const auto start = clock::now();
    embed_prompt();
    with_hook(
        [&](auto&& observer) { model_.prefill(be_, seq, prompt_.view(), load_.prompt_tokens(), observer); });
    result.prefill_seconds = seconds_since(start);
    result.cached_tokens = seq.cache[model_.config().layers - 1].length();

    const work_counters before = be_.counters();
    result.prefill_flops = (before - empty).flops;
    const auto decode_start = clock::now();
    // Each step ends with a greedy choice, which waits for it and refuses logits that are not numbers. What
    // is chosen is not run: the next id is.
    sampler choose;
    for (index i = 0; i < load_.new_tokens; ++i) {
      model_.step(be_, seq, id(load_.prompt_tokens() + i), decode_hook);
      choose(be_, std::as_const(seq.logits).view());
    }
    result.decode_seconds = seconds_since(decode_start);
    const work_counters done = be_.counters() - before;
    result.decode_bytes = done.weight_bytes + done.kv_bytes;
    return result;
  }

  std::int32_t id(index position) const {
    const auto vocabulary = static_cast<std::uint64_t>(model_.config().vocab_size);
    return static_cast<std::int32_t>(random_word(1, static_cast<std::uint64_t>(position)) % vocabulary);
  }

  // Image tokens are embeddings of tokens too: random vectors of the same size as those of the text.
  void embed_prompt() {
    std::vector<std::int32_t> ids;
    for (index i = 0; i < load_.prompt_tokens(); ++i) ids.push_back(id(i));
    model_.embed(be_, prompt_.view(), ids);
  }

  B& be_;
  const model_type& model_;
  workload load_;
  matrix<B> prompt_;
  std::vector<token_kind> kinds_;
};

}  // namespace corematching::bench
