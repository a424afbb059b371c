// SPDX-License-Identifier: Apache-2.0
// Two hooks as one. Sites that are told reach both, the first one first; a site that is asked may have one
// answerer only, which is checked at compile time.
#pragma once

#include <concepts>
#include <utility>

#include "corematching/nn/hook.hpp"

namespace corematching {

namespace detail {

template <class A, class B>
struct joined_sites;
template <class... A, class... B>
struct joined_sites<sites<A...>, sites<B...>> {
  using type = sites<A..., B...>;
};

template <class Site>
inline constexpr bool is_asked =
    std::same_as<Site, site::ffn_neurons> || std::same_as<Site, site::keep_tokens> ||
    std::same_as<Site, site::decode_neurons>;

// Asked before the body of chain's call is compiled, so that a chain of misfits is no hook_of rather than an
// error.
template <class H, class Site, class... Arguments>
concept callable_where_it_attends = !attends<H, Site> || std::invocable<H&, Site, const Arguments&...>;

}  // namespace detail

template <hook First, hook Second>
class chain {
  static_assert(!(corematching::attends<First, site::ffn_neurons> &&
                  corematching::attends<Second, site::ffn_neurons>),
                "two hooks answer which neurons to compute");
  static_assert(!(corematching::attends<First, site::keep_tokens> &&
                  corematching::attends<Second, site::keep_tokens>),
                "two hooks answer which tokens to keep");
  static_assert(!(corematching::attends<First, site::decode_neurons> &&
                  corematching::attends<Second, site::decode_neurons>),
                "two hooks answer which neurons decoding will compute");

 public:
  using attends = typename detail::joined_sites<typename First::attends, typename Second::attends>::type;
  static constexpr bool answers_ahead =
      corematching::answers_ahead<First> && corematching::answers_ahead<Second>;

  chain(First first, Second second) : first_(std::move(first)), second_(std::move(second)) {}

  template <class Site, class... Arguments>
  requires detail::callable_where_it_attends<First, Site, Arguments...> &&
      detail::callable_where_it_attends<Second, Site, Arguments...>
  decltype(auto) operator()(Site where, const Arguments&... arguments) {
    if constexpr (detail::is_asked<Site>) {
      if constexpr (corematching::attends<First, Site>) {
        return first_(where, arguments...);
      } else {
        return second_(where, arguments...);
      }
    } else {
      if constexpr (corematching::attends<First, Site>) first_(where, arguments...);
      if constexpr (corematching::attends<Second, Site>) second_(where, arguments...);
    }
  }

 private:
  First first_;
  Second second_;
};

}  // namespace corematching
