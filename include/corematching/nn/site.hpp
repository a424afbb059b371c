// SPDX-License-Identifier: Apache-2.0
// The sites of a decoder layer where hooks are called: what each answers, what it is given, and whether a
// decoding step with it can be captured as a graph. hook.hpp says how a hook is written.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "corematching/backend/backend.hpp"
#include "corematching/nn/kv_cache.hpp"

namespace corematching {

namespace site {

struct tag {};
struct ffn_activation : tag {};
struct ffn_neurons : tag {};
struct ffn_up : tag {};
struct neuron_choice : tag {};
struct attention : tag {};
struct keep_tokens : tag {};
struct layer_output : tag {};
struct decode_neurons : tag {};

}  // namespace site

/// Where a hook is called.
template <backend B>
struct layer_context {
  B& be;
  index layer;             // counted from 0
  index_view<> positions;  // original position of every row that is alive in this layer, in host memory
  kv_layer<B>& cache;      // of this layer; this call's rows are its last ones
  index first_row = 0;     // of the rows handed over, where a site is called for a part of them
};

/// What attention saw: queries [T, heads * head_dim], keys and values [cached, kv_heads * head_dim].
template <class B>
struct attention_inputs {
  using view = matrix_view<const float, typename B::space>;
  view queries;
  stored_view<typename B::space> keys;
  stored_view<typename B::space> values;
  attention_shape shape;
};

/// Whose cache entries of dropped tokens go: all layers', or only those of the layers after this one.
enum class cache_scope : std::uint8_t { every_layer, later_layers };

/// The answer at site::keep_tokens: rows of the current call, ascending, in host memory that stays valid
/// until the hook is called again; nothing means all.
struct token_selection {
  std::optional<index_view<>> rows;
  cache_scope scope = cache_scope::every_layer;
  bool renumber = false;  // survivors get the positions 0, 1, ...
};

/// By what a token chooses its neurons: by their gates, g_n = act(x . gate_n), which are then computed in
/// full; or by their activations act(x . gate_n) (x . up_n) as they are foretold by the upper planes of both.
enum class chosen_by : std::uint8_t { gate, prediction };

/// The answer at site::neuron_choice: each token computes the `count` neurons n with the largest magnitude of
/// that times weights[n]; without weights all are 1. At least one, at most all.
template <class Space>
struct neuron_choice {
  index count = 0;
  vector_view<const float, Space> weights;
  chosen_by by = chosen_by::gate;

  friend bool operator==(const neuron_choice& a, const neuron_choice& b) {
    return a.by == b.by && a.count == b.count && a.weights.data == b.weights.data &&
           a.weights.size == b.weights.size;
  }
};

/// How a step of decoding can be captured though a hook attends the site: `queued` where the hook only queues
/// operations, `ahead` also where it answers ahead; `always`, since no step calls the site.
enum class capture : std::uint8_t { never, queued, ahead, always };

/// What is true of a site for every hook: `call`, what is answered there and what a hook is given behind the
/// context, and how a step with it is captured. A new site is its tag, its traits, and its call in the layer.
template <std::derived_from<site::tag> Site>
struct site_traits;

template <>
struct site_traits<site::ffn_activation> {
  template <class B>
  using call = void(matrix_view<const float, typename B::space>);
  static constexpr capture captured = capture::queued;
};
template <>
struct site_traits<site::ffn_neurons> {
  template <class B>
  using call = neuron_selection<typename B::space>();
  static constexpr capture captured = capture::ahead;
};
template <>
struct site_traits<site::ffn_up> {
  template <class B>
  using call = void(matrix_view<const float, typename B::space>);
  static constexpr capture captured = capture::queued;
};
template <>
struct site_traits<site::neuron_choice> {
  template <class B>
  using call = std::optional<corematching::neuron_choice<typename B::space>>();
  static constexpr capture captured = capture::ahead;
};
template <>
struct site_traits<site::attention> {
  template <class B>
  using call = void(attention_inputs<B>);
  static constexpr capture captured = capture::queued;
};
template <>
struct site_traits<site::keep_tokens> {
  template <class B>
  using call = token_selection();
  static constexpr capture captured = capture::never;
};
template <>
struct site_traits<site::layer_output> {
  template <class B>
  using call = void(matrix_view<float, typename B::space>);
  static constexpr capture captured = capture::queued;
};
template <>
struct site_traits<site::decode_neurons> {
  template <class B>
  using call = neuron_selection<typename B::space>();
  static constexpr capture captured = capture::always;
};

namespace detail {

template <class Call>
struct answer_of;
template <class Answer, class... Given>
struct answer_of<Answer(Given...)> {
  using type = Answer;
};
template <class Site, class B>
using site_call = typename site_traits<Site>::template call<B>;
template <class Site, class B>
using site_answer = typename answer_of<site_call<Site, B>>::type;

struct any_backend {
  using space = host_space;
};
/// Whether a hook answers at the site; otherwise it is told.
template <class Site>
inline constexpr bool is_asked = !std::is_void_v<site_answer<Site, any_backend>>;

}  // namespace detail

}  // namespace corematching
