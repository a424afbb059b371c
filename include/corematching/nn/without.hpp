// SPDX-License-Identifier: Apache-2.0
// A hook that is not called at one of its sites: there another answers, or the answer is known.
#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include "corematching/nn/hook.hpp"

namespace corematching {

namespace detail {

template <class Site, class... Kept>
constexpr auto sites_but(sites<Kept...> kept, sites<>) {
  return kept;
}
template <class Site, class... Kept, class First, class... Rest>
constexpr auto sites_but(sites<Kept...>, sites<First, Rest...>) {
  using kept = std::conditional_t<std::same_as<First, Site>, sites<Kept...>, sites<Kept..., First>>;
  return sites_but<Site>(kept(), sites<Rest...>());
}

}  // namespace detail

/// `H`, a hook or a reference to one, called at every site that it attends but for `Site`. It makes none of
/// the promises with which steps are captured.
template <class Site, class H>
requires hook<H>
class without {
 public:
  using attends = decltype(detail::sites_but<Site>(sites<>(), typename std::remove_cvref_t<H>::attends()));

  explicit without(H others) : others_(std::forward<H>(others)) {}

  template <class Other, class... Arguments>
  decltype(auto) operator()(Other where, const Arguments&... arguments) {
    return others_(where, arguments...);
  }

 private:
  H others_;
};

}  // namespace corematching
