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

template <class H>
inline constexpr bool can_answer_ahead =
    promises_answers_ahead<H> || !(attends<H, site::ffn_neurons> || attends<H, site::neuron_choice>);

// Asked before the body of chain's call is compiled, so that a chain of misfits is no hook_of rather than an
// error.
template <class H, class Site, class... Arguments>
concept callable_where_it_attends = !attends<H, Site> || std::invocable<H&, Site, const Arguments&...>;

}  // namespace detail

template <hook First, hook Second>
class chain {
  static_assert(First::attends::all([]<class Site>(Site) {
                  return !(detail::is_asked<Site> && corematching::attends<Second, Site>);
                }),
                "two hooks answer at one site");

 public:
  using attends = typename detail::joined_sites<typename First::attends, typename Second::attends>::type;
  /// Of those that are asked which neurons to compute.
  static constexpr bool answers_ahead = detail::can_answer_ahead<First> && detail::can_answer_ahead<Second>;
  /// Calls visit(hook) for both.
  template <class Visit>
  void for_each(Visit visit) const {
    visit(first_);
    visit(second_);
  }
  template <class Site>
  static constexpr bool captured_at() {
    return (!corematching::attends<First, Site> || detail::can_be_captured<First, Site>()) &&
           (!corematching::attends<Second, Site> || detail::can_be_captured<Second, Site>());
  }

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
