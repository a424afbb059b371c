// SPDX-License-Identifier: Apache-2.0
// Hooks: code of the user's that a decoder layer runs at named sites. A hook is a type that lists the sites
// it attends; the layer asks at compile time, so a site that nobody attends costs nothing. It is called as
//
//   hook(site::ffn_activation{}, at, activation)  told: act(x Wgate) * (x Wup) of rows at.first_row...
//   hook(site::ffn_neurons{}, at)                 asked: which neurons to compute -> neuron_selection<space>
//   hook(site::neuron_choice{}, at)               asked: whether each token chooses its own neurons, and
//                                                 how -> optional neuron_choice<space>
//   hook(site::ffn_up{}, at, up)                  told: x Wup of rows at.first_row..., where all neurons are
//                                                 computed; gate and up are then two products, not one
//   hook(site::attention{}, at, attended)         told: queries, keys and values of this layer
//   hook(site::keep_tokens{}, at)                 asked: which rows go on -> token_selection
//   hook(site::layer_output{}, at, x)             told: the hidden states that leave it, before dropping
//   hook(site::decode_neurons{}, at)              asked: which neurons decoding will compute, once the layer
//                                                 has seen the prompt; others need not stay in memory
//
// where `at` is a const layer_context. What is told answers nothing. A misspelt site or a call that does not
// fit is a compile error; `hook_of` names it.
//
// A step of decoding can be captured as a graph, which a backend then launches without calling any hook. So
// it is captured only where each site that the hook attends says how that can be (site_traits). A hook may
// promise:
//
//   static constexpr bool answers_ahead = true
//     Its answers at site::ffn_neurons and site::neuron_choice depend on nothing that a step computes: it is
//     asked for all layers before the step.
//   const void* queues_on() const
//     All that it does is to call operations of the backend, which wait for nothing, on the memory that this
//     names: it is called while a step is captured, and they are launched with it while it names the same.
#pragma once

#include <concepts>
#include <type_traits>

#include "corematching/nn/site.hpp"

namespace corematching {

/// The sites that a hook attends.
template <std::derived_from<site::tag>... Sites>
struct sites {
  template <class Site>
  static constexpr bool has = (std::same_as<Site, Sites> || ...);
  /// Whether holds(Site{}) for each of them.
  template <class Predicate>
  static constexpr bool all([[maybe_unused]] Predicate holds) {
    return (holds(Sites{}) && ...);
  }
};

template <class H>
concept hook = requires {
  typename std::remove_cvref_t<H>::attends;
};

template <class H, class Site>
inline constexpr bool attends = std::remove_cvref_t<H>::attends::template has<Site>;

/// Attends nothing; a layer with it compiles to the same code as a layer without hooks.
struct no_hook {
  using attends = sites<>;
};

namespace detail {

template <class Given, class Wanted>
concept answers_as = std::same_as<Given, Wanted> ||
    (!std::is_void_v<Wanted> && std::convertible_to<Given, Wanted>);

// The call at a site as the layer makes it, asked only of hooks that attend it.
template <class H, class B, class Call>
struct calls;
template <class H, class B, class Answer, class... Given>
struct calls<H, B, Answer(Given...)> {
  template <class Site>
  static constexpr bool fit = requires(std::remove_reference_t<H>& h, const layer_context<B>& at,
                                       const Given&... given) {
    { h(Site{}, at, given...) } -> answers_as<Answer>;
  };
};

template <class H, class B>
concept fits_where_it_attends = std::remove_cvref_t<H>::attends::all([]<class Site>(Site) {
  return calls<H, B, site_call<Site, B>>::template fit<Site>;
});

template <class H>
concept promises_answers_ahead = requires {
  requires std::remove_cvref_t<H>::answers_ahead;
};
template <class H>
concept queues_alone = requires(const std::remove_cvref_t<H>& h) {
  { h.queues_on() } -> std::same_as<const void*>;
};

template <class H, class Site>
constexpr bool can_be_captured() {
  using plain = std::remove_cvref_t<H>;
  if constexpr (requires { plain::template captured_at<Site>(); }) {
    return plain::template captured_at<Site>();  // of several hooks
  } else {
    constexpr capture how = site_traits<Site>::captured;
    return how == capture::always || (how == capture::ahead && promises_answers_ahead<H>) ||
           (how != capture::never && queues_alone<H>);
  }
}

}  // namespace detail

/// A hook that layers on backend `B` can call at every site that it attends.
template <class H, class B>
concept hook_of = hook<H> && backend<B> && detail::fits_where_it_attends<H, B>;

/// A hook with which steps of decoding can be captured as graphs.
template <class H>
concept capturable_hook = hook<H> &&
    std::remove_cvref_t<H>::attends::all([]<class Site>(Site) { return detail::can_be_captured<H, Site>(); });

/// Calls the hook where it attends the site; otherwise the answer is that of no hook.
template <class Site, backend B, class H, class... Given>
auto call_hook(H& hook, const layer_context<B>& at, const Given&... given) -> detail::site_answer<Site, B> {
  using answer = detail::site_answer<Site, B>;
  static_assert(std::same_as<answer(Given...), detail::site_call<Site, B>>);
  if constexpr (attends<H, Site>) {
    return hook(Site{}, at, given...);
  } else {
    return answer();
  }
}

}  // namespace corematching
