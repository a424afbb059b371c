// SPDX-License-Identifier: Apache-2.0
// The hook of a layer that holds a subset of its neurons. Which of them are computed was answered when it was
// made; another answer would count the neurons of the whole layer.
#pragma once

#include <concepts>
#include <type_traits>

#include "corematching/nn/hook.hpp"

namespace corematching::detail {

/// Refers to `hook`, which is called at every site that it attends but for site::ffn_neurons.
template <hook H>
class subset_hook {
 public:
  struct attends {
    template <class Site>
    static constexpr bool has = !std::same_as<Site, site::ffn_neurons> && corematching::attends<H, Site>;
    template <class Predicate>
    static constexpr bool all(Predicate holds) {
      return std::remove_cvref_t<H>::attends::all(
          [&]<class Site>(Site where) { return std::same_as<Site, site::ffn_neurons> || holds(where); });
    }
  };

  explicit subset_hook(H& hook) : hook_(hook) {}

  template <class Site, class... Arguments>
  decltype(auto) operator()(Site where, const Arguments&... arguments) {
    return hook_(where, arguments...);
  }

 private:
  H& hook_;
};

}  // namespace corematching::detail
