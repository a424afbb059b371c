// SPDX-License-Identifier: Apache-2.0
// A list of types, for what has to be done or made once for each of them.
#pragma once

#include <cstddef>
#include <type_traits>

namespace corematching {

template <class... T>
struct type_list {
  static constexpr std::size_t size = sizeof...(T);

  /// Whether `Wanted` is in the list.
  template <class Wanted>
  static constexpr bool has = (std::is_same_v<Wanted, T> || ...);

  /// Where `Wanted` stands in the list; its size where it is not there.
  template <class Wanted>
  static constexpr std::size_t place_of = [] {
    std::size_t place = 0;
    static_cast<void>(((std::is_same_v<Wanted, T> || (++place, false)) || ...));
    return place;
  }();

  /// To<Of<T>...>: for example a std::tuple with something for each type.
  template <template <class...> class To, template <class> class Of>
  using make = To<Of<T>...>;

  template <class... Others>
  friend constexpr type_list<T..., Others...> operator+(type_list, type_list<Others...>) {
    return {};
  }
};

namespace detail {

template <template <class> class Is, class... T>
constexpr auto filtered(type_list<T...>) {
  return (type_list<>() + ... + std::conditional_t<Is<T>::value, type_list<T>, type_list<>>());
}

}  // namespace detail

/// The types of a list for which Is<T>::value holds, in its order.
template <class List, template <class> class Is>
using filtered = decltype(detail::filtered<Is>(List()));

}  // namespace corematching
