// SPDX-License-Identifier: Apache-2.0
// Steps of decoding that several sequences take together, dense and with neurons of each one's own. Sets for
// a whole answer are drawn by chance, each sequence's apart: what they cost depends on their size and on how
// much they have in common, and independent ones have the least.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/model/generation/sampling.hpp"
#include "corematching/model/llama/batch.hpp"
#include "corematching/model/llama/llama.hpp"
#include "llava_bench_options.hpp"
#include "random_weights.hpp"
#include "random_words.hpp"
#include "spread.hpp"

namespace corematching::bench {

/// What some steps took.
struct batch_result {
  double seconds = 0;
  work_counters work;
  index tokens = 0;
};

template <backend B>
class batch_runner {
 public:
  using space = typename B::space;

  /// Reads the prompts of as many sequences as will ever step together.
  batch_runner(B& be, const llama<B>& model, const options& o, index sequences)
      : be_(be), model_(model), o_(o), memory_(model.make_batch(be, sequences)) {
    const index tokens = o.load.prompt_tokens();
    for (index s = 0; s < sequences; ++s) {
      sequences_.push_back(model.start(be, 4096, o.load.cache_type));
      std::vector<std::int32_t> ids;
      for (index i = 0; i < tokens; ++i) ids.push_back(id(s * tokens + i));
      matrix<B> x(be, tokens, model.config().hidden_size);
      model.embed(be, x.view(), ids);
      static_cast<void>(model.prefill(be, sequences_.back(), x.view(), tokens));
      wants_.push_back(wants_of_sequence(s));
    }
  }

  /// Steps of the first `count` sequences, after one that is not measured. They are then taken back.
  batch_result run(index count, bool dense) {
    step(count, dense);
    const work_counters before = be_.counters();
    const auto start = std::chrono::steady_clock::now();
    for (index i = 0; i < o_.load.new_tokens; ++i) step(count, dense);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    const batch_result result{taken.count(), be_.counters() - before, count * o_.load.new_tokens};
    for (index s = 0; s < count; ++s) sequences_[at(s)].take_back(o_.load.new_tokens + 1);
    return result;
  }

 private:
  using wants = std::vector<wanted_neurons<space>>;

  static std::size_t at(index s) { return static_cast<std::size_t>(s); }

  // One sequence alone takes steps as it does without this.
  void step(index count, bool dense) {
    sampler choose;
    std::vector<batch_member<B>> members;
    for (index s = 0; s < count; ++s)
      members.push_back({&sequences_[at(s)], id(s + 7), dense ? wants() : wants_[at(s)]});
    const auto logits = model_.step_together(be_, memory_, members);
    for (index s = 0; s < count; ++s) choose(be_, matrix_view<const float, space>(logits.middle_rows(s, 1)));
  }

  wants wants_of_sequence(index s) {
    const index neurons = model_.config().intermediate_size;
    const auto count = static_cast<index>(o_.beta * static_cast<double>(neurons));
    wants all(static_cast<std::size_t>(model_.config().layers));
    std::mt19937 random(static_cast<unsigned>(s));
    for (wanted_neurons<space>& layer : all) {
      if (o_.policy != options::neuron_policy::sentence) {
        const bool by_gate = o_.policy == options::neuron_policy::gate;
        layer.choice = neuron_choice<space>{count, {}, by_gate ? chosen_by::gate : chosen_by::prediction};
        continue;
      }
      std::vector<std::int32_t> set(static_cast<std::size_t>(neurons)), chosen;
      std::iota(set.begin(), set.end(), 0);
      std::ranges::sample(set, std::back_inserter(chosen), count, random);
      sets_.push_back(device_indices(be_, {chosen.data(), count}));
      layer.neurons = index_view<space>(std::as_const(sets_.back()).view());
    }
    return all;
  }

  std::int32_t id(index place) const {
    const auto vocabulary = static_cast<std::uint64_t>(model_.config().vocab_size);
    return static_cast<std::int32_t>(random_word(1, static_cast<std::uint64_t>(place)) % vocabulary);
  }

  B& be_;
  const llama<B>& model_;
  options o_;
  batch_memory<B> memory_;
  std::deque<sequence<B>> sequences_;
  std::deque<typename B::template buffer<std::int32_t>> sets_;
  std::vector<wants> wants_;  // of each sequence
};

/// Multiplications and additions a second of a product of `tokens` rows with weights of `type` that the cache
/// of a core holds, or whatever is nearest to one: what the kernels of steps reach where memory sets no
/// limit.
template <backend B>
double cached_product_rate(B& be, dtype type, index tokens, int threads) {
  constexpr index cols = 2048;
  const index rows = 256 * std::max(threads, 1);
  cpu::thread_pool pool(1);
  const auto w = be.place_weight(random_weight(pool, whole_of(type), rows, cols, 0.02, 1));
  matrix<B> x(be, tokens, cols), y(be, tokens, rows);
  const std::vector<float> ones(static_cast<std::size_t>(tokens * cols), 1.0f);
  upload_values<B>(be, x.view(), {ones.data(), tokens * cols});
  std::vector<double> rates;
  for (int pass = 0; pass < 7; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    const work_counters before = be.counters();
    for (int i = 0; i < 50; ++i) be.matmul(y.view(), x.view(), w.view, {});
    static_cast<void>(be.argmax(std::as_const(y).view().row(0)));  // waits
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    rates.push_back(static_cast<double>((be.counters() - before).flops) / taken.count());
  }
  return spread_of(rates).most;
}

}  // namespace corematching::bench
