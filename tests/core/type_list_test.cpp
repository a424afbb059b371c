// SPDX-License-Identifier: Apache-2.0
#include "corematching/core/type_list.hpp"

#include <gtest/gtest.h>

#include <tuple>
#include <type_traits>
#include <vector>

namespace corematching {
namespace {

using some = type_list<int, float, char>;

TEST(type_list, knows_its_types_and_their_places) {
  static_assert(some::size == 3 && type_list<>::size == 0);
  static_assert(some::has<char> && !some::has<double>);
  static_assert(some::place_of<int> == 0 && some::place_of<char> == 2 && some::place_of<double> == 3);
}

TEST(type_list, is_filtered_in_its_order) {
  static_assert(std::is_same_v<filtered<some, std::is_integral>, type_list<int, char>>);
  static_assert(std::is_same_v<filtered<some, std::is_pointer>, type_list<>>);
}

template <class T>
using several = std::vector<T>;

TEST(type_list, makes_one_thing_for_each_type) {
  static_assert(std::is_same_v<some::make<std::tuple, several>,
                               std::tuple<std::vector<int>, std::vector<float>, std::vector<char>>>);
}

}  // namespace
}  // namespace corematching
