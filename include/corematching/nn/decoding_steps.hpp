// SPDX-License-Identifier: Apache-2.0
// Decoding steps of one sequence, captured as a graph and launched where the backend can do that. The first
// step under some circumstances runs plainly, so that the backend's own memory has its size; the second one
// is captured; those behind it launch that graph, until circumstances change.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "corematching/nn/hook.hpp"
#include "corematching/nn/wanted_neurons.hpp"

namespace corematching {

/// A number that no other model of this process has.
inline std::uint64_t next_model_number() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

/// Which step is to run: on which model, and where its token stands.
template <backend B>
struct step_place {
  std::uint64_t model;  // its number
  std::int32_t position;
  index_view<typename B::space> device_position;  // [1], in the backend's memory
};

/// On any backend: runs every step.
template <backend B>
class decoding_steps {
 public:
  /// Calls step(hook), which appends one row to every layer of `cache`.
  template <hook_of<B> H, class Step>
  void run(B&, kv_cache<B>&, const step_place<B>&, H& hook, Step&& step) {
    step(hook);
  }
};

/// Where graphs can be captured: a hook that answers ahead is asked before the step, which then has its
/// answers.
template <graph_backend B>
class decoding_steps<B> {
 public:
  /// An exception while a step is captured or launched leaves `cache` as it was.
  template <hook_of<B> H, class Step>
  void run(B& be, kv_cache<B>& cache, const step_place<B>& at, H& hook, Step&& step) {
    if constexpr (capturable_hook<H>) {
      circumstances now = ask(be, cache, at, hook);
      const auto plain_step = [&] { run_with_answers(now, hook, step); };
      if (now == last_ && has_room(cache)) {
        launch(be, cache, at, plain_step);
      } else {
        graph_ = {};
        plain_step();
      }
      last_ = std::move(now);
    } else {
      step(hook);
    }
  }

 private:
  using space = typename B::space;

  struct layer_circumstances {
    const std::byte* keys;
    const std::byte* values;
    index dropped;  // rows that the cache lacks of those up to the token's position
    wanted_neurons<space> wants;

    friend bool operator==(const layer_circumstances&, const layer_circumstances&) = default;
  };

  // What a graph depends on: all but the contents of memory and the number of steps since.
  struct circumstances {
    std::uint64_t model = 0;
    std::vector<layer_circumstances> layers;
    std::vector<const void*> queued;  // of each hook that queues operations: which type, and on what memory
    friend bool operator==(const circumstances&, const circumstances&) = default;
  };

  // The hook whose answers were asked ahead.
  template <class H>
  struct with_answers {
    using attends = typename std::remove_cvref_t<H>::attends;
    H* hook;
    const circumstances* now;

    neuron_selection<space> operator()(site::ffn_neurons, const layer_context<B>& at) const {
      return now->layers[static_cast<std::size_t>(at.layer)].wants.neurons;
    }
    std::optional<neuron_choice<space>> operator()(site::neuron_choice, const layer_context<B>& at) const {
      return now->layers[static_cast<std::size_t>(at.layer)].wants.choice;
    }
    template <class Site, class... Given>
    decltype(auto) operator()(Site where, const layer_context<B>& at, const Given&... given) const {
      return (*hook)(where, at, given...);
    }
  };
  template <class H>
  static constexpr bool asked_ahead = (attends<H, site::ffn_neurons> ||
                                       attends<H, site::neuron_choice>)&&detail::promises_answers_ahead<H>;

  template <class H>
  static circumstances ask(B& be, kv_cache<B>& cache, const step_place<B>& at, [[maybe_unused]] H& hook) {
    circumstances now{at.model, {}, {}};
    now.layers.reserve(static_cast<std::size_t>(cache.layers()));
    for (index i = 0; i < cache.layers(); ++i) {
      kv_layer<B>& layer = cache[i];
      layer_circumstances of_layer{layer.keys().data, layer.values().data, at.position - layer.length(), {}};
      if constexpr (asked_ahead<H>) {
        const layer_context<B> where{be, i, {&at.position, 1}, layer};
        of_layer.wants = ask_ahead(where, hook);
      }
      now.layers.push_back(of_layer);
    }
    add_queued(hook, now.queued);
    return now;
  }

  template <class H>
  static constexpr char type_mark = 0;
  template <class H>
  static void add_queued(const H& hook, std::vector<const void*>& to) {
    if constexpr (requires { hook.for_each([](const auto&) {}); }) {
      hook.for_each([&](const auto& each) { add_queued(each, to); });
    } else if constexpr (detail::queues_alone<H>) {
      to.insert(to.end(), {&type_mark<H>, hook.queues_on()});
    }
  }

  template <class H, class Step>
  static void run_with_answers(const circumstances& now, H& hook, Step& step) {
    if constexpr (asked_ahead<H>) {
      with_answers<H> given{&hook, &now};
      step(given);
    } else {
      step(hook);
    }
  }

  static bool has_room(const kv_cache<B>& cache) {
    for (index i = 0; i < cache.layers(); ++i)
      if (!cache[i].has_room(1)) return false;
    return true;
  }

  // Runs `plain_step` in order to capture it, unless it is there already.
  template <class Step>
  void launch(B& be, kv_cache<B>& cache, const step_place<B>& at, const Step& plain_step) {
    const auto set_lengths = [&](index behind_position) {
      for (index i = 0; i < cache.layers(); ++i)
        cache[i].set_length(at.position + behind_position -
                            last_.layers[static_cast<std::size_t>(i)].dropped);
    };
    if (be.launch(graph_, at.position)) return set_lengths(1);
    try {
      be.capture(graph_, at.device_position, at.position, plain_step);
    } catch (...) {
      set_lengths(0);
      throw;
    }
  }

  circumstances last_;
  typename B::graph graph_;
};

}  // namespace corematching
