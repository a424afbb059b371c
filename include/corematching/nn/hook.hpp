// SPDX-License-Identifier: Apache-2.0
// Hooks: code of the user's that a decoder layer runs at named sites. A hook is a type that lists the sites
// it attends; the layer asks at compile time, so a site that nobody attends costs nothing. It is called as
//
//   hook(site::ffn_activation{}, at, activation)  told: act(x Wgate) * (x Wup) of rows at.first_row...
//   hook(site::ffn_neurons{}, at)                 asked: which neurons to compute -> neuron_selection<space>
//   hook(site::attention{}, at, attended)         told: queries, keys and values of this layer
//   hook(site::keep_tokens{}, at)                 asked: which rows go on -> token_selection
//   hook(site::layer_output{}, at, x)             told: the hidden states that leave it, before dropping
//   hook(site::decode_neurons{}, at)              asked: which neurons decoding will compute, once the layer
//                                                 has seen the prompt; others need not stay in memory
//
// where `at` is a const layer_context. What is told answers nothing. A misspelt site or a call that does not
// fit is a compile error; `hook_of` names it.
//
// A hook whose answers at site::ffn_neurons depend on nothing that a decoding step computes can say so by
// `static constexpr bool answers_ahead = true`. It may then be asked for all layers before the first one
// runs, and a backend that captures graphs launches them while the answers name the same memory.
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
struct attention : tag {};
struct keep_tokens : tag {};
struct layer_output : tag {};
struct decode_neurons : tag {};

}  // namespace site

/// The sites that a hook attends.
template <std::derived_from<site::tag>... Sites>
struct sites {
  template <class Site>
  static constexpr bool has = (std::same_as<Site, Sites> || ...);
};

template <class H>
concept hook = requires {
  typename std::remove_cvref_t<H>::attends;
};

template <class H, class Site>
inline constexpr bool attends = std::remove_cvref_t<H>::attends::template has<Site>;

/// Whether decoding with this hook can ask it everything before a step begins.
template <class H>
concept answers_ahead =
    hook<H> && !attends<H, site::ffn_activation> && !attends<H, site::attention> &&
    !attends<H, site::keep_tokens> && !attends<H, site::layer_output> &&
    (!attends<H, site::ffn_neurons> || requires { requires std::remove_cvref_t<H>::answers_ahead; });

/// Attends nothing; a layer with it compiles to the same code as a layer without hooks.
struct no_hook {
  using attends = sites<>;
};

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
template <backend B>
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

namespace detail {

template <class H>
using called = std::remove_reference_t<H>&;
template <class B>
using activation_rows = const matrix_view<const float, typename B::space>&;
template <class B>
using hidden_rows = const matrix_view<float, typename B::space>&;

// The call at each site as the layer makes it, asked only of hooks that attend it.
template <class H, class B>
concept fits_ffn_activation =
    !attends<H, site::ffn_activation> ||
    requires(called<H> h, const layer_context<B>& at, activation_rows<B> activation) {
  { h(site::ffn_activation{}, at, activation) } -> std::same_as<void>;
};

template <class H, class B>
concept fits_ffn_neurons =
    !attends<H, site::ffn_neurons> || requires(called<H> h, const layer_context<B>& at) {
  { h(site::ffn_neurons{}, at) } -> std::convertible_to<neuron_selection<typename B::space>>;
};

template <class H, class B>
concept fits_attention = !attends<H, site::attention> || requires(called<H> h, const layer_context<B>& at,
                                                                  const attention_inputs<B>& attended) {
  { h(site::attention{}, at, attended) } -> std::same_as<void>;
};

template <class H, class B>
concept fits_keep_tokens =
    !attends<H, site::keep_tokens> || requires(called<H> h, const layer_context<B>& at) {
  { h(site::keep_tokens{}, at) } -> std::convertible_to<token_selection>;
};

template <class H, class B>
concept fits_layer_output =
    !attends<H, site::layer_output> || requires(called<H> h, const layer_context<B>& at, hidden_rows<B> x) {
  { h(site::layer_output{}, at, x) } -> std::same_as<void>;
};

template <class H, class B>
concept fits_decode_neurons =
    !attends<H, site::decode_neurons> || requires(called<H> h, const layer_context<B>& at) {
  { h(site::decode_neurons{}, at) } -> std::convertible_to<neuron_selection<typename B::space>>;
};

}  // namespace detail

/// A hook that layers on backend `B` can call at every site that it attends.
template <class H, class B>
concept hook_of = hook<H> && backend<B> && detail::fits_ffn_activation<H, B> &&
    detail::fits_ffn_neurons<H, B> && detail::fits_attention<H, B> && detail::fits_keep_tokens<H, B> &&
    detail::fits_layer_output<H, B> && detail::fits_decode_neurons<H, B>;

}  // namespace corematching
