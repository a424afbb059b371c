// SPDX-License-Identifier: Apache-2.0
// A conversation with a tiny model under CoreMatching, which remembers what was dropped and which neurons
// were silent, so that the masked twin can repeat it with everything in place.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "corematching/hooks/core_matching.hpp"
#include "corematching/model/llama/cost.hpp"
#include "support/tiny_llama.hpp"

namespace support {

using token_kinds = std::vector<corematching::token_kind>;

/// "tti" -> text, text, image
inline token_kinds kinds_of(std::string_view letters) {
  token_kinds kinds;
  for (const char letter : letters)
    kinds.push_back(letter == 'i' ? corematching::token_kind::image : corematching::token_kind::text);
  return kinds;
}

template <class B>
std::vector<std::int32_t> downloaded(B& be, corematching::index_view<typename B::space> from) {
  std::vector<std::int32_t> host(static_cast<std::size_t>(from.size));
  be.download(corematching::vector_view<std::int32_t>{host.data(), from.size}, from);
  return host;
}

template <class B>
class conversation {
 public:
  conversation(tiny_llama<B>& tiny, corematching::core_matching_config config, index headroom = 8)
      : tiny_(tiny),
        state(tiny.be, std::move(config), tiny.config.layers, corematching::shape_of(tiny.config)),
        sequence(tiny.model.start(tiny.be, headroom)) {}

  /// Logits after a prompt of these kinds, whose ids follow from `seed`; tokens at the places `left_out` do
  /// not enter the decoder.
  std::vector<float> prompt(std::string_view letters, unsigned seed = 1, index ffn_rows = 1000,
                            const std::vector<std::int32_t>& left_out = {}) {
    const token_kinds kinds = kinds_of(letters);
    const auto ids = random_ids(std::ssize(kinds), tiny_.config.vocab_size, seed);
    const std::int32_t first = sequence.next_position;
    state.begin_prompt(first, kinds);
    std::vector<std::int32_t> places, entering;
    for (std::int32_t place = 0; place < std::ssize(ids); ++place) {
      if (std::ranges::count(left_out, place) > 0) continue;
      places.push_back(place);
      entering.push_back(ids[static_cast<std::size_t>(place)]);
    }
    auto x = embedded(tiny_, entering);
    const corematching::prompt_places where{{places.data(), std::ssize(places)}, std::ssize(ids)};
    const auto logits = corematching::with_prefill_hook(state, [&](auto&& hook) {
      return tiny_.model.prefill(tiny_.be, sequence, x.view(), where, ffn_rows, hook);
    });
    for (std::int32_t place = 0; place < std::ssize(ids); ++place)
      remember(ids[static_cast<std::size_t>(place)], first + place,
               std::ranges::binary_search(places, place));
    ++pass_;
    return logits;
  }

  /// Logits after one more token.
  std::vector<float> decode(std::int32_t id) {
    const typename corematching::core_matching<B>::decode_hook hook(state);
    auto logits = tiny_.model.decode(tiny_.be, sequence, id, hook);
    token said{id, pass_++, {}, {}};
    for (index layer = 0; layer < tiny_.config.layers; ++layer) {
      const auto neurons = state.decode_neurons(layer);
      said.neurons.push_back(neurons ? twin::neurons(downloaded(tiny_.be, *neurons)) : std::nullopt);
    }
    tokens_.push_back(std::move(said));
    return logits;
  }

  /// What the last logits should have been.
  std::vector<double> expected() const {
    return masked_llama(tiny_.config, tiny_.tensors).last_logits(as_masked());
  }

  /// Tokens that a layer of the last pass computed.
  index alive_in(index layer) const {
    return std::ranges::count_if(tokens_,
                                 [&](const token& t) { return t.pass == pass_ - 1 && lives(t, layer); });
  }
  /// Tokens that later passes see.
  index survivors() const {
    return std::ranges::count_if(tokens_, [&](const token& t) { return lives(t, after_all_layers); });
  }

  /// The formula's cost of the last pass.
  corematching::work_counters formula() const {
    std::vector<corematching::layer_load> loads;
    const bool decoding = !tokens_.back().neurons.empty();
    for (index layer = 0; layer < tiny_.config.layers; ++layer) {
      const auto place = static_cast<std::size_t>(layer);
      const twin::neurons chosen = decoding ? tokens_.back().neurons[place] : std::nullopt;
      index cached = alive_in(layer);
      for (const token& t : tokens_) cached += t.pass < pass_ - 1 && stays_cached(t, layer) ? 1 : 0;
      loads.push_back({alive_in(layer), cached, twin::count_of(chosen, tiny_.config.intermediate_size)});
    }
    return corematching::forward_cost(tiny_.model, loads);
  }

 private:
  static constexpr index after_all_layers = std::numeric_limits<index>::max(), never_entered = -1;

  struct token {
    std::int32_t id;
    int pass;                            // the call of the model that computed it
    std::vector<index> dropped_at;       // matching layers that did not keep it; never_entered before all
    std::vector<twin::neurons> neurons;  // computed in each layer; empty in a prompt, which computes all
  };

  void remember(std::int32_t id, std::int32_t position, bool entered) {
    token t{id, pass_, {}, {}};
    if (!entered) t.dropped_at.push_back(never_entered);
    for (const auto& match : state.matches())
      if (!std::ranges::binary_search(match.kept_positions, position)) t.dropped_at.push_back(match.layer);
    tokens_.push_back(std::move(t));
  }

  bool zeroes() const { return state.config().pruning == corematching::pruning_mode::zero_in_place; }
  // Whether `layer` of the token's own pass has it.
  bool lives(const token& t, index layer) const {
    if (!t.dropped_at.empty() && t.dropped_at.front() == never_entered) return false;
    return zeroes() || t.dropped_at.empty() || t.dropped_at.front() >= layer;
  }
  // Whether the layer's cache has it in later passes.
  bool stays_cached(const token& t, index layer) const {
    const bool everywhere = state.config().pruning == corematching::pruning_mode::everywhere;
    return lives(t, everywhere ? after_all_layers : layer);
  }

  masked_run as_masked() const {
    masked_run run;
    for (const token& t : tokens_) run.ids.push_back(t.id);
    const auto at = [this](index i) -> const token& { return tokens_[static_cast<std::size_t>(i)]; };
    run.sees = [this, at](index layer, index query, index key) {
      if (query == key) return true;
      return at(query).pass == at(key).pass ? lives(at(key), layer) : stays_cached(at(key), layer);
    };
    run.sees_zeros = [this, at](index layer, index query, index key) {
      return zeroes() && at(query).pass > at(key).pass && std::ranges::count(at(key).dropped_at, layer) > 0;
    };
    run.fires = [at](index layer, index i, index neuron) {
      if (at(i).neurons.empty()) return true;
      const twin::neurons& computed = at(i).neurons[static_cast<std::size_t>(layer)];
      return !computed || std::ranges::binary_search(*computed, static_cast<std::int32_t>(neuron));
    };
    if (state.config().positions == corematching::position_policy::contiguous)
      run.position = [this, at](index layer, index query, index i) {
        // One place for each token in front that is still there when the query looks.
        index place = 0;
        for (index before = 0; before < i; ++before)
          place += lives(at(before), at(query).pass == at(before).pass ? layer : after_all_layers) ? 1 : 0;
        return static_cast<double>(place);
      };
    return run;
  }

  tiny_llama<B>& tiny_;
  std::vector<token> tokens_;
  int pass_ = 0;

 public:
  corematching::core_matching<B> state;
  corematching::sequence<B> sequence;
};

}  // namespace support
